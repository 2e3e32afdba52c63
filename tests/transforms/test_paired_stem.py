"""The stem as pairs of columns: the suitable stems, and equal values and gradients."""

import functools

import conftest
import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import models
from hourglass_jax.kernels import platforms
from hourglass_jax.models import layers
from hourglass_jax.transforms import cancelled_biases, norm_groups, paired_stem, remat, shared_units


def wrapped(apply):
    """Wraps a function as the train step does."""
    inner = cancelled_biases.skip(paired_stem.pair(norm_groups.grouped(apply, 2)))
    return shared_units.share(remat.create(inner, "units"))


def test_values_and_gradients_are_the_plain_ones(quick_compiles, monkeypatch):
    monkeypatch.setattr(paired_stem, "fits", lambda stem, image: True)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        image, weight = (
            jnp.asarray(rng.normal(size=(4, 8, 16, 3))),
            jnp.asarray(rng.normal(size=(4, 2, 4, 24))),
        )
        conv, norm = platforms.on("tpu", layers.parts)(train=True, dtype=jnp.float64)
        net = layers.Stem(24, conv, norm, functools.partial(layers.Unit, conv=conv, norm=norm))
        shapes = conftest.shapes_of(net, image)[1]
        variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(1, 0.5, leaf.shape)), shapes)
        apply = functools.partial(net.apply, mutable=["batch_stats"])

        def loss(params, wrap):
            y, new = wrap(apply)({**variables, "params": params}, image)
            return jnp.sum(weight * y), (y, new)

        def run(wrap):
            function = jax.grad(functools.partial(loss, wrap=wrap), has_aux=True)
            text = str(jax.make_jaxpr(platforms.on("tpu", function))(variables["params"]))
            program = jax.jit(platforms.on("tpu", function))
            return program(variables["params"]), "f64[4,4,4,24]" in text

        ours, paired = run(wrapped)
        plain, unpaired = run(lambda f: norm_groups.grouped(f, 2))
        assert paired and not unpaired
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), ours, plain)


def test_which_stems_are_paired():
    def paired(model, platform="tpu", size=32):
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        variables = conftest.shapes_of(model, image)[1]
        apply = paired_stem.pair(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
        text = str(jax.make_jaxpr(platforms.on(platform, apply))(variables, image))
        return f"bf16[1,{size // 2},{size // 4},24]" in text  # blocks of 2 x 4 pixels

    small = {"joints": 3, "stacks": 1, "depth": 1}
    newell = models.build("newell", **small, width=256)
    assert paired(newell.clone(dtype=jnp.bfloat16))
    assert not paired(newell)
    assert not paired(newell.clone(dtype=jnp.bfloat16), "gpu")
    assert not paired(models.build("newell", **small, width=64).clone(dtype=jnp.bfloat16))
