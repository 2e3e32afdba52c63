"""The platform whose forms a program gets."""

import jax
import numpy as np
import pytest

from hourglass_jax import devices
from hourglass_jax.kernels import platforms


def test_a_program_is_traced_in_the_forms_of_its_devices(monkeypatch):
    seen = []

    def function(x):
        seen.append(platforms.current())
        return x

    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # as Predictor(device="cpu") with a GPU
    devices.jit(function, mesh)(1.0)
    devices.jit(function, mesh, forms_of="tpu")(1.0)
    jax.jit(function)(2)
    assert seen == ["cpu", "tpu", None]


def test_forms_end_with_the_function_and_may_be_nested():
    def fails():
        raise ValueError(platforms.current())

    with pytest.raises(ValueError, match="tpu"):
        platforms.on("cpu", platforms.on("tpu", fails))()
    assert platforms.current() is None
    inner = platforms.on("tpu", platforms.current)
    assert platforms.on("cpu", lambda: (inner(), platforms.current()))() == ("tpu", "cpu")
