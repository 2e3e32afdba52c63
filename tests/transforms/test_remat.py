"""Rematerialised gradients compared with the plain ones, for every model, and their memory."""

import functools

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import wiring

from hourglass_jax import models
from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import skeletons
from hourglass_jax.training import step
from hourglass_jax.transforms import remat, shared_units

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE, BATCH = 32, 8
SMALL = {"stacks": 1, "width": 8, "depth": 1}
# Residual units are in Newell's network; in Chu's and Tang's, `wiring.Point` replaces them.
NETWORKS = {
    "newell": {},
    "chu": {"window": 3, "multi_resolution": False},
    "mssh": {"strides": (2,)},
    "selvam": {"global_attention": False, "multi_resolution_attention": True},
    "tang": {"branch_width": 4, "groups": (tuple(range(9)), tuple(range(9, 16)))},
}


def random(model, dtype=np.float64):
    """Variables and images; all parameters and statistics matter."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(dtype)
    _, shapes = conftest.shapes_of(model, images)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.9, leaf.shape).astype(dtype), shapes), images


def program(model, policy, variables, images, platform="cpu"):
    """Compiled: (parameters, statistics, images) -> (value, new statistics), gradients in all."""
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    network = shared_units.share(remat.create(apply, policy)) if policy else apply

    def value(params, batch_stats, images):
        outputs, new = network({"params": params, "batch_stats": batch_stats}, images)
        # Each number has a weight of its own.
        return sum((jnp.sin(jnp.arange(x.size)) * x.ravel()).sum() for x in jax.tree.leaves(outputs)), new

    function = jax.value_and_grad(value, argnums=(0, 2), has_aux=True)
    function = platforms.on(platform, function)
    return jax.jit(function).lower(variables["params"], variables["batch_stats"], images).compile()


class Block(nn.Module):
    """A module that consists of other modules, as a residual unit."""

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(16, (1, 1), name="conv0")(x)
        y = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=x.dtype, name="norm")(y)
        return x + nn.Conv(16, (1, 1), name="conv1")(nn.tanh(y))


class Chain(nn.Module):
    """Blocks in a row: (b, h, w, 3) -> a heatmap for each of 16 joints."""

    blocks: int = 6

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.Conv(16, (4, 4), (4, 4), name="conv")(image)
        for i in range(self.blocks):
            x = Block(name=f"block{i}")(x, train)
        return Outputs(heatmaps=(x,))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_block_is_computed_twice_and_its_features_are_not_kept(backend):
    variables, images = random(Chain(), np.float32)
    arguments = (variables["params"], variables["batch_stats"], images)
    plain = program(Chain(), "", variables, images)
    less = program(Chain(), "units", variables, images, backend)
    expected, found = plain(*arguments), less(*arguments)
    close(found, expected, 1e-5, 1e-5)
    if backend == "gpu":  # this compiler removes the GPU's barriers
        return
    # The network's first convolution is repeated, and those of all blocks except the last. Of the second ones
    # the gradient needs no output.
    assert count(less) == count(plain) + 1 + 5
    memory = [p.memory_analysis().temp_size_in_bytes for p in (less, plain)]
    assert memory[0] < 0.5 * memory[1], memory


def count(program):
    """Matrix products and convolutions that a program computes."""
    lines = program.as_text().splitlines()
    return sum(" dot(" in line or " convolution(" in line for line in lines)


def close(found, expected, rtol, atol):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(
            b, a, rtol, atol * max(np.abs(a).max(), 1), err_msg=jax.tree_util.keystr(path)
        )


def test_the_step_follows_its_policy():
    geometry = step.Geometry(canvas=SIZE, margin=1.0, size=SIZE)
    options = {"geometry": geometry, "flip_order": skeletons.MPII.flip, "seed": 0, "mean": (0.0,) * 3}
    options |= {"augmentation": {}, "loss": lambda outputs, *_: (outputs.heatmaps[0].sum(), [])}
    make = functools.partial(step.make, Chain(), optax.sgd(0.1), **options)
    state = jax.eval_shape(
        functools.partial(step.init, Chain(), optax.sgd(0.1), seed=0, size=SIZE, average=False)
    )
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=np.float32)
    batch = {"image": shape((8, SIZE, SIZE, 3)), "joints": shape((8, 16, 2)), "visible": shape((8, 16))}
    batch |= {"center": shape((8, 2)), "scale": shape((8,))}
    traces = [
        str(jax.make_jaxpr(platforms.on("cpu", make(policy=policy)))(state, batch))
        for policy in ("", "units")
    ]
    assert [trace.count("inf:f32[]") for trace in traces] == [0, 5]
    with pytest.raises(ValueError, match="train.remat='all' is unknown; choose from '', 'units', "):
        make(policy="all")


def test_every_model_is_compared_here():
    assert set(NETWORKS) == set(models.names())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_the_plain_ones(name, monkeypatch):
    if name in ("chu", "tang"):
        monkeypatch.setattr(layers, "Unit", wiring.Point)
    with jax.enable_x64(True):
        model = models.build(name, joints=16, **(SMALL | NETWORKS[name])).clone(dtype=jnp.float64)
        variables, images = random(model)
        plain, less = (program(model, policy, variables, images) for policy in ("", "nested"))
        arguments = (variables["params"], variables["batch_stats"], images)
        close(less(*arguments), plain(*arguments), 1e-9, 1e-9)
    memory = [p.memory_analysis().temp_size_in_bytes for p in (less, plain)]
    assert memory[0] < 0.85 * memory[1], memory
