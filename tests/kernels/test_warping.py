"""The warp in its form for TPUs against the plain one, and against bilinear sampling by its definition."""

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.kernels import platforms, warping

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), np.uint8)
# Rotated, sheared and larger than the picture, so that points lie on all sides of it; and the picture itself.
INVERSE = np.array([[[1.1, -0.6, 1.3], [0.7, 0.9, -2.2]], [[1, 0, 0], [0, 1, 0]]], np.float32)


def by_definition(image, inverse, size):
    """float64: the sum of all pixels, weighted by their distances in x and y."""
    h, w = image.shape[:2]
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    u, v = (row[0] * x + row[1] * y + row[2] for row in inverse.astype(np.float64))
    near_x = np.maximum(0, 1 - np.abs(u[..., None] - 0.5 - np.arange(w)))
    near_y = np.maximum(0, 1 - np.abs(v[..., None] - 0.5 - np.arange(h)))
    return np.einsum("rsy,rsx,yxc->rsc", near_y, near_x, image.astype(np.float64))


def test_both_forms_sample_bilinearly():
    wanted = np.stack([by_definition(*pair, 8) for pair in zip(IMAGES, INVERSE, strict=True)])
    assert (wanted[0] == 0).any() and (wanted[0] > 0).any()
    plain = jax.jit(warping.plain, static_argnums=2)(IMAGES, INVERSE, 8)
    np.testing.assert_allclose(plain, wanted, atol=1e-3)  # of 255
    np.testing.assert_allclose(plain[1, :7, :8], IMAGES[1, :, :8], atol=1e-4)
    packed = jax.jit(warping.by_packed_pixels, static_argnums=2)(IMAGES, INVERSE, 8)
    np.testing.assert_allclose(packed, plain, rtol=1e-6, atol=1e-4)


def test_bytes_are_read_as_packed_pixels_on_tpus_only():
    def reads(platform, dtype):
        function = platforms.on(platform, lambda images, inverse: warping.warp(images, inverse, 8))
        return "u32[" in str(jax.make_jaxpr(function)(jnp.asarray(IMAGES, dtype), INVERSE))

    assert [reads(platform, jnp.uint8) for platform in ("tpu", "cpu", "gpu")] == [True, False, False]
    assert not reads("tpu", jnp.float32)
