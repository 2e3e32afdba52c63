"""Multi-Context Attention for Human Pose Estimation (Chu et al. 2017)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers
from hourglass_jax.models.layers import Part
from hourglass_jax.models.outputs import Outputs

ATTENTION = ("crf", "softmax", "none")
FORMS = ("paper", "release")


class HourglassUnit(nn.Module):
    """Hourglass residual unit, x + F(x) + P(x) (equation 2): 10x10 cells of context instead of 3x3.

    The paper gives neither the width of P nor its norms. As in the released code, P is as wide as x, and
    pre-activated like F. h and w must be even.
    """

    width: int
    conv: Part
    norm: Part

    @nn.compact
    def __call__(self, x):
        # ReLU is monotonic, so it may follow the pool, where it has a quarter of the cells.
        y = nn.relu(layers.max_pool(self.norm(name="pool_norm0")(x)))  # half the resolution
        y = self.conv(self.width, (3, 3), name="pool_conv0")(y)
        y = nn.relu(self.norm(name="pool_norm1")(y))
        y = self.conv(self.width, (3, 3), name="pool_conv1")(y)
        return layers.Unit(self.width, self.conv, self.norm, name="residual")(x) + layers.upsample(y)


def correlate(maps: jax.Array, windows: jax.Array) -> jax.Array:
    """Convolves each map with its own window, with zero padding: a convolution with as many groups as maps.

    One matrix product per map multiplies its rows by a band matrix of the window's rows. Grouped
    convolutions, and especially their gradients, are many times slower on CPUs.

    Args:
      maps: (b, h, w, m).
      windows: (n, n, m), n odd.

    Returns:
      (b, h, w, m).
    """
    h, w, n = *maps.shape[1:3], len(windows)
    if platforms.current() == "onnx":  # band matrices would make up most of the file
        return jax.lax.conv_general_dilated(
            maps, windows[:, :, None], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=maps.shape[-1],
        )  # fmt: skip
    shifts = jnp.stack([jnp.eye(w, k=n // 2 - j) for j in range(n)])  # n, column from, column to
    bands = jnp.einsum("ijm,jvw->mivw", windows, shifts)
    padded = jnp.pad(jnp.moveaxis(maps, 3, 0), ((0, 0), (0, 0), (n // 2, n // 2), (0, 0)))
    rows = jnp.stack([padded[:, :, i : i + h] for i in range(n)], axis=3)  # m b h n w
    return jnp.moveaxis(jnp.einsum("mbhiv,mivw->mbhw", rows, bands), 0, 3)


class ReleasedStem(nn.Module):
    """The stem of the released `hg-attention.lua`: 7x7 at the full resolution, then units at three.

    It is not the default: the paper's baseline is the hourglass network of Newell et al. (7.2), and so the
    default stem is theirs.
    """

    width: int
    conv: Part
    norm: Part
    unit: Part

    @nn.compact
    def __call__(self, x):
        quarter, half = self.width // 4, self.width // 2
        x = self.conv(quarter, (7, 7), padding=((3, 3), (3, 3)), name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x))
        x = layers.max_pool(self.unit(quarter, name="unit0")(x))  # 128 px of 256
        x = self.unit(half, name="unit2")(self.unit(quarter, name="unit1")(x))
        x = layers.max_pool(x)  # 64
        x = self.unit(half, name="unit4")(self.unit(half, name="unit3")(x))
        return self.unit(self.width, name="unit5")(x)


class Crf(nn.Module):
    """Features (b, h, w, c) -> maps (b, h, w, m) in [0, 1] by three steps of mean field (equation 7).

    Returns the maps twice: as maps and as weights. Equation 8, as printed, leaves the unary term out of the
    steps; the mean field and the released code keep it. g in equations 3 and 11 is the identity, because a
    sigmoid follows.

    The release adds a bias to the convolution with the windows, which equations 7 and 8 do not have. The
    first of its three steps starts from the raw unary term, as equation 8 prints it for t = 0. This module
    starts with the sigmoid, "Initially, the sigmoid of the unary term" (below equation 7), and three steps
    follow. In this way every map that is convolved consists of probabilities.
    """

    maps: int
    conv: Part
    window: int = 11  # cells; as in the released script, the paper gives none
    steps: int = 3
    released: bool = False  # with the release's bias and first step

    @nn.compact
    def __call__(self, x):
        # There are few channels, so that float32 costs little.
        unary = layers.at_least_float32(self.conv(self.maps, (3, 3), name="unary")(x))
        size = (self.window, self.window, self.maps)
        windows = self.param("windows", nn.initializers.lecun_normal(), size)  # shared by the steps
        constant = unary
        if self.released:
            constant = unary + self.param("window_bias", nn.initializers.zeros, (self.maps,))
        q = unary if self.released else nn.sigmoid(unary)  # t = 0
        for _ in range(self.steps):
            q = nn.sigmoid(constant + correlate(q, windows))
        return q, q


class Softmax(nn.Module):
    """Features (b, h, w, c) -> maps (b, h, w, m) whose sum over the cells is one (equation 4).

    Returns the maps, and weights with a mean of one. Weights with a sum of one would make the features of
    64 x 64 cells 4096 times smaller, and the coarse maps of equation 9 would outweigh the fine ones.
    """

    maps: int
    conv: Part

    @nn.compact
    def __call__(self, x):
        s = layers.at_least_float32(self.conv(self.maps, (3, 3), name="unary")(x))  # equation 3
        phi = nn.softmax(s, axis=(1, 2))
        return phi, phi * (s.shape[1] * s.shape[2])


class Head(nn.Module):
    """Heatmaps of one stack, from features weighted by attention maps (Figures 4 to 6).

    __call__(f, features): f (b, h, w, c) are the stack's last features. `features` has those of each attended
    resolution of its top-down pass, (b, h / 2**i, w / 2**i, c); the maps that weight f are made of these.
    Returns (b, h, w, joints) float32 and the attention maps by name.
    """

    joints: int
    parts: bool  # a map for each joint instead of one refined map
    conv: Part
    norm: Part
    attention: Part

    @nn.compact
    def __call__(self, f, features):
        seen, total = {}, jnp.zeros(())
        for i, x in enumerate(reversed(features)):
            # Sums of residual units are normalised before every convolution: raw sums would saturate most
            # of the sigmoids from the start. The paper does not mention it.
            x = nn.relu(self.norm(name=f"level{i}_norm")(x))
            seen[f"resolution{x.shape[1]}"], weights = self.attention(1, name=f"level{i}")(x)
            for _ in range(i):
                weights = layers.upsample(weights)
            total += weights
        h1 = f * total.astype(f.dtype)  # equation 9

        # One refined map (10) or, zooming in, one map per joint instead (11), both from h1.
        kind, maps = ("parts", self.joints) if self.parts else ("refined", 1)
        seen[kind], weights = self.attention(maps, name=kind)(h1)
        # Equations 12 and 13 weight all of h1 for each joint before a linear classifier. All channels have
        # the same weight, so the weighting can follow the classifier: w_p (h1 phi_p) + b = phi_p (w_p h1) +
        # b. In this way no joint needs its own copy of the features.
        scores = self.conv(self.joints, (1, 1), use_bias=False, name="scores")(h1)
        return weights * scores + self.param("bias", nn.initializers.zeros, (self.joints,)), seen


class ReleasedHead(nn.Module):
    """Heatmaps of one stack as in the released code: with a refined map, or with that and a map per joint.

    __call__(f): (b, h, w, c). Returns (b, h, w, joints) float32 and the attention maps by name.
    """

    joints: int
    parts: bool  # also a map for each joint
    conv: Part
    attention: Part

    @nn.compact
    def __call__(self, f):
        seen = {}
        seen["refined"], weights = self.attention(1, name="refined")(f)
        h1 = f * weights.astype(f.dtype)
        if not self.parts:
            return layers.at_least_float32(self.conv(self.joints, (1, 1), name="scores")(h1)), seen
        seen["parts"], weights = self.attention(self.joints, name="parts")(h1)
        scores = self.conv(self.joints, (1, 1), use_bias=False, name="scores")(h1)  # see Head
        return weights * scores + self.param("bias", nn.initializers.zeros, (self.joints,)), seen


class Model(nn.Module):
    """S nested hourglasses in a row; attention weights the features from which each makes its heatmaps.

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, joints) float32, and with every attention map in
    [0, 1] by stack and kind: stack1_resolution8 (b, 8, 8, 1), ..., stack1_resolution64, then
    stack1_refined (b, 64, 64, 1) or, in the second half of the stacks, stack5_parts
    (b, 64, 64, joints).

    The bars of Figure 8 (BL, +MS, +HRU, +MR, +HP) turn on attention, hourglass_units,
    multi_resolution and part_attention, in this order; without attention the last two have no effect.
    """

    joints: int = 16
    stacks: int = 8
    width: int = 256
    depth: int = 4  # 64 cells -> 4
    units: int = 1  # residual units per place
    stem: str = "newell"
    attention: str = "crf"  # each stack has its own (5.2.3); or softmax, none
    window: int = 11  # cells, side of the CRF's kernels; odd
    hourglass_units: bool = True  # on the skip branches of the hourglasses (3)
    multi_resolution: bool = True  # maps from all resolutions of the top-down pass; False: from the last only
    part_attention: bool = True  # in stacks 5 to 8 of 8 (3, Figure 2; 5.2.4 says 4 to 8)
    # The next fields are "paper", or "release" where the released `hg-attention.lua` differs from the text.
    # `stem` may be "release", too.
    # Skip branches: the text replaces "the original residual units when combining features from different
    # resolutions" (7.2), and Figure 2 draws an HRU on each branch. The release has n - 1 units on the branch
    # of level n, first a residual unit and then HRUs. So it has HRUs at the two finest levels only.
    skips: str = "paper"
    # The text makes its maps from the features of the top-down pass (with one resolution, from the last of
    # them) and weights the later f (5.2.2), because weighting the features that made a map starves the
    # gradient. The release makes its maps from f itself, without the other resolutions, after a second 1x1,
    # and passes a third one to the next stack. No residual unit follows its hourglass.
    head: str = "paper"
    crf: str = "paper"  # see Crf
    last_width: int = 0  # width of the features before the last heatmaps, 2 C in the release; 0: `width`
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        skip = functools.partial(HourglassUnit, self.width, conv, norm) if self.hourglass_units else None
        point = functools.partial(conv, kernel_size=(1, 1))
        attention = self._attention(conv)
        if self.stem == "release":
            stem = ReleasedStem(self.width, conv, norm, unit, name="stem")
        else:
            stem = layers.Stem(self.width, conv, norm, unit, self.stem, name="stem")
        branches = self._branches(full, skip)

        x = stem(image.astype(self.dtype))
        heatmaps, seen = [], {}
        for s in range(self.stacks):
            last = s + 1 == self.stacks
            hourglass = layers.Hourglass(
                self.depth, full, self.units, skip, skips=branches, name=f"stack{s}_hourglass"
            )
            features = hourglass(x)  # 8, 16, 32 and 64 cells
            f = features[-1]
            for i in range(self.units if self.head == "paper" else 0):
                f = full(name=f"stack{s}_unit{i}")(f)
            width = self.last_width or self.width if last else self.width
            onward = f = nn.relu(norm(name=f"stack{s}_lin_norm")(point(width, name=f"stack{s}_lin")(f)))
            if self.head == "release":
                f = nn.relu(norm(name=f"stack{s}_lin1_norm")(point(width, name=f"stack{s}_lin1")(f)))
            parts = self.part_attention and s >= self.stacks // 2
            if attention and self.head == "release":
                maps, of_stack = ReleasedHead(self.joints, parts, conv, attention, name=f"stack{s}_head")(f)
                seen |= {f"stack{s + 1}_{kind}": phi for kind, phi in of_stack.items()}
            elif attention:
                head = Head(self.joints, parts, conv, norm, attention, name=f"stack{s}_head")
                maps, of_stack = head(f, features if self.multi_resolution else features[-1:])
                seen |= {f"stack{s + 1}_{kind}": phi for kind, phi in of_stack.items()}
            else:
                maps = layers.at_least_float32(point(self.joints, name=f"stack{s}_heatmaps")(f))
            heatmaps.append(maps)
            if not last:
                # The next stack gets f as it was before attention: a product of several weights close to
                # zero would starve the gradient (5.2.2).
                y = point(self.width, name=f"stack{s}_remap_features")(onward)
                if self.head == "release":
                    y = nn.relu(norm(name=f"stack{s}_remap_norm")(y))
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return Outputs(heatmaps=tuple(heatmaps), attention=seen or None)

    def _branches(self, full, skip) -> Sequence[Part]:
        """The release's skip branches by level, fine to coarse; () if each branch is one unit, as usual."""
        for name, value in (("skips", self.skips), ("head", self.head), ("crf", self.crf)):
            if value not in FORMS:
                raise ValueError(f"model.{name}={value!r} is unknown; choose from {', '.join(FORMS)}.")
        if self.skips == "paper":
            return ()
        more = (max(self.depth - level - 2, 0) for level in range(self.depth))
        return [layers.in_a_row(full, *[skip or full] * n) for n in more]

    def _attention(self, conv):
        if self.attention not in ATTENTION:
            raise ValueError(
                f"model.attention={self.attention!r} is unknown; choose from {', '.join(ATTENTION)}."
            )
        if self.attention == "crf":
            return functools.partial(Crf, conv=conv, window=self.window, released=self.crf == "release")
        return functools.partial(Softmax, conv=conv) if self.attention == "softmax" else None
