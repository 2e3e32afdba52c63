"""The base of datasets that users label themselves: where their files lie, and the checks of all formats."""

import collections
import dataclasses
import hashlib
import itertools
import os
import typing
import unicodedata
from pathlib import Path

import numpy as np

from hourglass_jax import copies, files
from hourglass_jax.data import people_builder
from hourglass_jax.data.datasets import other_tools, own_annotations
from hourglass_jax.media import pictures
from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton

SPLITS = ("train", "validation")
HELD_OUT = 10  # if one file is given, every tenth picture is for validation
ENLARGEMENT = 1.25  # side of the nominal crop / longer side of the person's box


@dataclasses.dataclass(eq=False)
class OwnConfig(people_builder.CropConfig):
    """How the canvases are cut, and where the user's files lie.

    Attributes:
      name: ends with a hash of the files' content, so that another or a corrected dataset is prepared in a
        folder of its own.
      annotations: the files for training and for validation, separated by a comma; or one file for both.
      images: the folder of the pictures, or one folder for each file; "": the folder `images` next to a file
        or, if there is none, the file's own folder.
      category: the name of the category to read, if a file has several with different joints.
    """

    annotations: str = ""
    images: str = ""
    category: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= len(self.files) <= len(SPLITS):
            found = f"annotations={self.annotations!r}: names {len(self.files)} files"
            raise ValueError(f"{found}; give train.json,validation.json, or one for both (--annotations=...)")
        if len(paths(self.images)) not in (0, 1, len(self.files)):
            found = f"images={self.images!r}: names {len(paths(self.images))} folders"
            raise ValueError(f"{found} for {len(self.files)} files of annotations; give one, or one for each")
        for file in self.files:
            if not file.exists():
                raise FileNotFoundError(f"annotations={self.annotations}: found no file {file}")
        content = [hashlib.sha256(file.read_bytes()).digest() for file in self.content()]
        content += [self.category.encode()] if self.category else []
        self.name += f"_{hashlib.sha256(b''.join(content)).hexdigest()[:8]}"

    @property
    def files(self) -> tuple[Path, ...]:
        return paths(self.annotations)

    def content(self) -> list[Path]:
        """The files that hold annotations."""
        for file in self.files:
            if not file.is_file():
                raise ValueError(f"annotations={self.annotations}: {file} is not a file{_suggestion(file)}")
        return list(self.files)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder of the pictures of each file."""
        given = paths(self.images)
        if given:
            return given * (len(self.files) // len(given))
        return tuple(_default_images(file) for file in self.files)


def paths(text: str) -> tuple[Path, ...]:
    """The paths that a text lists, separated by commas; remote ones are copied to this machine."""
    return tuple(copies.fetched(files.expanded(part.strip())) for part in text.split(",") if part.strip())


def _default_images(file: Path) -> Path:
    """The folder of the pictures that belong to a file, or a folder, of annotations."""
    folder = file if file.is_dir() else file.parent
    tried = [folder / "images"] + [folder.parent / "images"] * (folder.name == "annotations")
    return next((one for one in tried if one.is_dir()), folder)


def _suggestion(folder: Path) -> str:
    """The end of a message about a folder that was given instead of a file: the files in it."""
    found = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    if not found:
        return ""
    return other_tools.looks(found[0], "coco") or f"; did you mean {','.join(map(str, found[:2]))}?"


class OwnPeople(people_builder.PeopleBuilder, skip_registration=True):
    """A user's own people, in two files, for training and for validation, or in one.

    If there is one file, every tenth picture is set aside for validation. Each format implements `read`.
    """

    config_class = OwnConfig
    unreadable = "truncated or not a picture"
    homepage = ""
    license = "The owner's."
    citation = ""
    hint = "; --images=FOLDER names another folder"

    def read(self, path: Path) -> list[own_annotations.Content]:
        """The content of a file, or of each split that the file names."""
        raise NotImplementedError

    @property
    def own(self) -> OwnConfig:
        """The builder's config, with its type."""
        return typing.cast(OwnConfig, self.builder_config)

    @property
    def joints(self) -> int | None:
        """Unknown until the files are read."""
        return None

    @property
    def skeleton(self) -> Skeleton:
        """The joint set of the files, which is stored with the prepared data."""
        return Skeleton.from_dict(self.notes["skeleton"])

    def find(self, manual_dir):
        return self.own.files

    def decode(self, path, reduction):
        # Labelling tools and the predictor show pictures upright, whatever the format.
        try:
            return pictures.read(path, reduction)
        except pictures.Unreadable:
            return None

    def people(self, *annotations):
        contents = [(path, self.read(path)) for path in annotations]
        folders = self.own.folders
        found = [
            (path, one, folder)
            for (path, parts), folder in zip(contents, folders, strict=True)
            for one in parts
        ]
        skeletons = [content.skeleton for _, content, _ in found]
        if skeletons[0] != skeletons[-1]:
            raise ValueError(f"{annotations[-1]}: its category differs from that of {annotations[0]}")
        self.notes["skeleton"] = skeletons[0].to_dict()
        splits = []  # one {picture: people} per split
        for split, (path, content, folder) in zip(SPLITS, found, strict=False):
            lines = self._remarks(content)
            for line in lines:
                self.remark(f"{split}: {line}" if line in content.remarks else f"not in {split}: {line}")
            _check_units(path, content, self.own.box)
            finder = _PictureFinder(content, folder, path if path.is_dir() else path.parent)
            people, seen, twice = collections.defaultdict(list), set(), 0
            for one in self._placed(path, content):
                picture = finder.find(one.picture)
                same = picture, one.joints.tobytes(), one.visible.tobytes()
                if same in seen:
                    twice += 1
                    continue
                seen.add(same)
                people[picture].append(_person(one, picture, f"{self.name}-{split}-{one.id}"))
            if twice:
                self.remark(f"not in {split}: {twice:,} people who are annotated twice, with the same joints")
            if not people:
                reasons = "; ".join(lines) or "it has no annotations"
                raise ValueError(f"{path}: has no person for {split}: {reasons}")
            splits.append(people)
        if len(splits) == 1:
            (whole,) = splits
            if len(whole) == 1:
                raise ValueError(
                    f"{annotations[0]}: one picture is too few for training and validation; give two files"
                )
            aside = set(list(whole)[::HELD_OUT])
            splits = [{name: whole[name] for name in whole if (name in aside) == held} for held in (0, 1)]
        elif both := splits[0].keys() & splits[1].keys():
            self.remark(f"{len(both):,} pictures are in training and in validation, for instance {min(both)}")
        pairs = zip(SPLITS, splits, strict=True)
        return {split: list(itertools.chain(*people.values())) for split, people in pairs}

    def _remarks(self, content: own_annotations.Content) -> list[str]:
        """Lines about the people who are left out, and about anything unusual in the file."""
        lines = [f"{count:,} {reason}" for reason, count in content.left_out.items()]
        if self.own.box == "annotated":
            lines += [f"annotation {one.id}: {_boxless(one)}" for one in content.people if one.box is None]
        return lines + content.remarks

    def _placed(self, path: Path, content: own_annotations.Content) -> list[own_annotations.Person]:
        """The people whose place and size are known."""
        if self.own.box != "annotated":
            return content.people
        people = [one for one in content.people if one.box is not None]
        if content.people and not people:
            found = content.people[0].flaw or "there is no bbox"
            raise ValueError(f"{path}: no person has a box to cut out ({found}); prepare with --box=joints")
        return people


