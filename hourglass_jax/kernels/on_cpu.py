"""Convolutions and batch norm in forms of our own, for backends on which XLA's are slow: CPUs.

`layers.parts` takes them where `chosen` says so; models know nothing of it. The values and the gradients are
the plain ones', up to rounding.
"""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import winograd

_off = False


def chosen() -> bool:
    """Whether the default backend is one on which these were measured to be faster: CPUs."""
    return jax.default_backend() == "cpu" and not _off


@contextlib.contextmanager
def off():
    """The plain forms alone in what is traced meanwhile: programs for other backends, and comparisons."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def convolve(x, kernel, strides, padding, *, plain, precision=None, **options):
    """A convolution in the form that `flax.linen.Conv` asks for.

    Those of stride 1 with an odd window, zeros around and the output as large as the input are done here;
    `plain` does the others.
    """
    odd = all(side % 2 for side in kernel.shape[:2])
    ordinary = all(value in (1, (1, 1)) for name, value in options.items() if name != "dimension_numbers")
    if not (odd and ordinary and tuple(strides) == (1, 1) and padding == "SAME"):
        return plain(x, kernel, strides, padding, precision=precision, **options)
    return (_multiply if kernel.shape[:2] == (1, 1) else _convolve)(x, kernel, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply(x, kernel, precision):
    """1x1 as one matrix product of (b * h * w, c) and (c, d), and so its gradients."""
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
    # The gradient of x as a convolution like any other. JAX's has the kernel turned by its dimension numbers
    # and a reversed window, for which XLA has no fast form.
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


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over all axes but the last, with a scale and a bias; same variables."""

    @nn.compact
    def __call__(self, x):
        channels = (x.shape[-1],)
        mean_seen = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var_seen = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", self.bias_init, channels, self.param_dtype)
        y, mean, var = _normalise(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            for seen, new in ((mean_seen, mean), (var_seen, var)):
                seen.value = self.momentum * seen.value + (1 - self.momentum) * jax.lax.stop_gradient(new)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(x, scale, bias, epsilon):
    return _normalise_forward(x, scale, bias, epsilon)[0]


def _normalise_forward(x, scale, bias, epsilon):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - mean) * (inverse * scale) + bias
    return (y, mean, var), (x, scale, mean, inverse)


def _normalise_backward(epsilon, saved, gradients):
    """The gradient of y alone: the statistics go into no loss."""
    x, scale, mean, inverse = saved
    g = gradients[0]
    n = x.size // x.shape[-1]
    axes = tuple(range(x.ndim - 1))
    to_bias = jnp.sum(g, axes)
    to_scale = (jnp.sum(g * x, axes) - mean * to_bias) * inverse
    # scale * inverse * (g - mean of g - normalised x * mean of (g * normalised x)), in one pass over g and x.
    weight = scale * inverse
    slope = -weight * inverse * to_scale / n
    to_x = weight * g + (slope * x - (weight * to_bias / n + slope * mean))
    return to_x, to_scale, to_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)
