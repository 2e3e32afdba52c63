"""The content of annotation files of users, whatever tool wrote them; without TensorFlow."""

import dataclasses

import numpy as np

from hourglass_jax.pose.skeletons import Skeleton


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A person of a file.

    Attributes:
      id: unique in the file.
      picture: the picture's file name, possibly with folders below the folder of the pictures.
      joints: (k, 2) float32 px, (0, 0) where not labelled.
      visible: (k,) uint8: 0 not labelled, 1 occluded, 2 visible.
      box: (4,) float32: x, y, width, height, px; or None.
      image: the picture's id.
      size: (width, height) of the picture according to the file, px; or None.
      flaw: why the file's box is not used; "" if the file has no box or a valid one.
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
    """The content of a file.

    Attributes:
      skeleton: its joint set.
      people: in the order of the pictures.
      left_out: the number of entries that are left out, by reason.
      remarks: lines about unusual things in the file that are not errors.
    """

    skeleton: Skeleton
    people: list[Person]
    left_out: dict[str, int]
    remarks: list[str] = dataclasses.field(default_factory=list)
