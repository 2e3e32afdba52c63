"""Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng 2016)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.outputs import Outputs

SUPERVISION = ("stacks", "last", "sum", "resolutions")


class Model(nn.Module):
    """S hourglasses in a row; each one's heatmaps are fed to the next (3.3).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with the heatmaps (b, h/4, w/4, joints) float32 that `supervision` names. These have a
    loss and are scored in evaluation (4.2):
      stacks: of every stack.
      last: of the last one.
      sum: the sum over the stacks.
      resolutions: of every stack, each after those of its hourglass' lower resolutions,
        (b, h/32, w/32, joints), (b, h/16, w/16, joints), ... at depth 4.
    """

    joints: int = 16
    stacks: int = 2
    width: int = 256
    depth: int = 4  # 64 cells -> 4
    units: int = 1  # residual units per place
    stem: str = "newell"
    stem_units: int = 1  # units per place of the stem
    supervision: str = "stacks"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        if self.supervision not in SUPERVISION:
            raise ValueError(
                f"model.supervision={self.supervision!r} is unknown; choose from {', '.join(SUPERVISION)}."
            )
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        point = functools.partial(conv, kernel_size=(1, 1))
        stem = layers.Stem(self.width, conv, norm, unit, self.stem, self.stem_units, name="stem")

        x = stem(image.astype(self.dtype))
        heatmaps = []
        for s in range(self.stacks):
            *lower, y = layers.Hourglass(self.depth, full, self.units, name=f"stack{s}_hourglass")(x)
            if self.supervision == "resolutions":
                for i, z in enumerate(lower):  # coarse to fine
                    # Sums of residual units, normalised as before any convolution that reads them.
                    z = nn.relu(norm(name=f"stack{s}_lower{i}_norm")(z))
                    z = point(self.joints, name=f"stack{s}_lower{i}_heatmaps")(z)
                    heatmaps.append(z.astype(jnp.float32))
            for i in range(self.units):
                y = full(name=f"stack{s}_unit{i}")(y)
            y = point(self.width, name=f"stack{s}_lin")(y)
            y = nn.relu(norm(name=f"stack{s}_lin_norm")(y))
            maps = point(self.joints, name=f"stack{s}_heatmaps")(y)
            heatmaps.append(maps.astype(jnp.float32))
            if s + 1 < self.stacks:  # Figure 4: features and heatmaps go on to the next stack
                y = point(self.width, name=f"stack{s}_remap_features")(y)
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        if self.supervision == "sum":
            heatmaps = [sum(heatmaps)]
        return Outputs(heatmaps=tuple(heatmaps[-1:] if self.supervision == "last" else heatmaps))
