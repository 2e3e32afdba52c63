"""MPII Human Pose's annotations (Andriluka et al., CVPR 2014), as published and as in the public json.

`mpii_human_pose_v1_u12_1.mat` is the benchmark's own file. It has all people of all pictures; test people
have only a place and a size. `mpii_annotations.json`, made from it for public PyTorch ports, has the people
for training and validation, without head boxes and activities. Reading the json needs only NumPy.
"""

import dataclasses
from pathlib import Path

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import matlab

JOINTS = 16
HEAD = (8, 9)  # upper neck and head top, the ends of a head


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One annotated person; lengths and places in pixels of the picture, as published.

    Attributes:
      picture: file name.
      image, person: positions in MPII's own list, from 0.
      joints: (16, 2) float64, (0, 0) where not labelled.
      visible: (16,) uint8: 0 not labelled, 1 occluded, 2 visible.
      center: (2,) float64, roughly the person's centre; nan if not given.
      scale: the person's height / 200 px; nan if not given.
      head_size: 0.6 of the head box's diagonal, or estimated from upper neck and head top; 0 if unknown.
      others: (m, 16, 3) float32, the picture's other people with labelled joints: x, y, visible.
      training: False for the benchmark's test pictures.
      category, activity: such as "sports" and "tennis"; "" where unknown.
    """

    picture: str
    image: int
    person: int
    joints: np.ndarray
    visible: np.ndarray
    center: np.ndarray
    scale: float
    head_size: float
    others: np.ndarray
    training: bool = True
    category: str = ""
    activity: str = ""

    @property
    def id(self) -> str:
        return name(self.picture, self.person)


def name(picture: str, person: int) -> str:
    """A person's id, from the picture's file name and the person's position in the picture, from 0."""
    return f"mpii-{Path(picture).stem}-{person}"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of the benchmark's test set.

    Attributes:
      name: the file's name.
      people: all of its rectangles, in MPII's own order, with or without place and size.
      single: positions in `people` of the people who stand apart from others; the benchmark scores these.
    """

    name: str
    people: tuple[Annotation, ...]
    single: frozenset[int]


def split() -> dict[str, np.ndarray]:
    """The people of Tompson et al. (CVPR 2015): train (22246, 2) and validation (2958, 2) int32.

    A row has the positions of the image and of the person in MPII's own list, from 0.
    """
    with np.load(Path(__file__).with_name("mpii_split.npz")) as arrays:
        return {part: arrays[part] for part in ("train", "validation")}


def read(path) -> list[Annotation]:
    """The people of a .mat, .json or .json.gz file, in MPII's own order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not readable, or not MPII's; the message is one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    people = _read_mat(path) if path.suffix == ".mat" else _read_json(path)
    files.check_names(path, (person.picture for person in people))
    return people


def read_test(path) -> list[Picture]:
    """The test pictures of mpii_human_pose_v1_u12_1.mat in MPII's own order, including those without people.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not that one, or has no test pictures; the message is one line.
    """
    release, images, training, acts = _release(path)
    single = _items(release, "single_person")
    if len(single) != len(images) or all(training):
        found = f"{len(single)} single_person and {training.count(False)} test pictures"
        raise ValueError(f"{path}: found {found}; {_EXPECTED}")
    pictures = []
    for i, image in enumerate(images):
        if not training[i]:
            people = tuple(_from_mat(path, i, image, False, acts[i]))
            apart = frozenset(int(number) - 1 for number in np.ravel(single[i]))  # counted from 1 there
            if not apart <= set(range(len(people))):
                raise ValueError(
                    f"{path}: single_person({i + 1}) names a person who is not in annolist({i + 1})"
                )
            pictures.append(Picture(_picture(image), people, apart))
    files.check_names(path, (picture.name for picture in pictures))
    return pictures


def head_size(joints: np.ndarray, visible: np.ndarray) -> float:
    """The head's size without a head box, px: 0.75 |upper neck - head top|; 0 if one of them is not labelled.

    2,932 validation people have both. For 2,732 of them the estimate is within 0.01 px of the box's size, and
    for all but 74 within 0.5 px.
    """
    neck, top = HEAD
    return 0.75 * float(np.linalg.norm(joints[neck] - joints[top])) if visible[neck] and visible[top] else 0.0


def _flags(table: np.ndarray) -> np.ndarray:
    """Flags (..., 16) uint8 of (..., 16, 3). (0, 0) is a missing joint; one 0, or less, is a true place."""
    missing = (table[..., :2] == 0).all(axis=-1)
    return np.where(missing, 0, np.where(table[..., 2] == 0, 1, 2)).astype(np.uint8)


# The public json.


