"""Multi-scale Attention Aided Multi-Resolution Network (Selvam and Mishra 2019)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.layers import Activation, Part
from hourglass_jax.models.outputs import Outputs


class Conv(nn.Module):
    """A 3x3 convolution, in place of the residual units of the stacked hourglass (3.1)."""

    width: int
    conv: Part
    norm: Part
    activation: Activation

    @nn.compact
    def __call__(self, x):
        return self.activation(self.norm(name="norm")(self.conv(self.width, (3, 3), name="conv")(x)))


class Bottom(nn.Module):
    """Two 1x1 convolutions at the lowest resolution (3.1), without norms (3.4)."""

    width: int
    conv: Part
    activation: Activation

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = self.activation(self.conv(self.width, (1, 1), name=f"conv{i}")(x))
        return x


class Mask(nn.Module):
    """x (b, h, w, c) -> a mask (b, h, w, 1) in [0, 1] (equations 1, 3 and 5), float32.

    The paper does not give the layers of f_att. Here it is one 3x3 convolution, which follows an hourglass in
    the global mask. "All weights start at ones" (3.4) would keep all channels equal forever. Instead the
    masks start near one, with the same value everywhere.
    """

    conv: Part

    @nn.compact
    def __call__(self, x):
        start = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.constant(3.0)}  # 0.95
        return nn.sigmoid(layers.at_least_float32(self.conv(1, (3, 3), name="logit", **start)(x)))


class GlobalMask(nn.Module):
    """Image -> mask of the same size: an hourglass at the input's resolution (equation 1, Figure 4)."""

    depth: int
    conv: Part
    unit: Part

    @nn.compact
    def __call__(self, image):
        x = self.unit(name="first")(image)
        x = layers.Hourglass(self.depth, self.unit, name="hourglass")(x)[-1]
        return Mask(self.conv, name="mask")(x)


class Refinement(nn.Module):
    """The last heatmap, and its features, (b, r, r, c) -> coordinates (b, joints, 2) float32 (3.2, Figure 2).

    The paper does not give the figure's layers. Here they are convolutions and pools, down to the resolution
    at the bottom of the multi-resolution network, then one matrix. The coordinates are linear, because a
    joint may lie outside the crop, and all start at its centre.
    """

    joints: int
    depth: int
    unit: Part
    scale: float  # factor on the matrix's inputs, see `Model.coordinate_scale`

    @nn.compact
    def __call__(self, x):
        for level in range(self.depth):  # 64 cells -> 4
            x = layers.max_pool(self.unit(name=f"conv{level}")(x))
        x = layers.at_least_float32(x.reshape(x.shape[0], -1)) * self.scale
        start = {"kernel_init": nn.initializers.zeros, "bias_init": nn.initializers.constant(0.5)}
        return nn.Dense(2 * self.joints, name="coordinates", **start)(x).reshape(-1, self.joints, 2)


