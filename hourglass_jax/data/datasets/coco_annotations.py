"""People in COCO's keypoint format, with the joint set that their file states; without TensorFlow."""

import collections
import dataclasses
import re
import reprlib
from pathlib import PurePath

import numpy as np

from hourglass_jax import files
from hourglass_jax.pose.skeletons import Skeleton

FORMAT = "expected COCO keypoints, {images: [...], annotations: [...], categories: [...]}"
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A person of a file: joints (k, 2) float32 px, visible (k,) uint8, box (x, y, width, height) or None.

    image: the picture's id.
    """

    id: int | str
    picture: str
    joints: np.ndarray
    visible: np.ndarray
    box: np.ndarray | None
    image: int | str


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """A file: its joint set, its people in the order of its pictures, how many others it has, by reason."""

    skeleton: Skeleton
    people: list[Person]
    left_out: dict[str, int]


def read(path) -> Content:
    """Reads a file of COCO keypoints. Segmentations and whatever else it has are ignored.

    A joint's flag is 0 (not labelled, its place is ignored), 1 (occluded) or 2 (visible).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not readable as such; one line that names the file and the record.
    """
    content = files.read_json(path)
    try:
        return _content(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (TypeError, AttributeError) as error:  # of lists in the place of objects and the like
        raise ValueError(f"{path}: {FORMAT} ({error})") from error


def _content(content) -> Content:
    """What `read` gives, of the file's json."""
    images, annotations = _by_id(content, "images"), _by_id(content, "annotations")
    pictures = {id_: _picture(id_, record.get("file_name")) for id_, record in images.items()}
    category = _category(content)
    skeleton = skeleton_of(category)
    by_picture, left_out = {id_: [] for id_ in images}, collections.Counter()
    for id_, record in annotations.items():
        image = record.get("image_id")
        if image not in images:
            raise ValueError(f"annotation {id_}: its image_id {reprlib.repr(image)} is not among images")
        if reason := _left_out(record, category):
            left_out[reason] += 1
            continue
        joints, visible = _joints(id_, record["keypoints"], len(skeleton))
        if visible.any():
            box = _box(id_, record.get("bbox"))
            by_picture[image].append(Person(id_, pictures[image], joints, visible, box, image))
        else:
            left_out["without a labelled joint"] += 1
    return Content(skeleton, [one for people in by_picture.values() for one in people], dict(left_out))


def _picture(id_, name) -> str:
    """The file's name, perhaps with folders below that of the pictures."""
    sound = isinstance(name, str) and name.isprintable() and PurePath(name).name
    # Any file of the machine would be read as a picture.
    if not sound or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError(f"image {id_}: file_name {reprlib.repr(name)} names no file in the pictures' folder")
    return name


def _by_id(content, kind: str) -> dict:
    """A list of records by their ids."""
    if not isinstance(content, dict) or not isinstance(content.get(kind), list):
        raise ValueError(f"no list of {kind}; {FORMAT}")
    records = {}
    for number, record in enumerate(content[kind], start=1):
        if not isinstance(record, dict) or not isinstance(record.get("id"), int | str):
            raise ValueError(f"number {number} of {kind} has no id")
        if not str(record["id"]).isprintable():
            raise ValueError(f"number {number} of {kind} has an id that is no text of one line")
        if record["id"] in records:
            raise ValueError(f"two of {kind} have the id {record['id']}")
        records[record["id"]] = record
    return records


def _category(content) -> dict:
    """The one category that has joints."""
    found = [one for one in content.get("categories") or [] if one.get("keypoints")]
    if len(found) != 1:
        names = reprlib.repr([one.get("name") for one in found])
        raise ValueError(f"one category has to have keypoints, found {names}; {FORMAT}")
    return found[0]


def _left_out(record: dict, category: dict) -> str:
    """Why a record is nobody to train on, or ""."""
    if record.get("category_id", category.get("id")) != category.get("id"):
        return "of other categories"
    if record.get("iscrowd"):
        return "crowds"
    return "" if record.get("keypoints") else "without a labelled joint"


