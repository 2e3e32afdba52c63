"""Datasets of anyone's own people: where their files lie, and what is checked, whatever the format."""

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
HELD_OUT = 10  # of a single file, every so many-th picture is for validation
ENLARGEMENT = 1.25  # side of the nominal crop / longer side of the person's box


@dataclasses.dataclass(eq=False)
class OwnConfig(people_builder.CropConfig):
    """How the canvases of one's own people are cut, and where these are.

    Attributes:
      name: also made of the files' content: another set, or a corrected one, is prepared apart.
      annotations: the file for training and that for validation, with a comma; or one for both.
      images: the folder of their pictures, or one for each file; "" is `images` beside a file, or its folder.
      category: of several categories with different joints, the name of the one to take.
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
                raise ValueError(f"annotations={self.annotations}: {file} is no file{_instead(file)}")
        return list(self.files)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of the pictures, for each file."""
        given = paths(self.images)
        if given:
            return given * (len(self.files) // len(given))
        return tuple(_beside(file) for file in self.files)


def paths(text: str) -> tuple[Path, ...]:
    return tuple(copies.fetched(files.expanded(part.strip())) for part in text.split(",") if part.strip())


def _beside(file: Path) -> Path:
    """The folder of pictures that belongs to a file of annotations, or to a folder of them."""
    folder = file if file.is_dir() else file.parent
    tried = [folder / "images"] + [folder.parent / "images"] * (folder.name == "annotations")
    return next((one for one in tried if one.is_dir()), folder)


def _instead(folder: Path) -> str:
    """The end of a message: files in a folder that was given in the place of one."""
    found = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    if not found:
        return ""
    return other_tools.looks(found[0], "coco") or f"; did you mean {','.join(map(str, found[:2]))}?"


class OwnPeople(people_builder.PeopleBuilder, skip_registration=True):
    """Anyone's own people: two files, for training and for validation, or one.

    Of a single file, every tenth picture is set aside for validation. A class states `read`.
    """

    config_class = OwnConfig
    unreadable = "truncated or no picture"
    homepage = ""
    license = "That of its owner."
    citation = ""
    hint = "; --images=FOLDER names another folder"

    def read(self, path: Path) -> list[own_annotations.Content]:
        """The content of a file, or of each split that it names."""
        raise NotImplementedError

    @property
    def own(self) -> OwnConfig:
        """Its config."""
        return typing.cast(OwnConfig, self.builder_config)

    @property
    def joints(self) -> int | None:
        """Known by the files alone."""
        return None

    @property
    def skeleton(self) -> Skeleton:
        """Of the files; it is stored with the prepared data."""
        return Skeleton.from_dict(self.notes["skeleton"])

    def find(self, manual_dir):
        return self.own.files

    def decode(self, path, reduction):
        # Tools for labelling show pictures upright, and so does the predictor, whatever their format.
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
        splits = []  # of each, {picture: people}
        for split, (path, content, folder) in zip(SPLITS, found, strict=False):
            lines = self._remarks(content)
            for line in lines:
                self.remark(f"{split}: {line}" if line in content.remarks else f"not in {split}: {line}")
            _check_units(path, content, self.own.box)
            look = _Look(content, folder, path if path.is_dir() else path.parent)
            people, seen, twice = collections.defaultdict(list), set(), 0
            for one in self._placed(path, content):
                picture = look.find(one.picture)
                same = picture, one.joints.tobytes(), one.visible.tobytes()
                if same in seen:
                    twice += 1
                    continue
                seen.add(same)
                people[picture].append(_person(one, picture, f"{self.name}-{split}-{one.id}"))
            if twice:
                self.remark(f"not in {split}: {twice:,} who are annotated twice, with the same joints")
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
            self.remark(f"{len(both):,} pictures are for training and for validation, {min(both)} first")
        pairs = zip(SPLITS, splits, strict=True)
        return {split: list(itertools.chain(*people.values())) for split, people in pairs}

    def _remarks(self, content: own_annotations.Content) -> list[str]:
        """Lines on who is not among the people, and on what is odd."""
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
    return one.flaw or "no bbox (--box=joints does without)"


class _Look:
    """Where a file's pictures are: tools name them from the folder of pictures, or from that of the file.

    Where neither has a picture, one of the same name without folders will do, if the file names it once, and
    else the only one of that name in the folders below.
    """

    def __init__(self, content: own_annotations.Content, folder: Path, beside: Path):
        self._folders = list(dict.fromkeys((folder, beside)))
        names = {one.picture for one in content.people}
        self._names = collections.Counter(Path(name).name for name in names)
        self._below: dict[str, list[Path]] | None = None  # by name, found when one is missing

    def find(self, name: str) -> Path:
        """The picture's path; where it would be if it is not there."""
        last = Path(name).name
        names = [name, last] if self._names[last] == 1 else [name]
        for path in (folder / one for one in names for folder in self._folders):
            if path.is_file():
                return path
        if self._below is None:
            self._below = _below(self._folders[0])
        found = self._below.get(_alike(last), []) if self._names[last] == 1 else []
        return found[0] if len(found) == 1 else self._folders[0] / name


def _below(folder: Path, most: int = 1_000_000) -> dict[str, list[Path]]:
    """The files in the folders below, by `_alike` names; links to folders are not followed."""
    found = collections.defaultdict(list)
    walk = ((Path(place), name) for place, _, names in os.walk(folder) for name in names)
    for place, name in itertools.islice(walk, most):
        found[_alike(name)].append(place / name)
    return found


def _alike(name: str) -> str:
    """One spelling of names that some systems take for the same: by case, and by how accents are stored."""
    return unicodedata.normalize("NFC", name).casefold()


def _person(one: own_annotations.Person, picture: Path, id_: str) -> people_builder.Person:
    center = scale = None
    if one.box is not None:
        x, y, width, height = one.box
        center = np.array([x + width / 2, y + height / 2])
        scale = ENLARGEMENT * max(width, height) / crop.REFERENCE
    return people_builder.Person(id_, picture, one.joints, one.visible, center, scale, size=one.size)


def _check_units(path: Path, content: own_annotations.Content, box: str) -> None:
    """Refuses places that are shares of the picture, and boxes that are no x, y, width, height.

    Raises:
      ValueError: most of the people say so.
    """
    people = content.people
    if not people:
        return
    places = np.concatenate([one.joints[one.visible > 0] for one in people])
    sizes = [min(one.size) for one in people if one.size]
    if len(places) > 1 and places.min() >= 0 and places.max() <= 1 and (not sizes or min(sizes) > 8):
        raise ValueError(
            f"{path}: all joints lie in 0 ... 1: keypoints wants pixels, not shares of the picture"
        )
    boxed = [one for one in people if one.box is not None]
    if box != "annotated" or not boxed:
        return
    boxes = np.stack([one.box for one in boxed if one.box is not None])
    remedy = "bbox wants [x, y, width, height] in pixels: correct it, or prepare with --box=joints"
    if boxes.max() <= 1 and places.max() > 2:
        raise ValueError(f"{path}: all boxes lie in 0 ... 1; {remedy}")
    kinds = {
        "xywh": boxes,
        "[x1, y1, x2, y2]": np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]),
        "[middle x, middle y, width, height]": np.column_stack(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]]
        ),
    }
    fits = {kind: _share_inside(boxed, of) for kind, of in kinds.items()}
    # Corners read as sizes make boxes that are too large: they hold the joints, but leave the picture.
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
            f"{path}: {share:.0%} of the joints lie outside their boxes, which look like {middles}; {remedy}"
        )


def _share_inside(people: list[own_annotations.Person], boxes: np.ndarray) -> float:
    """The share of the labelled joints inside of their boxes (n, 4), or up to a tenth beside them."""
    inside = labelled = 0
    for one, (x, y, width, height) in zip(people, boxes, strict=True):
        joints = one.joints[one.visible > 0]
        room = 0.1 * np.array([width, height])
        low, high = np.array([x, y]) - room, np.array([x + width, y + height]) + room
        inside += int(((joints >= low) & (joints <= high)).all(axis=-1).sum())
        labelled += len(joints)
    return inside / max(labelled, 1)
