"""Crops: all conversions of coordinates between frames are in this file.

Convention: coordinates are continuous, x to the right and y down, in pixels. Pixel i
covers [i, i + 1) and has its centre at i + 0.5; an image w pixels wide spans [0, w]. Published
annotations are used as they are. It is disputed whether they count from 0 or 1, which is at most one pixel.

There are four frames, with an affine map between any two:

    image    the full picture, as annotated
    canvas   the stored square around the person, with a margin, resampled to a fixed size
    input    the network's input: the nominal crop of 200 * scale px, or its augmented form
    heatmap  cells of the network's output: the input's frame, divided by the stride

An affine map is an array (..., 2, 3); it maps (x, y) to `m[..., :2] @ (x, y) + m[..., 2]`. Leading
dimensions give one map per example. The functions on maps accept both NumPy and JAX arrays.
"""

import cv2
import jax
import numpy as np

from hourglass_jax.kernels import warping

REFERENCE = 200.0  # px: MPII states a person's size as scale = height / 200


def apply(transform, points):
    """Maps points (..., k, 2) by an affine map (..., 2, 3)."""
    x, y = points[..., 0], points[..., 1]
    a, b = transform[..., None, 0, :], transform[..., None, 1, :]
    xp = points.__array_namespace__()
    rows = (a[..., 0] * x + a[..., 1] * y + a[..., 2], b[..., 0] * x + b[..., 1] * y + b[..., 2])
    return xp.stack(rows, axis=-1)


def compose(outer, inner):
    """The map that applies `inner` first and then `outer`; both (..., 2, 3)."""
    xp = outer.__array_namespace__()
    # Elementwise, because accelerators may round matrix products to bfloat16.
    linear = (outer[..., :, :2, None] * inner[..., None, :, :2]).sum(-2)
    offset = (outer[..., :, :2] * inner[..., None, :, 2]).sum(-1) + outer[..., :, 2]
    return xp.concat([linear, offset[..., None]], axis=-1)


def invert(transform):
    """The inverse of an affine map (..., 2, 3)."""
    xp = transform.__array_namespace__()
    a, b, c, d = (transform[..., i, j] for i in (0, 1) for j in (0, 1))
    determinant = a * d - b * c
    rows = (xp.stack([d, -b], axis=-1), xp.stack([-c, a], axis=-1))
    linear = xp.stack(rows, axis=-2) / determinant[..., None, None]
    offset = -(linear * transform[..., None, :, 2]).sum(-1)
    return xp.concat([linear, offset[..., None]], axis=-1)


def square(center, side, size):
    """The map of the square of `side` px around `center` onto a grid of `size` x `size` pixels.

    Args:
      center: (..., 2) px.
      side: (...) px.
      size: side of the grid in its own pixels.

    Returns:
      (..., 2, 3).
    """
    xp = center.__array_namespace__()
    zoom = size / side
    zero = xp.zeros_like(zoom)
    offset = size / 2 - center * zoom[..., None]
    rows = (xp.stack([zoom, zero], axis=-1), xp.stack([zero, zoom], axis=-1))
    return xp.concat([xp.stack(rows, axis=-2), offset[..., None]], axis=-1)


def canvas_from_image(center, scale, *, canvas: int, margin: float):
    """The map of the picture onto the stored canvas: `margin` times the nominal crop's side.

    Args:
      center: (..., 2) the crop's centre in image pixels.
      scale: (...) the crop's side / 200 px.
      canvas: side of the canvas in its own pixels.
      margin: side of the canvas / side of the nominal crop.
    """
    return square(center, scale * (REFERENCE * margin), canvas)


def input_from_canvas(*, canvas: int, margin: float, size: int) -> np.ndarray:
    """(2, 3) float32: maps the nominal crop, in the canvas's middle, onto the network's input."""
    return square(np.full(2, canvas / 2), np.asarray(canvas / margin), size).astype(np.float32)


def cut(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Resamples a picture on the host (OpenCV); black outside the picture, to half a pixel of the result.

    Args:
      image: (h, w, 3) uint8.
      transform: (2, 3) the map from the picture to the result, without shear.
      size: side of the result.

    Returns:
      (size, size, 3) uint8.
    """
    transform = np.asarray(transform, np.float64)
    zoom = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    block = max(1, int(min(1 / zoom + 1e-6, *image.shape[:2])))
    image, transform = _clip_to_view(image, transform, size, 2 * block)
    if block > 1:
        # Average whole blocks first: at a zoom of 1/2 or less bilinear sampling would skip pixels. The exact
        # factor would take several times as long, and its result would be resampled, and so blurred, again.
        # An incomplete last block is left out if less than half of it is there, and padded otherwise.
        height, width = (max(1, (side + block // 2) // block) for side in image.shape[:2])
        image = image[: height * block, : width * block]
        missing = height * block - image.shape[0], width * block - image.shape[1]
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        transform = compose(transform, np.array([[block, 0, 0], [0, block, 0]]))
    half = np.array([[1, 0, 0.5], [0, 1, 0.5]])  # in OpenCV, pixel centres are whole numbers
    transform = compose(invert(half), compose(transform, half))
    return cv2.warpAffine(image, transform, (size, size), flags=cv2.INTER_LINEAR)


def _clip_to_view(image, transform, size, border):
    """The part of a picture that a result of `size` px shows, with `border` px around it, and its map.

    This saves time on large frames.
    """
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    seen = apply(invert(transform), corners)
    low = np.floor(seen.min(axis=0)).astype(int) - border
    high = np.ceil(seen.max(axis=0)).astype(int) + border
    width_height = image.shape[1::-1]
    x0, y0 = np.minimum(np.maximum(low, 0), np.subtract(width_height, 1))
    x1, y1 = np.maximum(np.minimum(high, width_height), (x0 + 1, y0 + 1))
    shift = np.array([[1.0, 0, x0], [0, 1, y0]])
    return image[y0:y1, x0:x1], compose(transform, shift)


def warp(images: jax.Array, transform: jax.Array, size: int) -> jax.Array:
    """Resamples canvases on the device, bilinearly; black outside the canvas.

    Args:
      images: (b, c, c, 3) uint8 or float, any range.
      transform: (b, 2, 3) the map from the canvas to the result.
      size: side of the result.

    Returns:
      (b, size, size, 3) float32, in the range of the images.
    """
    return warping.warp(images, invert(transform), size)
