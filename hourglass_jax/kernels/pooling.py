"""Maximum pooling, and its form for TPUs."""

import functools

import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms


def max_pool(x: jax.Array, channels: int = 0) -> jax.Array:
    """2x2 maximum with stride 2: (b, h, w, c) -> (b, h / 2, w / 2, c); h and w must be even.

    Args:
      x: features, or pairs of columns (b, h, w / 2, 2 c), see `pairs`.
      channels: c, to recognise pairs; 0 if there are none.
    """
    paired = bool(channels) and x.shape[-1] == 2 * channels
    if platforms.current() == "onnx":  # ONNX has an operation for it
        window = (1, 2, 2, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    if platforms.current() == "tpu":
        return at_once(x, paired)
    return by_columns(x, paired)


def by_columns(x: jax.Array, paired: bool = False) -> jax.Array:
    """As `max_pool`: columns first, then rows.

    It takes strided slices, since the gradient of a window reduction is many times slower on CPUs.
    """
    if paired:
        left, right = jnp.split(x, 2, axis=-1)
    else:
        left, right = x[:, :, 0::2], x[:, :, 1::2]
    wide = jnp.maximum(left, right)
    return jnp.maximum(wide[:, 0::2], wide[:, 1::2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def at_once(x: jax.Array, paired: bool = False) -> jax.Array:
    """As `by_columns`, in one operation, and its gradient in few; values and gradients are equal bit for bit.

    Automatic differentiation writes the gradient for half of the columns and for all, with masks for each.
    """
    (a, b), (c, d) = _corners(x, paired)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _forward(x, paired):
    return at_once(x, paired), x


def _backward(paired, x, g):
    (a, b), (c, d) = _corners(x, paired)
    top, bottom = _shares(g, jnp.maximum(a, b), jnp.maximum(c, d))
    shares = [_shares(top, a, b), _shares(bottom, c, d)]
    to_x = jnp.zeros_like(x)
    for row, columns in enumerate(shares):
        for column, share in enumerate(columns):
            to_x += _spread(share, row, column, paired)
    return (to_x,)


at_once.defvjp(_forward, _backward)


def _spread(share, row: int, column: int, paired: bool):
    """One value of each window at its place in the features, zeros at the others."""
    channels = share.shape[-1]
    beside = (column * channels, (1 - column) * channels, 0)
    columns = [(0, 0, 0), beside] if paired else [(column, 1 - column, 1), (0, 0, 0)]
    edges = [(0, 0, 0), (row, 1 - row, 1), *columns]
    return jax.lax.pad(share, jnp.zeros((), share.dtype), edges)


def _corners(x, paired):
    """The four values under each window, by rows."""
    if paired:
        half = x.shape[-1] // 2
        return [[x[:, row::2, :, :half], x[:, row::2, :, half:]] for row in (0, 1)]
    return [[x[:, row::2, column::2] for column in (0, 1)] for row in (0, 1)]


def _shares(g, first, second):
    """The gradients of a maximum's two arguments: the larger has it, equal ones have half of it each."""
    zero, half = jnp.zeros_like(g), g * 0.5
    return tuple(
        jnp.where(one > other, g, jnp.where(one == other, half, zero))
        for one, other in ((first, second), (second, first))
    )
