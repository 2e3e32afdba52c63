"""A batch on a CPU: its examples side by side on threads, each a call of its own.

XLA spreads every operation over the cores and waits for the last of them. Where two examples are on their
way at once, each fills the other's waits; one program of one example also serves batches of any size.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable

import jax
import numpy as np


def answers(mesh: jax.sharding.Mesh) -> bool:
    """Whether `examples` was measured to be faster on these devices: on one CPU."""
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def examples(program: Callable) -> Callable:
    """program(variables, batch) -> the same, of numpy arrays, whose examples are answered side by side.

    program: a compiled function of variables and an array (b, ...), to a tree of arrays (b, ...).
    """
    shapes = set()

    def run(variables, batch):
        batch = np.asarray(batch)
        call = functools.partial(_call, program, variables)
        ones = np.split(batch, len(batch))
        # Of two first calls at once each would compile.
        first = [] if batch.shape[1:] in shapes else [call(ones.pop(0))]
        shapes.add(batch.shape[1:])
        found = first + list(_threads().map(call, ones))
        return jax.tree.map(lambda *values: np.concatenate(values), *found)

    return run


def _call(program, variables, one):
    return jax.device_get(program(variables, one))


@functools.cache
def _threads():
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "example")
