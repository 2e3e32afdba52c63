"""Shapes from traces of each kind of unit are those of whole traces, for every system."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from hourglass_jax import models
from hourglass_jax.models import shapes
from hourglass_jax.transforms import flops

IMAGE = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)


@pytest.mark.parametrize("name", models.names())
def test_shapes_and_counts_are_those_of_a_whole_trace(name, monkeypatch):
    model = models.build(name, joints=14, stacks=1, width=8, depth=1)
    found, counts = shapes.of(model, IMAGE), flops.of_model(model, 64)
    monkeypatch.setattr(shapes, "sharing", contextlib.nullcontext)
    assert found == shapes.of(model, IMAGE) and counts == flops.of_model(model, 64)


def test_units_are_traced_once_whatever_the_stacks():
    def units(stacks):
        model = models.build("newell", joints=3, stacks=stacks, width=8, depth=2)
        with shapes.sharing():
            jaxpr = jax.make_jaxpr(model.init)(jax.random.key(0), jnp.zeros(IMAGE.shape))
        return [id(e.params["jaxpr"]) for e in jaxpr.eqns if e.params.get("name") == "init_with_output"]

    assert len(units(4)) > len(units(2)) > len(set(units(2))) == len(set(units(4)))
