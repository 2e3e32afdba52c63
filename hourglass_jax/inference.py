"""Crops -> joints: what evaluation and prediction share."""

import dataclasses
import functools

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
        outputs = self.answers(variables, self.views(images, flip=flip))
        return self.averaged(outputs) if flip else outputs

    def views(self, images: jax.Array, *, flip: bool) -> jax.Array:
        """What the model is to see of images: as many, or twice as many with the mirrored ones at the end."""
        images = images - jnp.asarray(self.mean)
        return jnp.concatenate([images, images[:, :, ::-1]]) if flip else images

    def answers(self, variables: dict, views: jax.Array) -> Outputs:
        """As `outputs`, of each of the `views` for itself."""
        maps, coordinates, attention = self.model.apply(variables, views, train=False)
        if self.logits:
            maps = tuple(heatmaps.from_logits(m, sigma=self.sigma) for m in maps)
        if self.signed:  # before the average: one of the two may take the joint for visible
            maps = tuple(jnp.abs(m) for m in maps)
        return Outputs(maps, coordinates, attention)

    def averaged(self, outputs: Outputs) -> Outputs:
        """Of images and, after them, the mirrored ones: the means, as the images have it."""
        maps, coordinates, attention = outputs
        b = len(maps[0]) // 2
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


class Estimator:
    """estimate(variables, canvases) -> (joints, scores, maps to look at); to be jit-compiled, or its steps:
    `views`, `network.answers` and `result`.

    canvases are (b, canvas, canvas, 3) uint8; joints (b, s, k, 2) in input pixels and scores (b, s, k)
    for each of the s stacks. The maps to look at are the last stack's heatmaps (b, h, w, k), their mean over
    all cells (b, k), and the attention by name, as `outputs` has them. A network that regresses coordinates
    answers once: s is 1.

    Args:
      network: with its meaning.
      canvas: side of the canvases, px; margin: its side / side of the nominal crop. Scales below 1 / margin
        see black around the canvas.
      flip: average with the mirrored image.
      scales: of a pyramid (Chu and Tang: 0.7, 0.8, 0.9, 1.0, 1.1, 1.2): at 1.2 the person is 1.2 times
        larger, and the crop 1.2 times smaller. Every scale goes through the network's one input size, so that
        one program serves all and a scale changes what training varied, the person's size, and nothing else.
        As one program all scales of a batch run at once: memory grows with their number.
      decode: see `heatmaps.decode`; coordinates need none.
    """

    def __init__(
        self,
        network: Network,
        *,
        canvas: int,
        margin: float,
        flip: bool,
        scales: tuple[float, ...] = (1.0,),
        decode: str = "quarter",
    ):
        self.network, self._canvas, self._margin = network, canvas, margin
        self._flip, self._scales, self._decode = flip, tuple(scales), decode
        check_scales(self._scales)
        heatmaps.check_method(decode)

    def __call__(self, variables, canvases):
        return self.result(self.network.answers(variables, self.views(canvases)))

    def views(self, canvases: jax.Array) -> jax.Array:
        """All that the model is to see of canvases (b, canvas, canvas, 3), (v b, size, size, 3)."""
        views = [
            augment.plain(canvases, size=self.network.size, canvas=self._canvas, margin=self._margin * scale)
            for scale in self._scales
        ]
        # Each person's views side by side: a batch that is spread over devices stays where it is.
        images = jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
        return self.network.views(images, flip=self._flip)

    def result(self, outputs: Outputs):
        """Joints, scores and maps of b canvases from the outputs of their views."""
        outputs = self.network.averaged(outputs) if self._flip else outputs
        maps, coordinates, attention = merged(outputs, self._scales)
        seen = {"heatmaps": maps[-1], "attention": attention or {}, "mean": maps[-1].mean(axis=(1, 2))}
        return *joints_of(self.network, Outputs(maps, coordinates), decode=self._decode), seen


def check_scales(scales: tuple[float, ...]) -> None:
    """Raises a ValueError where `Estimator` takes no such scales."""
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"scales={scales} must be one or more numbers above 0, such as (0.9, 1.0, 1.1).")


def joints_of(network: Network, outputs: Outputs, *, decode: str = "quarter") -> tuple[jax.Array, jax.Array]:
    """Joints (b, s, k, 2) in input pixels and scores (b, s, k) for each of the s stacks of `Network.outputs`;
    s is 1 where the network regresses coordinates. `decode`: see `heatmaps.decode`; coordinates need none."""
    maps, coordinates = outputs.heatmaps, outputs.coordinates
    if coordinates is not None:
        scores = heatmaps.value_at(maps[-1], coordinates * maps[-1].shape[1])
        return coordinates[:, None] * network.size, scores[:, None]
    decoded = []
    for stack in maps:
        joints, scores = heatmaps.decode(stack, method=decode, sigma=network.sigma)
        decoded.append((joints * (network.size / stack.shape[1]), scores))
    joints, scores = (jnp.stack(values, axis=1) for values in zip(*decoded, strict=True))
    return joints, scores


def merged(outputs: Outputs, scales: tuple[float, ...]) -> Outputs:
    """Averages the views of a pyramid, each brought to the nominal crop first.

    Args:
      outputs: of views (b * scales): maps (b * scales, h, w, k) and coordinates (b * scales, k, 2).
      scales: how much larger than nominal a view shows the person, about the middle.

    Returns:
      Outputs of the nominal crop, of b in the place of b * scales.
    """
    if scales == (1.0,):
        return outputs
    average = functools.partial(_average, scales=scales)
    maps, attention = jax.tree.map(average, (outputs.heatmaps, outputs.attention))
    coordinates = outputs.coordinates
    if coordinates is not None:
        views = coordinates.reshape(-1, len(scales), *coordinates.shape[1:])
        coordinates = (0.5 + (views - 0.5) / jnp.array(scales)[:, None, None]).mean(axis=1)
    return Outputs(maps, coordinates, attention)


def _average(maps, scales):
    views = maps.reshape(-1, len(scales), *maps.shape[1:])
    total = sum(nominal(views[:, i], scale) for i, scale in enumerate(scales))
    # A cell counts in the views that see it; what none sees is 0.
    seen = sum(nominal(jnp.ones((1, *maps.shape[1:3], 1)), scale) for scale in scales)
    return total / jnp.maximum(seen, 1)


def nominal(maps: jax.Array, scale: float) -> jax.Array:
    """Maps of a view, resampled linearly to the cells of the nominal crop; 0 where the view ends.

    A Gaussian becomes `scale` times narrower, about the place where it belongs.

    Args:
      maps: (b, h, w, k) of a crop that is 1 / scale of the nominal one, about the same middle.
      scale: above 0.
    """
    middle = jnp.array(maps.shape[1:3]) / 2
    # JAX's coordinates are this project's: cell i covers [i, i + 1).
    return jax.image.scale_and_translate(
        maps, maps.shape, (1, 2), jnp.full(2, 1 / scale), middle * (1 - 1 / scale), "linear", antialias=False
    )


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
