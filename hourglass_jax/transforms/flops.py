"""Counts floating-point operations and parameters of a network, from its trace only."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import shapes


def of_jaxpr(jaxpr: Any) -> int:
    """Operations in the convolutions and matrix products of a traced function; a multiply-add counts as two.

    Args:
      jaxpr: a result of `jax.make_jaxpr`. The zeros of dilated and padded inputs count as numbers.

    Raises:
      ValueError: a `while` loop contains products; its number of iterations is not known.
    """
    return sum(map(_of_equation, jaxpr.eqns))


def of_model(model: nn.Module, size: int) -> tuple[int, int]:
    """(operations of a forward pass, trainable parameters) for one picture of size x size px."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    # One trace gives both, because initialising parameters computes no products.
    trace = jax.make_jaxpr(model.init_with_output, return_shape=True)
    with shapes.sharing():
        jaxpr, (_, variables) = trace(jax.random.key(0), image)
    return of_jaxpr(jaxpr), sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        channels = kernel[params["dimension_numbers"].rhs_spec[0]]  # of the output
        return 2 * equation.outvars[0].aval.size * math.prod(kernel) // channels
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        return 2 * equation.outvars[0].aval.size * summed
    inner = [of_jaxpr(part) for value in params.values() for part in _traced(value)]
    if name == "while" and any(inner):
        raise ValueError("A while loop computes products; its number of iterations is not known.")
    if name == "cond":
        return max(inner, default=0)  # one branch runs
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _traced(value: Any) -> list:
    """The functions in a parameter of an equation."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return [part for part in values if hasattr(part, "eqns")]
