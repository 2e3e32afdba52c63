"""Folds batch norms into the convolutions before them: the same network with fewer operations, for inference.

A norm that follows a convolution, gamma (W x + b - mean) / sqrt(var + eps) + beta, is that convolution with
other weights: W a, (b - mean) a + beta, where a = gamma / sqrt(var + eps). A norm that follows anything else
(as in pre-activated units, which begin with a norm of a sum) becomes x a + (beta - mean a). Models do not
depend on this.
"""

import collections
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Var

from hourglass_jax import kept
from hourglass_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Folded:
    """Replaces a model in a `Network`, for the variables of `fold`."""

    model: nn.Module

    def apply(self, variables: dict, images: jax.Array, *, train: bool):
        if train:
            raise ValueError("A folded network has no batch statistics to train; use the original network.")
        with nn.intercept_methods(_normalise):
            return self.model.apply(variables, images, train=False)


def fold(network: Network, variables: dict, *, about: list | None = None) -> tuple[Network, dict]:
    """The same network with its norms folded: equal outputs up to rounding.

    Args:
      network: a network whose model uses flax's `nn.Conv` and `nn.BatchNorm`.
      variables: {"params", "batch_stats"}; either may be left out. NumPy arrays take the least time, because
        nothing is compiled.
      about: the facts about the network, see `network.about`; None: always trace it.

    Returns:
      the network, and its variables. Each norm is removed, or has only a scale and a bias.
    """
    params: dict[tuple, Any]
    stats: dict[tuple, Any]
    params, stats = (
        traverse_util.flatten_dict(variables.get(name, {})) for name in ("params", "batch_stats")
    )

    def traced() -> dict[str, list]:
        return {
            "/".join(norm): [e, conv and "/".join(conv)]
            for norm, (e, conv) in _norms(network, variables).items()
        }

    for name, (epsilon, taker) in kept.fact("norms", about, traced).items():
        norm, conv = tuple(name.split("/")), taker and tuple(taker.split("/"))
        # Only operators, so that NumPy arrays stay NumPy arrays, and JAX arrays stay JAX arrays.
        scale = params.pop((*norm, "scale")) / (stats.pop((*norm, "var")) + epsilon) ** 0.5
        bias = params.pop((*norm, "bias")) - stats.pop((*norm, "mean")) * scale
        if conv is None:
            params |= {(*norm, "scale"): scale, (*norm, "bias"): bias}
        else:
            # The last axis is that of the output channels.
            params[*conv, "kernel"] = params[*conv, "kernel"] * scale
            params[*conv, "bias"] = params[*conv, "bias"] * scale + bias
    folded = {"params": params, "batch_stats": stats}
    folded = {name: traverse_util.unflatten_dict(values) for name, values in folded.items()}
    return dataclasses.replace(network, model=Folded(network.model)), folded


def _norms(network: Network, variables: dict) -> dict[tuple, tuple[float, tuple | None]]:
    """By the path of each norm: its epsilon, and the path of the convolution that can absorb it, if any.

    Such a convolution has a bias, is called once, and only the norm uses its output. To find this out, the
    outputs of convolutions and the inputs of norms get names in the trace.
    """
    epsilons, calls = {}, collections.Counter()

    def name(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.BatchNorm):
            epsilons[module.path] = module.epsilon
            args = (checkpoint_name(args[0], "/".join(module.path)), *args[1:])
        out = call(*args, **kwargs)
        if isinstance(module, nn.Conv) and module.use_bias:
            calls[module.path] += 1
            return checkpoint_name(out, "/".join(module.path))
        return out

    image = jax.ShapeDtypeStruct((1, network.size, network.size, 3), jnp.float32)
    with nn.intercept_methods(name):
        jaxpr = jax.make_jaxpr(network.model.apply)(variables, image).jaxpr
    used = collections.Counter(v for e in jaxpr.eqns for v in e.invars if isinstance(v, Var))
    used.update(v for v in jaxpr.outvars if isinstance(v, Var))
    made, found = {}, dict.fromkeys(epsilons)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            path, (source,) = tuple(equation.params["name"].split("/")), equation.invars
            if path in calls:
                made[equation.outvars[0]] = path
            elif used[source] == 1 and calls[made.get(source)] == 1:
                found[path] = made[source]
    return {path: (epsilon, found[path]) for path, epsilon in epsilons.items()}


def _normalise(call, args, kwargs, context):
    """Replaces the `__call__` of a batch norm."""
    module = context.module
    if not isinstance(module, nn.BatchNorm):
        return call(*args, **kwargs)
    (x,), params = args, module.variables.get("params")
    if not params:  # folded into the convolution before it
        return x
    return (x * params["scale"] + params["bias"]).astype(module.dtype or x.dtype)
