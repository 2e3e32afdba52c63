"""Small arrays of one shape as one array, for TPUs.

On a TPU each operation has a fixed cost, in the compiler's estimate some 1,800 cycles, however small its
arrays are. A network has hundreds of vectors: scales, biases and statistics, each with its moments in the
optimiser.
"""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms


def as_rows(tree: Any) -> Any:
    """The tree with its vectors as rows of few arrays in memory, so that XLA merges what follows for each."""
    if platforms.current() != "tpu":
        return tree
    return map_vectors(jax.lax.optimization_barrier, tree, others=lambda leaf: leaf)


def map_vectors(function: Callable, *trees: Any, others: Callable | None = None) -> Any:
    """As `jax.tree.map` of an elementwise function, by one call for all vectors of one length and type.

    Programs for other platforms than TPUs have a call for each leaf.

    Args:
      function: of a leaf of each tree.
      trees: of the same structure.
      others: for leaves that are no vectors; `function` by default.
    """
    if platforms.current() != "tpu":
        return jax.tree.map(function, *trees)
    first, structure = jax.tree.flatten(trees[0])
    columns = [first, *(structure.flatten_up_to(tree) for tree in trees[1:])]
    groups = collections.defaultdict(list)
    for place, leaves in enumerate(zip(*columns, strict=True)):
        kind = leaves[0].shape, *(leaf.dtype for leaf in leaves)
        groups[kind if leaves[0].ndim == 1 else (place,)].append(place)
    results: list[Any] = [None] * len(first)
    for places in groups.values():
        if len(places) == 1:
            (place,) = places
            single = function if first[place].ndim == 1 or others is None else others
            results[place] = single(*(leaves[place] for leaves in columns))
            continue
        stacked = function(*(jnp.stack([leaves[place] for place in places]) for leaves in columns))
        for place, result in zip(places, jnp.unstack(stacked), strict=True):
            results[place] = result
    return structure.unflatten(results)
