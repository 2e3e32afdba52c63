"""Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng 2016)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.outputs import Outputs

SUPERVISION = ("stacks", "last", "sum", "resolutions")
DESIGNS = ("hg", "text")


class Model(nn.Module):
    """S hourglasses in a row; each one feeds its heatmaps to the next (3.3).

    The design "hg" is the network of the released `hg.lua`. Most later work builds on it, and its weights are
    published: one residual unit per branch, C features everywhere, one round of 1x1 before the heatmaps, and
    sums between the stacks. "text" is the network that the paper describes, as in the early release
    `hg-stacked.lua`: 2 C features before upsampling (3.2) and three rounds of 1x1 (3.1). The text is silent
    on two points, which follow that release: three units per branch, and a concatenation with the stem's
    pooled features between stacks.

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with the heatmaps (b, h/4, w/4, joints) float32 that `supervision` names. These have a
    loss and are scored in evaluation (4.2):
      stacks: the heatmaps of every stack.
      last: those of the last stack.
      sum: their sum over the stacks.
      resolutions: those of every stack, after the heatmaps of its hourglass's lower resolutions,
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
    design: str = "hg"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        if self.supervision not in SUPERVISION:
            raise ValueError(
                f"model.supervision={self.supervision!r} is unknown; choose from {', '.join(SUPERVISION)}."
            )
        if self.design not in DESIGNS:
            raise ValueError(f"model.design={self.design!r} is unknown; choose from {', '.join(DESIGNS)}.")
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        heatmaps = (self._text if self.design == "text" else self._hg)(
            image.astype(self.dtype), conv, norm, unit
        )
        if self.supervision == "sum":
            heatmaps = [functools.reduce(jnp.add, heatmaps)]
        return Outputs(heatmaps=tuple(heatmaps[-1:] if self.supervision == "last" else heatmaps))

    def _hg(self, image, conv, norm, unit) -> list[jax.Array]:
        full = functools.partial(unit, self.width)
        point = functools.partial(conv, kernel_size=(1, 1))
        stem = layers.Stem(self.width, conv, norm, unit, self.stem, self.stem_units, name="stem")

        x = stem(image)
        heatmaps = []
        for s in range(self.stacks):
            *lower, y = layers.Hourglass(self.depth, full, self.units, name=f"stack{s}_hourglass")(x)
            if self.supervision == "resolutions":
                for i, z in enumerate(lower):  # coarse to fine
                    # Sums of residual units are normalised before every convolution that reads them.
                    z = nn.relu(norm(name=f"stack{s}_lower{i}_norm")(z))
                    z = point(self.joints, name=f"stack{s}_lower{i}_heatmaps")(z)
                    heatmaps.append(layers.at_least_float32(z))
            for i in range(self.units):
                y = full(name=f"stack{s}_unit{i}")(y)
            y = point(self.width, name=f"stack{s}_lin")(y)
            y = nn.relu(norm(name=f"stack{s}_lin_norm")(y))
            maps = point(self.joints, name=f"stack{s}_heatmaps")(y)
            heatmaps.append(layers.at_least_float32(maps))
            if s + 1 < self.stacks:  # Figure 4: the next stack gets features and heatmaps
                y = point(self.width, name=f"stack{s}_remap_features")(y)
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return heatmaps

    def _text(self, image, conv, norm, unit) -> list[jax.Array]:
        if (self.units, self.stem_units, self.stem) != (1, 1, "newell") or self.supervision == "resolutions":
            raise ValueError("model.design='text' has no other units, stem_units, stem or lower heatmaps.")
        c = self.width
        full, double = functools.partial(unit, c), functools.partial(unit, 2 * c)
        half = functools.partial(unit, c // 2)
        point = functools.partial(conv, kernel_size=(1, 1))

        def lin(x, width, name):
            return nn.relu(norm(name=f"{name}_norm")(point(width, name=name)(x)))

        x = conv(c // 4, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="stem_conv")(image)  # 128 px
        x = half(name="stem_unit0")(nn.relu(norm(name="stem_norm")(x)))
        pooled = layers.max_pool(x)  # 64 px, C / 2
        x = half(name="stem_unit2")(half(name="stem_unit1")(pooled))
        x = full(name="stem_unit3")(x)

        heatmaps = []
        for s in range(self.stacks):
            last = s + 1 == self.stacks
            y = layers.Hourglass(
                self.depth,
                layers.in_a_row(full, full, full),
                skip=layers.in_a_row(full, full, double),
                bottom=double,
                up=double,
                name=f"stack{s}_hourglass",
            )(x)[-1]  # 2 C
            y = lin(y, 2 * c, f"stack{s}_lin0")
            y = lin(y, 2 * c if last else c, f"stack{s}_lin1")
            maps = point(self.joints, name=f"stack{s}_heatmaps")(y)
            heatmaps.append(layers.at_least_float32(maps))
            if not last:
                y = jnp.concatenate([y, pooled], axis=-1)  # 3/2 C
                x = point(y.shape[-1], name=f"stack{s}_remap_features")(y)
                x = x + point(y.shape[-1], name=f"stack{s}_remap_heatmaps")(maps)
        return heatmaps
