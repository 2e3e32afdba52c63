"""Batch norm over groups of examples: values by hand, independence of devices, no communication."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers
from hourglass_jax.transforms import norm_groups, shared_units


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return layers.parts(train=True, dtype=x.dtype)[1](name="norm")(x)


def run(x, size, platform="cpu"):
    """(normalised values, running statistics)."""
    variables = jax.jit(Norm().init)(jax.random.key(0), x)
    function = norm_groups.grouped(lambda v, x: Norm().apply(v, x, mutable=["batch_stats"]), size)
    y, new = jax.jit(platforms.on(platform, function))(variables, x)
    return y, new["batch_stats"]["norm"]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_each_group_has_its_own_statistics(platform):
    x = jnp.array([1.0, 3.0, 10.0, 30.0])[:, None]  # means 2 and 20, variances 1 and 100
    y, stats = run(x, 2, platform)
    np.testing.assert_allclose(y[:, 0], [-1, 1, -1, 1], rtol=1e-4)
    # A tenth of the mean of the groups' statistics; the running statistics start at 0 and 1.
    np.testing.assert_allclose(stats["mean"], 0.1 * (2 + 20) / 2, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * (1 + 100) / 2, rtol=1e-5)
    whole, _ = run(x, 0, platform)
    np.testing.assert_allclose(whole[:, 0], (x[:, 0] - 11) / np.std(x), rtol=1e-4)
    np.testing.assert_allclose(run(x, 4, platform)[0], whole, rtol=1e-6)


def test_gradients_equal_those_of_flaxs_norm_for_each_group():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(3, 1, (6, 4, 3)))
        weight = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        variables = jax.tree.map(lambda v: v + 0.5, Norm().init(jax.random.key(0), x))
        apply = norm_groups.grouped(lambda v, x: Norm().apply(v, x, mutable=["batch_stats"]), 2)

        def objective(params, x):
            y, new = apply({**variables, "params": params}, x)
            return jnp.sum(weight * y), new

        gradient = jax.value_and_grad(objective, (0, 1), has_aux=True)
        ours, flaxs = (
            jax.jit(platforms.on(name, gradient))(variables["params"], x) for name in ("tpu", "gpu")
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), ours, flaxs)


def test_a_batch_that_it_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="train.norm_group=3 does not divide 4 examples"):
        run(jnp.ones((4, 2)), 3)


def test_shared_units_have_groups_too(quick_compiles):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.Unit(8, *layers.parts(train=True, dtype=x.dtype), name="unit")(x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4, 8)), jnp.float32)
    variables = jax.jit(Net().init)(jax.random.key(0), x)
    apply = functools.partial(Net().apply, mutable=["batch_stats"])
    shared, _ = jax.jit(shared_units.share(norm_groups.grouped(apply, 2)))(variables, x)
    alone = jax.jit(apply)
    halves = [alone(variables, half)[0] for half in (x[:2], x[2:])]
    np.testing.assert_allclose(shared, jnp.concatenate(halves), rtol=1e-5, atol=1e-5)


def test_one_and_eight_devices_agree_and_statistics_are_not_sent(run_python):
    ran = run_python("norm_groups_on_devices.py", devices=8)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    one, eight, whole = (found["gradients"][name] for name in ("2 on 1", "2 on 8", "0 on 8"))
    np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-4)  # of about 50
    assert np.abs(np.subtract(whole, one)).max() > 1
    # Running statistics and gradients are summed over devices once; global statistics in each layer.
    assert found["all-reduces"]["2 on 8"] < found["all-reduces"]["0 on 8"] / 2, found["all-reduces"]
