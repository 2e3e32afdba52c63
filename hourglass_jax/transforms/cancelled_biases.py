"""Leaves out biases that a batch norm cancels.

A norm with the statistics of the batch subtracts the mean, and with it the bias of the convolution before it.
So the bias changes no output in training, and its gradient is zero. Automatic differentiation still sums the
gradient over the whole map, and gets rounding noise, which RMSprop and Adam scale up to steps of ordinary
size. With this transform the norm reads the convolution without its bias, which goes only into the running
mean, and the gradient is exactly zero. The parameters remain, because evaluation needs them for the weights
of other packages.
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
    # The output of the last convolution, the same without its bias, and the bias.
    before: Any = None
    without: Any = None
    bias: Any = None

    def intercept(call, args, kwargs, context):
        nonlocal before, without, bias
        module = context.module
        if isinstance(module, nn.BatchNorm) and not module.use_running_average and args[0] is before:
            y = call(without, *args[1:], **kwargs)
            if module.is_mutable_collection("batch_stats"):
                mean = module.get_variable("batch_stats", "mean")
                step = (1 - module.momentum) * jax.lax.stop_gradient(bias)
                module.put_variable("batch_stats", "mean", mean + step.astype(mean.dtype))
            return y
        if not isinstance(module, nn.Conv) or not module.use_bias or module.is_initializing():
            return call(*args, **kwargs)
        params = module.variables["params"]
        alone = module.clone(parent=None, name=None, use_bias=False)
        sums: Any = alone.apply({"params": {"kernel": params["kernel"]}}, *args, **kwargs)
        without, bias = sums, params["bias"]
        places = sums.shape[-1] // bias.size  # two for pairs, see `kernels.pairs`
        # Added in float32, as a TPU adds: there the bias and its gradient then need no cast of their own.
        before = (sums + jnp.tile(bias, places)).astype(sums.dtype)
        return before

    return intercept
