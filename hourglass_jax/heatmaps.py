"""Heatmaps: joints -> Gaussians, and heatmaps -> joints, side by side.

Positions are in heatmap cells, continuous: cell i covers [i, i + 1), its centre is i + 0.5 (see
`data/crop.py`, which also owns the map between cells, input pixels and image pixels).
"""

import math

import jax
import jax.numpy as jnp


def render(joints: jax.Array, shown: jax.Array, *, size: int, sigma: float) -> jax.Array:
    """Gaussian targets: peak 1, cut off at 3 sigma.

    The Gaussian lies at the joint's exact position, not at the nearest cell as in the released codes:
    the neighbours of the largest cell then tell where between the cells the joint is.

    Args:
      joints: (b, k, 2) cells.
      shown: (b, k) bool; False gives an all-zero map (Newell 5.3: its error still counts).
      size: cells along each side.
      sigma: standard deviation in cells.

    Returns:
      (b, size, size, k) float32 in [0, 1].
    """
    distance = jnp.arange(size) + 0.5 - joints[..., None]  # b k (x, y) cells
    # A two-dimensional Gaussian is the product of two one-dimensional ones; the window is square.
    line = jnp.exp(-(distance**2) / (2 * sigma**2)) * (jnp.abs(distance) <= 3 * sigma)
    return jnp.einsum("bkx,bky->byxk", line[:, :, 0] * shown[..., None], line[:, :, 1])


def decode(heatmaps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest cell, a quarter cell towards the higher neighbour in x and in y (Newell's evaluation).

    Args:
      heatmaps: (b, h, w, k) float.

    Returns:
      joints (b, k, 2) float32 in cells; scores (b, k) float32, the heatmap's value at that cell.
    """
    b, h, w, k = heatmaps.shape
    flat = heatmaps.astype(jnp.float32).reshape(b, h * w, k)
    index = jnp.argmax(flat, axis=1)  # b k; the first of equals
    y, x = index // w, index % w

    def at(y, x):
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        cell = jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)
        value = jnp.take_along_axis(flat, cell[:, None], axis=1)[:, 0]
        return jnp.where(inside, value, -jnp.inf)

    # At the border the neighbour inside counts as the higher one only against nothing: no shift.
    towards_x = _direction(at(y, x - 1), at(y, x + 1))
    towards_y = _direction(at(y - 1, x), at(y + 1, x))
    joints = jnp.stack([x + 0.5 + 0.25 * towards_x, y + 0.5 + 0.25 * towards_y], axis=-1)
    return joints.astype(jnp.float32), at(y, x)


def value_at(heatmaps: jax.Array, joints: jax.Array) -> jax.Array:
    """Scores of joints that were found in another way: the value of the cell that each lies in.

    Args:
      heatmaps: (b, h, w, 1), one channel for all joints.
      joints: (b, k, 2) cells.

    Returns:
      (b, k) float32, 0 outside of the heatmap.
    """
    h, w = heatmaps.shape[1:3]
    x, y = jnp.moveaxis(jnp.floor(joints).astype(jnp.int32), -1, 0)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    people = jnp.arange(heatmaps.shape[0])[:, None]
    cells = heatmaps[people, jnp.clip(y, 0, h - 1), jnp.clip(x, 0, w - 1), 0]
    return jnp.where(inside, cells, 0.0).astype(jnp.float32)


def _direction(low, high):
    known = jnp.isfinite(low) & jnp.isfinite(high)
    return jnp.where(known, jnp.sign(high - low), 0.0)


def from_logits(logits: jax.Array, *, sigma: float) -> jax.Array:
    """Heatmaps of a network that was trained with the cross-entropy of `losses.cross_entropy`.

    The softmax over all cells, times the sum of a Gaussian: a perfect map has its peak at 1, like the
    targets, so that scores of both kinds of networks can be compared.

    Args:
      logits: (b, h, w, k).
      sigma: of the targets, in cells.

    Returns:
      (b, h, w, k) float32 in [0, 1]; a map that is sharper than its target is cut off at 1.
    """
    b, h, w, k = logits.shape
    share = jax.nn.softmax(logits.astype(jnp.float32).reshape(b, h * w, k), axis=1)
    return jnp.minimum(share.reshape(b, h, w, k) * (2 * math.pi * sigma**2), 1.0)
