"""Skips the gradients of biases that a batch norm cancels.

A norm by the statistics of the batch subtracts the mean, and with it the bias of a convolution before it: the
bias changes no output in training, and its gradient is zero. Automatic differentiation sums it over the whole
map all the same, and finds rounding noise, which RMSprop and Adam scale up to steps of ordinary size. With
this the gradient is exactly zero. The parameters remain: evaluation needs those of other packages' weights.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def skip(function: Callable) -> Callable:
    """Rewrites a function that calls a Flax model in training; equal outputs and gradients, up to rounding.

    Only a norm that reads a convolution's output at once is changed. The gradient through other uses of that
    output stays as it is.
    """

    def skipping(*arguments):
        with nn.intercept_methods(_interceptor()):
            return function(*arguments)

    return skipping


def _interceptor() -> Callable:
    before = read_by_norm = (
        None  # the output of the last convolution, and the same without the bias' gradient
    )

    def intercept(call, args, kwargs, context):
        nonlocal before, read_by_norm
        module = context.module
        if isinstance(module, nn.BatchNorm) and not module.use_running_average and args[0] is before:
            args = (read_by_norm, *args[1:])
        if not isinstance(module, nn.Conv) or not module.use_bias or module.is_initializing():
            return call(*args, **kwargs)
        params = module.variables["params"]
        alone = module.clone(parent=None, name=None, use_bias=False)
        sums: Any = alone.apply({"params": {"kernel": params["kernel"]}}, *args, **kwargs)
        bias = params["bias"].astype(sums.dtype)
        bias = jnp.tile(bias, sums.shape[-1] // bias.size)  # twice for pairs, see `kernels.pairs`
        before, read_by_norm = sums + bias, sums + jax.lax.stop_gradient(bias)
        return before

    return intercept
