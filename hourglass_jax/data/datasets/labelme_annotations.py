"""People labelled with labelme: a .json for each picture, with points and rectangles; without TensorFlow."""

import reprlib
from pathlib import Path, PureWindowsPath

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import coco_annotations, other_tools
from hourglass_jax.data.datasets.own_annotations import Content, Person

FORMAT = "expected a folder of labelme's files, one for each picture: {shapes: [...], imagePath: ...}"


def read(path) -> Content:
    """Reads the files of a folder and of the folders below it.

    A point is a joint with the name of its label. All points of a group_id are one person, and a rectangle of
    that group is the person's box. All points without a group_id are one person. A point with the flag
    "occluded" is occluded. The joints are in the order of their names.

    Raises:
      FileNotFoundError: there is no such folder, or it has no file of labelme.
      ValueError: a file does not have this format; one line that names the file and the shape.
    """
    path = Path(path)
    found = [(source, *_shapes(source)) for source in labels(path)]
    names = sorted({label for _, _, groups in found for joints, _ in groups.values() for label in joints})
    if not names:
        raise ValueError(f"{path}: has no points in {len(found)} files, {found[0][0]} first; {FORMAT}")
    remarks: list[str] = []
    try:
        skeleton = coco_annotations.skeleton_of({"name": "labelme", "keypoints": names}, remarks)
    except ValueError as error:
        raise ValueError(f"{path}: the labels of {found[0][0]} and others: {error}") from None
    people: list[Person] = []
    without = 0
    for source, about, groups in found:
        folder = source.parent.relative_to(path)
        picture = str(folder / about["picture"])
        for group, (joints, box) in groups.items():
            if not joints:
                without += 1
                continue
            places, visible = np.zeros((len(names), 2), np.float32), np.zeros(len(names), np.uint8)
            for label, (place, flag) in joints.items():
                places[names.index(label)], visible[names.index(label)] = place, flag
            id_ = str(folder / source.stem) + ("" if group is None else f"-{group}")
            people.append(Person(id_, picture, places, visible, box, picture, about["size"]))
    return Content(skeleton, people, {"rectangles without a point": without} if without else {}, remarks)


def labels(path) -> list[Path]:
    """The files of labels in a folder and in the folders below it.

    Raises:
      FileNotFoundError: there are none.
      ValueError: the path is not a folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: is not a folder; {FORMAT}{other_tools.looks(path, 'labelme')}")
    if not (found := sorted(one for one in path.rglob("*.json") if one.is_file())):
        raise FileNotFoundError(f"{path}: holds no .json; {FORMAT}")
    return found


def _shapes(path: Path) -> tuple[dict, dict]:
    """A file's picture, {picture, size}, and for each group its joints, {label: (place, flag)}, and box."""
    content = files.read_json(path, unique=True)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError(f"{path}: no list of shapes; {FORMAT}{other_tools.looks(path, 'labelme')}")
    name = PureWindowsPath(str(content.get("imagePath"))).name
    if not name or not name.isprintable() or name == "..":
        raise ValueError(f"{path}: imagePath {reprlib.repr(content.get('imagePath'))} names no picture")
    groups: dict = {}
    for number, shape in enumerate(content["shapes"], start=1):
        kind = shape.get("shape_type") if isinstance(shape, dict) else None
        if kind not in ("point", "rectangle"):
            continue  # labelme has many kinds of outlines
        where = f"{path}: shape {number}"
        label, group = shape.get("label"), shape.get("group_id")
        if not isinstance(label, str) or not (group is None or isinstance(group, int | str)):
            raise ValueError(f"{where}: label and group_id are {reprlib.repr((label, group))}")
        corners = _points(where, shape.get("points"), 1 if kind == "point" else 2)
        joints, box = groups.setdefault(group, ({}, None))
        if kind == "rectangle":
            if box is not None:
                raise ValueError(f"{where}: group {group!r} has two rectangles; give each person a group_id")
            box = np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)])
            groups[group] = joints, box if (box[2:] > 0).all() else None
        elif label in joints:
            raise ValueError(
                f"{where}: group {group!r} has two points called {label!r}; give each person a group_id"
            )
        else:
            flags = shape.get("flags")
            joints[label] = corners[0], 1 if isinstance(flags, dict) and flags.get("occluded") else 2
    return {"picture": name, "size": coco_annotations.size_of(content, "imageWidth", "imageHeight")}, groups


def _points(where: str, values, count: int) -> np.ndarray:
    """(count, 2) float32 px."""
    found = coco_annotations.numbers(values)
    if found.shape != (count, 2) or not np.isfinite(found).all():
        raise ValueError(f"{where}: points are {reprlib.repr(values)}; expected {count} [x, y]")
    return found
