"""Multi-Scale Stacked Hourglass Network for Human Pose Estimation (under review at ICLR 2019)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import layers
from hourglass_jax.models.layers import Part
from hourglass_jax.models.outputs import Outputs

FUSIONS = ("addition", "concatenation")


class InceptionResnet(nn.Module):
    """Two parallel branches, 1x1-3x3 and 1x1-3x3-3x3, a linear 1x1 on both, plus identity (Figure 5).

    The text does not give the figure's widths. Here each branch has a quarter of C, so that both together are
    as wide as the bottleneck of the residual unit. Norm and ReLU precede each convolution, as in that unit.
    """

    width: int
    conv: Part
    norm: Part
    halved: bool = False  # inception-resnet-B: the deep branch works at half the resolution

    @nn.compact
    def __call__(self, x):
        self._check(x)
        before = nn.relu(self.norm(name="norm")(x))
        shallow = self._convolve("shallow", before, windows=(1, 3))
        deep = self._convolve("deep", layers.max_pool(before) if self.halved else before, windows=(1, 3, 3))
        both = jnp.concatenate([shallow, layers.upsample(deep) if self.halved else deep], axis=-1)  # C/2
        # The concatenated features are normalised before they are transformed (3.3).
        y = self.conv(self.width, (1, 1), name="linear")(nn.relu(self.norm(name="linear_norm")(both)))
        if x.shape[-1] != self.width:
            x = self.conv(self.width, (1, 1), name="skip")(x)
        return x + y

    def _convolve(self, branch, x, windows):
        for i, window in enumerate(windows):
            if i:  # both branches share the norm of the input
                x = nn.relu(self.norm(name=f"{branch}_norm{i}")(x))
            x = self.conv(self.width // 4, (window, window), name=f"{branch}_conv{i}")(x)
        return x

    def _check(self, x):
        if self.width % 4:
            raise ValueError(f"An inception-resnet needs a width divisible by 4, not {self.width}.")
        if self.halved and (x.shape[1] % 2 or x.shape[2] % 2):
            raise ValueError(f"inception_b cannot halve {x.shape[1]} x {x.shape[2]} cells.")


# The blocks of the hourglasses (3.3) and of the pre-processing. For the latter the introduction says
# "residual networks" and 5.2.3 "inception-resnet".
BLOCKS = {
    "inception_a": InceptionResnet,
    "inception_b": functools.partial(InceptionResnet, halved=True),
    "residual": layers.Unit,
}


class PreProcessing(nn.Module):
    """Image to features of several scales, by branches of different depth (3.2, Figure 4).

    The widths are those of Newell's stem, which equals the branch of stride 4. `lateral` connections lead
    from each scale to the next larger one, as in a feature pyramid (5.2.3, Figure 7).
    Returns features (b, h / stride, w / stride, C) by stride.
    """

    strides: Sequence[int]
    width: int
    conv: Part
    norm: Part
    unit: Part
    lateral: bool = False

    @nn.compact
    def __call__(self, x):
        if x.shape[1] % max(self.strides) or x.shape[2] % max(self.strides):
            raise ValueError(
                f"An image of {x.shape[1]} x {x.shape[2]} px is not divisible by {max(self.strides)}."
            )
        # 7x7/2, padded as in Torch.
        x = self.conv(self.width // 4, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x))
        x = self.unit(self.width // 2, name="unit")(x)  # 128 px of 256
        features, smaller = {}, None
        for stride in sorted(set(self.strides), reverse=True):  # small maps first
            y = x
            for i in range(stride.bit_length() - 2):  # once for stride 4, twice for 8
                y = self.unit(self.width // 2, name=f"stride{stride}_unit{i}")(layers.max_pool(y))
            y = self.unit(self.width, name=f"stride{stride}_last")(y)
            if self.lateral and smaller:
                lateral = self.conv(self.width, (1, 1), name=f"stride{stride}_lateral")(y)
                y = lateral + enlarge(features[smaller], smaller // stride)
            features[stride], smaller = y, stride
        return features


def enlarge(x: jax.Array, factor: int) -> jax.Array:
    """Nearest-neighbour upsampling by a power of two: (b, h, w, c) -> (b, h * factor, w * factor, c)."""
    for _ in range(factor.bit_length() - 1):
        x = layers.upsample(x)
    return x


class Model(nn.Module):
    """S hourglasses in a row, from small features (semantic context) to large ones (precise positions).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 2**depth times
    every stride. Returns `Outputs` with S heatmaps (b, h / stride, w / stride, joints) float32.

    With every stride 4, residual units and addition this is Newell's network.
    """

    joints: int = 16
    stacks: int = 8
    width: int = 256
    depth: int = 4  # of each hourglass, at every scale; the paper gives none
    # Input px per cell, by stack, not increasing. Empty: from 8 to 2 in three equal shares; for eight stacks
    # and an input of 256 px these are features of 32, 32, 64, 64, 64, 128, 128 and 128 px.
    strides: Sequence[int] = ()
    block: str = "inception_a"  # inception_b, residual
    fusion: str = "addition"  # how a scale's features are joined with the previous stack's; or concatenation
    lateral: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        strides = self.strides_of_stacks()
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(BLOCKS[self.block], conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        point = functools.partial(conv, kernel_size=(1, 1))
        pre_processing = PreProcessing(
            strides, self.width, conv, norm, unit, self.lateral, name="pre_processing"
        )

        features = pre_processing(image.astype(self.dtype))
        heatmaps, handed_on = [], jnp.zeros((), self.dtype)
        for s, stride in enumerate(strides):
            x = features[stride]  # 32, 64 or 128 px
            if s:  # 5.2.4
                handed_on = enlarge(handed_on, strides[s - 1] // stride)
                if self.fusion == "addition":
                    x = x + handed_on
                else:
                    both = jnp.concatenate([x, handed_on], axis=-1)  # 2 C
                    x = point(self.width, name=f"stack{s}_fusion")(both)
            y = layers.Hourglass(self.depth, full, name=f"stack{s}_hourglass")(x)[-1]
            y = full(name=f"stack{s}_unit")(y)
            y = point(self.width, name=f"stack{s}_lin")(y)
            y = nn.relu(norm(name=f"stack{s}_lin_norm")(y))
            maps = point(self.joints, name=f"stack{s}_heatmaps")(y)
            heatmaps.append(layers.at_least_float32(maps))
            if s + 1 < self.stacks:
                # Summed over the stacks, as in Newell's network; but the features of the next stack's own
                # scale replace that network's first features.
                y = point(self.width, name=f"stack{s}_remap_features")(y)
                handed_on = handed_on + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return Outputs(heatmaps=tuple(heatmaps))

    def strides_of_stacks(self) -> tuple[int, ...]:
        """Input px per cell, by stack.

        Raises:
          ValueError: a field has a wrong value.
        """
        for name, value, known in (("block", self.block, BLOCKS), ("fusion", self.fusion, FUSIONS)):
            if value not in known:
                raise ValueError(f"model.{name}={value!r} is unknown; choose from {', '.join(known)}.")
        if not self.strides:
            return tuple(8 >> (3 * s + 2) // self.stacks for s in range(self.stacks))
        strides = tuple(self.strides)
        powers = all(stride > 1 and stride.bit_count() == 1 for stride in strides)
        if len(strides) != self.stacks or not powers or list(strides) != sorted(strides, reverse=True):
            raise ValueError(
                f"model.strides={strides} must be {self.stacks} powers of two from 2 on, one for each "
                "stack, large (small features) first."
            )
        return strides
