"""Estimates joints from crops, for evaluation and prediction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import augment, crop, heatmaps


class Estimator:
    """estimate(variables, canvases) -> (joints, scores, maps for display).

    It can be jit-compiled as a whole, or in its steps: `views`, `network.forward` and `result`.

    canvases are (b, canvas, canvas, 3) uint8; joints (b, s, k, 2) in input pixels and scores (b, s, k)
    for each of the s stacks. The maps for display are the last stack's heatmaps (b, h, w, k), their mean over
    all cells (b, k), every stack's largest value at each cell (b, h, w), and the attention by name, as
    `outputs` has it. For a network that regresses coordinates s is 1.

    Args:
      network: the network, with its joints, input size and mean.
      canvas: side of the canvases, px; margin: this side / side of the nominal crop. At scales below
        1 / margin the network sees black around the canvas.
      flip: average with the flipped image.
      scales: average over these: at 1.2 the person is 1.2 times larger, and the crop 1.2 times smaller. The
        papers state factors of the crop's size, the inverse: Chu's 0.7 to 1.2 are scales 1.43 to 0.83. Every
        scale uses the network's input size, so that one program serves all scales, and a scale changes only
        the person's size, which training varied, too. Compiled as one program, all scales of a batch run
        together: memory grows with their number.
      decode: see `heatmaps.decode`; coordinates need no decoding.
      released: average over scales as Chu's release does: negative values become 0 first, and every view
        counts everywhere, with 0 outside of it. By default a cell's mean is over the views that contain it.
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
        released: bool = False,
    ):
        self.network, self._canvas, self._margin = network, canvas, margin
        self._flip, self._scales, self._decode = flip, tuple(scales), decode
        self._released = released
        check_scales(self._scales)
        heatmaps.check_method(decode)

    def about(self) -> list[dict]:
        """Everything on which the estimate depends, except the network's structure (`network.about`) and the
        code."""
        meaning = {name: value for name, value in vars(self.network).items() if name != "model"}
        return [meaning, {name: value for name, value in vars(self).items() if name != "network"}]

    def __call__(self, variables: dict, canvases: jax.Array) -> tuple[jax.Array, jax.Array, dict]:
        return self.result(self.network.forward(variables, self.views(canvases)))

    def views(self, canvases: jax.Array) -> jax.Array:
        """The model's inputs (v b, size, size, 3), v views of each of the canvases (b, canvas, canvas, 3)."""
        views = [
            augment.plain(canvases, size=self.network.size, canvas=self._canvas, margin=self._margin * scale)
            for scale in self._scales
        ]
        # Each person's views are neighbours, so that a batch that is spread over devices stays in place.
        images = jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
        return self.network.views(images, flip=self._flip)

    def result(self, outputs: Outputs) -> tuple[jax.Array, jax.Array, dict]:
        """Joints, scores and maps of b canvases, from the outputs for their views."""
        outputs = self.network.averaged(outputs) if self._flip else outputs
        maps, coordinates, attention = merged(outputs, self._scales, released=self._released)
        seen = {
            "heatmaps": maps[-1],
            "stacks": tuple(of_stack.max(axis=-1) for of_stack in maps),
            "attention": attention or {},
            "mean": maps[-1].mean(axis=(1, 2)),
        }
        return *joints_of(self.network, Outputs(maps, coordinates), decode=self._decode), seen


def check_scales(scales: tuple[float, ...]) -> None:
    """Raises a ValueError for scales that `Estimator` does not support."""
    # At 0.1 a canvas has 100 times the pixels of the input; smaller scales would exceed the memory.
    if not scales or not all(0.1 <= scale <= 10 for scale in scales):
        raise ValueError(
            f"scales={scales} must be one or more numbers from 0.1 to 10, such as (0.9, 1.0, 1.1)."
        )


def joints_of(network: Network, outputs: Outputs, *, decode: str = "quarter") -> tuple[jax.Array, jax.Array]:
    """Joints (b, s, k, 2) in input pixels and scores (b, s, k) for each of the s stacks of `Network.outputs`.

    s is 1 if the network regresses coordinates. `decode`: see `heatmaps.decode`; coordinates need no
    decoding.
    """
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


def merged(outputs: Outputs, scales: tuple[float, ...], *, released: bool = False) -> Outputs:
    """Averages the views of several scales, after resampling each to the nominal crop.

    Args:
      outputs: of the b * scales views: maps (b * scales, h, w, k) and coordinates (b * scales, k, 2).
      scales: how many times larger than nominal each view shows the person, around the middle.
      released: see `Estimator`; attention is always averaged over the views that contain the cell.

    Returns:
      Outputs of the nominal crop, for b people instead of b * scales views.
    """
    if scales == (1.0,):
        return outputs
    average = functools.partial(_average, scales=scales)
    of_joints = functools.partial(average, released=released)
    maps, attention = jax.tree.map(of_joints, outputs.heatmaps), jax.tree.map(average, outputs.attention)
    coordinates = outputs.coordinates
    if coordinates is not None:
        views = coordinates.reshape(-1, len(scales), *coordinates.shape[1:])
        coordinates = (0.5 + (views - 0.5) / jnp.array(scales)[:, None, None]).mean(axis=1)
    return Outputs(maps, coordinates, attention)


def _average(maps: jax.Array, scales: tuple[float, ...], released: bool = False):
    maps = jnp.maximum(maps, 0) if released else maps
    views = maps.reshape(-1, len(scales), *maps.shape[1:])
    total = sum(nominal(views[:, i], scale) for i, scale in enumerate(scales))
    if released:
        return total / len(scales)
    # Average each cell over the views that contain it; a cell outside of all views is 0.
    seen = sum(nominal(jnp.ones((1, *maps.shape[1:3], 1)), scale) for scale in scales)
    return total / jnp.maximum(seen, 1)


def nominal(maps: jax.Array, scale: float) -> jax.Array:
    """Maps of a view, resampled linearly to the cells of the nominal crop; 0 outside of the view.

    A Gaussian becomes `scale` times narrower, at its place in the nominal crop.

    Args:
      maps: (b, h, w, k) of a crop with 1 / scale of the nominal crop's size, around the same middle.
      scale: above 0.
    """
    middle = jnp.array(maps.shape[1:3]) / 2
    # JAX uses the same coordinates as this project: cell i covers [i, i + 1).
    return jax.image.scale_and_translate(
        maps, maps.shape, (1, 2), jnp.full(2, 1 / scale), middle * (1 - 1 / scale), "linear", antialias=False
    )


def image_joints(joints: np.ndarray, center: np.ndarray, scale: np.ndarray, *, size: int) -> np.ndarray:
    """Converts joints from input pixels to image pixels.

    Args:
      joints: (b, ..., k, 2) pixels of the input.
      center: (b, 2) px of the picture; scale: (b,).
      size: side of the input.

    Returns:
      float64, with the shape of `joints`.
    """
    input_from_image = crop.square(
        np.asarray(center, np.float64), np.asarray(scale, np.float64) * crop.REFERENCE, size
    )
    inverse = crop.invert(input_from_image)
    flat = np.asarray(joints, np.float64).reshape(len(joints), -1, 2)
    return crop.apply(inverse, flat).reshape(joints.shape)
