"""Examples, and sources: random access to examples by index.

An *example* is a dictionary:

    image      JPEG bytes of the canvas, or the canvas itself, (c, c, 3) uint8 RGB
    joints     (k, 2) float32, pixels of the full picture; (0, 0) where not labelled
    visible    (k,) int8: 0 not labelled, 1 labelled but occluded, 2 visible; -1: the dataset does not have
               this joint (see `mixture`), and it counts neither in losses nor in scores
    center     (2,) float32 px, centre of the nominal crop
    scale      float32, side of the nominal crop / 200 px
    head_size  float32 px, 0 if unknown
    id         str
"""

import hashlib
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hourglass_jax.pose.skeletons import Skeleton

FIELDS = {
    "joints": np.float32,
    "visible": np.int8,
    "center": np.float32,
    "scale": np.float32,
    "head_size": np.float32,
}


@runtime_checkable
class Source(Protocol):
    """Random access to examples.

    Attributes:
      name: names of dataset and split, for logs.
      skeleton: the joint set of `joints` and `visible`.
      canvas: side of the stored canvases, px.
      margin: side of the canvas / side of the nominal crop.
      loader: the suitable entry of `pipeline.LOADERS`: "threads", or "tfdata" if TensorFlow is needed anyway.
      ids: the ids of all examples, in order.
      extras: {name: (n,) array} of further facts about each example (MPII's activity), often empty.
      fingerprint: a hash of the ids, the fields and the sizes of all examples; equal for equal data.
    """

    @property
    def name(self) -> str: ...
    @property
    def skeleton(self) -> Skeleton: ...
    @property
    def canvas(self) -> int: ...
    @property
    def margin(self) -> float: ...
    @property
    def loader(self) -> str: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def extras(self) -> dict[str, np.ndarray]: ...
    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class Fingerprint:
    """A hash of examples that are added one by one. Two sources with the same examples have the same hash.

    Only the size of a picture in bytes is hashed, so that no picture has to be read.
    """

    def __init__(self):
        self._hash = hashlib.sha256()

    def add(self, id_: str, fields: dict[str, Any], size: int) -> None:
        """Adds an example: its id, its `FIELDS`, and the bytes of its encoded picture."""
        self._hash.update(f"{len(id_)} {id_} {size} ".encode("utf-8", "surrogatepass"))
        for name, dtype in FIELDS.items():
            self._hash.update(np.ascontiguousarray(fields[name], dtype).tobytes())

    def hexdigest(self) -> str:
        """16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]
