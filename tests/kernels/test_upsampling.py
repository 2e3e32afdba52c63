"""Upsampling in its form for TPUs against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.kernels import platforms, upsampling


def test_the_form_for_tpus_has_the_plain_values_and_gradients():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, g = jnp.asarray(rng.normal(size=(2, 3, 5, 4))), jnp.asarray(rng.normal(size=(2, 6, 10, 4)))
        (plain, to_plain), (ours, to_ours) = (
            jax.vjp(form, x) for form in (upsampling.plain, upsampling.by_products)
        )
        np.testing.assert_array_equal(ours, plain)
        np.testing.assert_array_equal(plain, x.repeat(2, axis=1).repeat(2, axis=2))
        np.testing.assert_allclose(to_ours(g)[0], to_plain(g)[0], rtol=1e-12)


def test_bfloat16_keeps_its_values_and_the_form_is_only_for_tpus():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 8)), jnp.bfloat16)

    def products(platform, dtype):
        function = platforms.on(platform, upsampling.upsample)
        return str(jax.make_jaxpr(function)(x.astype(dtype))).count("dot_general")

    assert [products(platform, jnp.bfloat16) for platform in ("tpu", "cpu", "gpu")] == [2, 0, 0]
    assert products("tpu", jnp.float32) == 0
    found = platforms.on("tpu", upsampling.upsample)(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(float), upsampling.plain(x).astype(float))
