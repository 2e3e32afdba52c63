"""People from annotations, the crops around them, and checks of both; without TFDS."""

import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np

from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton

FAR = 0.25  # of the picture's longer side: a joint that is farther outside is reported


@dataclasses.dataclass(frozen=True)
class Person:
    """One person from a dataset's annotations, in pixels of the full picture.

    Attributes:
      id: unique in the dataset.
      picture: the picture's file.
      joints: (k, 2) float32, (0, 0) where not labelled.
      visible: (k,) uint8: 0 not labelled, 1 labelled but occluded, 2 visible.
      center: (2,) centre of the nominal crop, whose side is 200 * scale px; for box="annotated".
      scale: see `center`.
      head_size: px, 0 if unknown.
      size: (width, height) of the picture according to the annotations, px; None if they do not give it.
      extras: the dataset's further fields, see `people_builder.PeopleBuilder.extras`.
    """

    id: str
    picture: Path
    joints: np.ndarray
    visible: np.ndarray
    center: np.ndarray | None = None
    scale: float | None = None
    head_size: float = 0.0
    size: tuple[int, int] | None = None
    extras: dict = dataclasses.field(default_factory=dict)


class Crops(Protocol):
    """The values that describe how canvases are cut; `people_builder.CropConfig` has them."""

    box: str
    canvas: int
    margin: float
    enlargement: float


def person_box(person: Person, width: int, height: int, config: Crops) -> tuple[np.ndarray, np.float32]:
    """Place and size of the nominal crop.

    Args:
      person: the person to crop.
      width, height: size of the picture, px.
      config: gives the source of place and size, `box`.

    Returns:
      center (2,) float32 px and scale float32: the crop's side is 200 * scale px.
    """
    if config.box == "annotated":
        return np.asarray(person.center, np.float32), np.float32(person.scale)
    longer = max(width, height)
    labelled = person.joints[person.visible > 0]
    if config.box == "image" or not len(labelled):
        center, side = np.array([width / 2, height / 2]), longer
    else:
        low, high = labelled.min(axis=0), labelled.max(axis=0)
        # A person may have few labelled joints close together: do not enlarge a spot to a whole canvas.
        extent = max((high - low).max(), 0.1 * longer)
        center, side = (low + high) / 2, config.enlargement * extent
    return center.astype(np.float32), np.float32(side / crop.REFERENCE)


def reduction(people: list[Person], config: Crops, width: int, height: int) -> int:
    """The factor by which decoding may reduce a JPEG of these people: 1, 2, 4 or 8, which decoders offer.

    With it no canvas is an enlargement, and most of the inverse transform is saved.
    """
    least = min(person_box(person, width, height, config)[1] for person in people)
    shrinking = float(least) * crop.REFERENCE * config.margin / config.canvas
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(shrinking, 1))


def flaw(person: Person, box: str) -> str:
    """Why a record cannot be used, or ""."""
    if not (np.isfinite(person.joints).all() and np.isfinite(person.head_size)):
        return "joints or head size that are not finite"
    if box == "annotated":
        if person.center is None or person.scale is None:
            return "no centre or no scale"
        if not (np.isfinite(person.center).all() and 0 < person.scale <= float(np.finfo(np.float32).max)):
            return "a centre that is not finite, or a scale that is not above 0 or too large"
    return ""


def strays(person: Person, size: tuple[int, int], skeleton: Skeleton) -> list[str]:
    """Lines about labelled joints far outside the picture, which are usually wrong annotations."""
    beyond = np.maximum(-person.joints, person.joints - np.array(size)).max(axis=-1)
    far = (beyond > FAR * max(size)) & (person.visible > 0)
    about = f"{person.picture.name}: {person.id}:"
    return [
        f"{about} {skeleton.joints[k]} at ({x:.0f}, {y:.0f}) is far outside {size[0]} x {size[1]} px"
        for k, (x, y) in zip(np.flatnonzero(far), person.joints[far], strict=True)
    ]


def other_size(person: Person, size: tuple[int, int]) -> str:
    """Why the joints cannot be used if they were labelled on a picture of another size; else ""."""
    if person.size is None or person.size == size:
        return ""
    (w, h), (width, height) = person.size, size
    turned = ", turned" if (h, w) == size else ""
    return f"the annotations say {w} x {h} px, the picture has {width} x {height} px{turned}"


def outside(person: Person, center: np.ndarray, scale: float) -> tuple[int, int]:
    """The number of labelled joints outside the nominal crop, and the number of labelled joints."""
    labelled = person.joints[person.visible > 0]
    away = np.abs(labelled - center).max(axis=-1) if len(labelled) else np.zeros(0)
    return int((away > float(scale) * crop.REFERENCE / 2).sum()), len(labelled)
