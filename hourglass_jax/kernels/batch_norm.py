"""Batch normalisation, and its form for training on CPUs and TPUs: one pass, with a custom gradient."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms


def of_current_platform(*, train: bool, dtype) -> type[nn.BatchNorm]:
    """The batch norm class for training or evaluation; variables and values are the same, up to rounding.

    Args:
      train: whether the norm uses the statistics of the batch.
      dtype: type of the computation.
    """
    # bfloat16 has not been measured on CPUs, and no other form on GPUs.
    fast = platforms.current() == "tpu" or (platforms.current() == "cpu" and jnp.dtype(dtype).itemsize >= 4)
    return BatchNorm if train and fast else nn.BatchNorm


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over all axes but the last, with a scale and a bias; same variables.

    As in Flax, statistics are at least float32, for all types of features. The features may be pairs of
    columns, see `pairs`; a channel then has two places in the last axis.
    """

    @nn.compact
    def __call__(self, x):
        known = self.scope is not None and self.has_variable("params", "scale")
        channels = self.get_variable("params", "scale").shape if known else (x.shape[-1],)
        mean_seen = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var_seen = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", self.bias_init, channels, self.param_dtype)
        x = x if self.dtype is None else x.astype(self.dtype)
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
    exact = _exact(x)
    places = x.shape[-1] // scale.size
    mean = _sum(jnp.mean(exact, axes), places) / places
    var = jnp.maximum(_sum(jnp.mean(exact * exact, axes), places) / places - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (exact - _each(mean, places)) * _each(inverse * scale, places) + _each(bias, places)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _sum(values, places):
    """(places * c,) -> (c,)"""
    return values.reshape(places, -1).sum(0) if places > 1 else values


def _each(values, places):
    """(c,) -> (places * c,)"""
    return jnp.tile(values, places) if places > 1 else values


def _exact(x):
    """Converts to at least float32; XLA fuses the conversion into the reading operation."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalise_backward(epsilon, saved, gradients):
    """The gradient of y only, because no loss depends on the statistics."""
    x, scale, mean, inverse = saved
    dtype, g, x = x.dtype, _exact(gradients[0]), _exact(x)
    n, places = x.size // scale.size, x.shape[-1] // scale.size
    axes = tuple(range(x.ndim - 1))
    to_bias = _sum(jnp.sum(g, axes), places)
    to_scale = (_sum(jnp.sum(g * x, axes), places) - mean * to_bias) * inverse
    # scale * inverse * (g - mean of g - normalised x * mean of (g * normalised x)), in one pass over g and x.
    weight = scale * inverse
    slope = -weight * inverse * to_scale / n
    shift = weight * to_bias / n + slope * mean
    to_x = _each(weight, places) * g + (_each(slope, places) * x - _each(shift, places))
    return to_x.astype(dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


_normalise.defvjp(_normalise_forward, _normalise_backward)
