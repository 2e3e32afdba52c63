"""Heatmaps: encoding of joints as Gaussians, and decoding.

Positions are in heatmap cells, continuous: cell i covers [i, i + 1), its centre is i + 0.5. `pose/crop.py`
has the maps between cells, input pixels and image pixels.
"""

import math

import jax
import jax.numpy as jnp

METHODS = ("quarter", "argmax", "dark", "soft_argmax")


def render(
    joints: jax.Array, shown: jax.Array, *, size: int, sigma: float, window: int = 0, at_cell: bool = False
) -> jax.Array:
    """Gaussian targets: peak 1, cut off at 3 sigma or at a window's edge.

    By default the Gaussian is centred on the joint's exact position, and not on its cell as in the released
    codes. Then the neighbours of the largest cell show where between the cells the joint is.

    Args:
      joints: (b, k, 2) cells.
      shown: (b, k) bool; False gives an all-zero map (Newell 5.3: its error still counts).
      size: cells along each side.
      sigma: standard deviation in cells.
      window: side, in cells, of the square around the joint outside of which the target is zero; 0: 3 sigma
        on each side.
      at_cell: centre the Gaussian on the joint's cell.

    Returns:
      (b, size, size, k) float32 in [0, 1].
    """
    middle = jnp.floor(joints) + 0.5 if at_cell else joints
    distance = jnp.arange(size) + 0.5 - middle[..., None]  # b k (x, y) cells
    # A two-dimensional Gaussian is the product of two one-dimensional ones; the window is square.
    line = jnp.exp(-(distance**2) / (2 * sigma**2)) * (jnp.abs(distance) <= (window / 2 or 3 * sigma))
    return jnp.einsum("bkx,bky->byxk", line[:, :, 0] * shown[..., None], line[:, :, 1])


