"""Traces units that a network repeats only once, so that eight stacks start almost as fast as one."""

from collections.abc import Callable

import flax.linen as nn
import jax

from hourglass_jax.models import shapes


def share(function: Callable) -> Callable:
    """Shares the units of a function(*arguments) that calls a Flax model in training; to be traced under jit.

    Units with equal fields become calls of one function. XLA inlines it at each call, so that the program
    does not change.
    """

    def shared(*arguments):
        with nn.intercept_methods(_calling({})):
            return function(*arguments)

    return shared


def _calling(functions):
    """Calls the shared function of units with equal fields instead of a unit; adds missing functions."""

    def intercept(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, shapes.UNITS) or not module.path:  # no path: called by a shared one
            return call(*args, **kwargs)
        if (kind := shapes.kind_of(module)) not in functions:
            functions[kind] = _function(module.clone(parent=None, name=None))
        out, batch_stats = functions[kind](module.variables, *args)
        assert module.scope is not None  # bound, because it is being called
        for name, value in batch_stats.items():
            module.scope.put_variable("batch_stats", name, value)
        return out

    return intercept


def _function(module):
    @jax.jit
    def unit(variables, *args):
        out, new = module.apply(variables, *args, mutable=["batch_stats"])
        return out, new["batch_stats"]

    return unit
