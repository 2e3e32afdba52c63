"""Bilinear sampling of pictures along an affine map, and its form for TPUs."""

import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms

CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (dx, dy) of the pixels around a point


def warp(images: jax.Array, inverse: jax.Array, size: int) -> jax.Array:
    """Resamples pictures; black outside of them.

    Args:
      images: (b, h, w, 3) uint8 or float, any range.
      inverse: (b, 2, 3) float32, the map from the result to the picture, see `pose.crop`.
      size: side of the result.

    Returns:
      (b, size, size, 3) float32, in the range of the images.
    """
    if platforms.current() == "tpu" and images.dtype == jnp.uint8:
        return by_packed_pixels(images, inverse, size)
    return plain(images, inverse, size)


def plain(images: jax.Array, inverse: jax.Array, size: int) -> jax.Array:
    """As `warp`: reads the channels of each pixel as a row."""
    grid = jnp.arange(size) + 0.5
    x, y = (values.ravel() for values in jnp.meshgrid(grid, grid))
    warped = jax.vmap(_sample, in_axes=(0, 0, None, None))(images, inverse, x, y)
    return warped.reshape(images.shape[0], size, size, images.shape[-1])


def by_packed_pixels(images: jax.Array, inverse: jax.Array, size: int) -> jax.Array:
    """As `warp`, for uint8: packs each pixel into one 32-bit number and reads that.

    Rows of three bytes fill only three of the 128 lanes of a TPU's tile, and are copied into other layouts
    before and after they are read. The TPU's compiler estimates a third of the cycles for this form. With the
    barrier the stem rearranges three sums; without it, each of the twelve values that are added.
    """
    red, green, blue = (images[..., channel].astype(jnp.uint32) for channel in range(3))
    packed = red | (green << 8) | (blue << 16)
    grid = jnp.arange(size) + 0.5
    sample = jax.vmap(_sample_packed, in_axes=(0, 0, None, None))
    channels = jax.lax.optimization_barrier(sample(packed, inverse, grid[None, :], grid[:, None]))
    return jnp.stack(channels, axis=-1)


def _sample(image, inverse, x, y):
    """One image (h, w, c) at the map of points x (n,), y (n,): (n, c) float32."""
    total = jnp.zeros((1, image.shape[-1]))
    for column, row, weight in _corners(image.shape, inverse, x, y):
        # Indices out of range have the weight zero.
        total += weight[:, None] * image[row, column].astype(jnp.float32)
    return total


def _sample_packed(packed, inverse, x, y):
    """As `_sample`, for packed pixels (h, w), x (1, n) and y (n, 1): three of (n, n)."""
    height, width = packed.shape
    channels: list = [0.0, 0.0, 0.0]
    for column, row, weight in _corners(packed.shape, inverse, x, y):
        index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        read = packed.ravel().at[index].get(mode="promise_in_bounds")
        for channel in range(3):
            value = (read >> (8 * channel)) & 255
            channels[channel] += weight * value.astype(jnp.int32).astype(jnp.float32)
    return channels


def _corners(shape, inverse, x, y):
    """(column, row, weight) of each of the four pixels around the mapped points; weight 0 outside."""
    height, width = shape[:2]
    (a, b, c), (d, e, f) = inverse
    x, y = a * x + b * y + c - 0.5, d * x + e * y + f - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    from_left, from_top = x - left, y - top
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    for dx, dy in CORNERS:
        weight_x = from_left if dx else 1 - from_left
        weight_y = from_top if dy else 1 - from_top
        column, row = left + dx, top + dy
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        yield column, row, jnp.where(inside, weight_x * weight_y, 0.0)
