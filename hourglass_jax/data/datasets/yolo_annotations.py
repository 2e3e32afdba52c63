"""People in the folders of YOLO pose: data.yaml, and a .txt of labels per picture; without TensorFlow."""

import os
import re
from pathlib import Path

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import coco_annotations, other_tools
from hourglass_jax.data.datasets.own_annotations import Content, Person
from hourglass_jax.media import pictures
from hourglass_jax.pose.skeletons import Skeleton

FORMAT = (
    "expected YOLO pose's data.yaml: train, val, kpt_shape: [joints, 2 or 3], names, and perhaps flip_idx"
)
_MOST = 2  # largest fraction of the picture, and largest flag; pixels are larger
LARGEST = 2**20  # bytes of a data.yaml, and of a picture's labels


def read(path, images: Path | None = None, category: str = "") -> list[Content]:
    """Reads data.yaml and the labels of its pictures: of train, and of val if the file names it.

    A line of labels is class, centre x, centre y, width, height, then x, y and optionally a flag for each
    joint, all as fractions of the upright picture. Without flags, (0, 0) means not labelled.

    Args:
      path: path of data.yaml.
      images: the folder that contains the pictures' folders; None: the folder of data.yaml.
      category: the name of the only class to read; "": all classes.

    Raises:
      FileNotFoundError: there is no such file or no folder of pictures.
      ValueError: a file does not have this format; one line that names the file and the line.
    """
    path = Path(path)
    fields = _fields(path)
    try:
        skeleton, columns, remarks = _joint_set(fields)
        classes = _classes(fields, category)
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as error:
        found = " ".join(str(error).split())
        raise ValueError(f"{path}: {FORMAT} ({found}){other_tools.looks(path, 'yolo')}") from None
    splits = [fields[name] for name in ("train", "val") if fields.get(name)]
    if not splits:
        raise ValueError(f"{path}: names neither train nor val; {FORMAT}")
    found = []
    for entries in splits:
        shown = _files(path, fields, entries, images)
        try:
            found.append(_content(shown, skeleton, columns, classes, list(remarks)))
        except ValueError as error:
            raise ValueError(f"{error} (as {path} describes them)") from None
    return found


def labels(path, images: Path | None = None) -> list[Path]:
    """The files of labels that belong to a data.yaml and exist."""
    path = Path(path)
    fields = _fields(path)
    found = [
        _labels_of(file)
        for name in ("train", "val")
        if fields.get(name)
        for file in _files(path, fields, fields[name], images)
    ]
    return [file for file in found if file.is_file()]


def _fields(path: Path) -> dict:
    """The file's mapping."""
    import yaml  # only here: other datasets do not need it

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {FORMAT}")
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB")
        fields = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable ({' '.join(str(error).split())[:200]}); {FORMAT}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: {FORMAT}")
    return fields


def _joint_set(fields: dict) -> tuple[Skeleton, int, list[str]]:
    """The joint set, the count of numbers per joint, and remarks."""
    joints, columns = fields["kpt_shape"]
    whole = type(joints) is type(columns) is int  # neither true nor 3.5
    if not whole or not 0 < joints < 1000 or columns not in (2, 3):
        raise ValueError(f"kpt_shape is {fields['kpt_shape']}")
    names = fields.get("kpt_names")
    if isinstance(names, dict):
        names = next(iter(names.values()))
    names = list(names) if names else [f"joint{k + 1}" for k in range(joints)]
    if len(names) != joints:
        raise ValueError(f"kpt_names has {len(names)} names for {joints} joints")
    category = {"name": "yolo", "keypoints": names, "skeleton": fields.get("skeleton") or ()}
    remarks: list[str] = []
    if (order := fields.get("flip_idx")) is not None:
        order = [int(place) for place in order]
        if sorted(order) != list(range(joints)) or any(order[order[k]] != k for k in range(joints)):
            raise ValueError(f"flip_idx must swap pairs of the {joints} joints")
        category["flip_pairs"] = [[names[k], names[order[k]]] for k in range(joints) if k < order[k]]
    elif not fields.get("kpt_names"):
        remarks.append("neither flip_idx nor kpt_names: no joints are swapped in a flipped picture")
    return coco_annotations.skeleton_of(category, remarks), columns, remarks


def _classes(fields: dict, wanted: str) -> set[int] | None:
    """The numbers of the classes to read; None, which means all, if the file names none."""
    names = fields.get("names") or {}
    rows = names.items() if isinstance(names, dict) else enumerate(names)
    found = {int(number) for number, name in rows if not wanted or name == wanted}
    if wanted and not found:
        raise ValueError(f"no class is called {wanted!r}")
    return found or None


