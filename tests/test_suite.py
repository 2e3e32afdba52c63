"""The suite itself: the tests that the inner loop leaves out exist."""

import pathlib
import re

import conftest
import jax
import jax.numpy as jnp

from hourglass_jax.models import newell
from hourglass_jax.transforms import flops

TESTS = pathlib.Path(__file__).parent


def test_every_test_of_slow_txt_exists():
    functions = {
        f"{path.relative_to(TESTS).as_posix()}::{name}"
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    gone = sorted(name for name in conftest.SLOW if name.partition("[")[0] not in functions)
    assert not gone, "rename or remove them in tests/slow.txt"
    assert len(conftest.SLOW) < len(functions) / 4  # the inner loop has most of the suite


def test_sharing_units_keeps_shapes_and_counts():
    model = newell.Model(joints=3, stacks=2, width=8, depth=1)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert conftest.shapes_of(model, image) == plain
    counts = flops.of_model(model, 32)
    with conftest.sharing_units():
        assert flops.of_model(model, 32) == counts
