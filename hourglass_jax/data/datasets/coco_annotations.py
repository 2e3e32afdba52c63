"""People in COCO's keypoint format, with the joint set of their file; without TensorFlow.

Tools write different forms of the format. Those with a clear meaning are accepted: numbers and ids as text,
joints as rows of three, limbs counted from 0, several categories with the same joints, paths of Windows or of
another machine.
"""

import collections
import itertools
import re
import reprlib
from pathlib import PurePath, PureWindowsPath

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import other_tools
from hourglass_jax.data.datasets.own_annotations import Content, Person
from hourglass_jax.pose import sides
from hourglass_jax.pose.skeletons import Skeleton

FORMAT = "expected COCO keypoints, {images: [...], annotations: [...], categories: [...]}"


def read(path, category: str = "") -> Content:
    """Reads a file of COCO keypoints. Segmentations and other fields are ignored.

    A joint's flag is 0 (not labelled, its place is ignored), 1 (occluded) or 2 (visible).

    Args:
      path: path of the file.
      category: the name of the category to read; "": all, which must then have the same joints.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file does not have this format; one line that names the file and the record.
    """
    try:
        content = files.read_json(path, unique=True)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}{other_tools.looks(path, 'coco')}") from error
    try:
        return _content(content, category)
    except ValueError as error:
        raise ValueError(f"{path}: {error}{other_tools.looks(path, 'coco')}") from error
    except (TypeError, AttributeError) as error:  # for instance a list instead of an object
        raise ValueError(f"{path}: {FORMAT} ({error}){other_tools.looks(path, 'coco')}") from error


def _content(content, wanted: str) -> Content:
    """As `read`, for the file's json."""
    images, annotations = _by_id(content, "images"), _by_id(content, "annotations")
    pictures = {id_: _picture(id_, record.get("file_name")) for id_, record in images.items()}
    sizes = {id_: size_of(record) for id_, record in images.items()}
    as_text = {str(id_): id_ for id_ in images}
    chosen, kinds = _categories(content, wanted)
    remarks: list[str] = []
    skeleton = skeleton_of(chosen[0], remarks)
    own = {str(one.get("id")) for one in chosen}
    by_picture: dict = {id_: [] for id_ in images}
    left_out: collections.Counter = collections.Counter()
    unknown = {}  # category ids of annotations that no category has; a dict keeps their order
    for id_, record in annotations.items():
        image = record.get("image_id")
        if image not in images and str(image) not in as_text:
            raise ValueError(f"annotation {id_}: its image_id {reprlib.repr(image)} is not among images")
        image = image if image in images else as_text[str(image)]
        of = str(record.get("category_id", chosen[0].get("id")))
        if of not in kinds:
            unknown[of] = None
        if reason := _left_out(record, of, own, kinds):
            left_out[reason] += 1
            continue
        joints, visible = _joints(id_, record["keypoints"], len(skeleton))
        if visible.any():
            box, flaw = _box(record.get("bbox"))
            one = Person(id_, pictures[image], joints, visible, box, image, sizes[image], flaw)
            by_picture[image].append(one)
        else:
            left_out["without a labelled joint"] += 1
    if unknown:
        there = ", ".join(f"{reprlib.repr(one.get('name'))} has {one.get('id')}" for one in chosen[:3])
        found = ", ".join(reprlib.repr(of) for of in list(unknown)[:3])
        remarks.append(f"no category has the category_id {found}: {there}")
    people = [one for found in by_picture.values() for one in found]
    return Content(skeleton, people, dict(left_out), remarks)


def _picture(id_, name) -> str:
    """The picture's file name, possibly with folders below the folder of the pictures.

    Some tools write absolute paths of their machine, or Windows paths. Only the last part of these is used:
    otherwise any file of this machine could be read as a picture.
    """
    if isinstance(name, str) and "\\" in name:
        name = PureWindowsPath(name).as_posix()
    if isinstance(name, str) and (
        re.match(r"[A-Za-z]+:", name) or name.startswith("/") or ".." in PurePath(name).parts
    ):
        name = PurePath(name).name if PurePath(name).name != ".." else ""
    if not (isinstance(name, str) and name.isprintable() and PurePath(name).name):
        raise ValueError(f"image {id_}: file_name {reprlib.repr(name)} names no file in the pictures' folder")
    return name


