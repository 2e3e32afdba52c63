"""Examples computed one by one, in parallel, equal those of the whole batch."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import inference, kept
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import per_example


@jax.jit
def program(variables, batch):
    return {"sums": batch.sum(axis=1) * variables, "own": (batch + variables, jnp.cos(batch))}


@pytest.mark.parametrize("b", [1, 2, 7])
def test_examples_are_those_of_the_batch_in_its_order(b):
    batch = np.random.default_rng(b).normal(size=(b, 5)).astype(np.float32)
    found, whole = per_example.examples(program)(3.0, batch), program(3.0, batch)
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

    run = per_example.examples(counted)
    for b in (6, 1, 9):
        np.testing.assert_array_equal(run(2, jnp.arange(b)[:, None]), 2 * np.arange(b)[:, None])
    assert traced == [(1, 1)]


@pytest.mark.parametrize("b", [1, 3])
def test_views_are_computed_one_by_one(b):
    seen = []

    def program(variables, view):
        seen.append(view.shape)
        return {"cubes": variables * view**3}

    def views(one):  # itself and its double
        return jnp.concatenate([one, 2 * one])

    def result(found):
        return found["cubes"].sum(axis=0, keepdims=True), found["cubes"][-1:]

    batch = np.arange(2.0 * b).reshape(b, 2)
    total, last = per_example.examples(program, views=views, result=result)(5, batch)
    np.testing.assert_allclose(total, 5 * 9 * batch**3)  # 1 + 8
    np.testing.assert_allclose(last, 5 * 8 * batch**3)
    assert seen == [(1, 2)] * 2 * b


class Tilted(nn.Module):
    """Outputs that differ between an image and its flipped image, and from joint to joint."""

    regresses: bool

    @nn.compact
    def __call__(self, image, train=False):
        places = self.param("places", nn.initializers.normal(1), (16, 2))
        weight = self.param("weight", nn.initializers.normal(1), (3, 1 if self.regresses else 16))
        cells = image[:, ::4, ::4] @ weight
        coordinates = nn.sigmoid(image.mean(axis=(1, 2, 3))[:, None, None] + places)
        coordinates = coordinates if self.regresses else None
        return Outputs((cells, 2 * cells), coordinates, {"all": cells})


@pytest.mark.parametrize(("flip", "scales"), [(False, (1.0,)), (True, (0.8, 1.0, 1.1))])
@pytest.mark.parametrize("regresses", [False, True])
def test_an_estimator_gives_the_same_one_by_one_and_at_once(regresses, flip, scales):
    options = {"mean": (0.4, 0.5, 0.6), "sigma": 1.0, "logits": False}
    network = Network(Tilted(regresses), skeletons.MPII, 32, **options)
    variables = network.model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    estimate = inference.Estimator(network, canvas=48, margin=1.5, flip=flip, scales=scales)
    canvases = np.random.default_rng(1).integers(0, 256, (3, 48, 48, 3), np.uint8)
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    found = per_example.estimator(estimate, mesh)(variables, canvases)
    whole = jax.jit(estimate)(variables, canvases)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for a, c in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert np.std(c) > 0
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_an_estimator_of_kept_programs_is_the_same_bit_by_bit(tmp_path, monkeypatch, same, one_by_one):
    monkeypatch.setattr(per_example, "suits", lambda mesh: one_by_one)
    network = Network(Tilted(False), skeletons.MPII, 32, (0.4, 0.5, 0.6), 1.0, False)
    variables = network.model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    canvases = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))

    def found(about):
        estimate = inference.Estimator(network, canvas=32, margin=1.0, flip=True)
        return jax.device_get(per_example.estimator(estimate, mesh, about=about)(variables, canvases))

    expected = found(["tilted"])  # nothing is kept yet
    kept.keep(tmp_path)
    try:
        same(found(["tilted"]), expected)

        def forward(network, variables, views):
            raise AssertionError("traced a second time")

        monkeypatch.setattr(Network, "forward", forward)
        same(found(["tilted"]), expected)
    finally:
        kept.keep(None)


def test_estimates_that_differ_are_kept_apart():
    network = Network(Tilted(False), skeletons.MPII, 32, (0.4, 0.5, 0.6), 1.0, False)
    changes = [{"mean": (0.4, 0.5, 0.7)}, {"sigma": 2.0}, {"logits": True}, {"signed": True}]
    changes += [{"skeleton": skeletons.LSP}, {"size": 64}]
    networks = [network, *(dataclasses.replace(network, **change) for change in changes)]
    options = {"canvas": 32, "margin": 1.0, "flip": True}
    changed = [{"canvas": 40}, {"margin": 1.25}, {"flip": False}, {"scales": (1.0, 1.2)}]
    changed += [{"decode": "dark"}, {"released": True}]
    estimates = [inference.Estimator(of, **options) for of in networks]
    estimates += [inference.Estimator(network, **options | change) for change in changed]
    texts = [json.dumps(estimate.about(), default=str) for estimate in estimates]
    assert len(set(texts)) == len(texts) and "0x" not in texts[0]  # an address would change


def test_the_error_of_one_example_is_raised():
    def fails(variables, batch):
        if batch[0] == 3:
            raise ValueError("three")
        return batch

    with pytest.raises(ValueError, match="three"):
        per_example.examples(fails)(None, np.arange(5))


def test_it_is_used_on_a_single_cpu_only():
    devices = np.array(jax.devices("cpu"))
    assert per_example.suits(jax.sharding.Mesh(devices[:1], ("data",)))
    assert not per_example.suits(jax.sharding.Mesh(np.repeat(devices[:1], 2), ("data",)))
