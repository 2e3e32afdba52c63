"""The content of files of anyone's own people, whatever tool wrote them; no TensorFlow."""

import dataclasses

import numpy as np

from hourglass_jax.pose.skeletons import Skeleton


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A person of a file.

    Attributes:
      id: unique in the file.
      picture: the file's name, perhaps with folders below that of the pictures.
      joints: (k, 2) float32 px, (0, 0) where not labelled.
      visible: (k,) uint8: 0 not labelled, 1 occluded, 2 visible.
      box: (4,) float32: x, y, width, height, px; or None.
      image: the picture's id.
      size: (width, height) of the picture as the file has it, px; or None.
      flaw: why the box that the file has is not used; "" where it has none or a good one.
    """

    id: int | str
    picture: str
    joints: np.ndarray
    visible: np.ndarray
    box: np.ndarray | None
    image: int | str
    size: tuple[int, int] | None = None
    flaw: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """A file.

    Attributes:
      skeleton: its joint set.
      people: in the order of its pictures.
      left_out: how many others it has, by reason.
      remarks: lines on what is odd about the file but no error.
    """

    skeleton: Skeleton
    people: list[Person]
    left_out: dict[str, int]
    remarks: list[str] = dataclasses.field(default_factory=list)
