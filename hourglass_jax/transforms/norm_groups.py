"""Batch norm over groups of examples instead of the whole batch.

The papers train on batches of 6 to 16 pictures on one GPU. In larger batches, groups of that size keep such
statistics. The groups do not depend on the number of devices. The statistics of a group on one device need no
communication.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.kernels import batch_norm


def grouped(function: Callable, size: int) -> Callable:
    """Transforms a function that calls a Flax model: each group of examples has its own batch statistics.

    The running statistics are updated with the mean of the groups' statistics.

    Args:
      function: a function of arrays whose first axis is the batch; it calls `nn.BatchNorm` as in training.
      size: number of adjacent examples in a group; 0 leaves the function as it is.
    """
    if not size:
        return function

    def by_groups(*arguments):
        with nn.intercept_methods(_interceptor(size)):
            return function(*arguments)

    return by_groups


def _interceptor(size: int) -> Callable:
    def intercept(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, nn.BatchNorm) or module.use_running_average or not module.path:
            return call(*args, **kwargs)  # a norm without a path is `alone`, below
        (x,) = args
        if len(x) % size:
            raise ValueError(f"train.norm_group={size} does not divide {len(x)} examples of a step.")
        y, batch_stats = _apply(module, x, size)
        assert module.scope is not None  # bound, because it is being called
        for name, value in batch_stats.items():
            module.scope.put_variable("batch_stats", name, value)
        return y

    return intercept


def _apply(module: nn.BatchNorm, x, size: int) -> tuple[jax.Array, dict]:
    """The module's outputs, and the mean of the groups' new running statistics."""
    alone, variables = module.clone(parent=None, name=None), module.variables

    def updated(norm, x):
        new: Any
        y, new = norm.apply(variables, x, mutable=["batch_stats"])
        return y, new["batch_stats"]

    if isinstance(alone, batch_norm.BatchNorm):
        return updated(alone.clone(group=size), x)
    y, batch_stats = jax.vmap(functools.partial(updated, alone))(x.reshape(-1, size, *x.shape[1:]))
    return y.reshape(x.shape), jax.tree.map(functools.partial(jnp.mean, axis=0), batch_stats)
