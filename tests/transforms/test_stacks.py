"""Vectors as rows: the values of a map over each, by fewer calls."""

import functools

import jax
import numpy as np

from hourglass_jax.kernels import platforms
from hourglass_jax.transforms import stacks


def test_a_map_calls_once_for_vectors_of_one_length_and_type():
    old = {
        "kernel": np.ones((3, 3), np.float32),
        "norms": [{"scale": np.arange(4.0) + i, "bias": np.arange(5.0) - i} for i in range(3)],
        "count": np.array(7),
        "alone": np.arange(4),
    }
    new = {**old, "norms": [{name: x * x for name, x in norm.items()} for norm in old["norms"]]}
    calls = []

    def step(n, o):
        calls.append(n.shape)
        return n - 2 * o

    wanted = {
        **{name: -old[name] for name in ("kernel", "count", "alone")},
        "norms": [{name: x * x - 2 * x for name, x in norm.items()} for norm in old["norms"]],
    }
    for platform, shapes in (
        ("tpu", [(), (3, 3), (3, 4), (3, 5), (4,)]),
        ("cpu", sorted([(), (3, 3), (4,)] + 3 * [(4,), (5,)])),
    ):
        calls.clear()
        found = jax.jit(platforms.on(platform, functools.partial(stacks.map_vectors, step)))(new, old)
        np.testing.assert_equal(jax.device_get(found), jax.device_get(wanted))
        assert sorted(calls) == shapes
        rows = jax.jit(platforms.on(platform, stacks.as_rows))(old)
        np.testing.assert_equal(jax.device_get(rows), jax.device_get(old))
