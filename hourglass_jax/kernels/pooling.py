"""Maximum pooling."""

import jax
import jax.numpy as jnp

from hourglass_jax.kernels import platforms


def max_pool(x: jax.Array, channels: int = 0) -> jax.Array:
    """2x2 maximum with stride 2: (b, h, w, c) -> (b, h / 2, w / 2, c); h and w must be even.

    Args:
      x: features, or pairs of columns (b, h, w / 2, 2 c), see `pairs`.
      channels: c, to recognise pairs; 0 if there are none.
    """
    if platforms.current() == "onnx":  # ONNX has an operation for it
        window = (1, 2, 2, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    if channels and x.shape[-1] == 2 * channels:
        wide = jnp.maximum(x[..., :channels], x[..., channels:])
    else:
        # Strided slices: the gradient of a window reduction is many times slower on CPUs.
        wide = jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return jnp.maximum(wide[:, 0::2], wide[:, 1::2])
