"""Batch normalisation in its form for CPUs and TPUs compared with flax's, in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import batch_norm, platforms
from hourglass_jax.models import layers


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def close(ours, theirs):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), ours, theirs)


def with_gradients(function, *arguments):
    """Outputs, and the gradients of all arguments for random gradients of the outputs."""

    @jax.jit
    def run(*arguments):
        outputs, pull = jax.vjp(function, *arguments)
        return outputs, pull(jax.tree.map(lambda y: random(9, *y.shape), outputs))

    return run(*arguments)


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_it_is_for_training_on_tpus_and_in_float32_on_cpus():
    choose = batch_norm.of_current_platform
    for platform, train, dtype, own in (
        ("cpu", True, jnp.float32, True),
        ("cpu", False, jnp.float32, False),  # without statistics of the batch
        ("cpu", True, jnp.bfloat16, False),
        ("tpu", True, jnp.bfloat16, True),
        ("tpu", False, jnp.bfloat16, False),
        ("gpu", True, jnp.bfloat16, False),
    ):
        chosen = platforms.on(platform, choose)(train=train, dtype=dtype)
        assert chosen is (batch_norm.BatchNorm if own else nn.BatchNorm)
    assert choose(train=True, dtype=jnp.float32) is nn.BatchNorm


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (7, 5)])
def test_values_gradients_and_statistics(shape):
    parts = functools.partial(layers.parts, train=True, dtype=jnp.float64)
    norms = [platforms.on(platform, parts)()[1](param_dtype=jnp.float64) for platform in ("cpu", "gpu")]
    assert [isinstance(norm, batch_norm.BatchNorm) for norm in norms] == [True, False]
    x = 3 + random(0, *shape)
    variables = jax.tree.map(
        lambda v: random(1, *v.shape), jax.eval_shape(norms[0].init, jax.random.key(0), x)
    )

    def run(norm):
        def apply(params, x):
            y, new = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return y, jax.lax.stop_gradient(new)

        return with_gradients(apply, variables["params"], x)

    ours, theirs = map(run, norms)
    close(ours, theirs)
    # By definition: normalised with the biased variance; statistics updated by a tenth.
    axes = tuple(range(len(shape) - 1))
    mean, std = x.mean(axes), jnp.sqrt(x.var(axes) + 1e-5)
    params, seen = variables["params"], variables["batch_stats"]
    close(ours[0][0], (x - mean) / std * params["scale"] + params["bias"])
    close(ours[0][1]["batch_stats"]["mean"], 0.9 * seen["mean"] + 0.1 * mean)


def test_bfloat16_is_rounded_only_at_the_ends():
    norm = batch_norm.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)
    x = (3 + random(0, 64, 5)).astype(jnp.bfloat16)
    params = {"scale": 1 + random(1, 5) / 4, "bias": random(2, 5)}
    seen = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

    def apply(params, x):
        y, new = norm.apply({"params": params, "batch_stats": seen}, x, mutable=["batch_stats"])
        return y.astype(float), jax.lax.stop_gradient(new)

    (y, new), grads = with_gradients(apply, params, x)
    exact = x.astype(float)
    mean, var = exact.mean(0), exact.var(0)
    wanted = (exact - mean) / jnp.sqrt(var + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, wanted, rtol=2**-8, atol=1e-6)
    # In float32 the mean's square of about 9 is subtracted from a mean of squares of about 10.
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)
    assert grads[1].dtype == jnp.bfloat16 and grads[0]["scale"].dtype == params["scale"].dtype
    reference = with_gradients(
        lambda params, x: (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) * params["scale"], params, exact
    )
    weight = random(9, *x.shape)
    np.testing.assert_allclose(grads[1].astype(float), reference[1][1], rtol=2**-6, atol=2**-7)
    np.testing.assert_allclose(grads[0]["bias"], weight.astype(jnp.bfloat16).astype(float).sum(0), rtol=1e-3)