def attend(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x m + x (equations 4 and 6): x (b, h, w, c), mask (b, h, w, 1)."""
    return x * mask.astype(x.dtype) + x


def strength(features: jax.Array) -> jax.Array:
    """Features (b, h, w, c) -> a map (b, h, w, 1) float32 in [0, 1]: the mean magnitude of the channels,
    divided by its largest value in each picture (Figure 8)."""
    magnitude = jnp.mean(jnp.abs(features.astype(jnp.float32)), axis=-1, keepdims=True)
    return magnitude / jnp.maximum(jnp.max(magnitude, axis=(1, 2), keepdims=True), 1e-12)


class Model(nn.Module):
    """S multi-resolution networks in a row, one heatmap for all joints each, then coordinates (Figure 3).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, 1) float32 in [0, 1], the coordinates (b, joints, 2)
    in [0, 1] of the crop, and the masks in [0, 1] that are switched on: global (b, h, w, 1),
    stack1_heatmap (b, h/4, w/4, 1), stack1_resolution4 (b, 4, 4, 1) to stack1_resolution64, ...; with
    `show_features` also stack1_down64 (b, 64, 64, 1), ..., stack1_up64, see `strength`.

    If the collection "activity" is mutable, the model writes one number into it: the mean square of each
    convolution's output, summed over the convolutions (3.4, "activity regularization").

    The masks are one until the attention is trained for the first time (Algorithm 1, line 6, outside its
    loop). The variable `attention_learnt` records this, so that a checkpoint of the first phase is evaluated
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
    # The next network and the Refinement Net see only the heatmap (3.1 to 3.3, read literally). Otherwise
    # they also get the features, as in the stacked hourglass: a single channel loses most of them.
    heatmap_alone: bool = False
    # Factor on the features that the coordinates' matrix reads. It has thousands of inputs, and Adam's first
    # step changes all weights equally: without a factor it throws the coordinates across the picture.
    # Networks that were trained before this field existed have 1.
    coordinate_scale: float = 1.0
    slope: float = 0.01  # of leaky ReLU below 0; the paper gives none. Torch's default; Keras has 0.3
    # The slope in the front module's residual unit. 0 is Newell's ReLU, as in networks that were trained
    # before this field existed; "for all convolutional layers" (3.4) asks for `slope`.
    stem_slope: float = 0.0
    show_features: bool = False  # return Figure 8's maps together with the masks
    tasks = ("pose", "attention")  # A and B of 3.4
    trained: tuple[str, ...] = tasks  # norms of the other tasks use and keep their running statistics
    dtype: jnp.dtype = jnp.float32

    @staticmethod
    def label(path: tuple[str, ...]) -> str | None:
        """The task of a parameter or statistic; path: the modules' names, outermost first."""
        if any("attention" in name for name in path):
            return "attention"
        return "pose" if path[0].startswith(("stem", "stack", "refinement")) else None

    def adopt(self, other: "Model", variables: dict[str, Any]) -> dict[str, Any]:
        """The variables of `other`, by names like "params/stem_conv/kernel", for this model: the coordinates'
        matrix is converted to this model's `coordinate_scale`, all others are not changed."""
        factor = other.coordinate_scale / self.coordinate_scale
        matrix = "params/refinement/coordinates/kernel"
        return variables | {matrix: variables[matrix] * factor} if matrix in variables else variables

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        conv, norm = layers.parts(train=train and "pose" in self.trained, dtype=self.dtype)
        activation = leaky(self.slope)
        activity = _Activity(self.is_mutable_collection("activity") and not self.is_initializing())
        unit = activity.observed(functools.partial(Conv, self.width, conv, norm, activation))
        bottom = activity.observed(functools.partial(Bottom, self.width, conv, activation))
        point = functools.partial(conv, kernel_size=(1, 1))
        masks = _Masks(conv, self._hold(train), self.multi_resolution_attention, self.show_features)

        x = image.astype(self.dtype)
        if self.global_attention:
            x = self._masked(x, masks, activity, train)
        # Front module (3.1); its residual module is Newell's.
        x = conv(self.width // 4, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="stem_conv")(x)
        x = activation(norm(name="stem_norm")(x))
        front = functools.partial(layers.Unit, self.width, conv, norm, leaky(self.stem_slope))
        x = layers.max_pool(activity.observed(front)("stem_unit")(x))  # 64 cells

        heatmaps = []
        for s in range(self.stacks):
            parts = {
                "bottom": functools.partial(masks.bottom, make=bottom, stack=s),
                "join": functools.partial(masks.join, stack=s),
            }
            f = layers.Hourglass(self.depth, unit, name=f"stack{s}_mrn", **parts)(x)[-1]
            f = unit(name=f"stack{s}_conv")(f)
            # A probability in [0, 1] (3.1, 3.3).
            maps = nn.sigmoid(layers.at_least_float32(point(1, name=f"stack{s}_heatmap")(f)))
            heatmaps.append(maps)
            y = maps
            if self.heatmap_attention:  # equations 3 and 4
                y = attend(maps, masks.add(f"stack{s + 1}_heatmap", f"stack{s}_attention", maps))
            y = y.astype(self.dtype)
            if s + 1 < self.stacks and self.heatmap_alone:
                x = y  # "Y^i is the input to (i+1)th MRN" (3.3)
            elif s + 1 < self.stacks:
                x = x + point(self.width, name=f"stack{s}_remap_features")(f)
                x = x + point(self.width, name=f"stack{s}_remap_heatmap")(y)
        refine = Refinement(self.joints, self.depth, unit, self.coordinate_scale, name="refinement")
        coordinates = refine(y if self.heatmap_alone else jnp.concatenate([f, y], axis=-1))
        if activity.wanted:
            self.sow("activity", "mean_squares", sum(activity.squares))
        return Outputs(heatmaps=tuple(heatmaps), coordinates=coordinates, attention=masks.seen or None)

    def _masked(self, image, masks: "_Masks", activity: "_Activity", train: bool) -> jax.Array:
        """The image times its mask (equation 2); masked pixels get the mean colour."""
        conv, norm = layers.parts(train=train and "attention" in self.trained, dtype=self.dtype)
        unit = functools.partial(Conv, self.attention_width, conv, norm, leaky(self.slope))
        mask = GlobalMask(self.depth, conv, activity.observed(unit), name="global_attention")(image)
        masks.seen["global"] = masks.hold(mask)
        return image * masks.seen["global"].astype(image.dtype)

    def _hold(self, train) -> Callable[[jax.Array], jax.Array]:
        """mask -> the mask, or ones until a step has trained the attention."""
        if not (self.global_attention or self.heatmap_attention or self.multi_resolution_attention):
            return lambda mask: mask
        learnt = self.variable("batch_stats", "attention_learnt", jnp.zeros, ())
        if train and "attention" in self.trained:
            learnt.value = jnp.ones(())
        return lambda mask: jnp.where(learnt.value > 0, mask, 1.0)


class _Activity:
    """The mean squares of the outputs of parts, in one pass, if "activity" is mutable."""

    def __init__(self, wanted: bool):
        self.wanted, self.squares = wanted, []

    def observed(self, make: Callable[..., nn.Module]) -> Part:
        """A part whose outputs' mean squares are collected."""

        def named(name):
            part = make(name=name)

            def call(x):
                y = part(x)
                if self.wanted:
                    self.squares.append(jnp.mean(jnp.square(y.astype(jnp.float32))))
                return y

            return call

        return named  # pyright: ignore[reportReturnType]


class _Masks:
    """The masks of one pass, and the parts of an hourglass that use them.

    This is not a module: the hourglass that calls `bottom` and `join` is the parent of the modules made here.
    """

    def __init__(self, conv: Part, hold: Callable, resolutions: bool, features: bool):
        self._conv, self.hold = conv, hold
        self._resolutions, self._features = resolutions, features
        self.seen: dict[str, jax.Array] = {}  # the attention of `Outputs`

    def add(self, name: str, module: str, x: jax.Array) -> jax.Array:
        """The mask of x from a new module (equations 3 and 5); it is returned with the outputs."""
        self.seen[name] = self.hold(Mask(self._conv, name=module)(x))
        return self.seen[name]

    def bottom(self, name, *, make: Part, stack: int) -> Callable[[jax.Array], jax.Array]:
        """The lowest resolution of an hourglass; it has no skip branch at 4 cells."""
        convs = make(name)
        return lambda x: self._show(
            stack, "up", self._weighted(stack, name, self._show(stack, "down", x), convs(x))
        )

    def join(self, name, below, above, skip, *, stack: int) -> jax.Array:
        """The sum of the skip branch and the weighted features from below (equation 7)."""
        self._show(stack, "down", below)
        return self._show(stack, "up", self._weighted(stack, name, below, above) + skip)

    def _weighted(self, stack, name, below, above):
        if not self._resolutions:
            return above
        # Masks learnt on the way down weight the way up. 3.3 leaves open which of the two is the paper's
        # "top" and which its "bottom".
        mask = self.add(f"stack{stack + 1}_resolution{below.shape[1]}", f"{name}_attention", below)
        return attend(above, mask)  # equation 6

    def _show(self, stack, side, x):
        if self._features:
            self.seen[f"stack{stack + 1}_{side}{x.shape[1]}"] = strength(x)
        return x


def leaky(slope: float) -> Activation:
    """Leaky ReLU: x above 0, slope * x below."""
    return functools.partial(nn.leaky_relu, negative_slope=slope) if slope else nn.relu
