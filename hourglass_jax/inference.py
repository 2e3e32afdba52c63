"""Crops -> joints: what evaluation and prediction share."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import heatmaps
from hourglass_jax.data import augment, crop
from hourglass_jax.data.skeletons import Skeleton
from hourglass_jax.models.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Network:
    """A model with what its inputs and outputs mean.

    Attributes:
      model: returns `models.outputs.Outputs`.
      skeleton: its joints.
      size: side of its input, px.
      mean: of the channels, subtracted from images in [0, 1].
      sigma: of its targets, in cells.
      logits: its heatmaps are those of a spatial cross-entropy.
      signed: its targets are negative for occluded joints (MSSH, equation 1): a joint is where the heatmap
        is far from 0. The paper does not say how it finds them.
    """

    model: nn.Module
    skeleton: Skeleton
    size: int
    mean: tuple[float, float, float]
    sigma: float
    logits: bool
    signed: bool = False

    def outputs(self, variables: dict, images: jax.Array, *, flip: bool) -> Outputs:
        """Heatmaps of each stack, (b, h, w, k) in about [0, 1] with one channel for all joints or one for
        each, coordinates (b, k, 2) in [0, 1] of the input where the model regresses them, and attention
        maps (b, h, w, m) in [0, 1] where it has any, m like k.

        Args:
          variables: {"params", "batch_stats"}.
          images: (b, size, size, 3) in [0, 1].
          flip: average with the mirrored image's outputs, mirrored back, sides swapped.
        """
        b = images.shape[0]
        images = images - jnp.asarray(self.mean)
        if flip:
            images = jnp.concatenate([images, images[:, :, ::-1]])
        maps, coordinates, attention = self.model.apply(variables, images, train=False)
        if self.logits:
            maps = tuple(heatmaps.from_logits(m, sigma=self.sigma) for m in maps)
        if self.signed:  # before the average: one of the two may take the joint for visible
            maps = tuple(jnp.abs(m) for m in maps)
        if flip:
            maps, attention = jax.tree.map(
                lambda m: (m[:b] + self._swap(m[b:, :, ::-1], axis=3)) / 2, (maps, attention)
            )
            if coordinates is not None:
                mirrored = self._swap(coordinates[b:], axis=1) * jnp.array([-1, 1]) + jnp.array([1, 0])
                coordinates = (coordinates[:b] + mirrored) / 2
        return Outputs(maps, coordinates, attention)

    def _swap(self, values, axis):
        """Left and right joints change places; a channel for all joints has no sides."""
        return values if values.shape[axis] == 1 else jnp.take(values, self.skeleton.flip, axis=axis)


def estimator(network: Network, *, canvas: int, margin: float, flip: bool) -> Callable:
    """Makes estimate(variables, canvases) -> (joints, scores, maps to look at); to be jit-compiled.

    canvases are (b, canvas, canvas, 3) uint8; joints (b, s, k, 2) in input pixels and scores (b, s, k)
    for each of the s stacks. The maps to look at are the last stack's heatmaps (b, h, w, k) and the
    attention by name, both as `outputs` has them. A network that regresses coordinates answers once: s is 1.
    """

    def estimate(variables, canvases):
        images = augment.plain(canvases, size=network.size, canvas=canvas, margin=margin)
        maps, coordinates, attention = network.outputs(variables, images, flip=flip)
        seen = {"heatmaps": maps[-1], "attention": attention or {}}
        if coordinates is not None:
            scores = heatmaps.value_at(maps[-1], coordinates * maps[-1].shape[1])
            return coordinates[:, None] * network.size, scores[:, None], seen
        decoded = []
        for stack in maps:
            joints, scores = heatmaps.decode(stack)
            decoded.append((joints * (network.size / stack.shape[1]), scores))
        joints, scores = (jnp.stack(values, axis=1) for values in zip(*decoded, strict=True))
        return joints, scores, seen

    return estimate


def image_joints(joints: np.ndarray, center: np.ndarray, scale: np.ndarray, *, size: int) -> np.ndarray:
    """Joints from input pixels to image pixels.

    Args:
      joints: (b, ..., k, 2) pixels of the input.
      center: (b, 2) px of the picture; scale: (b,).
      size: side of the input.

    Returns:
      float64, of the shape of joints.
    """
    input_from_image = crop.square(
        np.asarray(center, np.float64), np.asarray(scale, np.float64) * crop.REFERENCE, size
    )
    inverse = crop.invert(input_from_image)
    flat = np.asarray(joints, np.float64).reshape(len(joints), -1, 2)
    return crop.apply(inverse, flat).reshape(joints.shape)
