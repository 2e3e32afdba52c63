"""Folded networks compared with the plain ones, with random statistics, for every model."""

import functools

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import models
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import fold_norms

SIZE = 32
SMALL = {"stacks": 1, "width": 16, "depth": 1}
NETWORKS = {
    "newell": {},
    "chu": {"window": 3},
    "mssh": {"stacks": 2, "block": "inception_b", "fusion": "concatenation", "lateral": True},
    "selvam": {"attention_width": 4, "heatmap_attention": True},
    "tang": {"branch_width": 4, "onward": "specific"},
}


def network(model, size=SIZE):
    return Network(model, skeletons.MPII, size, (0.5, 0.5, 0.5), 1.0, logits=False)


def random(model, size=SIZE):
    """Variables in which every parameter and every statistic matters."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape).astype("f")
        width = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 1
        return rng.normal(0.1, 1, leaf.shape).astype("f") / np.sqrt(width, dtype="f")

    _, shapes = conftest.shapes_of(model, jnp.zeros((1, size, size, 3)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(network, variables, images):
    return jax.jit(lambda v, x: network.outputs(v, x, flip=True))(variables, images)


def test_every_model_is_folded_here():
    assert set(NETWORKS) == set(models.names())


IMAGES = np.random.default_rng(1).uniform(0, 1, (2, SIZE, SIZE, 3)).astype("f")


@functools.cache
def made(name, dtype="float32"):
    """A network, its variables, and its outputs for the images."""
    plain = network(models.build(name, joints=16, dtype=dtype, **(SMALL | NETWORKS[name])))
    variables = random(plain.model)
    return plain, variables, apply(plain, variables, IMAGES)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in NETWORKS), ("newell", "bfloat16")]
)
def test_outputs_are_those_of_the_plain_network(name, dtype, quick_compiles):
    plain, variables, wanted = made(name, dtype)
    folded, fewer = fold_norms.fold(plain, variables)
    found = apply(folded, fewer, IMAGES)
    assert jax.tree.structure(wanted) == jax.tree.structure(found)
    limit = 2e-5 if plain.model.dtype == jnp.float32 else 0.1  # of the largest value
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype and np.abs(a).max() > 0
        np.testing.assert_allclose(a, b, atol=limit * np.abs(a).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_stays_within_five_per_cent(name, quick_compiles):
    exact, found = made(name)[2], made(name, "bfloat16")[2]  # of the same variables
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    errors = jax.tree.map(lambda a, b: float(jnp.abs(a - b).mean() / jnp.abs(a).mean()), exact, found)
    # bfloat16 has 8 bits, a step of 0.4 %, in dozens of layers; near 0 would mean "not used".
    assert 1e-3 < max(jax.tree.leaves(errors)) < 0.05, errors


def test_norms_that_follow_a_convolution_are_gone_and_no_statistics_are_left():
    plain = network(models.build("newell", joints=16, **SMALL))
    variables = random(plain.model)
    _, folded = fold_norms.fold(plain, variables)
    assert not jax.tree.leaves(folded["batch_stats"])
    unit = folded["params"]["stack0_unit0"]
    assert set(unit) == {"norm0", "conv0", "conv1", "conv2"}  # the first norm follows a sum
    assert set(unit["norm0"]) == {"scale", "bias"} and "norm" not in folded["params"]["stem"]
    assert "norm1" in variables["params"]["stack0_unit0"]  # the given variables are unchanged


def test_a_convolution_with_another_reader_is_not_folded():
    fused = models.build("mssh", joints=16, **(SMALL | {"stacks": 2}), fusion="concatenation")
    plain = network(fused)
    variables = random(fused)
    _, folded = fold_norms.fold(plain, variables)
    before, after = (v["params"]["stack1_fusion"]["kernel"] for v in (variables, folded))
    np.testing.assert_array_equal(before, after)  # a skip branch reads it, too


class Norms(nn.Module):
    """A norm after a convolution with a bias, and one after a convolution without."""

    @nn.compact
    def __call__(self, image, train=False):
        for i, bias in enumerate((True, False)):
            image = nn.Conv(1, (1, 1), use_bias=bias, name=f"conv{i}")(image)
            image = nn.BatchNorm(use_running_average=not train, epsilon=1.0, name=f"norm{i}")(image)
        return Outputs(heatmaps=(image,))


def test_numbers_worked_by_hand():
    def one(*values):
        return {name: np.array([value], "f") for name, value in zip(("scale", "bias"), values, strict=True)}

    stats = {"mean": np.array([1], "f"), "var": np.array([3], "f")}
    variables = {
        "params": {
            "conv0": {"kernel": np.array([[[[2], [3], [5]]]], "f"), "bias": np.array([7], "f")},
            "norm0": one(4, 11),
            "conv1": {"kernel": np.array([[[[10]]]], "f")},
            "norm1": one(6, 13),
        },
        "batch_stats": {"norm0": stats, "norm1": stats},
    }
    folded, fewer = fold_norms.fold(network(Norms(), 1), variables)
    # scale / sqrt(3 + 1): 2 and 3. (2, 3, 5) * 2, (7 - 1) * 2 + 11 = 23; 13 - 1 * 3 = 10.
    params = fewer["params"]
    assert params["conv0"]["kernel"].ravel().tolist() == [4, 6, 10] and params["conv0"]["bias"] == 23
    assert set(params) == {"conv0", "conv1", "norm1"}
    assert (params["norm1"]["scale"], params["norm1"]["bias"]) == (3, 10)
    # (4 + 6 + 10 + 23) * 10 * 3 + 10
    outputs = folded.model.apply(fewer, jnp.ones((1, 1, 1, 3)), train=False)
    assert outputs.heatmaps[0].item() == 1300
    with pytest.raises(ValueError, match="use the original network"):
        folded.model.apply(fewer, jnp.ones((1, 1, 1, 3)), train=True)
