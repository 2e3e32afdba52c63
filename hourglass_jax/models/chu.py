"""Multi-Context Attention for Human Pose Estimation (Chu et al. 2017)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.layers import Part
from hourglass_jax.models.outputs import Outputs

ATTENTION = ("crf", "softmax", "none")


class HourglassUnit(nn.Module):
    """Hourglass residual unit, x + F(x) + P(x) (equation 2): 10x10 cells of context instead of 3x3.

    The paper gives P no width and shows no norms; as in the released code it is as wide as x, and
    pre-activated like F. h and w must be even.
    """

    width: int
    conv: Part
    norm: Part

    @nn.compact
    def __call__(self, x):
        # A ReLU keeps the order, so it may follow the pool, where it has a quarter of the cells.
        y = nn.relu(layers.max_pool(self.norm(name="pool_norm0")(x)))  # half the resolution
        y = self.conv(self.width, (3, 3), name="pool_conv0")(y)
        y = nn.relu(self.norm(name="pool_norm1")(y))
        y = self.conv(self.width, (3, 3), name="pool_conv1")(y)
        return layers.Unit(self.width, self.conv, self.norm, name="residual")(x) + layers.upsample(y)


def correlate(maps: jax.Array, windows: jax.Array) -> jax.Array:
    """Each map convolved with its own window, zeros around: a convolution with as many groups as maps.

    One matrix product per map multiplies its rows by a band matrix that holds the window's rows: grouped
    convolutions, and above all their gradients, are many times slower on CPUs.

    Args:
      maps: (b, h, w, m).
      windows: (n, n, m), n odd.

    Returns:
      (b, h, w, m).
    """
    h, w, n = *maps.shape[1:3], len(windows)
    shifts = jnp.stack([jnp.eye(w, k=n // 2 - j) for j in range(n)])  # n, column from, column to
    bands = jnp.einsum("ijm,jvw->mivw", windows, shifts)
    padded = jnp.pad(jnp.moveaxis(maps, 3, 0), ((0, 0), (0, 0), (n // 2, n // 2), (0, 0)))
    rows = jnp.stack([padded[:, :, i : i + h] for i in range(n)], axis=3)  # m b h n w
    return jnp.moveaxis(jnp.einsum("mbhiv,mivw->mbhw", rows, bands), 0, 3)


class Crf(nn.Module):
    """Features (b, h, w, c) -> maps (b, h, w, m) in [0, 1] by three steps of mean field (equation 7).

    Returns the maps twice: as maps and as weights. Equation 8 as printed leaves the unary term out of the
    steps; the mean field and the released code keep it. g of equations 3 and 11 is the identity, because a
    sigmoid follows.
    """

    maps: int
    conv: Part
    window: int = 11  # cells; the released script's, the paper gives none
    steps: int = 3

    @nn.compact
    def __call__(self, x):
        # A few channels only: float32 costs little.
        unary = self.conv(self.maps, (3, 3), name="unary")(x).astype(jnp.float32)
        size = (self.window, self.window, self.maps)
        windows = self.param("windows", nn.initializers.lecun_normal(), size)  # shared by the steps
        q = nn.sigmoid(unary)  # t = 0
        for _ in range(self.steps):
            q = nn.sigmoid(unary + correlate(q, windows))
        return q, q


class Softmax(nn.Module):
    """Features (b, h, w, c) -> maps (b, h, w, m) whose sum over the cells is one (equation 4).

    Returns the maps, and weights whose mean is one. Weights whose sum is one would make the features of
    64 x 64 cells 4096 times smaller, and equation 9's coarse maps would outweigh the fine ones.
    """

    maps: int
    conv: Part

    @nn.compact
    def __call__(self, x):
        s = self.conv(self.maps, (3, 3), name="unary")(x).astype(jnp.float32)  # equation 3
        phi = nn.softmax(s, axis=(1, 2))
        return phi, phi * (s.shape[1] * s.shape[2])


class Head(nn.Module):
    """Heatmaps of one stack, from features that attention maps have weighted (Figures 4 to 6).

    __call__(f, features): f (b, h, w, c) are the stack's last features; those of each attended
    resolution of its top-down pass, (b, h / 2**i, w / 2**i, c), make the maps that weight f.
    Returns (b, h, w, joints) float32 and the attention maps by name.
    """

    joints: int
    parts: bool  # a map for each joint in place of one refined map
    conv: Part
    norm: Part
    attention: Part

    @nn.compact
    def __call__(self, f, features):
        seen, total = {}, 0.0
        for i, x in enumerate(reversed(features)):
            # Normalised first, as wherever a convolution reads sums of residual units: raw sums would
            # saturate most of the sigmoids from the start. The paper does not say.
            x = nn.relu(self.norm(name=f"level{i}_norm")(x))
            seen[f"resolution{x.shape[1]}"], weights = self.attention(1, name=f"level{i}")(x)
            for _ in range(i):
                weights = layers.upsample(weights)
            total += weights
        h1 = f * total.astype(f.dtype)  # equation 9

        # A refined map (10) or, zooming in, one per joint in its place (11), both from h1.
        kind, maps = ("parts", self.joints) if self.parts else ("refined", 1)
        seen[kind], weights = self.attention(maps, name=kind)(h1)
        # Equations 12 and 13 weight all of h1 for each joint before a linear classifier. All channels have
        # the same weight, so it can follow the classifier: w_p (h1 phi_p) + b = phi_p (w_p h1) + b. No joint
        # needs its own copy of the features.
        scores = self.conv(self.joints, (1, 1), use_bias=False, name="scores")(h1)
        return weights * scores + self.param("bias", nn.initializers.zeros, (self.joints,)), seen


class Model(nn.Module):
    """S nested hourglasses in a row; attention weights the features that each one's heatmaps come from.

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, joints) float32, and with every attention map in
    [0, 1] by stack and kind: stack1_resolution8 (b, 8, 8, 1), ..., stack1_resolution64, then
    stack1_refined (b, 64, 64, 1) or, in the second half of the stacks, stack5_parts
    (b, 64, 64, joints).

    The bars of Figure 8 (BL, +MS, +HRU, +MR, +HP) turn on attention, hourglass_units,
    multi_resolution and part_attention, in this order; without attention the last two mean nothing.
    """

    joints: int = 16
    stacks: int = 8
    width: int = 256
    depth: int = 4  # 64 cells -> 4
    units: int = 1  # residual units per place
    stem: str = "newell"
    attention: str = "crf"  # of every stack, each with its own (5.2.3); or softmax, none
    window: int = 11  # cells, side of the CRF's kernels; odd
    hourglass_units: bool = True  # on the skip branches of the hourglasses (3)
    multi_resolution: bool = True  # maps from all resolutions of the top-down pass, or the last alone
    part_attention: bool = True  # in stacks 5 to 8 of 8 (3, Figure 2; 5.2.4 says 4 to 8)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        skip = functools.partial(HourglassUnit, self.width, conv, norm) if self.hourglass_units else None
        point = functools.partial(conv, kernel_size=(1, 1))
        attention = self._attention(conv)
        stem = layers.Stem(self.width, conv, norm, unit, self.stem, name="stem")

        x = stem(image.astype(self.dtype))
        heatmaps, seen = [], {}
        for s in range(self.stacks):
            hourglass = layers.Hourglass(self.depth, full, self.units, skip, name=f"stack{s}_hourglass")
            features = hourglass(x)  # 8, 16, 32 and 64 cells
            f = features[-1]
            for i in range(self.units):
                f = full(name=f"stack{s}_unit{i}")(f)
            f = point(self.width, name=f"stack{s}_lin")(f)
            f = nn.relu(norm(name=f"stack{s}_lin_norm")(f))
            if attention:
                parts = self.part_attention and s >= self.stacks // 2
                head = Head(self.joints, parts, conv, norm, attention, name=f"stack{s}_head")
                maps, of_stack = head(f, features if self.multi_resolution else features[-1:])
                seen |= {f"stack{s + 1}_{kind}": phi for kind, phi in of_stack.items()}
            else:
                maps = point(self.joints, name=f"stack{s}_heatmaps")(f).astype(jnp.float32)
            heatmaps.append(maps)
            if s + 1 < self.stacks:
                # f as it was before attention goes on: weights close to zero, one after another,
                # would starve the gradient (5.2.2).
                y = point(self.width, name=f"stack{s}_remap_features")(f)
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return Outputs(heatmaps=tuple(heatmaps), attention=seen or None)

    def _attention(self, conv):
        if self.attention not in ATTENTION:
            raise ValueError(
                f"model.attention={self.attention!r} is unknown; choose from {', '.join(ATTENTION)}."
            )
        if self.attention == "crf":
            return functools.partial(Crf, conv=conv, window=self.window)
        return functools.partial(Softmax, conv=conv) if self.attention == "softmax" else None
