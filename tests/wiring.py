"""Networks of which only the wiring is tested; they are traced and compiled quickly."""

import flax.linen as nn

from hourglass_jax.models import layers


class Point(nn.Module):
    """Replaces a unit: a 1x1 convolution and its norm."""

    width: int
    conv: layers.Part
    norm: layers.Part

    @nn.compact
    def __call__(self, x):
        return self.norm()(self.conv(self.width, (1, 1))(x))
