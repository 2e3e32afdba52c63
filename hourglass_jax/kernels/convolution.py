"""Convolutions, and forms that are faster than XLA's on CPUs (mainly in the backward pass) or on TPUs."""

import functools

import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms, winograd

_STRETCHING = {"feature_group_count", "batch_group_count", "lhs_dilation", "rhs_dilation"}


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, *, precision=None, **options) -> jax.Array:
    """The convolution to pass to `flax.linen.Conv` as its `conv_general_dilated`.

    Args:
      x: (b, h, w, c).
      kernel: (kh, kw, c / groups, d), with the dtype of x.
      strides, padding, precision, options: see `jax.lax.conv_general_dilated`.

    Returns:
      (b, h', w', d).
    """
    ordinary = all(value in (1, (1, 1)) for name, value in options.items() if name != "dimension_numbers")
    odd = all(side % 2 for side in kernel.shape[:2])
    fits = odd and ordinary and tuple(strides) == (1, 1) and padding == "SAME"
    if fits and platforms.current() == "cpu" and x.dtype.itemsize >= 4:
        return (_multiply if kernel.shape[:2] == (1, 1) else _convolve)(x, kernel, precision)
    if platforms.current() == "tpu" and x.dtype == jnp.bfloat16:
        return as_convolution(x, kernel, strides, padding, precision=precision, **options)
    return plain(x, kernel, strides, padding, precision=precision, **options)


def as_convolution(x: jax.Array, kernel: jax.Array, strides, padding, **options) -> jax.Array:
    """As `convolve`, 1x1 included, for TPUs.

    A TPU's 3x3 convolutions keep the batch, not the width, in the tiles of 8 x 128. If a 1x1 convolution is a
    matrix product, it needs another layout, and copies between both: an hourglass then takes a tenth more
    cycles.
    """
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def plain(x: jax.Array, kernel: jax.Array, strides, padding, **options) -> jax.Array:
    """As `convolve`, with XLA's operations; 1x1 convolutions are matrix products, which is faster on CPUs."""
    unstretched = all(value in (1, (1, 1)) for name, value in options.items() if name in _STRETCHING)
    padded = not isinstance(padding, str) and any(map(any, padding))
    if kernel.shape[:2] == (1, 1) and tuple(strides) == (1, 1) and unstretched and not padded:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0], precision=options.get("precision"))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply(x, kernel, precision):
    """A 1x1 convolution, and its gradients, as one matrix product of (b * h * w, c) and (c, d)."""
    y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
    return y.reshape(*x.shape[:3], -1)


def _multiply_forward(x, kernel, precision):
    return _multiply(x, kernel, precision), (x, kernel)


def _multiply_backward(precision, saved, g):
    x, kernel = saved
    flat = x.reshape(-1, x.shape[-1])
    g = g.reshape(-1, g.shape[-1])
    to_x = jnp.matmul(g, kernel[0, 0].T, precision=precision)
    to_kernel = jax.lax.dot_general(flat, g, (((0,), (0,)), ((), ())), precision=precision)
    return to_x.reshape(x.shape), to_kernel[None, None]


_multiply.defvjp(_multiply_forward, _multiply_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, precision):
    if precision is None and winograd.fits(x, kernel):
        return winograd.convolve(x, kernel)
    return _xlas(x, kernel, precision)


def _convolve_forward(x, kernel, precision):
    return _convolve(x, kernel, precision), (x, kernel)


def _convolve_backward(precision, saved, g):
    x, kernel = saved
    # The gradient of x as an ordinary convolution. JAX's own transposes the kernel by dimension numbers and
    # reverses the window; XLA has no fast form for that.
    to_x = _convolve(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), precision)
    if precision is None and winograd.fits(x, kernel):
        return to_x, winograd.kernel_gradient(x, g)
    (to_kernel,) = jax.linear_transpose(lambda kernel: _xlas(x, kernel, precision), kernel)(g)
    return to_x, to_kernel


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _xlas(x, kernel, precision):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, precision=precision
    )
