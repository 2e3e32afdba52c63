"""Winograd's filtering compared with XLA's convolutions, and its matrices by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import platforms, winograd
from hourglass_jax.models import layers


def xlas(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_one_tile_by_hand():
    d, g = np.arange(6.0) ** 2, np.array([1.0, 10.0, 100.0])
    # 0 1 4 9 16 25 under 1 10 100: 0 + 10 + 400, 1 + 40 + 900, 4 + 90 + 1600, 9 + 160 + 2500
    np.testing.assert_allclose(
        winograd.AT @ ((winograd.G @ g) * (winograd.BT @ d)), [410, 941, 1694, 2669], rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(1, 4, 4, 1, 1), (2, 8, 12, 5, 7), (3, 16, 4, 2, 3)])
def test_values_and_gradients_are_those_of_xla(shape):
    b, h, w, c, d = shape
    with jax.enable_x64(True):

        @jax.jit
        def run(x, kernel, g):
            y, pull = jax.vjp(functools.partial(xlas, x), kernel)
            return (winograd.convolve(x, kernel), winograd.kernel_gradient(x, g)), (y, *pull(g))

        found, expected = run(random(0, b, h, w, c), random(1, 3, 3, c, d), random(2, b, h, w, d))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), found, expected)


def test_float32_is_exact_to_a_few_millionths():
    x, kernel = np.maximum(random(0, 2, 16, 16, 128), 0), random(1, 3, 3, 128, 32) / 34
    with jax.enable_x64(True):
        exact = np.asarray(xlas(x, kernel))
    y = jax.jit(winograd.convolve)(np.float32(x), np.float32(kernel))
    assert y.dtype == jnp.float32
    assert np.abs(y - exact).max() < 5e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((4, 16, 16, 32, 32, 3), True),
        ((1, 32, 32, 32, 32, 3), True),
        ((3, 16, 16, 32, 32, 3), False),
        ((8, 12, 16, 32, 32, 3), False),
        ((4, 18, 16, 32, 32, 3), False),
        ((4, 16, 18, 32, 32, 3), False),
        ((4, 16, 16, 31, 32, 3), False),
        ((4, 16, 16, 32, 31, 3), False),
        ((4, 16, 16, 32, 32, 5), False),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_large_convolutions_of_a_network_use_winograd(shape, taken, train, monkeypatch):
    b, h, w, c, d, side = shape
    calls = []
    plain = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: calls.append(1) or plain(*given))
    conv = layers.parts(train=train, dtype=jnp.float32)[0](d, (side, side))
    x, function = random(0, b, h, w, c).astype(np.float32), platforms.on("cpu", conv.init_with_output)
    jax.eval_shape(function, jax.random.key(0), x)
    assert bool(calls) is taken
    if taken:
        y, variables = jax.jit(function)(jax.random.key(0), x)
        np.testing.assert_allclose(y, xlas(x, variables["params"]["kernel"]), rtol=1e-4, atol=1e-4)


def test_a_batch_spread_over_devices_stays_spread(run_python):
    ran = run_python("winograd_on_devices.py", devices=8)
    assert ran.stdout == "[]\n['all-reduce']\n", ran.stderr