def _files(path: Path, fields: dict, entries, images: Path | None) -> list[Path]:
    """The pictures of a split; entries are folders, or text files with one picture per line.

    Entries must lie in data.yaml's folder, in its parent, or in `images`. Otherwise an untrusted file could
    have any folder of this machine read.
    """
    base = Path(os.path.abspath(images or path.parent))
    root = fields.get("path") or ""
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, str) or not isinstance(root, str) or "\0" in entry + root:
            raise ValueError(f"{path}: train, val and path must be folders; {FORMAT}")
        place = _place(base, root, entry)
        if place is not None and place.is_dir():
            found += _pictures(place)
        elif place is not None and place.suffix == ".txt":
            found += _listed(place, base)
        else:
            raise FileNotFoundError(
                f"{path}: found no folder {entry!r} in {base}; --images=FOLDER names another"
            )
    return found


def _place(base: Path, root: str, entry: str) -> Path | None:
    """The path of an entry: relative to `root` or to data.yaml, or as another machine wrote it; or None."""
    plain = re.sub(r"^(\.\.?/)+", "", entry)
    tried = [base / root / entry, base / entry, base / Path(root).name / entry, base / plain]
    near = [Path(os.path.normpath(one)) for one in tried]
    return next((one for one in near if one.is_relative_to(base.parent) and os.path.exists(one)), None)


def _listed(path: Path, base: Path) -> list[Path]:
    """The pictures that a text file lists, relative to its folder or to `base`.

    Absolute paths may be those of another machine: the end of such a path is searched in both folders.
    """
    found = []
    for number, line in enumerate(_lines(path, most=files.LARGEST), start=1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        if "\0" in name:
            raise ValueError(f"{path}: line {number} names no picture")
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        ends = [Path(*parts[start:]) for start in range(len(parts) if name.startswith("/") else 1)]
        tried = [folder / end for end in ends for folder in (path.parent, base)]
        if not (there := [one for one in tried if os.path.isfile(one)]):
            raise FileNotFoundError(f"{path}: line {number}: found no picture {name[:99]!r} in {path.parent}")
        found.append(there[0])
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in pictures.EXTENSIONS)


def _labels_of(picture: Path) -> Path:
    """A picture's file of labels: as in YOLO, the last folder "images" becomes "labels"; else next to it."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _content(shown: list[Path], skeleton: Skeleton, columns: int, classes, remarks: list[str]) -> Content:
    people: list[Person] = []
    left_out: dict[str, int] = {}

    def leave_out(reason: str) -> None:
        left_out[reason] = left_out.get(reason, 0) + 1

    for picture in shown:
        source = _labels_of(picture)
        if not source.is_file():
            leave_out(f"pictures without a file of labels (such as {source})")
            continue
        lines = [line.split() for line in _lines(source)]
        if not any(lines):
            continue
        try:
            size = np.array(pictures.size(picture, upright=True), np.float32)
        except pictures.Unreadable:
            size = np.full(2, np.nan, np.float32)
        for number, words in enumerate(lines, start=1):
            if not words:
                continue
            try:
                kind, box, joints, visible = _row(words, len(skeleton), columns)
            except ValueError as error:
                raise ValueError(f"{source}: line {number}: {error}") from None
            if classes is not None and kind not in classes:
                leave_out("people of a class that is not wanted or that data.yaml does not name")
            elif not visible.any():
                leave_out("without a labelled joint")
            else:
                known = np.nan_to_num(size)
                sound = (box[2:] > 0).all()
                x, y, width, height = box * np.tile(known, 2)
                people.append(
                    Person(
                        id=f"{picture.stem}-{number}",
                        picture=str(picture),
                        joints=(joints * known).astype(np.float32),
                        visible=visible,
                        box=np.array([x - width / 2, y - height / 2, width, height], np.float32)
                        if sound
                        else None,
                        image=picture.name,
                        size=(int(known[0]), int(known[1])) if known.all() else None,
                        flaw="" if sound else "its box has no size",
                    )
                )
    return Content(skeleton, people, left_out, remarks)


def _lines(path: Path, most: int = LARGEST) -> list[str]:
    data = path.read_bytes()
    if len(data) > most:
        raise ValueError(f"{path}: more than {most >> 20} MiB of text")
    return data.decode("utf-8-sig", errors="replace").splitlines()


def _row(words: list[str], k: int, columns: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Class, box (4,), joints (k, 2) and flags (k,) of a line; box and joints as fractions of the picture."""
    try:
        values = np.array(words, np.float64)
    except ValueError:
        raise ValueError("has words that are not numbers") from None
    if len(values) != 5 + k * columns:
        raise ValueError(f"has {len(values)} numbers; {k} joints need {5 + k * columns}")
    if not np.isfinite(values).all() or (np.abs(values[1:]) > _MOST).any():
        raise ValueError("has numbers that are not fractions of the picture, 0 ... 1")
    rows = values[5:].reshape(k, columns)
    flags = rows[:, 2] if columns == 3 else 2 * (rows != 0).any(axis=1)
    if not np.isin(flags, (0, 1, 2)).all():
        raise ValueError("has a flag that is not 0, 1 or 2")
    joints = np.where(flags[:, None] > 0, rows[:, :2], 0)
    return int(np.clip(values[0], -1, 1e6)), values[1:5], joints, flags.astype(np.uint8)