def _boxless(one: own_annotations.Person) -> str:
    return one.flaw or "no bbox (--box=joints needs none)"


class _PictureFinder:
    """Finds the pictures of a file, which names them relative to the pictures' folder or to its own.

    If neither folder has a picture, its name without folders is tried there and then in all folders below the
    folder of pictures. This needs a name that the file has only once, and below the folder only one match.
    """

    def __init__(self, content: own_annotations.Content, folder: Path, file_folder: Path):
        self._folders = list(dict.fromkeys((folder, file_folder)))
        names = {one.picture for one in content.people}
        self._names = collections.Counter(Path(name).name for name in names)
        self._below: dict[str, list[Path]] | None = None  # by name; listed once a picture is missing

    def find(self, name: str) -> Path:
        """The picture's path; if it is missing, the path where it is expected."""
        last = Path(name).name
        names = [name, last] if self._names[last] == 1 else [name]
        for path in (folder / one for one in names for folder in self._folders):
            if path.is_file():
                return path
        if self._below is None:
            self._below = _files_below(self._folders[0])
        found = self._below.get(_normalized(last), []) if self._names[last] == 1 else []
        return found[0] if len(found) == 1 else self._folders[0] / name


def _files_below(folder: Path, most: int = 1_000_000) -> dict[str, list[Path]]:
    """The files in a folder and below it, by `_normalized` name; links to folders are not followed."""
    found = collections.defaultdict(list)
    walk = ((Path(place), name) for place, _, names in os.walk(folder) for name in names)
    for place, name in itertools.islice(walk, most):
        found[_normalized(name)].append(place / name)
    return found


