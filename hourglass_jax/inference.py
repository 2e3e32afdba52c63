"""Crops -> joints: shared by evaluation and prediction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import augment, crop, heatmaps


class Estimator:
    """estimate(variables, canvases) -> (joints, scores, maps to look at).

    To be jit-compiled as a whole, or by its steps: `views`, `network.forward` and `result`.

    canvases are (b, canvas, canvas, 3) uint8; joints (b, s, k, 2) in input pixels and scores (b, s, k)
    for each of the s stacks. The maps to look at are the last stack's heatmaps (b, h, w, k), their mean over
    all cells (b, k), of every stack the largest value at each cell (b, h, w), and the attention by name, as
    `outputs` has them. For a network that regresses coordinates s is 1.

    Args:
      network: with its meaning.
      canvas: side of the canvases, px; margin: its side / side of the nominal crop. Scales below 1 / margin
        see black around the canvas.
      flip: average with the mirrored image.
      scales: of a pyramid: at 1.2 the person is 1.2 times larger, and the crop 1.2 times smaller. The papers
        state factors of the crop's size, the inverse: Chu's 0.7 to 1.2 are scales 1.43 to 0.83. Every scale
        goes through the network's one input size, so that one program serves all, and a scale changes only
        the person's size, which training varied, too. As one program all scales of a batch run at
        once: memory grows with their number.
      decode: see `heatmaps.decode`; coordinates need none.
      released: average the pyramid as Chu's release does: negative values become 0 first, and every view
        counts everywhere, with 0 where it ends. By default a cell's mean is over the views that see it.
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
        """All that the estimate depends on besides the network's structure (`network.about`) and the code."""
        meaning = {name: value for name, value in vars(self.network).items() if name != "model"}
        return [meaning, {name: value for name, value in vars(self).items() if name != "network"}]

    def __call__(self, variables: dict, canvases: jax.Array) -> tuple[jax.Array, jax.Array, dict]:
        return self.result(self.network.forward(variables, self.views(canvases)))

    def views(self, canvases: jax.Array) -> jax.Array:
        """The model's inputs for canvases (b, canvas, canvas, 3): (v b, size, size, 3), v views of each."""
        views = [
            augment.plain(canvases, size=self.network.size, canvas=self._canvas, margin=self._margin * scale)
            for scale in self._scales
        ]
        # Each person's views are neighbours: a batch that is spread over devices stays where it is.
        images = jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
        return self.network.views(images, flip=self._flip)

    def result(self, outputs: Outputs) -> tuple[jax.Array, jax.Array, dict]:
        """Joints, scores and maps of b canvases from the outputs of their views."""
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
    """Raises a ValueError for scales that `Estimator` does not take."""
    # At 0.1 a canvas has 100 times the pixels of the input; below, memory ends.
    if not scales or not all(0.1 <= scale <= 10 for scale in scales):
        raise ValueError(
            f"scales={scales} must be one or more numbers from 0.1 to 10, such as (0.9, 1.0, 1.1)."
        )


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


def merged(outputs: Outputs, scales: tuple[float, ...], *, released: bool = False) -> Outputs:
    """Averages the views of a pyramid, each brought to the nominal crop first.

    Args:
      outputs: of views (b * scales): maps (b * scales, h, w, k) and coordinates (b * scales, k, 2).
      scales: how much larger than nominal a view shows the person, about the middle.
      released: see `Estimator`; attention is averaged over the views that see it, in any case.

    Returns:
      Outputs of the nominal crop, of b in the place of b * scales.
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
    # A cell counts in the views that see it; a cell that no view sees is 0.
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
