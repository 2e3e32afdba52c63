"""Operations on pairs, for TPUs: two neighbouring columns are concatenated in the channels.

Features with 64 channels fill only half of the 128 lanes of a TPU's tile, in memory and in each operation. As
pairs, (b, h, w, c) becomes (b, h, w / 2, 2 c). Convolutions then have kernels made of zeros and the plain
kernel's values, and half as many cells. The values equal those of the plain forms, up to rounding.
"""

import jax
import jax.numpy as jnp

NUMBERS = ("NHWC", "HWIO", "NHWC")


def pair(x: jax.Array) -> jax.Array:
    """(b, h, w, c) -> (b, h, w / 2, 2 c); w must be even."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w // 2, 2 * c)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves pairs (b, h, w / 2, 2 c), zero-padded, with a kernel (k, k, c, d), k odd.

    Returns (b, h, w / 2, 2 d).
    """
    half = kernel.shape[1] // 2
    cells = (half + 1) // 2  # pairs on each side that a window reaches
    # For output column o of a pair, tap t reads column t - half + o, counted from the pair's first.
    columns = _placed(kernel, [range(-half, half + 1), range(1 - half, half + 2)], -2 * cells, 4 * cells + 2)
    kh, _, c, d = columns.shape
    paired = columns.reshape(kh, 2 * cells + 1, 2 * c, d)
    return jax.lax.conv_general_dilated(x, paired, (1, 1), "SAME", dimension_numbers=NUMBERS)


def begin(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves an image (b, h, w, c) with a kernel (7, 7, c, d), with stride 2 and a padding of 3.

    Returns pairs (b, h / 2, w / 4, 2 d). h must be even and w divisible by 4. Blocks of 2 rows and 4 columns
    become the channels of a cell.
    """
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // 2, 2, w // 4, 4, c).swapaxes(2, 3).reshape(b, h // 2, w // 4, 8 * c)
    # A window begins 3 columns before its output; the second output of a pair is 2 columns further. With a
    # row of zeros above, the 8 rows of a window are 4 blocks; two of them lie above the output.
    columns = _placed(kernel, [range(-3, 4), range(-1, 6)], -4, 12)
    rows = jnp.pad(columns, ((1, 0), (0, 0), (0, 0), (0, 0)))
    d = rows.shape[-1]
    blocked = rows.reshape(4, 2, 3, 4, c, d).swapaxes(1, 2).reshape(4, 3, 8 * c, d)
    return jax.lax.conv_general_dilated(blocks, blocked, (1, 1), ((2, 1), (1, 1)), dimension_numbers=NUMBERS)


def _placed(kernel, places, first: int, count: int):
    """(kh, kw, c, d) -> (kh, count, c, 2 d): taps at the columns of `places`, for each output of a pair."""
    outputs = []
    for columns in places:
        before, after = columns[0] - first, first + count - 1 - columns[-1]
        outputs.append(jnp.pad(kernel, ((0, 0), (before, after), (0, 0), (0, 0))))
    return jnp.concatenate(outputs, axis=-1)