def _normalized(name: str) -> str:
    """One spelling for names that some systems do not distinguish: by case or by the encoding of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _person(one: own_annotations.Person, picture: Path, id_: str) -> people_builder.Person:
    center = scale = None
    if one.box is not None:
        x, y, width, height = one.box
        center = np.array([x + width / 2, y + height / 2])
        scale = ENLARGEMENT * max(width, height) / crop.REFERENCE
    return people_builder.Person(id_, picture, one.joints, one.visible, center, scale, size=one.size)


def _check_units(path: Path, content: own_annotations.Content, box: str) -> None:
    """Refuses joints that are fractions of the picture, and boxes that are not x, y, width, height.

    Raises:
      ValueError: most of the people point to such units.
    """
    people = content.people
    if not people:
        return
    places = np.concatenate([one.joints[one.visible > 0] for one in people])
    sizes = [min(one.size) for one in people if one.size]
    if len(places) > 1 and places.min() >= 0 and places.max() <= 1 and (not sizes or min(sizes) > 8):
        raise ValueError(
            f"{path}: all joints lie in 0 ... 1: keypoints must be pixels, not fractions of the picture"
        )
    boxed = [one for one in people if one.box is not None]
    if box != "annotated" or not boxed:
        return
    boxes = np.stack([one.box for one in boxed if one.box is not None])
    remedy = "bbox must be [x, y, width, height] in pixels: correct it, or prepare with --box=joints"
    if boxes.max() <= 1 and places.max() > 2:
        raise ValueError(f"{path}: all boxes lie in 0 ... 1; {remedy}")
    kinds = {
        "xywh": boxes,
        "[x1, y1, x2, y2]": np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]),
        "[center x, center y, width, height]": np.column_stack(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]]
        ),
    }
    fits = {kind: _share_inside(boxed, of) for kind, of in kinds.items()}
    # If corners are read as sizes, the boxes are too large: they contain the joints, but leave the picture.
    ends = boxes[:, :2] + boxes[:, 2:]
    known = np.array([one.size or (np.inf, np.inf) for one in boxed])
    beyond = (ends > 1.1 * known + 2).any(axis=1).mean()
    corners, middles = list(kinds)[1:]
    if beyond > 0.5 and fits[corners] > 0.9 and (kinds[corners][:, 2:] > 0).all():
        raise ValueError(
            f"{path}: {beyond:.0%} of the boxes leave their pictures, and look like {corners}; {remedy}"
        )
    if fits["xywh"] < 0.8 and fits[middles] > 0.95:
        share = 1 - fits["xywh"]
        raise ValueError(
            f"{path}: {share:.0%} of the joints are outside their boxes, which look like {middles}; {remedy}"
        )


def _share_inside(people: list[own_annotations.Person], boxes: np.ndarray) -> float:
    """The share of the labelled joints inside their boxes (n, 4), each enlarged by a tenth on every side."""
    inside = labelled = 0
    for one, (x, y, width, height) in zip(people, boxes, strict=True):
        joints = one.joints[one.visible > 0]
        room = 0.1 * np.array([width, height])
        low, high = np.array([x, y]) - room, np.array([x + width, y + height]) + room
        inside += int(((joints >= low) & (joints <= high)).all(axis=-1).sum())
        labelled += len(joints)
    return inside / max(labelled, 1)
