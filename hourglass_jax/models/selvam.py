"""Multi-scale Attention Aided Multi-Resolution Network (Selvam and Mishra 2019)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.layers import Part
from hourglass_jax.models.outputs import Outputs

_leaky = functools.partial(nn.leaky_relu, negative_slope=0.01)  # the paper gives no slope


class Conv(nn.Module):
    """What the multi-resolution network has in place of residual units (3.1): a 3x3 convolution."""

    width: int
    conv: Part
    norm: Part

    @nn.compact
    def __call__(self, x):
        return _leaky(self.norm(name="norm")(self.conv(self.width, (3, 3), name="conv")(x)))


class Bottom(nn.Module):
    """Two 1x1 convolutions at the lowest resolution (3.1), without norms (3.4)."""

    width: int
    conv: Part

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = _leaky(self.conv(self.width, (1, 1), name=f"conv{i}")(x))
        return x


class Mask(nn.Module):
    """x (b, h, w, c) -> a mask (b, h, w, 1) in [0, 1] (equations 1, 3 and 5), float32.

    The figures' f_att is not told layer by layer: one 3x3 convolution here, and an hourglass before it for
    the global mask. "All weights start at ones" (3.4) would make all channels alike for good; it is the
    masks that start near one, at the same value everywhere.
    """

    conv: Part

    @nn.compact
    def __call__(self, x):
        start = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.constant(3.0)}  # 0.95
        return nn.sigmoid(self.conv(1, (3, 3), name="logit", **start)(x).astype(jnp.float32))


class GlobalMask(nn.Module):
    """Image -> mask of the same size: an hourglass at the input's resolution (equation 1, Figure 4)."""

    width: int
    depth: int
    conv: Part
    norm: Part

    @nn.compact
    def __call__(self, image):
        unit = functools.partial(Conv, self.width, self.conv, self.norm)
        x = layers.Hourglass(self.depth, unit, name="hourglass")(unit(name="first")(image))[-1]
        return Mask(self.conv, name="mask")(x)


class Refinement(nn.Module):
    """The last heatmap and its features (b, r, r, c) -> coordinates (b, joints, 2) float32 (3.2, Figure 2).

    The figure's layers are not told: convolutions and pools down to the cells at the bottom of the
    multi-resolution network, then one matrix. The coordinates are linear, as a joint may lie outside of
    the crop, and all start in its middle.
    """

    joints: int
    width: int
    depth: int
    conv: Part
    norm: Part

    @nn.compact
    def __call__(self, x):
        for level in range(self.depth):  # 64 cells -> 4
            x = layers.max_pool(Conv(self.width, self.conv, self.norm, name=f"conv{level}")(x))
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        start = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.constant(0.5)}
        return nn.Dense(2 * self.joints, name="coordinates", **start)(x).reshape(-1, self.joints, 2)