def size_of(record: dict, width: str = "width", height: str = "height") -> tuple[int, int] | None:
    """(width, height) px, or None unless both fields are present and above 0."""
    sides = numbers([record.get(width), record.get(height)])
    if sides.shape != (2,) or not np.isfinite(sides).all() or not ((sides > 0) & (sides < 2**24)).all():
        return None
    return int(sides[0]), int(sides[1])


def _by_id(content, kind: str) -> dict:
    """The records of a list, by id."""
    if not isinstance(content, dict) or not isinstance(content.get(kind), list):
        raise ValueError(f"no list of {kind}; {FORMAT}")
    records = {}
    for number, record in enumerate(content[kind], start=1):
        if not isinstance(record, dict) or not isinstance(record.get("id"), int | str):
            raise ValueError(f"number {number} of {kind} has no id")
        if not str(record["id"]).isprintable():
            raise ValueError(f"number {number} of {kind} has an id that is not one printable line")
        if record["id"] in records:
            raise ValueError(f"two of {kind} have the id {record['id']}")
        records[record["id"]] = record
    return records


def _categories(content, wanted: str) -> tuple[list[dict], set[str]]:
    """The categories to read, which have the same joints, and the ids of all categories."""
    everything = content.get("categories") or []
    found = [one for one in everything if one.get("keypoints")]
    names = reprlib.repr([one.get("name") for one in found])
    if wanted:
        if not (named := [one for one in found if one.get("name") == wanted]):
            raise ValueError(f"no category with keypoints is called {wanted!r}; choose from {names}")
        found = named
    if not found:
        there = reprlib.repr([one.get("name") for one in everything])
        remedy = 'add the joints\' names to it, "keypoints": ["nose", ...]'
        raise ValueError(f"none of the categories {there} has keypoints; {remedy if everything else FORMAT}")
    if any(one["keypoints"] != found[0]["keypoints"] for one in found):
        raise ValueError(f"the categories {names} have different keypoints: choose one with --category=NAME")
    return found, {str(one.get("id")) for one in everything}


def _left_out(record: dict, of: str, own: set[str], kinds: set[str]) -> str:
    """Why a record is left out of training, or ""."""
    if of not in own:
        return "of other categories" if of in kinds else "of no category"
    if record.get("iscrowd") not in (None, False, 0, "0", "", "false", "False"):
        return "crowds"
    return "" if record.get("keypoints") else "without a labelled joint"


