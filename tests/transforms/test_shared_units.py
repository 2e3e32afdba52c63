"""Shared units; transforms/test_remat.py compares gradients and statistics with the plain ones."""

import functools

import conftest
import jax
import jax.numpy as jnp
import pytest

from hourglass_jax import models
from hourglass_jax.transforms import shared_units


@pytest.mark.parametrize("stacks", [1, 2])
def test_units_are_traced_once_for_each_shape_whatever_the_stacks(stacks):
    model = models.build("newell", joints=16, stacks=stacks, width=8, depth=1)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, variables = conftest.shapes_of(model, image)
    function = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    plain, shared = (jax.make_jaxpr(f)(variables, image) for f in (function, shared_units.share(function)))
    calls = [e.params["jaxpr"] for e in shared.eqns if e.params.get("name") == "unit"]
    # The stem's three; four of each hourglass and the one that follows it.
    assert len(calls) == 3 + 5 * stacks
    # 32 x 32 cells of 2 -> 4 channels, 16 x 16 of 4 -> 4, 4 -> 8 and 8 -> 8, and 8 x 8 of 8 -> 8.
    assert len(set(map(id, calls))) == 5
    assert [v.aval for v in shared.jaxpr.outvars] == [v.aval for v in plain.jaxpr.outvars]
