"""Skips the gradients of biases that a batch norm cancels.

A norm with the statistics of the batch subtracts the mean, and with it the bias of the convolution before it.
So the bias changes no output in training, and its gradient is zero. Automatic differentiation still sums the
gradient over the whole map, and gets rounding noise, which RMSprop and Adam scale up to steps of ordinary
size. With this transform the gradient is exactly zero. The parameters remain, because evaluation needs them
for the weights of other packages.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def skip(function: Callable) -> Callable:
    """Transforms a function that calls a Flax model in training; equal outputs and gradients, up to rounding.

    This changes only a norm that directly follows a convolution. The gradient through other uses of the
    convolution's output stays as it is.
    """

    def skipping(*arguments):
        with nn.intercept_methods(_interceptor()):
            return function(*arguments)

    return skipping


def _interceptor() -> Callable:
    before = read_by_norm = (
        None  # the output of the last convolution, and the same without the gradient of the bias
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
