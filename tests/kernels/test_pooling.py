"""The form of the pooling for TPUs against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import pairs, platforms, pooling


@pytest.mark.parametrize("paired", [False, True])
def test_values_and_gradients_are_those_of_the_plain_form_with_ties(paired):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (2, 6, 8, 3)), jnp.bfloat16)  # many equal neighbours
    x = pairs.pair(x) if paired else x
    g = jnp.asarray(rng.normal(size=(2, 3, 4, 3)), jnp.bfloat16)

    def both(pool):
        value, backward = jax.vjp(pool, x)
        return value, *backward(g)

    plain, gradient = jax.jit(both, static_argnums=0)(lambda x: pooling.by_columns(x, paired))
    value, own = jax.jit(both, static_argnums=0)(platforms.on("tpu", lambda x: pooling.max_pool(x, 3)))
    np.testing.assert_array_equal(value, plain)
    np.testing.assert_array_equal(own, gradient)
    assert len(np.unique(np.abs(np.asarray(gradient, np.float32)))) > 10
