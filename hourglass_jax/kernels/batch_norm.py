"""Batch normalisation, and its form for training on CPUs and TPUs: one pass, with a custom gradient."""

import functools
from typing import Any

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

    Attributes:
      group: number of adjacent examples that share statistics, see `transforms.norm_groups`; 0: all. The
        running statistics are updated with the mean of the groups' statistics.
    """

    group: int = 0

    @nn.compact
    def __call__(self, x):
        known = self.scope is not None and self.has_variable("params", "scale")
        channels = self.get_variable("params", "scale").shape if known else (x.shape[-1],)
        mean_seen = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var_seen = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", self.bias_init, channels, self.param_dtype)
        x = x if self.dtype is None else x.astype(self.dtype)
        of_custom_vjp: Any = _normalise
        y, mean, var = of_custom_vjp(x, scale, bias, self.epsilon, self.group)
        if not self.is_initializing():
            for seen, new in ((mean_seen, mean), (var_seen, var)):
                new = jax.lax.stop_gradient(jnp.mean(new, axis=0) if self.group else new)
                seen.value = self.momentum * seen.value + (1 - self.momentum) * new
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, group: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(y, mean, variance); mean and variance are (c,), or (groups, c)."""
    return _normalise_forward(x, scale, bias, epsilon, group)[0]


def _normalise_forward(x, scale, bias, epsilon, group):
    exact = _exact(x)
    n = _values(x, scale, group)
    mean = _sums(exact, scale, group) / n
    var = jnp.maximum(_sums(exact * exact, scale, group) / n - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (exact - _each(mean, x)) * _each(inverse * scale, x) + _each(bias, x)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _exact(x):
    """Converts to at least float32; XLA fuses the conversion into the reading operation."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _values(x, scale, group):
    """Number of values of a channel that share statistics."""
    return x.size // scale.size // (len(x) // group if group else 1)


def _sums(x, scale, group):
    """(b, ..., places * c) -> (c,), or (groups, c)."""
    if not group:
        total = jnp.sum(x, tuple(range(x.ndim - 1)))
        return total if total.size == scale.size else total.reshape(-1, scale.size).sum(0)
    # Over the examples last, so that XLA fuses the large sums into the operation that makes x.
    return jnp.sum(x, tuple(range(1, x.ndim - 1))).reshape(len(x) // group, -1, scale.size).sum(1)


def _each(values, x):
    """(c,) or (groups, c) -> to broadcast against x (b, ..., places * c)."""
    places = x.shape[-1] // values.shape[-1]
    values = jnp.tile(values, places) if places > 1 else values
    if values.ndim == 1:
        return values
    values = jnp.repeat(values, len(x) // len(values), axis=0)
    return values.reshape(len(x), *(1,) * (x.ndim - 2), -1)


def _normalise_backward(epsilon, group, saved, gradients):
    """The gradient of y only, because no loss depends on the statistics."""
    x, scale, mean, inverse = saved
    dtype, g, x = x.dtype, _exact(gradients[0]), _exact(x)
    n = _values(x, scale, group)
    to_bias = _sums(g, scale, group)
    to_scale = (_sums(g * x, scale, group) - mean * to_bias) * inverse
    # scale * inverse * (g - mean of g - normalised x * mean of (g * normalised x)), in one pass over g and x.
    weight = scale * inverse
    slope = -weight * inverse * to_scale / n
    shift = weight * to_bias / n + slope * mean
    to_x = _each(weight, x) * g + (_each(slope, x) * x - _each(shift, x))
    if group:
        to_scale, to_bias = to_scale.sum(0), to_bias.sum(0)
    return to_x.astype(dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


_normalise.defvjp(_normalise_forward, _normalise_backward)
