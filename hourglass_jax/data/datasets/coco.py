"""Anyone's own people, labelled in COCO's keypoint format, as a TFDS dataset.

The joint set is that of the files: names, limbs and sides come from their category, see `coco_annotations`.
"""

import collections
import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np

from hourglass_jax.data import people_builder
from hourglass_jax.data.datasets import coco_annotations
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
    """

    annotations: str = ""
    images: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= len(self.files) <= len(SPLITS):
            found = f"annotations={self.annotations!r}: names {len(self.files)} files"
            raise ValueError(f"{found}; dataset=coco wants train.json,validation.json, or one for both")
        if len(_paths(self.images)) not in (0, 1, len(self.files)):
            found = f"images={self.images!r}: names {len(_paths(self.images))} folders"
            raise ValueError(f"{found} for {len(self.files)} files of annotations; give one, or one for each")
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(f"annotations={self.annotations}: found no file {file}")
        content = [hashlib.sha256(file.read_bytes()).digest() for file in self.files]
        self.name += f"_{hashlib.sha256(b''.join(content)).hexdigest()[:8]}"

    @property
    def files(self) -> tuple[Path, ...]:
        return _paths(self.annotations)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of the pictures, for each file."""
        given = _paths(self.images)
        if given:
            return given * (len(self.files) // len(given))
        beside = [file.parent / "images" for file in self.files]
        return tuple(folder if folder.is_dir() else folder.parent for folder in beside)


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part.strip()).expanduser() for part in text.split(",") if part.strip())


class Coco(people_builder.PeopleBuilder, skip_registration=True):
    """People in COCO's keypoint format: two files, for training and for validation, or one.

    Of a single file, every tenth picture is set aside for validation. Crowds, people without a labelled
    joint, and other categories are left out and counted among the remarks.
    """

    config_class = OwnConfig
    joints = None  # as many as the files say
    unreadable = "truncated or no picture"
    homepage = "https://cocodataset.org/#format-data"
    license = "That of its owner."
    citation = ""

    @property
    def skeleton(self) -> Skeleton:
        """Of the files; it is stored with the prepared data."""
        return Skeleton.from_dict(self.info.metadata["skeleton"])

    def find(self, manual_dir):
        return self.builder_config.files

    def decode(self, path, reduction):
        # Tools for labelling show pictures upright, and so does the predictor, whatever their format.
        try:
            return pictures.read(path, reduction)
        except pictures.Unreadable:
            return None

    def people(self, *annotations):
        contents = [coco_annotations.read(path) for path in annotations]
        skeletons = [content.skeleton for content in contents]
        if skeletons[0] != skeletons[-1]:
            raise ValueError(f"{annotations[-1]}: its category differs from that of {annotations[0]}")
        self.info.metadata["skeleton"] = skeletons[0].to_dict()
        found = []  # of each split, {picture: people}
        for split, content, folder in zip(SPLITS, contents, self.builder_config.folders, strict=False):
            for reason, count in content.left_out.items():
                self.remark(f"not in {split}: {count:,} {reason}")
            people = collections.defaultdict(list)
            for one in content.people:
                picture = folder / one.picture
                people[picture].append(_person(one, picture, f"coco-{split}-{one.id}"))
            found.append(people)
        if len(found) == 1:
            (whole,) = found
            aside = set(list(whole)[::HELD_OUT])
            found = [{name: whole[name] for name in whole if (name in aside) == held} for held in (0, 1)]
        elif both := found[0].keys() & found[1].keys():
            self.remark(f"{len(both):,} pictures are for training and for validation, {min(both)} first")
        splits = zip(SPLITS, found, strict=True)
        return {split: list(itertools.chain(*people.values())) for split, people in splits}


def _person(one: coco_annotations.Person, picture: Path, id_: str) -> people_builder.Person:
    center = scale = None
    if one.box is not None:
        x, y, width, height = one.box
        center = np.array([x + width / 2, y + height / 2])
        scale = ENLARGEMENT * max(width, height) / crop.REFERENCE
    return people_builder.Person(id_, picture, one.joints, one.visible, center, scale)