def reduce(targets: jax.Array, size: int) -> jax.Array:
    """Targets at a lower resolution: the largest value of each block of cells.

    A mean would leave a peak of about 0.1 after three halvings, which a squared error does not learn; the
    maximum keeps it near 1.

    Args:
      targets: (b, n, n, k), n a multiple of `size`.
      size: cells along each side of the result.

    Returns:
      (b, size, size, k).
    """
    b, n, _, k = targets.shape
    if n % size:
        raise ValueError(f"Targets of {n} x {n} cells cannot be reduced to {size} x {size}.")
    return jnp.max(targets.reshape(b, size, n // size, size, n // size, k), axis=(2, 4))


def decode(
    heatmaps: jax.Array, *, method: str = "quarter", sigma: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Joints from heatmaps: the largest cell, refined from the cells around it.

    Args:
      heatmaps: (b, h, w, k) float.
      method: "argmax": the centre of the largest cell (Newell 3.4, "the max activating location").
        "quarter": a quarter cell towards the higher neighbour in x and in y (Newell's released evaluation).
        "dark": the peak of a Gaussian through the cells around (Zhang et al. 2020).
        "soft_argmax": the mean position, weighted by the values at most 3 sigma from the largest cell.
      sigma: sigma of the targets, in cells, for "dark" and "soft_argmax".

    Returns:
      joints (b, k, 2) float32 in cells; scores (b, k) float32, the heatmap's value at the largest cell.

    Raises:
      ValueError: an unknown method.
    """
    check_method(method)
    heatmaps = heatmaps.astype(jnp.float32)
    b, h, w, k = heatmaps.shape
    index = jnp.argmax(heatmaps.reshape(b, h * w, k), axis=1)  # b k; the first of equal values
    # Here and below only operations that the runtimes of `export` know: no remainder, no iota over the batch.
    y = jax.lax.div(index, w)
    cell = jnp.stack([index - y * w, y], axis=-1)
    if method == "argmax":
        joints = cell + 0.5
    elif method == "quarter":
        joints = cell + 0.5 + _quarter(heatmaps, cell)
    elif method == "dark":
        joints = cell + 0.5 + _taylor(heatmaps, cell, sigma)
    else:
        joints = _local_mean(heatmaps, cell, 3 * sigma)
    return joints.astype(jnp.float32), _at(heatmaps, cell)


def check_method(method: str) -> None:
    """Raises a ValueError unless `decode` knows the method."""
    if method not in METHODS:
        raise ValueError(f"decode={method!r} is unknown; choose from {', '.join(METHODS)}.")


def _at(heatmaps, cell, dx=0, dy=0):
    """The values (b, k) of cells (b, k, 2) moved by (dx, dy); -inf outside the heatmap."""
    h, w = heatmaps.shape[1:3]
    x, y = cell[..., 0] + dx, cell[..., 1] + dy
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    index = jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)
    flat = heatmaps.reshape(heatmaps.shape[0], h * w, heatmaps.shape[3])
    value = jnp.take_along_axis(flat, index[:, None], axis=1)[:, 0]
    return jnp.where(inside, value, -jnp.inf)


def _quarter(heatmaps, cell):
    # There is no shift at the border, where one neighbour is missing.
    towards_x = _direction(_at(heatmaps, cell, dx=-1), _at(heatmaps, cell, dx=1))
    towards_y = _direction(_at(heatmaps, cell, dy=-1), _at(heatmaps, cell, dy=1))
    return 0.25 * jnp.stack([towards_x, towards_y], axis=-1)


def _direction(low, high):
    known = (low > -jnp.inf) & (high > -jnp.inf)  # isfinite goes wrong in TensorFlow Lite
    return jnp.where(known, jnp.sign(high - low), 0.0)


def _taylor(heatmaps, cell, sigma):
    """The offset from the cell's centre to the peak of the logarithm's second-order expansion (DARK, 3.2).

    A Gaussian's logarithm is a parabola, and for it the peak -H^-1 g is exact. If the cells around are not
    such a parabola (at the border, on a flat or ragged map), the quarter cell is used.
    """
    # First blur with a Gaussian of the targets' sigma (DARK, equation 9), so that several ripples become one
    # peak. The paper then rescales the maximum, which does not change the logarithm's derivatives.
    logarithm = jnp.log(jnp.maximum(_blurred(heatmaps, sigma), 1e-10))
    value = {(x, y): _at(logarithm, cell, x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    g_x = (value[1, 0] - value[-1, 0]) / 2
    g_y = (value[0, 1] - value[0, -1]) / 2
    h_xx = value[1, 0] - 2 * value[0, 0] + value[-1, 0]
    h_yy = value[0, 1] - 2 * value[0, 0] + value[0, -1]
    h_xy = (value[1, 1] - value[1, -1] - value[-1, 1] + value[-1, -1]) / 4
    determinant = h_xx * h_yy - h_xy**2
    offset = jnp.stack([h_xy * g_y - h_yy * g_x, h_xy * g_x - h_xx * g_y], axis=-1) / determinant[..., None]
    # Negative definite, and at most one cell away: beyond that the expansion is not valid.
    peak = (h_xx < 0) & (determinant > 0) & (jnp.abs(offset) <= 1).all(axis=-1)
    return jnp.where(peak[..., None], offset, _quarter(heatmaps, cell))


def _blurred(heatmaps, sigma):
    lines = []
    for size in heatmaps.shape[1:3]:
        distance = jnp.arange(size)[:, None] - jnp.arange(size)
        lines.append(jnp.exp(-(distance**2) / (2 * sigma**2)))
    # Accelerators may round the factors of products to bfloat16, but a peak's neighbours differ little.
    return jnp.einsum("bvuk,yv,xu->byxk", heatmaps, *lines, precision="highest")


def _local_mean(heatmaps, cell, radius):
    """The mean position (b, k, 2) in cells, weighted by the values at most `radius` cells away in x and in y.

    This is a soft-argmax with temperature 1 of the heatmap's logarithm, and so of logits that were trained
    with a cross-entropy. Over the whole map, a faint background would pull the mean towards the middle.
    """
    near = []  # (b, k, w), (b, k, h)
    for axis, size in enumerate(heatmaps.shape[2:0:-1]):
        near.append(jnp.abs(jnp.arange(size) - cell[..., axis, None]) <= radius)
    inside = jnp.einsum("byxk,bkx,bky->bkyx", jnp.maximum(heatmaps, 0.0), *near, precision="highest")
    mass = inside.sum(axis=(2, 3))
    x = (inside.sum(axis=2) * (jnp.arange(heatmaps.shape[2]) + 0.5)).sum(axis=2)
    y = (inside.sum(axis=3) * (jnp.arange(heatmaps.shape[1]) + 0.5)).sum(axis=2)
    mean = jnp.stack([x, y], axis=-1) / mass[..., None]
    return jnp.where(mass[..., None] > 0, mean, cell + 0.5)  # an empty map has no mean


def value_at(heatmaps: jax.Array, joints: jax.Array) -> jax.Array:
    """Scores of joints that were not decoded from heatmaps: the value of the cell in which each lies.

    Args:
      heatmaps: (b, h, w, 1), one channel for all joints.
      joints: (b, k, 2) cells.

    Returns:
      (b, k) float32, 0 outside the heatmap.
    """
    h, w = heatmaps.shape[1:3]
    x, y = jnp.moveaxis(jnp.floor(joints).astype(jnp.int32), -1, 0)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    index = jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)
    cells = jnp.take_along_axis(heatmaps.reshape(heatmaps.shape[0], h * w), index, axis=1)
    return jnp.where(inside, cells, 0.0).astype(jnp.float32)


def from_logits(logits: jax.Array, *, sigma: float) -> jax.Array:
    """Heatmaps of a network that was trained with the cross-entropy of `losses.cross_entropy`.

    They are the softmax over all cells, times the sum of a Gaussian. A perfect map then has its peak at 1,
    like the targets, so that scores of both kinds of networks can be compared.

    Args:
      logits: (b, h, w, k).
      sigma: sigma of the targets, in cells.

    Returns:
      (b, h, w, k) float32 in [0, 1]; a map that is sharper than its target is clipped to 1.
    """
    b, h, w, k = logits.shape
    share = jax.nn.softmax(logits.astype(jnp.float32).reshape(b, h * w, k), axis=1)
    return jnp.minimum(share.reshape(b, h, w, k) * (2 * math.pi * sigma**2), 1.0)
