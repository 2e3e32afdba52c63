"""A batch on a CPU: its examples, and the views of each, side by side on threads, each a call of its own.

XLA spreads every operation over the cores and waits for the last of them. Where two images are on their
way at once, each fills the other's waits; one program of one image also serves batches of any size.
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


def answers(mesh: jax.sharding.Mesh) -> bool:
    """Whether `examples` was measured to be faster on these devices: on one CPU."""
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def estimator(estimate: inference.Estimator, mesh: jax.sharding.Mesh) -> Callable:
    """The estimator, compiled for the devices: side by side where it `answers`, or as one program."""
    if answers(mesh):
        # A partial, for methods are hashed by the fields of what they belong to.
        program = jax.jit(functools.partial(Network.answers, estimate.network))
        return examples(program, views=jax.jit(estimate.views), result=jax.jit(estimate.result))
    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    return jax.jit(estimate, in_shardings=(same, spread), out_shardings=spread)


def examples(
    program: Callable,
    *,
    views: Callable = lambda one: one,
    result: Callable = lambda found: found,
) -> Callable:
    """program(variables, batch) -> the same, of numpy arrays, whose examples are answered side by side.

    Args:
      program: a compiled function of variables and an array (1, ...), to a tree of arrays (1, ...).
      views: of an example (1, ...), to the arrays (v, ...) for which the program is called one by one.
      result: of their answers, (v, ...), to the example's, (1, ...).
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
                        # Of two first calls at once each would compile.
                        pending[-1][-1].result()
                        shapes.add(view.shape)
            found = [result(_joined([view.result() for view in of_one])) for of_one in pending]
        finally:
            for view in itertools.chain(*pending):  # where one has failed, or Ctrl-C came
                view.cancel()
        return _joined(jax.device_get(found))

    return run


def _call(program, variables, one):
    return jax.device_get(program(variables, one))


def _joined(trees):
    return jax.tree.map(lambda *values: np.concatenate(values), *trees)


@functools.cache
def _threads():
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "example")
