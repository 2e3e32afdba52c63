"""Examples that are answered side by side are those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import side_by_side


@jax.jit
def program(variables, batch):
    return {"sums": batch.sum(axis=1) * variables, "own": (batch + variables, jnp.cos(batch))}


@pytest.mark.parametrize("b", [1, 2, 7])
def test_examples_are_those_of_the_batch_in_its_order(b):
    batch = np.random.default_rng(b).normal(size=(b, 5)).astype(np.float32)
    found, whole = side_by_side.examples(program)(3.0, batch), program(3.0, batch)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for a, c in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_allclose(a, c, rtol=1e-6)


def test_one_program_serves_all_batches():
    traced = []

    @jax.jit
    def counted(variables, batch):
        traced.append(batch.shape)
        return variables * batch

    run = side_by_side.examples(counted)
    for b in (6, 1, 9):
        np.testing.assert_array_equal(run(2, jnp.arange(b)[:, None]), 2 * np.arange(b)[:, None])
    assert traced == [(1, 1)]


def test_what_goes_wrong_is_heard_of():
    def fails(variables, batch):
        if batch[0] == 3:
            raise ValueError("three")
        return batch

    with pytest.raises(ValueError, match="three"):
        side_by_side.examples(fails)(None, np.arange(5))


def test_it_is_for_one_cpu():
    devices = np.array(jax.devices("cpu"))
    assert side_by_side.answers(jax.sharding.Mesh(devices[:1], ("data",)))
    assert not side_by_side.answers(jax.sharding.Mesh(np.repeat(devices[:1], 2), ("data",)))
