"""Drawn people as a source of examples."""

import hashlib
import operator
import zlib

import numpy as np

from hourglass_jax.data.synthetic.scene import draw_example
from hourglass_jax.pose import skeletons


class SyntheticPeople:
    """Random access to drawn people; example i is a pure function of all arguments and i.

    Args:
        split: name of the split; different names never share a picture.
        examples: how many examples there are.
        seed: seed of all drawing.
        canvas: side of the square pictures in pixels.
        margin: canvas over nominal crop; the nominal crop lies in the middle.
        variety: difficulty, in [0, 1]: the amount of side views, unusual and tilted poses, truncated people,
            other people, objects in front and clutter.
    """

    skeleton = skeletons.MPII
    extras: dict = {}
    loader = "threads"  # needs no TensorFlow

    def __init__(
        self,
        *,
        split: str,
        examples: int,
        seed: int = 0,
        canvas: int = 192,
        margin: float = 1.5,
        variety: float = 1.0,
    ):
        if not split:
            raise ValueError("split must be a name such as 'train', not empty")
        if examples < 1:
            raise ValueError(f"examples must be at least 1, not {examples}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, not {seed}")
        if canvas < 32:
            raise ValueError(f"canvas must be at least 32 pixels, not {canvas}")
        if not 1 <= margin <= 4:
            raise ValueError(f"margin must be between 1 and 4, not {margin}")
        if not 0 <= variety <= 1:
            raise ValueError(f"variety must be between 0 and 1, not {variety}")
        self.split, self.examples, self.seed = split, examples, seed
        self.canvas, self.margin, self.variety = canvas, margin, variety

    @property
    def name(self) -> str:
        return f"synthetic-{self.split}"

    @property
    def fingerprint(self) -> str:
        """A hash of all arguments that the drawings depend on."""
        values = (self.split, self.examples, self.seed, self.canvas, float(self.margin), float(self.variety))
        return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

    @property
    def ids(self) -> list[str]:
        return [f"{self.name}-{index:06d}" for index in range(self.examples)]

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict:
        """Example with `image` (canvas, canvas, 3) uint8 RGB, `joints` (16, 2) pixels, `visible`
        (16,) as COCO's flags, `center` (2,), `scale`, `head_size` in pixels and `id`."""
        index = operator.index(index)
        if not 0 <= index < self.examples:
            raise IndexError(f"example {index} of {self.examples}")
        source = np.random.SeedSequence((self.seed, zlib.crc32(self.split.encode()), index))
        drawn = draw_example(
            np.random.Generator(np.random.SFC64(source)), self.canvas, self.margin, self.variety
        )
        return {
            "image": drawn["image"],
            "joints": drawn["joints"].astype(np.float32),
            "visible": drawn["visible"],
            "center": np.full(2, self.canvas / 2, np.float32),
            "scale": np.float32(self.canvas / self.margin / 200),
            "head_size": np.float32(drawn["head_size"]),
            "id": f"synthetic-{self.split}-{index:06d}",
        }
