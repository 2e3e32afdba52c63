"""A batch on a CPU: one call for each example and each of its views, on as many threads as there are cores.

XLA spreads every operation over the cores and waits for the last of them. Where two images are computed at
once, each fills the other's waits. One program of one image also serves batches of any size.
"""

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable

import jax
import numpy as np

from hourglass_jax import devices, inference
from hourglass_jax.network import Network


def suits(mesh: jax.sharding.Mesh) -> bool:
    """Whether `examples` was measured to be faster on these devices: on one CPU."""
    return mesh.size == 1 and devices.platform_of(mesh) == "cpu"


def estimator(estimate: inference.Estimator, mesh: jax.sharding.Mesh) -> Callable:
    """The estimator, compiled for the devices: by `examples` where that `suits`, or as one program."""
    if suits(mesh):
        # A partial, for methods are hashed by the fields of their object.
        of_view = functools.partial(Network.forward, estimate.network)
        program, views, result = (
            devices.jit(function, mesh) for function in (of_view, estimate.views, estimate.result)
        )
        return examples(program, views=views, result=result)
    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    return devices.jit(estimate, mesh, in_shardings=(same, spread), out_shardings=spread)


def examples(
    program: Callable,
    *,
    views: Callable = lambda one: one,
    result: Callable = lambda outputs: outputs,
) -> Callable:
    """program(variables, batch) -> the same, of numpy arrays, which computes several examples at once.

    Args:
      program: a compiled function of variables and an array (1, ...), to a tree of arrays (1, ...).
      views: of an example (1, ...), to the arrays (v, ...) for which the program is called one by one.
      result: of the program's outputs for all views, (v, ...), to the example's, (1, ...).
    """
    shapes = set()

    def run(variables, batch):
        pending = []  # of each example
        try:
            for one in np.split(np.asarray(batch), len(batch)):
                pending.append([])
                for view in np.split(seen := np.asarray(views(one)), len(seen)):
                    pending[-1].append(_threads().submit(_call, program, variables, view))
                    if view.shape not in shapes:
                        # Two first calls at once would both compile.
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
