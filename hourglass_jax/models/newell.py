"""Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng 2016)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.outputs import Outputs


class Model(nn.Module):
    """S hourglasses in a row; each one's heatmaps are supervised and fed to the next (3.2).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, joints) float32.
    """

    joints: int = 16
    stacks: int = 2
    width: int = 256
    depth: int = 4  # 64 cells -> 4
    units: int = 1  # residual units per place
    stem: str = "newell"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        point = functools.partial(conv, kernel_size=(1, 1))
        stem = layers.Stem(self.width, conv, norm, unit, self.stem, name="stem")

        x = stem(image.astype(self.dtype))
        heatmaps = []
        for s in range(self.stacks):
            y = layers.Hourglass(self.depth, full, self.units, name=f"stack{s}_hourglass")(x)[-1]
            for i in range(self.units):
                y = full(name=f"stack{s}_unit{i}")(y)
            y = point(self.width, name=f"stack{s}_lin")(y)
            y = nn.relu(norm(name=f"stack{s}_lin_norm")(y))
            maps = point(self.joints, name=f"stack{s}_heatmaps")(y)
            heatmaps.append(maps.astype(jnp.float32))
            if s + 1 < self.stacks:  # Figure 4: features and heatmaps go on to the next stack
                y = point(self.width, name=f"stack{s}_remap_features")(y)
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return Outputs(heatmaps=tuple(heatmaps))
