"""Biases that a norm cancels have a gradient of exactly zero; all else is unchanged."""

import functools

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers
from hourglass_jax.transforms import cancelled_biases, norm_groups, remat, shared_units


class Net(nn.Module):
    """A convolution and a norm; a unit; and a convolution that a norm and the output read."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        conv, norm = layers.parts(train=self.train, dtype=x.dtype)
        conv = functools.partial(conv, param_dtype=x.dtype)
        norm = functools.partial(norm, param_dtype=x.dtype)
        x = nn.relu(norm(name="norm")(conv(4, (1, 1), name="conv")(x)))
        x = layers.Unit(4, conv, norm, name="unit")(x)
        both = conv(4, (1, 1), name="both")(x)
        return both + norm(name="after")(both)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def gradients(wrap, *, platform="cpu", train=True):
    """(outputs, gradients by path) of a random projection of the outputs."""
    rng = np.random.default_rng(0)
    x, weight = jnp.asarray(rng.normal(size=(4, 4, 4, 3))), jnp.asarray(rng.normal(size=(4, 4, 4, 4)))
    net = Net(train)
    _, shapes = conftest.shapes_of(net, x)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape)), shapes)
    apply = wrap(functools.partial(net.apply, mutable=["batch_stats"]))

    def loss(params):
        y, new = apply({**variables, "params": params}, x)
        return jnp.sum(weight * y), (y, new)

    run = jax.jit(platforms.on(platform, jax.grad(loss, has_aux=True)))
    grads, outputs = run(variables["params"])
    named = {jax.tree_util.keystr(path): g for path, g in jax.tree_util.tree_leaves_with_path(grads)}
    return outputs, named


ZERO = {"['conv']['bias']", "['unit']['conv0']['bias']", "['unit']['conv1']['bias']"}


@pytest.mark.parametrize(("inner", "platform"), [("shared", "cpu"), ("groups", "tpu"), ("remat", "cpu")])
def test_gradients_are_zero_where_a_norm_cancels_and_equal_elsewhere(inner, platform, quick_compiles):
    wrap = {
        "shared": lambda f: shared_units.share(f),
        "groups": lambda f: norm_groups.grouped(f, 2),
        "remat": lambda f: remat.create(f, "units"),
    }[inner]
    # In the order of the train step.
    skip = cancelled_biases.skip
    nested = (lambda f: skip(wrap(f))) if inner == "groups" else (lambda f: wrap(skip(f)))
    (wanted, new_wanted), plain = gradients(wrap, platform=platform)
    (found, new), ours = gradients(nested, platform=platform)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), new, new_wanted)
    assert {name for name, g in ours.items() if not np.any(g)} == ZERO
    for name, g in plain.items():
        np.testing.assert_allclose(ours[name], g, rtol=1e-7, atol=1e-10, err_msg=name)


def test_running_statistics_cancel_nothing(quick_compiles):
    _, plain = gradients(lambda f: f, train=False)
    _, ours = gradients(cancelled_biases.skip, train=False)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    assert np.abs(ours["['conv']['bias']"]).min() > 1e-3
