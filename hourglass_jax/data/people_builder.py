"""The TFDS builders of all datasets: from a list of people to canvases on disk.

A dataset is a `PeopleBuilder` that lists its people (`Person`), split by split. This module crops each person
to a square canvas, so that training reads small JPEGs of one size. The joints stay in pixels of the full
picture; `crop.canvas_from_image` maps them to the canvas. Neither preparing nor reading (`packed.TfdsSource`)
needs TensorFlow.
"""

import dataclasses
import functools
import hashlib
import itertools
import typing
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from hourglass_jax import files
from hourglass_jax.data import pipeline
from hourglass_jax.data.examples import Fingerprint
from hourglass_jax.data.people import Person, flaw, other_size, outside, person_box, reduction, strays
from hourglass_jax.media import pictures
from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton


@dataclasses.dataclass(eq=False)
class CropConfig(tfds.core.BuilderConfig):
    """How the canvases are cut.

    Attributes:
      name: made of the values below, so that data prepared in different ways have different folders.
      box: the source of a person's place and size: "annotated"; "joints"; or "image", the picture's centre
        and longer side (the convention for LSP's test set, where a crop must not use the joints).
      canvas: side of the stored canvas, px.
      margin: side of the canvas / side of the nominal crop; room for rotation and enlargement.
      quality: quality of the JPEG, 1 ... 100.
      enlargement: side of the nominal crop / longer side of the joints' bounding box.
      allow_missing: leave out people whose pictures or records are missing or damaged; otherwise such people
        are an error, and nothing is prepared.
    """

    name: str = ""
    box: str = "joints"
    canvas: int = 384
    margin: float = 1.5
    quality: int = 95
    enlargement: float = 1.35
    allow_missing: bool = False

    def __post_init__(self):
        if self.box not in ("annotated", "joints", "image"):
            raise ValueError(f"box={self.box!r}: must be 'annotated', 'joints' or 'image'")
        limits = {"canvas": (32, 4096), "margin": (1, 4), "quality": (1, 100)}
        for name, (low, high) in (limits | {"enlargement": (1, 4)}).items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}: must be in {low} ... {high}")
        values = f"c{self.canvas}_m{self.margin:g}_q{self.quality}_e{self.enlargement:g}"
        self.name = f"{self.box}_{values}" + ("_partial" if self.allow_missing else "")


def make_example(person: Person, picture: pictures.Picture, config: CropConfig) -> dict:
    """Cuts and encodes one canvas: an example as in `examples`, with the picture's width and height.

    Args:
      person: the person to crop.
      picture: the person's picture, possibly reduced.
      config: how to crop.
    """
    width, height = picture.size
    center, scale = person_box(person, width, height, config)
    frame = crop.canvas_from_image(center, scale, canvas=config.canvas, margin=config.margin)
    canvas = cv2.cvtColor(picture.cut(frame, config.canvas), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, config.quality])[1]
    return {
        **{"image": encoded.tobytes(), "joints": person.joints, "visible": person.visible},
        **{"center": center, "scale": scale, "head_size": np.float32(person.head_size)},
        **{"id": person.id, "width": width, "height": height},
        **person.extras,
    }


class PeopleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of people. A subclass defines the attributes below, BUILDER_CONFIGS and `people`.

    Attributes:
      skeleton: its joint set.
      folder: the folder of the unpacked archive.
      layouts: its annotation files in that folder, a tuple for each form in which they are published, the
        preferred form first.
      extras: the TFDS features of the fields that its people have in addition to those of `Person`.
      config_class: the class of its configs.
      unreadable: the message for a picture that `decode` cannot read.
      hint: the end of the message for a missing picture.
      homepage, license, citation: see TFDS.
    """

    VERSION = tfds.core.Version("1.0.0")
    config_class = CropConfig
    unreadable = "truncated or not a JPEG"
    hint = ""
    skeleton: Skeleton
    folder: str
    layouts: tuple[tuple[str, ...], ...]
    extras: dict = {}
    homepage: str
    license: str
    citation: str

    annotations: tuple[Path, ...]  # the files that `preparation` found

    @property
    def crops(self) -> CropConfig:
        """The builder's config, with its type."""
        return typing.cast(CropConfig, self.builder_config)

    @property
    def notes(self) -> dict:
        """The metadata stored with the prepared data: checksums and counts of problems."""
        return typing.cast(dict, self.info.metadata)

    @property
    def joints(self) -> int | None:
        """The number of joints; None if it depends on the annotations."""
        return len(self.skeleton)

    def people(self, *annotations: Path) -> dict[str, list[Person]]:
        """The people of each split, from the files that `find` found; those of one picture are adjacent."""
        raise NotImplementedError

    def decode(self, path: Path, reduction: Callable[[int, int], int]) -> pictures.Picture | None:
        """The picture in the pixels in which its joints are given; None if it is unreadable.

        Its sides are divided by at most `reduction` of width and height.
        """
        try:
            size = pictures.size(path)
        except pictures.Unreadable:
            return None
        factor = reduction(*size)
        image = pipeline.decode(path.read_bytes(), factor)
        return None if image is None else pictures.Picture(image, size, path, reduction=factor)

    def remark(self, line: str) -> None:
        """Adds a line about something that is not an error to the list of problems."""
        self._odd.append(line)

    def _info(self):
        size, joints = self.crops.canvas, self.joints
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
            "joints": tfds.features.Tensor(shape=(joints, 2), dtype=np.float32),
            "visible": tfds.features.Tensor(shape=(joints,), dtype=np.uint8),
            "center": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            **{name: np.float32 for name in ("scale", "head_size")},
            "id": tfds.features.Text(),
            **{name: np.int32 for name in ("width", "height")},
            **self.extras,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage=self.homepage,
            citation=self.citation,
            license=self.license,
            disable_shuffling=True,  # keep the official order, which defines the splits
            metadata=tfds.core.MetadataDict(),
        )

    def is_prepared(self) -> bool:
        # TFDS's own method warns about every folder that does not exist yet.
        return (self.data_path / "dataset_info.json").exists()

    def find(self, manual_dir) -> tuple[Path, ...]:
        """The annotation files in the unpacked archive: `manual_dir` or the dataset's folder in it."""
        for names in self.layouts:
            for folder in (Path(manual_dir) / self.folder, Path(manual_dir)):
                if all((folder / name).is_file() for name in names):
                    return tuple(folder / name for name in names)
        how = " ".join((self.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
        raise FileNotFoundError(f"{manual_dir}: found no {self.folder}/{self.layouts[0][0]}. {how}")

    @property
    def problems(self) -> Path:
        """The file that lists people who are left out or look wrong; it exists only if there are any."""
        return self.home / "problems.txt"

    @property
    def home(self) -> Path:
        """The folder of this dataset and config; the prepared versions are in it."""
        return Path(self.data_dir_root) / self.name / self.crops.name

    def _split_generators(self, dl_manager):
        annotations = self.annotations
        self.notes["annotations"] = checksums(annotations)
        self._lost, self._odd = [], []  # lines about people who cannot be prepared, and remarks
        self._outside, self._labelled, self._first_outside = 0, 0, ""
        splits = self.people(*annotations)
        self._listed = sum(map(len, splits.values()))
        splits = self._sound(splits)
        if self._lost:
            self._conclude()
        if self.crops.allow_missing:
            splits = {split: people for split, people in splits.items() if people}
        if not splits or not all(splits.values()):
            empty = ", ".join(split for split in splits if not splits[split])
            self._list_problems()
            more = f"; see {self.problems}" if self.problems.exists() else ""
            raise ValueError(f"{annotations[0]}: no person is left in {empty or 'any split'}{more}")
        last = list(splits)[-1]
        return {split: self._generate_examples(split, splits[split], split == last) for split in splits}

    def _sound(self, splits) -> dict[str, list[Person]]:
        """The people whose record and picture can be used; the others are added to the problems."""
        seen, there = set(), {}
        sound = {split: [] for split in splits}
        for split, person in ((name, person) for name, people in splits.items() for person in people):
            if person.picture not in there:
                there[person.picture] = person.picture.is_file()
            found = flaw(person, self.crops.box)
            if person.id in seen:
                found = "another person has the same id"
            elif not found and not there[person.picture]:
                found = f"the picture is missing in {person.picture.parent}{self.hint}"
            seen.add(person.id)
            if found:
                self._lost.append(f"{person.picture.name}: {person.id}: {found}")
            else:
                sound[split].append(person)
        return sound

    def _generate_examples(self, split: str, people: list[Person], last: bool):
        by_picture = [list(group) for _, group in itertools.groupby(people, lambda p: p.picture)]
        key, fingerprint = 0, Fingerprint()
        for examples, lost, odd in _map_in_order(self._cut, by_picture):
            self._lost += lost
            self._odd += odd
            for example in examples:
                self._count_outside(example)
                fingerprint.add(example["id"], example, len(example["image"]))
                yield key, example
                key += 1
        self.notes[f"fingerprint_{split}"] = fingerprint.hexdigest()
        if last:
            self._conclude()
        if not key:
            self._list_problems()
            raise ValueError(
                f"{people[0].picture.parent}: no picture of a split can be used ({_first(self._lost)}); see "
                f"{self.problems}"
            )

    def _cut(self, people: list[Person]):
        """The examples of one picture, which is decoded once, and lines about its errors and remarks."""
        path = people[0].picture
        picture = self.decode(path, functools.partial(reduction, people, self.crops))
        if picture is None:
            return [], [f"{path.name}: {person.id}: {self.unreadable}" for person in people], []
        flaws = [other_size(person, picture.size) for person in people]
        lost = [
            f"{path.name}: {person.id}: {found}" for person, found in zip(people, flaws, strict=True) if found
        ]
        people = [person for person, found in zip(people, flaws, strict=True) if not found]
        odd = [f"kept: {line}" for person in people for line in strays(person, picture.size, self.skeleton)]
        examples = [make_example(person, picture, self.crops) for person in people]
        return examples, lost, odd

    def _count_outside(self, example: dict) -> None:
        person = Person(example["id"], Path(), example["joints"], example["visible"])
        count, labelled = outside(person, example["center"], example["scale"])
        self._outside, self._labelled = self._outside + count, self._labelled + labelled
        if count and not self._first_outside:
            self._first_outside = person.id

    def _list_problems(self) -> None:
        """Writes the list of problems, if there are any."""
        lines = [f"left out: {line}" for line in self._lost] + self._odd
        self.problems.unlink(missing_ok=True)
        if lines:
            text = "".join(f"{line}\n" for line in lines)
            files.write(self.problems, text.encode("utf-8", "surrogateescape"))

    def _conclude(self):
        """Lists the problems. People are dropped only when allowed, and always listed."""
        if self._outside:
            line = f"{self._outside:,} of {self._labelled:,} labelled joints lie outside their crops"
            line += f" ({self._first_outside} first)"
            if self.crops.box == "annotated" and self._outside > self._labelled / 2:
                raise ValueError(f"{self.name}: {line}: the boxes are wrong; prepare with --box=joints")
            self._odd.append(line)
        self._list_problems()
        self.notes.update(left_out=len(self._lost), remarks=len(self._odd))
        if self._lost and not self.crops.allow_missing:
            # The error makes TFDS remove the files it has written: there is no dataset without these people.
            raise ValueError(
                f"{self.name}: {len(self._lost):,} of {self._listed:,} people cannot be prepared "
                f"({_first(self._lost)}); "
                f"see {self.problems}, unpack the archive again, or prepare the others with --allow_missing"
            )


def _first(lines: list[str]) -> str:
    """The first three of many lines."""
    return "; ".join([*lines[:3], *(["..."] if len(lines) > 3 else [])])


def _map_in_order(function, items, ahead: int = 256):
    """`map` on threads, `ahead` items at a time, so that memory does not have to hold all results."""
    with futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(items), ahead):
            yield from pool.map(function, items[start : start + ahead])


def checksums(paths) -> dict[str, str]:
    """{file name: SHA-256 of its content}."""
    files = [path for path in paths if path.is_file()]  # the config's name has a hash of a folder's content
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
