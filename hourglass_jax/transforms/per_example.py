"""A batch on a CPU: one call for each example and each of its views, with as many threads as cores.

XLA spreads every operation over the cores and waits for the last core. If two images are computed at the same
time, each uses the time in which the other waits. One program for one image also serves batches of any size.
"""

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable

import jax
import numpy as np
from jax import export

from hourglass_jax import devices, inference
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network

export.register_namedtuple_serialization(Outputs, serialized_name="hourglass_jax.Outputs")


def suits(mesh: jax.sharding.Mesh) -> bool:
    """Whether `examples` is faster on these devices; as measured, on one CPU."""
    return mesh.size == 1 and devices.platform_of(mesh) == "cpu"


def estimator(
    estimate: inference.Estimator, mesh: jax.sharding.Mesh, *, about: list | None = None
) -> Callable:
    """The estimator, compiled for the devices: with `examples` if that `suits`, else as one program.

    Args:
      about: of the network, see `network.about`; None traces the programs in any case.
    """

    def jit(kind: str, function: Callable, **options) -> Callable:
        keep = None if about is None else (kind, [about, estimate.about()])
        return devices.jit(function, mesh, keep=keep, **options)

    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    if suits(mesh):
        # A partial, because methods are hashed by the fields of their object.
        forward = jit("forward", functools.partial(Network.forward, estimate.network))
        # Their arguments are of NumPy, which JAX would put on the best device that there is.
        views, result = (
            jit(kind, function, in_shardings=same)
            for kind, function in (("views", estimate.views), ("result", estimate.result))
        )
        return examples(forward, views=views, result=result)
    return jit("estimate", estimate, in_shardings=(same, spread), out_shardings=spread)


def examples(
    program: Callable,
    *,
    views: Callable = lambda one: one,
    result: Callable = lambda outputs: outputs,
) -> Callable:
    """Turns program(variables, batch) into the same of NumPy arrays, which computes several examples at once.

    Args:
      program: a compiled function: variables and an array (1, ...) -> a tree of arrays (1, ...).
      views: an example (1, ...) -> the arrays (v, ...) for which the program is called one by one.
      result: the program's outputs for all views, (v, ...) -> the example's, (1, ...).
    """
    shapes = set()

    def run(variables, batch):
        pending = []  # for each example, the calls for its views
        try:
            for one in np.split(np.asarray(batch), len(batch)):
                pending.append([])
                for view in np.split(seen := np.asarray(views(one)), len(seen)):
                    pending[-1].append(_threads().submit(_call, program, variables, view))
                    if view.shape not in shapes:
                        # Two first calls at the same time would both compile.
                        pending[-1][-1].result()
                        shapes.add(view.shape)
            outputs = [result(_joined([view.result() for view in of_one])) for of_one in pending]
        finally:
            for view in itertools.chain(*pending):  # after an error or Ctrl-C
                view.cancel()
        return _joined(jax.device_get(outputs))

    return run


def _call(program, variables, one):
    return jax.device_get(program(variables, one))


def _joined(trees):
    return jax.tree.map(lambda *values: np.concatenate(values), *trees)


@functools.cache
def _threads():
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "example")
