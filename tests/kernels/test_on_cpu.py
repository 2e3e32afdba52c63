"""The convolutions' and batch norm's own gradients against JAX's, in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import models
from hourglass_jax.kernels import on_cpu
from hourglass_jax.models import layers


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def close(ours, theirs):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), ours, theirs)


def with_gradients(function, *arguments):
    """Outputs, and the gradients of all arguments for a random one of the outputs."""
    outputs, pull = jax.vjp(function, *arguments)
    return outputs, pull(jax.tree.map(lambda y: random(9, *y.shape), outputs))


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (1, 1)},
        {"kernel_size": (3, 3)},
        {"kernel_size": (5, 3)},
        {"kernel_size": (1, 3), "use_bias": False},
        # What stays with JAX.
        {"kernel_size": (2, 2)},
        {"kernel_size": (3, 3), "strides": (2, 2)},
        {"kernel_size": (3, 3), "padding": "VALID"},
        {"kernel_size": (7, 7), "strides": (2, 2), "padding": ((3, 3), (3, 3))},
        {"kernel_size": (3, 3), "kernel_dilation": (2, 2)},
        {"kernel_size": (3, 3), "feature_group_count": 2},
    ],
)
def test_convolutions(options, own, monkeypatch):
    monkeypatch.setattr(on_cpu, "chosen", lambda: own)
    part, _ = layers.parts(train=True, dtype=jnp.float64)
    ours, plain = part(features=6, **options), nn.Conv(features=6, dtype=jnp.float64, **options)
    x = random(0, 2, 8, 10, 4)
    variables = jax.tree.map(lambda v: random(1, *v.shape), plain.init(jax.random.key(0), x))
    close(with_gradients(ours.apply, variables, x), with_gradients(plain.apply, variables, x))


def test_only_the_fitting_convolutions_have_forms_of_their_own(monkeypatch):
    part, _ = layers.parts(train=True, dtype=jnp.float64)

    def used(**options):
        convolution = part(features=6, **options)
        return "custom_vjp" in str(jax.make_jaxpr(convolution.init)(jax.random.key(0), random(0, 2, 8, 8, 4)))

    monkeypatch.setattr(on_cpu, "chosen", lambda: True)
    part, _ = layers.parts(train=True, dtype=jnp.float64)
    assert used(kernel_size=(1, 1)) and used(kernel_size=(3, 3))
    assert not used(kernel_size=(3, 3), strides=(2, 2)) and not used(kernel_size=(2, 2))
    part, norm = layers.parts(train=False, dtype=jnp.float32)
    assert used(kernel_size=(3, 3)) and norm.func is nn.BatchNorm  # without statistics of the batch
    part, norm = layers.parts(train=True, dtype=jnp.bfloat16)
    assert not used(kernel_size=(3, 3)) and norm.func is nn.BatchNorm
    monkeypatch.undo()
    with on_cpu.off():
        part, norm = layers.parts(train=True, dtype=jnp.float32)
    assert not used(kernel_size=(3, 3)) and norm.func is nn.BatchNorm


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (7, 5)])
def test_batch_norm(shape, monkeypatch):
    norms = []
    for own in (True, False):
        monkeypatch.setattr(on_cpu, "chosen", lambda own=own: own)
        norms.append(layers.parts(train=True, dtype=jnp.float64)[1](param_dtype=jnp.float64))
    x = 3 + random(0, *shape)
    variables = jax.tree.map(lambda v: random(1, *v.shape), norms[0].init(jax.random.key(0), x))

    def run(norm):
        def apply(params, x):
            y, new = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return y, jax.lax.stop_gradient(new)

        return with_gradients(apply, variables["params"], x)

    ours, theirs = map(run, norms)
    close(ours, theirs)
    # By the definition: normalised with the biased variance, statistics a tenth new.
    axes = tuple(range(len(shape) - 1))
    mean, std = x.mean(axes), jnp.sqrt(x.var(axes) + 1e-5)
    params, seen = variables["params"], variables["batch_stats"]
    close(ours[0][0], (x - mean) / std * params["scale"] + params["bias"])
    close(ours[0][1]["batch_stats"]["mean"], 0.9 * seen["mean"] + 0.1 * mean)


def test_a_networks_gradients_are_the_plain_ones(quick_compiles, monkeypatch):
    model = models.create("newell", joints=3, stacks=1, width=8, depth=1).clone(dtype=jnp.float64)
    x = random(0, 2, 16, 16, 3)
    variables = jax.tree.map(lambda v: jnp.asarray(v, float), model.init(jax.random.key(0), x[:1]))
    found = []
    for own in (True, False):
        monkeypatch.setattr(on_cpu, "chosen", lambda own=own: own)

        def loss(params):
            outputs, new = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return sum(jnp.sum(jnp.sin(9 * y)) for y in outputs.heatmaps), new

        found.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]))
    # Convolutions before a norm have no gradient for their bias but rounding.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found)