def _joints(id_, values, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (k, 2), (0, 0) where not labelled, and flags (k,), of [x1, y1, flag1, x2, ...] or rows of 3."""
    rows = numbers(values)
    if rows.shape not in ((3 * k,), (k, 3)):
        found = f"annotation {id_}: keypoints has {rows.size} numbers"
        raise ValueError(f"{found}; {k} joints need {3 * k}, x, y and flag of each")
    rows = rows.reshape(k, 3)
    plain = itertools.chain.from_iterable(v if isinstance(v, list) else (v,) for v in values)
    if (
        any(type(value) is bool for value in plain) or not np.isin(rows[:, 2], (0, 1, 2)).all()
    ):  # true is refused: it may mean 1, which is occluded, or visible
        raise ValueError(f"annotation {id_}: keypoints has a flag that is not 0, 1 or 2")
    labelled = rows[:, 2] > 0
    joints = np.where(labelled[:, None], rows[:, :2], 0)
    if not np.isfinite(joints).all():
        raise ValueError(f"annotation {id_}: keypoints has a labelled joint with a place that is not finite")
    return joints, rows[:, 2].astype(np.uint8)


def _box(values) -> tuple[np.ndarray | None, str]:
    """The box; or None and the reason, which is "" if the record has no box."""
    if values is None or values == []:
        return None, ""
    box = numbers(values)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        return None, f"bbox={reprlib.repr(values)} is not [x, y, width, height] with a size"
    return box, ""


def numbers(values) -> np.ndarray:
    """A list as float32; numbers may be text, too large ones become infinite; empty if it is not numeric."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(np.float32)
    except (OverflowError, TypeError, ValueError):
        return np.zeros(0, np.float32)


def skeleton_of(category: dict, remarks: list[str] | None = None) -> Skeleton:
    """The joint set of one of COCO's categories.

    Args:
      category: {"name", "keypoints": the joints' names, "skeleton": the limbs}, and optionally "flip_pairs"
        (by default the joints whose names differ only in the side, see `sides.find`), "parts" ({row of the
        table: joints}, by default each joint) and "torso" (two joints whose distance is PCK's unit; by
        default the unit is the person's box, see `scores.choose`). Joints are given by name or by number,
        from 1 as in COCO; limbs are counted from 0 if one of their numbers is 0.
      remarks: a list to which lines about anything unusual are added.

    Raises:
      ValueError: a field is invalid.
    """
    remarks = [] if remarks is None else remarks
    names, about = category["keypoints"], f"category {reprlib.repr(category.get('name'))}"
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{about}: keypoints must be the joints' names, found {reprlib.repr(names)}")

    def places(field, joints, count=None):
        found = [names.index(j) if j in names else j - 1 if isinstance(j, int) else -1 for j in joints]
        if not found or len(found) != (count or len(found)) or not all(0 <= j < len(names) for j in found):
            wanted = f"{count or 'some'} of its {len(names)} keypoints, by name or number from 1"
            raise ValueError(f"{about}: {field} has {reprlib.repr(joints)}; expected {wanted}")
        return tuple(found)

    given = category.get("flip_pairs")
    if given is None:
        given, odd = sides.find(names)
        remarks += odd
    flip_pairs = tuple(places("flip_pairs", pair, 2) for pair in given)
    flipped = [joint for pair in flip_pairs for joint in pair]
    if len(set(flipped)) < len(flipped):
        raise ValueError(f"{about}: flip_pairs has a joint more than once")
    parts = category.get("parts") or {name: [name] for name in names}
    torso = category.get("torso")
    fields = {
        "name": str(category.get("name", "own")),
        "joints": names,
        "flip_pairs": flip_pairs,
        "limbs": _limbs(category.get("skeleton") or (), names, remarks),
        "parts": [(title, places("parts", joints)) for title, joints in parts.items()],
        "torso": places("torso", torso, 2) if torso else None,
    }
    return Skeleton.from_dict(fields)  # checks the names, too


def _limbs(rows, names: list[str], remarks: list[str]) -> list[tuple[int, int]]:
    """The limbs that join two of the joints. An invalid one is not an error: limbs are only drawn."""
    rows = [list(row) if isinstance(row, list | tuple) else [row] for row in rows]
    first = 0 if any(end == 0 and type(end) is int for row in rows for end in row) else 1
    limbs, dropped = [], []
    for row in rows:
        ends = [_joint(end, names, first) for end in row]
        if len(ends) == 2 and -1 not in ends and ends[0] != ends[1]:
            limbs.append((ends[0], ends[1]))
        else:
            dropped.append(row)
    if first == 0:
        remarks.append("the limbs of skeleton are counted from 0, because one of the numbers is 0")
    if dropped:
        joints = f"two of the {len(names)} joints"
        remarks.append(f"{len(dropped)} limbs of skeleton do not join {joints}: {reprlib.repr(dropped[0])}")
    return limbs


def _joint(end, names: list[str], first: int) -> int:
    """A joint's index, from its name or number; -1 if it is neither."""
    if isinstance(end, str) and end in names:
        return names.index(end)
    number = numbers([end])
    if number.shape != (1,) or not np.isfinite(number[0]) or number[0] % 1:
        return -1
    place = int(number[0]) - first
    return place if 0 <= place < len(names) else -1
