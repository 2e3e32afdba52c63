"""Units that a network repeats are traced once: eight stacks then start about as soon as one."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from hourglass_jax.models import chu, layers, mssh, selvam

UNITS = (layers.Unit, chu.HourglassUnit, mssh.InceptionResnet, selvam.Conv)


def share(function: Callable) -> Callable:
    """function(*arguments), which calls a Flax model to train it -> the same, to be traced under jit.

    Units with equal fields become calls of one function. XLA puts its body in the place of each call, so that
    the program is as before.
    """

    def shared(*arguments):
        with nn.intercept_methods(_calling({})):
            return function(*arguments)

    return shared


def _calling(functions):
    """Calls units by the functions of those like them, which it adds."""

    def intercept(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, UNITS) or not module.path:  # without a path: one of the functions
            return call(*args, **kwargs)
        fields = [f.name for f in dataclasses.fields(module) if f.name not in ("name", "parent")]
        key = (type(module), *(getattr(module, name) for name in fields))
        if key not in functions:
            functions[key] = _function(module.clone(parent=None, name=None))
        out, batch_stats = functions[key](module.variables, *args)
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