def _joints(id_, values, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (k, 2), (0, 0) where not labelled, and flags (k,), from [x1, y1, flag1, x2, ...]."""
    rows = _numbers(values)
    if rows.shape != (3 * k,):
        found = f"annotation {id_}: keypoints has {rows.size} numbers"
        raise ValueError(f"{found}; {k} joints need {3 * k}, x, y and flag of each")
    rows = rows.reshape(k, 3)
    if not np.isin(rows[:, 2], (0, 1, 2)).all():
        raise ValueError(f"annotation {id_}: keypoints has a flag that is not 0, 1 or 2")
    labelled = rows[:, 2] > 0
    joints = np.where(labelled[:, None], rows[:, :2], 0)
    if not np.isfinite(joints).all():
        raise ValueError(f"annotation {id_}: keypoints has a labelled joint whose place is no number")
    return joints, rows[:, 2].astype(np.uint8)


def _box(id_, values) -> np.ndarray | None:
    if values is None:
        return None
    box = _numbers(values)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        found = f"annotation {id_}: bbox={reprlib.repr(values)} is not [x, y, width, height] with a size"
        raise ValueError(f"{found}; correct it, or leave bbox out and choose box=joints")
    return box


def _numbers(values) -> np.ndarray:
    """As float32, infinite beyond; what is no list of numbers is one that has none."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(np.float32)
    except (OverflowError, TypeError, ValueError):
        return np.zeros(0, np.float32)


def skeleton_of(category: dict) -> Skeleton:
    """The joint set of a category of COCO's.

    Args:
      category: {"name", "keypoints": the joints' names, "skeleton": the limbs}, and optionally "flip_pairs"
        (by default joints whose names differ by left and right, or by l and r), "parts" ({row of the table:
        joints}, by default each joint) and "torso" (two joints whose distance scales PCK; by default it is
        scaled by the person's box, see `scores.choose`). Joints go by name or by number, from 1 as in COCO.

    Raises:
      ValueError: one of these is not as it should be.
    """
    names, about = category["keypoints"], f"category {reprlib.repr(category.get('name'))}"
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{about}: keypoints must be the joints' names, found {reprlib.repr(names)}")

    def places(field, joints, count=None):
        found = [names.index(j) if j in names else j - 1 if isinstance(j, int) else -1 for j in joints]
        if not found or len(found) != (count or len(found)) or not all(0 <= j < len(names) for j in found):
            wanted = f"{count or 'some'} of its {len(names)} keypoints, by name or number from 1"
            raise ValueError(f"{about}: {field} has {reprlib.repr(joints)}; expected {wanted}")
        return tuple(found)

    def pairs(field, found):
        return tuple(places(field, pair, 2) for pair in found)

    given = category.get("flip_pairs")
    flip_pairs = pairs("flip_pairs", _sides(names) if given is None else given)
    flipped = [joint for pair in flip_pairs for joint in pair]
    if len(set(flipped)) < len(flipped):
        raise ValueError(f"{about}: flip_pairs has a joint more than once")
    parts = category.get("parts") or {name: [name] for name in names}
    torso = category.get("torso")
    fields = {
        **{"name": str(category.get("name", "own")), "joints": names},
        "flip_pairs": flip_pairs,
        "limbs": pairs("skeleton", category.get("skeleton") or ()),
        "parts": [(title, places("parts", joints)) for title, joints in parts.items()],
        "torso": places("torso", torso, 2) if torso else None,
    }
    return Skeleton.from_dict(fields)  # which looks at the names, too


def _sides(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of joints whose names differ by the side."""
    there = {name.lower(): name for name in names}
    pairs = []
    for name in names:
        # "left" anywhere ("leftWrist"), "l" only as a word of its own ("l_wrist").
        other = re.sub(r"left|right|(?<![a-z])[lr](?![a-z])", lambda m: _OTHER[m[0]], name.lower())
        if other == name.lower():
            continue
        if other not in there:
            # Without its other side, mirrored pictures would teach that left is right.
            found = f"the joint {reprlib.repr(name)} has no {reprlib.repr(other)} beside it"
            raise ValueError(f"{found}; state flip_pairs in the category, [] if there are none")
        if names.index(name) < names.index(there[other]):
            pairs.append((name, there[other]))
    return pairs