def attend(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x m + x (equations 4 and 6): x (b, h, w, c), mask (b, h, w, 1)."""
    return x * mask.astype(x.dtype) + x


class Model(nn.Module):
    """S multi-resolution networks in a row, one heatmap for all joints each; then coordinates (Figure 3).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, 1) float32 in [0, 1], the coordinates (b, joints, 2)
    in [0, 1] of the crop, and the masks in [0, 1] that are switched on: global (b, h, w, 1),
    stack1_heatmap (b, h/4, w/4, 1), stack1_resolution4 (b, 4, 4, 1) to stack1_resolution64, ...

    The masks are one until the attention is trained for the first time (Algorithm 1, line 6, outside of
    its loop): the variable `attention_learnt` tells, so that a checkpoint of the first phase is evaluated
    as it was trained.
    """

    joints: int = 16
    stacks: int = 2  # the paper does not say how many
    width: int = 256
    depth: int = 4  # 64 cells -> 4
    global_attention: bool = True  # Figure 4, the best of Table 1
    heatmap_attention: bool = False  # Figure 5
    multi_resolution_attention: bool = False  # Figure 6
    attention_width: int = 32  # of the global mask's hourglass, which has the input's resolution
    tasks = ("pose", "attention")  # A and B of 3.4
    trained: tuple[str, ...] = tasks  # the others' norms use and keep their running statistics
    dtype: jnp.dtype = jnp.float32

    @staticmethod
    def label(path: tuple[str, ...]) -> str | None:
        """The task that a parameter or statistic belongs to; path: the modules' names, outermost first."""
        if any("attention" in name for name in path):
            return "attention"
        return "pose" if path[0].startswith(("stem", "stack", "refinement")) else None

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        conv, norm = layers.parts(train=train and "pose" in self.trained, dtype=self.dtype)
        unit = functools.partial(Conv, self.width, conv, norm)
        point = functools.partial(conv, kernel_size=(1, 1))
        hold, seen = self._hold(train), {}

        def weighted(stack, name, below, above):
            if not self.multi_resolution_attention:
                return above
            # Masks learnt on the way down weight the way up; which of the two is the paper's top and
            # which its bottom, 3.3 leaves to guess.
            mask = hold(Mask(conv, name=f"{name}_attention")(below))  # equation 5
            seen[f"stack{stack + 1}_resolution{below.shape[1]}"] = mask
            return attend(above, mask)  # equation 6

        def bottom(name, *, stack):
            convs = Bottom(self.width, conv, name=name)
            return lambda x: weighted(stack, name, x, convs(x))  # no skip branch at 4 cells

        def join(name, below, above, skip, *, stack):
            return weighted(stack, name, below, above) + skip  # equation 7

        x = image.astype(self.dtype)
        if self.global_attention:
            of_mask = layers.parts(train=train and "attention" in self.trained, dtype=self.dtype)
            mask = GlobalMask(self.attention_width, self.depth, *of_mask, name="global_attention")(x)
            seen["global"] = hold(mask)
            x = x * seen["global"].astype(x.dtype)  # equation 2; what is masked gets the mean colour
        # Front module (3.1); its residual module is Newell's.
        x = conv(self.width // 4, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="stem_conv")(x)
        x = layers.Unit(self.width, conv, norm, name="stem_unit")(_leaky(norm(name="stem_norm")(x)))
        x = layers.max_pool(x)  # 64 cells

        heatmaps = []
        for s in range(self.stacks):
            parts = {"bottom": functools.partial(bottom, stack=s), "join": functools.partial(join, stack=s)}
            f = layers.Hourglass(self.depth, unit, name=f"stack{s}_mrn", **parts)(x)[-1]
            f = unit(name=f"stack{s}_conv")(f)
            # A probability in [0, 1] (3.1, 3.3).
            maps = nn.sigmoid(point(1, name=f"stack{s}_heatmap")(f).astype(jnp.float32))
            heatmaps.append(maps)
            y = maps
            if self.heatmap_attention:
                seen[f"stack{s + 1}_heatmap"] = hold(Mask(conv, name=f"stack{s}_attention")(maps))
                y = attend(maps, seen[f"stack{s + 1}_heatmap"])  # equations 3 and 4
            y = y.astype(self.dtype)
            if s + 1 < self.stacks:
                # One channel alone would lose the features: they go on too, as in the stacked hourglass.
                x = x + point(self.width, name=f"stack{s}_remap_features")(f)
                x = x + point(self.width, name=f"stack{s}_remap_heatmap")(y)
        refine = Refinement(self.joints, self.width, self.depth, conv, norm, name="refinement")
        coordinates = refine(jnp.concatenate([f, y], axis=-1))
        return Outputs(heatmaps=tuple(heatmaps), coordinates=coordinates, attention=seen or None)

    def _hold(self, train):
        """mask -> the mask, or ones as long as no step has trained the attention."""
        if not (self.global_attention or self.heatmap_attention or self.multi_resolution_attention):
            return None
        learnt = self.variable("batch_stats", "attention_learnt", jnp.zeros, ())
        if train and "attention" in self.trained:
            learnt.value = jnp.ones(())
        return lambda mask: jnp.where(learnt.value > 0, mask, 1.0)
