"""The stem's first features as pairs of columns, for TPUs: half the cycles for 64 channels.

See `kernels.pairs`. The stem's first convolution makes pairs, its units at this resolution keep them, and its
pooling undoes them. Models do not depend on this: an input with twice as many channels as the kernel consists
of pairs.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from hourglass_jax.kernels import pairs, platforms
from hourglass_jax.models import layers

LANES = 128


def pair(function: Callable) -> Callable:
    """Transforms a function that calls a Flax model in training, if it is traced for a TPU; equal values."""

    def paired(*arguments):
        if platforms.current() != "tpu":
            return function(*arguments)
        with nn.intercept_methods(_interceptor()):
            return function(*arguments)

    return paired


def fits(stem: layers.Stem, image) -> bool:
    """Whether the first convolution fills half of the lanes, in bfloat16, and ordinary units follow."""
    kernel = stem.variables.get("params", {}).get("conv", {}).get("kernel")
    conv, unit = stem.conv, stem.unit
    known = isinstance(conv, functools.partial) and isinstance(unit, functools.partial)
    return (
        known
        and kernel is not None
        and 2 * kernel.shape[-1] == LANES
        and jnp.dtype(conv.keywords.get("dtype")) == jnp.bfloat16
        and unit.func is layers.Unit
        and image.shape[2] % 8 == 0
    )


def _interceptor() -> Callable:
    begins = False  # the next convolution is the first one of a stem

    def intercept(call, args, kwargs, context):
        nonlocal begins
        module = context.module
        if isinstance(module, layers.Stem) and context.method_name == "__call__":
            begins = not module.is_initializing() and fits(module, args[0])
        if not isinstance(module, nn.Conv) or module.is_initializing():
            return call(*args, **kwargs)
        (x,), params = args, module.variables["params"]
        kernel = params["kernel"]
        if not begins and x.shape[-1] != 2 * kernel.shape[2] * module.feature_group_count:
            return call(*args, **kwargs)
        x, kernel = x.astype(module.dtype), kernel.astype(module.dtype)
        y = pairs.begin(x, kernel) if begins else pairs.convolve(x, kernel)
        begins = False
        return y + jnp.tile(params["bias"].astype(y.dtype), 2) if module.use_bias else y

    return intercept
