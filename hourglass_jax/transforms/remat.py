"""Rematerialisation: the backward pass recomputes features instead of keeping them.

The network is traced and cut where its modules begin and end. Values that pass a cut are kept; everything
between two cuts is recomputed when its gradient is needed (Chen et al. 2016). Wrapping modules in
`jax.checkpoint`, as `shared_units` wraps units, takes a third fewer lines and about the same time. But it
also keeps the features between the modules: with "units", Chu's network then needs 1.7 times the memory and
Newell's 1.1 to 1.4 times, though Selvam's a tenth less. And an hourglass is not always a function of its
variables and its input: Selvam's hands its attention to the network around it (`selvam._Masks.add`).

Models do not depend on this.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers


def _before_hourglasses(call, *args, module, name, **kwargs):
    if isinstance(module, layers.Hourglass):
        args = checkpoint_name(args, name)
    return call(*args, **kwargs)


def _after_units(call, *args, module, name, **kwargs):
    """Cuts after modules that consist of other modules, mainly residual units."""
    out = call(*args, **kwargs)
    plain = isinstance(module, (nn.Conv, nn.Dense, nn.BatchNorm)) or not module.path
    return out if plain else checkpoint_name(out, name)


# The cuts of each policy, coarse to fine. Each part is cut further by the next cut; the features kept within
# a part exist only during its own backward pass.
POLICIES = {
    "": (),
    "units": (_after_units,),
    "hourglasses": (_before_hourglasses,),
    "nested": (_before_hourglasses, _after_units),
}


def create(function: Callable, policy: str) -> Callable:
    """Transforms a function(variables, images) that calls a Flax model: less memory, more time.

    Args:
      function: a function of two pytrees, differentiable in both; with any outputs.
      policy: a key of `POLICIES`.

    Raises:
      ValueError: an unknown policy.
    """
    if policy not in POLICIES:
        names = ", ".join(map(repr, POLICIES))
        raise ValueError(f"train.remat={policy!r} is unknown; choose from {names}.")
    cuts = POLICIES[policy]
    if not cuts:
        return function

    def rematerialised(variables, images):
        with nn.intercept_methods(_marking(cuts)):
            closed, shapes = jax.make_jaxpr(function, return_shape=True)(variables, images)
        jaxpr = closed.jaxpr
        of_images = set(jaxpr.invars[-len(jax.tree.leaves(images)) :])
        for equation in jaxpr.eqns:
            if not of_images.isdisjoint(_variables(equation.invars)):
                of_images.update(equation.outvars)
        jaxpr = jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars])
        outputs = _cut(jaxpr, len(cuts), of_images)(*closed.consts, *jax.tree.leaves((variables, images)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rematerialised


def _marking(cuts):
    """Names the values that pass the cuts in the trace, by level."""

    def mark(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        for level, cut in enumerate(cuts):
            call = functools.partial(cut, call, module=context.module, name=_mark(level))
        return call(*args, **kwargs)

    return mark


def _mark(level: int) -> str:
    return f"cut{level}"


def _cut(jaxpr: Any, levels: int, of_images: set, level: int = 0) -> Callable:
    """The function of a trace, cut at the marks of `level`; each part is cut further at the next levels."""
    if level == levels:
        return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))
    parts = []
    for part in _parts(jaxpr, _mark(level)):
        function = _cut(part, levels, of_images, level + 1)
        parts.append((part, _again(function, [v in of_images for v in part.invars])))
    parts[-1] = (part, function)  # its backward pass follows directly, so recomputing saves nothing

    def run(*arguments):
        env = dict(zip(jaxpr.invars, arguments, strict=True))
        for part, function in parts:
            env.update(zip(part.outvars, function(*(env[v] for v in part.invars)), strict=True))
        return [a.val if isinstance(a, Literal) else env[a] for a in jaxpr.outvars]

    return run


def _parts(jaxpr: Any, mark: str) -> list:
    """A trace, cut after each run of marks, as traces; the outputs of one are inputs of the next."""
    marked = [e.params.get("name") == mark for e in jaxpr.eqns]
    ends = [i + 1 for i in range(len(marked) - 1) if marked[i] and not marked[i + 1]]
    parts, wanted = [], dict.fromkeys(_variables(jaxpr.outvars))  # dicts keep the order: the same program
    for start, end in reversed(list(itertools.pairwise([0, *ends, len(marked)]))):
        equations = jaxpr.eqns[start:end]
        made = dict.fromkeys(v for e in equations for v in e.outvars)
        used = dict.fromkeys(v for e in equations for v in _variables(e.invars) if v not in made)
        outputs = [v for v in made if v in wanted]
        parts.append(jaxpr.replace(eqns=equations, invars=list(used), outvars=outputs))
        wanted = {v: None for v in wanted if v not in made} | used
    return parts[::-1]


def _again(function: Callable, tied: list[bool]) -> Callable:
    """The function, recomputed for its gradient; inputs that are `tied` wait for the incoming gradient."""
    if platforms.current() != "cpu":
        return jax.checkpoint(function)

    # On CPUs XLA removes the barriers of `jax.checkpoint`, finds the same values in the forward pass, and
    # keeps them after all. To prevent this, the inputs are made to depend on the gradient, by a comparison
    # with infinity that is always false, which XLA does not know.
    @jax.custom_vjp
    def again(*inputs):
        return function(*inputs)

    def backward(inputs, cotangents):
        floats = [c.ravel()[0] for c in cotangents if jnp.issubdtype(c.dtype, jnp.floating)]
        never = sum(floats) > jnp.inf
        inputs = [jnp.where(never, 0, x) if tie else x for x, tie in zip(inputs, tied, strict=True)]
        return jax.vjp(function, *inputs)[1](cotangents)

    again.defvjp(lambda *inputs: (function(*inputs), inputs), backward)
    return again


def _variables(atoms: Iterable) -> list:
    return [a for a in atoms if not isinstance(a, Literal)]
