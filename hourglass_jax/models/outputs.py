"""The return value of every model."""

from typing import NamedTuple

import jax


class Outputs(NamedTuple):
    """The outputs of one forward pass.

    Attributes:
      heatmaps: one (b, h, w, k) float32 per stack, first to last; their sizes may differ.
      coordinates: (b, k, 2) float32, in [0, 1] of the crop, for models that regress them.
      attention: maps (b, h, w, m) in [0, 1], by name, for pictures.
    """

    heatmaps: tuple[jax.Array, ...]
    coordinates: jax.Array | None = None
    attention: dict[str, jax.Array] | None = None
