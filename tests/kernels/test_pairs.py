"""Operations on pairs of columns compared with the plain ones, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import batch_norm, pairs, pooling


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def plain(x, kernel, strides=(1, 1), padding="SAME"):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=pairs.NUMBERS)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_convolutions(side):
    x, kernel = random(0, 2, 4, 8, 3), random(1, side, side, 3, 5)
    found = pairs.convolve(pairs.pair(x), kernel)
    np.testing.assert_allclose(found, pairs.pair(plain(x, kernel)), rtol=1e-12, atol=1e-12)


def test_the_first_convolution():
    image, kernel = random(0, 2, 10, 16, 3), random(1, 7, 7, 3, 4)
    wanted = plain(image, kernel, (2, 2), ((3, 3), (3, 3)))
    np.testing.assert_allclose(pairs.begin(image, kernel), pairs.pair(wanted), rtol=1e-12, atol=1e-12)


def test_pooling_ends_pairs():
    x = random(0, 2, 4, 8, 3)
    np.testing.assert_array_equal(pooling.max_pool(pairs.pair(x), 3), pooling.max_pool(x))
    np.testing.assert_array_equal(pooling.max_pool(x, 3), pooling.max_pool(x))


def test_norms_handle_two_places_per_channel():
    x, g = random(0, 2, 4, 8, 3), random(1, 2, 4, 8, 3)
    norm = batch_norm.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    params = {"scale": random(2, 3), "bias": random(3, 3)}
    seen = {"mean": random(4, 3), "var": jnp.ones(3)}

    def apply(params, x):
        return norm.apply({"params": params, "batch_stats": seen}, x, mutable=["batch_stats"])

    (y, new), pull = jax.vjp(apply, params, x)
    (of_pairs, new_of_pairs), pull_of_pairs = jax.vjp(apply, params, pairs.pair(x))
    none = jax.tree.map(jnp.zeros_like, new)
    wanted, found = pull((g, none)), pull_of_pairs((pairs.pair(g), none))
    for one, other in (
        ((of_pairs, new_of_pairs), (pairs.pair(y), new)),
        (found, (wanted[0], pairs.pair(wanted[1]))),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, other)
