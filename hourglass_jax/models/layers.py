"""Parts that several of the papers share: the residual unit, the hourglass and the stems.

A part has its own parts as fields (`conv`, `norm`, `unit`). `parts` builds these once per model; models of
other papers pass other parts. Images and features are (b, h, w, c).
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import batch_norm, convolution
from hourglass_jax.kernels.pooling import max_pool
from hourglass_jax.kernels.upsampling import upsample

Part = Callable[..., nn.Module]
Activation = Callable[[jax.Array], jax.Array]


def parts(*, train: bool, dtype) -> tuple[Part, Part]:
    """The convolution and the batch normalisation of a model.

    Args:
      train: batch norm uses the statistics of the batch, and updates its running statistics.
      dtype: type of the computation; parameters and statistics stay float32.
    """
    conv = functools.partial(nn.Conv, dtype=dtype, conv_general_dilated=convolution.convolve)
    norm = functools.partial(
        batch_norm.of_current_platform(train=train, dtype=dtype),
        use_running_average=not train,
        momentum=0.9,  # Torch's 0.1
        epsilon=1e-5,
        dtype=dtype,
    )
    return conv, norm


def at_least_float32(x: jax.Array) -> jax.Array:
    """Converts outputs of a bfloat16 network to float32; wider types are not changed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Unit(nn.Module):
    """Pre-activation bottleneck (He et al. 2016b); with a convolution on the skip if the width changes."""

    width: int
    conv: Part
    norm: Part
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x):
        y = x
        for i, (width, window) in enumerate([(self.width // 2, 1), (self.width // 2, 3), (self.width, 1)]):
            y = self.activation(self.norm(name=f"norm{i}")(y))
            y = self.conv(width, (window, window), name=f"conv{i}")(y)
        if x.shape != y.shape:
            x = self.conv(self.width, (1, 1), name="skip")(x)
        return x + y


def in_a_row(*makes: Part) -> Part:
    """Several parts in sequence as one part; their names are numbered."""

    def named(name: str):
        def call(x):
            for i, make in enumerate(makes):
                x = make(name=f"{name}_{i}")(x)
            return x

        return call

    return named  # pyright: ignore[reportReturnType]


class Hourglass(nn.Module):
    """Down to 1 / 2**depth of the resolution and up again, with a skip branch at each level.

    Returns the features after each addition, coarse to fine; the last ones have the input's resolution.
    """

    depth: int
    unit: Part
    units: int = 1  # units per place
    skip: Part | None = None  # the unit of the skip branches; None: `unit`
    bottom: Part | None = None  # the unit at the lowest resolution; None: `unit`
    up: Part | None = None  # the unit before each upsampling; None: `unit`
    skips: Sequence[Part] = ()  # the units of the skip branches by level, fine to coarse, instead of `skip`
    # (name, features on the way down, upsampled features, skip branch) of a level -> features.
    join: Callable[..., jax.Array] = lambda name, below, above, skip: skip + above

    @nn.compact
    def __call__(self, x) -> tuple[jax.Array, ...]:
        if x.shape[1] % 2**self.depth or x.shape[2] % 2**self.depth:
            raise ValueError(
                f"An hourglass of depth {self.depth} halves its input {self.depth} times; "
                f"{x.shape[1]} x {x.shape[2]} cells are not divisible by {2**self.depth}."
            )
        skips, features, below = [], [], []
        for level in range(self.depth):  # level 0 has the full resolution
            below.append(x)
            skip = self.skips[level] if self.skips else self.skip or self.unit
            skips.append(self._place(f"level{level}_skip", x, skip))
            x = self._place(f"level{level}_down", max_pool(x), self.unit)
        x = self._place("bottom", x, self.bottom or self.unit)
        for level in reversed(range(self.depth)):
            x = self._place(f"level{level}_up", x, self.up or self.unit)
            x = self.join(f"level{level}", below[level], upsample(x), skips[level])
            features.append(x)
        return tuple(features)

    def _place(self, name, x, unit):
        for i in range(self.units):
            x = unit(name=f"{name}{i}")(x)
        return x


class Stem(nn.Module):
    """Image to features at a quarter of the resolution: 7x7/2, unit, pool, two units.

    `kind` sets the widths: "newell" those of Newell's released Torch model, C/4 - C/2 - C/2 - C; "port" those
    of the public PyTorch port, C/4 - C/2 - C - C; "princeton" those of the authors' PyTorch version,
    64 - 128 - 128 - C, which equal Newell's at C = 256.
    """

    width: int
    conv: Part
    norm: Part
    unit: Part
    kind: str = "newell"
    units: int = 1  # units per place

    @nn.compact
    def __call__(self, x):
        c = self.width
        kinds = {"newell": (c // 4, c // 2, c // 2), "port": (c // 4, c // 2, c), "princeton": (64, 128, 128)}
        if self.kind not in kinds:
            raise ValueError(f"model.stem={self.kind!r} is unknown; choose from {sorted(kinds)}.")
        first, second, middle = kinds[self.kind]
        if x.shape[1] % 4 or x.shape[2] % 4:
            raise ValueError(f"An image of {x.shape[1]} x {x.shape[2]} px is not divisible by 4.")
        # Torch pads by 3 on both sides; "SAME" would pad a 7x7/2 window by 2 and 3.
        x = self.conv(first, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x))
        x = max_pool(self._place("unit0", x, second), second)
        x = self._place("unit1", x, middle)
        return self._place("unit2", x, self.width)

    def _place(self, name, x, width):
        x = self.unit(width, name=name)(x)
        for i in range(1, self.units):
            x = self.unit(width, name=f"{name}_{i}")(x)
        return x
