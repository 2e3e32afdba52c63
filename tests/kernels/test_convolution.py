"""Convolutions and a whole network in their forms for CPUs against plain JAX, in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.kernels import convolution, platforms
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


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (1, 1)},
        {"kernel_size": (3, 3)},
        {"kernel_size": (5, 3)},
        {"kernel_size": (1, 3), "use_bias": False},
        # Cases for JAX's own convolution.
        {"kernel_size": (2, 2)},
        {"kernel_size": (3, 3), "strides": (2, 2)},
        {"kernel_size": (3, 3), "padding": "VALID"},
        {"kernel_size": (7, 7), "strides": (2, 2), "padding": ((3, 3), (3, 3))},
        {"kernel_size": (3, 3), "kernel_dilation": (2, 2)},
        {"kernel_size": (3, 3), "feature_group_count": 2},
    ],
)
def test_convolutions(options, platform):
    part, _ = layers.parts(train=True, dtype=jnp.float64)
    ours, plain = part(features=6, **options), nn.Conv(features=6, dtype=jnp.float64, **options)
    x = random(0, 2, 8, 10, 4)
    variables = jax.tree.map(lambda v: random(1, *v.shape), jax.eval_shape(plain.init, jax.random.key(0), x))
    apply = platforms.on(platform, ours.apply)
    close(with_gradients(apply, variables, x), with_gradients(plain.apply, variables, x))


def test_only_suitable_convolutions_have_forms_of_their_own():
    x = random(0, 2, 8, 8, 4)

    def own(platform, dtype=jnp.float32, **options):
        conv = layers.parts(train=True, dtype=dtype)[0](features=6, **options)
        init = platforms.on(platform, conv.init) if platform else conv.init
        return "custom_vjp" in str(jax.make_jaxpr(init)(jax.random.key(0), x))

    assert own("cpu", kernel_size=(1, 1)) and own("cpu", kernel_size=(3, 3))
    assert not own("cpu", kernel_size=(3, 3), strides=(2, 2)) and not own("cpu", kernel_size=(2, 2))
    assert not own("cpu", jnp.bfloat16, kernel_size=(3, 3))
    assert not own("gpu", kernel_size=(3, 3)) and not own(None, kernel_size=(3, 3))


def test_tpus_convolve_1x1_in_bfloat16():
    x, kernel = (
        random(seed, *shape).astype(jnp.bfloat16) for seed, shape in ((0, (2, 4, 4, 3)), (1, (1, 1, 3, 5)))
    )
    numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def traced(platform, dtype):
        function = platforms.on(platform, lambda x, k: convolution.convolve(x, k, (1, 1), "SAME", **numbers))
        return str(jax.make_jaxpr(function)(x.astype(dtype), kernel.astype(dtype)))

    forms = ["conv_general_dilated" in traced(p, jnp.bfloat16) for p in ("tpu", "gpu", "cpu")]
    assert forms == [True, False, False] and "dot_general" in traced("tpu", jnp.float32)
    found, plain = (
        f(x, kernel, (1, 1), "SAME", **numbers) for f in (convolution.as_convolution, convolution.plain)
    )
    exact = jnp.einsum("bhwc,cd->bhwd", x.astype(float), kernel[0, 0].astype(float))
    for y in (found, plain):
        np.testing.assert_allclose(y.astype(float), exact, rtol=2**-8, atol=2**-8)


class Network(nn.Module):
    """The parts of every system: a 7x7 convolution, a norm, and an hourglass of residual units."""

    @nn.compact
    def __call__(self, image):
        conv, norm = layers.parts(train=True, dtype=jnp.float64)
        x = conv(6, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="conv")(image)
        wide, narrow = (functools.partial(layers.Unit, width, conv, norm) for width in (8, 6))
        return layers.Hourglass(1, narrow, bottom=wide)(nn.relu(norm(name="norm")(x)))[-1]


def test_a_networks_gradients_are_the_plain_ones(quick_compiles):
    network, x = Network(), random(0, 2, 8, 8, 3)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x[:1])
    variables = jax.tree.map(lambda v: 0.3 * random(1, *v.shape), shapes)
    found = []
    for platform in ("cpu", "gpu"):

        def loss(params):
            y, new = network.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(9 * y)), new

        found.append(
            jax.jit(platforms.on(platform, jax.value_and_grad(loss, has_aux=True)))(variables["params"])
        )
    # The biases of convolutions before a norm have a gradient of 0, up to rounding.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *found)
