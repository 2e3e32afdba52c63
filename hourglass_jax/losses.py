"""Losses on heatmaps: arrays in, a number out."""

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
        cells = maps.shape[1]
        targets = heatmaps.render(joints * (cells / size), shown, size=cells, sigma=sigma)
        per_stack.append(KINDS[kind](maps, targets, weights))
    return sum(per_stack), jnp.stack(per_stack)
