"""Augmentation on the device: one affine warp, a flip that swaps sides, and colour.

All random numbers of a batch are drawn at once from one key, so that they do not depend on how the batch is
spread over devices.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.pose import crop


def augment(
    key: jax.Array,
    images: jax.Array,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    canvas: int,
    margin: float,
    flip_order: np.ndarray,
    scale_normal: tuple[float, float] = (0.0, 0.0),
    scale_range: tuple[float, float] = (1.0, 1.0),
    rotate_normal: tuple[float, float] = (0.0, 0.0),
    rotate_probability: float = 1.0,
    rotate_range: float = 0.0,
    shear: float = 0.0,
    flip_probability: float = 0.0,
    colour: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Training inputs from stored canvases.

    Args:
      key: random key of this step.
      images: (b, canvas, canvas, 3) uint8.
      joints: (b, k, 2) canvas pixels.
      visible: (b, k) flags, see `pipeline`.
      size: side of the network's input, px.
      canvas, margin: geometry of the stored canvas, see `crop`.
      flip_order: (k,) joint k of the flipped image is joint flip_order[k].
      scale_normal: (deviation, limit) of the binary logarithm of the crop's size, clipped (Newell).
      scale_range: the crop's size is also divided by a uniform factor from this range (Chu, MSSH).
      rotate_normal: (deviation, limit) of the rotation in degrees, clipped; rotates with
        `rotate_probability` (Newell).
      rotate_range: an additional rotation, uniform within +- this many degrees (Chu, MSSH).
      shear: the factor of y that is added to x, uniform within +- shear (Tang).
      flip_probability: probability of a flip.
      colour: each channel is multiplied by a uniform factor within 1 +- colour, and clipped.

    Returns:
      images (b, size, size, 3) float32 in [0, 1], joints (b, k, 2) input pixels, visible (b, k).
    """
    b = images.shape[0]
    names = ("scale", "zoom", "rotate", "rotated", "turn", "shear", "flip", "colour")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def uniform(name, low, high, shape=(b,)):
        return jax.random.uniform(keys[name], shape, minval=low, maxval=high)

    def clipped_normal(name, deviation, limit):
        return jnp.clip(deviation * jax.random.normal(keys[name], (b,)), -limit, limit)

    zoom = uniform("zoom", *scale_range) * 2.0 ** -clipped_normal("scale", *scale_normal)
    rotated = uniform("rotated", 0.0, 1.0) < rotate_probability
    degrees = clipped_normal("rotate", *rotate_normal) * rotated
    degrees += uniform("turn", -rotate_range, rotate_range)
    flipped = uniform("flip", 0.0, 1.0) < flip_probability

    transform = jittered(
        zoom=zoom,
        angle=jnp.deg2rad(degrees),
        shear=uniform("shear", -shear, shear),
        flipped=flipped,
        canvas=canvas,
        margin=margin,
        size=size,
    )
    pixels = crop.warp(images, transform, size) / 255.0
    pixels *= uniform("colour", 1 - colour, 1 + colour, (b, 1, 1, 3))
    joints = crop.apply(transform, joints)
    joints = jnp.where(flipped[:, None, None], joints[:, flip_order], joints)
    visible = jnp.where(flipped[:, None], visible[:, flip_order], visible)
    return jnp.clip(pixels, 0.0, 1.0), joints, visible


def jittered(*, zoom, angle, shear, flipped, canvas: int, margin: float, size: int) -> jax.Array:
    """The map (b, 2, 3) of the canvas onto the input: shear, rotate, scale about the centre, flip.

    Args:
      zoom: (b,) above 1 makes the person larger.
      angle: (b,) radians, clockwise on the screen.
      shear: (b,) factor of y that is added to x.
      flipped: (b,) bool.
    """
    zoom = zoom * (size * margin / canvas)
    cos, sin = jnp.cos(angle) * zoom, jnp.sin(angle) * zoom
    sign = jnp.where(flipped, -1.0, 1.0)
    # Rotation times shear; a flip negates the first row.
    a, b = sign * cos, sign * (cos * shear - sin)
    c, d = sin, sin * shear + cos
    middle = canvas / 2
    row_x = jnp.stack([a, b, size / 2 - (a + b) * middle], axis=-1)
    row_y = jnp.stack([c, d, size / 2 - (c + d) * middle], axis=-1)
    return jnp.stack([row_x, row_y], axis=-2)


def plain(images: jax.Array, *, size: int, canvas: int, margin: float) -> jax.Array:
    """The nominal crop of each canvas, as in evaluation: (b, size, size, 3) float32 in [0, 1]."""
    transform = crop.input_from_canvas(canvas=canvas, margin=margin, size=size)
    return crop.warp(images, jnp.broadcast_to(transform, (images.shape[0], 2, 3)), size) / 255.0
