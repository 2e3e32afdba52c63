"""Batch normalisation, and its form for training on CPUs: statistics in one pass, with an own gradient."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms


def of_current_platform(*, train: bool, dtype) -> type[nn.BatchNorm]:
    """The class to train or to evaluate with; variables and values are the same, up to rounding.

    Args:
      train: the statistics of the batch are used.
      dtype: of the computation.
    """
    own = train and jnp.dtype(dtype).itemsize >= 4 and platforms.current() == "cpu"
    return BatchNorm if own else nn.BatchNorm


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over all axes but the last, with a scale and a bias; same variables."""

    @nn.compact
    def __call__(self, x):
        channels = (x.shape[-1],)
        mean_seen = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var_seen = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", self.bias_init, channels, self.param_dtype)
        y, mean, var = _normalise(x, scale, bias, self.epsilon)  # pyright: ignore  custom_vjp has no type
        if not self.is_initializing():
            for seen, new in ((mean_seen, mean), (var_seen, var)):
                seen.value = self.momentum * seen.value + (1 - self.momentum) * jax.lax.stop_gradient(new)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(y, mean, variance)."""
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