def _read_json(path: Path) -> list[Annotation]:
    people = files.read_json(path)
    try:
        return [_from_json(person) for person in [people[0], *people[1:]]]  # refuses an empty list, too
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{path} is not MPII's json: a list of persons with joint_self (16 x 3), objpos, scale_provided, "
            "img_paths, annolist_index and people_index."
        ) from None


def _from_json(person) -> Annotation:
    table = np.array(person["joint_self"], np.float64).reshape(JOINTS, 3)
    others = person.get("joint_others", [])
    # If there are no other people, the json has the description of an empty array instead of a list.
    others = np.array([] if isinstance(others, dict) else others, np.float32).reshape(-1, JOINTS, 3)
    visible = _flags(table)
    others[..., 2] = _flags(others)
    return Annotation(
        picture=str(person["img_paths"]),
        image=int(person["annolist_index"]) - 1,  # counted from 1 there
        person=int(person["people_index"]) - 1,
        joints=table[:, :2],
        visible=visible,
        center=np.array(person["objpos"], np.float64).reshape(2),
        scale=float(person["scale_provided"]),
        head_size=head_size(table, visible),
        others=others[others[..., 2].any(axis=-1)],
    )


# The benchmark's MATLAB file. Any field of it may be missing, empty or a number written as text.


_EXPECTED = "expected mpii_human_pose_v1_u12_1.mat, with RELEASE.annolist and RELEASE.img_train"


def _release(path) -> tuple:
    """RELEASE and for each picture, in lists: its structure, whether it is for training, its activity."""
    content = matlab.read(path, _EXPECTED, squeeze_me=True, struct_as_record=False)
    release = content.get("RELEASE")
    images, training = _items(release, "annolist"), _items(release, "img_train")
    acts = _items(release, "act") or [None] * len(images)
    if not images or not len(images) == len(training) == len(acts):
        found = f"{len(images)} pictures, {len(training)} of known use and {len(acts)} activities"
        raise ValueError(f"{path}: found {found}; {_EXPECTED}")
    return release, images, [_number(use) == 1 for use in training], acts


def _read_mat(path: Path) -> list[Annotation]:
    _, *fields = _release(path)
    return [
        annotation
        for i, (image, training, act) in enumerate(zip(*fields, strict=True))
        for annotation in _from_mat(path, i, image, training, act)
    ]


def _from_mat(path: Path, index: int, image, training: bool, act) -> list[Annotation]:
    """All people of one picture."""
    people = _items(image, "annorect")
    tables = np.zeros((len(people), JOINTS, 3))
    for person, table in zip(people, tables, strict=True):
        for point in _items(_field(person, "annopoints"), "point"):
            joint = _number(_field(point, "id"))
            if joint not in range(JOINTS):
                raise ValueError(f"{path}: annolist({index + 1}) has a joint {joint:g}, not 0 to 15")
            seen = _number(_field(point, "is_visible"))  # nan for neck and head top, which do not have it
            place = _number(_field(point, "x")), _number(_field(point, "y"))
            table[int(joint)] = (*place, 0 if seen == 0 else 1)
    visible = _flags(tables)
    everybody = np.concatenate([tables[..., :2], visible[..., None]], axis=-1, dtype=np.float32)
    return [
        Annotation(
            picture=_picture(image),
            image=index,
            person=j,
            joints=tables[j, :, :2],
            visible=visible[j],
            center=np.array([_number(_field(_field(person, "objpos"), axis)) for axis in "xy"]),
            scale=_number(_field(person, "scale")),
            head_size=_head_box(person) or head_size(tables[j, :, :2], visible[j]),
            others=everybody[visible.any(axis=-1) & (np.arange(len(people)) != j)],
            training=training,
            category=_text(_field(act, "cat_name")),
            activity=_text(_field(act, "act_name")),
        )
        for j, person in enumerate(people)
    ]


def _picture(image) -> str:
    return _text(_field(_field(image, "image"), "name"))


def _head_box(person) -> float:
    """0.6 of the head box's diagonal (MPII's own evaluation); 0 if there is no box."""
    x1, y1, x2, y2 = (_number(_field(person, name)) for name in ("x1", "y1", "x2", "y2"))
    return float(np.nan_to_num(0.6 * np.hypot(x2 - x1, y2 - y1)))


def _field(struct, name: str):
    return getattr(struct, name, np.array([]))


def _items(struct, name: str) -> list:
    """An array of structures as a list; SciPy returns a single structure without its array."""
    return list(np.atleast_1d(_field(struct, name)))


def _number(value) -> float:
    """A number, or a number written as text, as a float; nan for anything else."""
    try:
        return float(np.ravel(value)[0])
    except (IndexError, TypeError, ValueError):
        return np.nan


def _text(value) -> str:
    return value.strip() if isinstance(value, str) else ""
