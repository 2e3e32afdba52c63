"""Losses on heatmaps and coordinates: arrays in, a number out."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from hourglass_jax import heatmaps


def mean_squared_error(maps: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The papers' loss: mean over cells and joints of (map - target)^2.

    Args:
      maps, targets: (b, h, w, k).
      weights: (b, k), 0 leaves a joint out; the mean is over what is left.
    """
    error = jnp.mean((maps - targets) ** 2, axis=(1, 2))  # b k
    return jnp.sum(error * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Spatial cross-entropy: -sum_cells q log softmax(logits), q = target / sum(target).

    It leaves the plateau of the all-zero map much sooner than the squared error, whose targets cover
    less than one per cent of the cells. It says nothing on joints without a target: those (not
    labelled, or outside of the input) are left out.

    Args:
      logits, targets: (b, h, w, k), targets >= 0.
      weights: (b, k).
    """
    b, h, w, k = logits.shape
    log_share = jax.nn.log_softmax(logits.reshape(b, h * w, k), axis=1)
    targets = targets.reshape(b, h * w, k)
    total = jnp.sum(targets, axis=1)  # b k
    # Less than a tenth of a cell's peak inside the input is no position to learn.
    weights = weights * (total > 0.1)
    error = -jnp.sum(targets * log_share, axis=1) / jnp.maximum(total, 0.1)
    return jnp.sum(error * weights) / jnp.maximum(jnp.sum(weights), 1.0)


KINDS = {"mean_squared_error": mean_squared_error, "cross_entropy": cross_entropy}


def coordinates_error(coordinates: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_joints |coordinates - target|^2 (Selvam and Mishra, equation 8), mean over people.

    Args:
      coordinates, targets: (b, k, 2).
      weights: (b, k), 0 leaves a joint out.
    """
    error = jnp.sum((coordinates - targets) ** 2, axis=-1)  # b k
    return jnp.mean(jnp.sum(error * weights, axis=-1))


def kernel_squares(params: dict) -> jax.Array:
    """The sum of the squares of all kernels; biases and norms are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(jnp.sum(leaf**2) for path, leaf in leaves if path[-1].key == "kernel")


def on_heatmaps(
    outputs,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    sigma: float,
    kind: str,
    mask_unlabelled: bool,
) -> tuple[jax.Array, jax.Array]:
    """The loss of every stack against the same joints (Newell 3.2), summed.

    Args:
      outputs: `models.outputs.Outputs`.
      joints: (b, k, 2) input pixels.
      visible: (b, k) flags, 0 where a joint is not labelled.
      size: side of the input, px.
      sigma: of the targets, in cells.
      kind: a name in `KINDS`.
      mask_unlabelled: joints that are not labelled count nothing; otherwise their target is zero.

    Returns:
      the sum over stacks, and the losses of the stacks (s,).
    """
    shown = visible > 0
    weights = shown.astype(jnp.float32) if mask_unlabelled else jnp.ones(shown.shape)
    per_stack = []
    for maps in outputs.heatmaps:
        if maps.shape[-1] != joints.shape[1]:
            raise ValueError(
                f"loss.kind={kind!r} compares a heatmap of each joint; the model makes {maps.shape[-1]} for "
                f"{joints.shape[1]} joints. One for all joints goes with loss.kind='coordinates'."
            )
        cells = maps.shape[1]
        targets = heatmaps.render(joints * (cells / size), shown, size=cells, sigma=sigma)
        per_stack.append(KINDS[kind](maps, targets, weights))
    return sum(per_stack), jnp.stack(per_stack)


def on_coordinates(
    outputs,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    sigma: float,
    heatmap_weight: float,
) -> tuple[jax.Array, jax.Array]:
    """The loss of coordinates and of heatmaps in which every joint has its Gaussian (Selvam and Mishra 3).

    Args:
      outputs: `models.outputs.Outputs` with coordinates; its heatmaps have one channel.
      joints: (b, k, 2) input pixels.
      visible: (b, k) flags; a joint that is not labelled counts nothing, and has no Gaussian.
      size: side of the input, px.
      sigma: of the targets, in cells.
      heatmap_weight: of the heatmaps' mean squared errors.

    Returns:
      the weighted sum, and the losses of the stacks' heatmaps (s,).
    """
    if outputs.coordinates is None:
        raise ValueError("loss.kind='coordinates' needs a model that regresses them, for instance selvam.")
    shown = visible > 0
    per_stack = []
    for maps in outputs.heatmaps:
        cells = maps.shape[1]
        each = heatmaps.render(joints * (cells / size), shown, size=cells, sigma=sigma)
        # The largest, so that a peak is 1 where joints lie close together too; their sum would move it.
        target = jnp.max(each, axis=-1, keepdims=True)
        per_stack.append(mean_squared_error(maps, target, jnp.ones((maps.shape[0], 1))))
    error = coordinates_error(outputs.coordinates, joints / size, shown.astype(jnp.float32))
    return error + heatmap_weight * sum(per_stack), jnp.stack(per_stack)


def create(*, kind: str, size: int, sigma: float, mask_unlabelled: bool, heatmap_weight: float) -> Callable:
    """The loss (outputs, joints, visible) -> (value, value of each stack) that `config.loss` names."""
    if kind == "coordinates":
        return functools.partial(on_coordinates, size=size, sigma=sigma, heatmap_weight=heatmap_weight)
    if kind not in KINDS:
        known = ", ".join([*KINDS, "coordinates"])
        raise ValueError(f"loss.kind={kind!r} is unknown; choose from {known}.")
    return functools.partial(on_heatmaps, size=size, sigma=sigma, kind=kind, mask_unlabelled=mask_unlabelled)
