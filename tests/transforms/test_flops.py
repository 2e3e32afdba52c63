"""Operations counted from traces, compared with sums by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from hourglass_jax.models import newell
from hourglass_jax.transforms import flops


def count(function, *shapes):
    return flops.of_jaxpr(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def convolve(groups, order, x, kernel):
    numbers = ("NHWC", order, "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def test_a_matrix_product_and_one_of_batches():
    assert count(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert count(jnp.matmul, (4, 3, 5), (4, 5, 7)) == 4 * 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("groups", "order", "kernel"),
    [(1, "HWIO", (3, 3, 6, 8)), (1, "OIHW", (8, 6, 3, 3)), (2, "HWIO", (3, 3, 3, 8))],
)
def test_a_convolution(groups, order, kernel):
    # 8 x 8 cells by two: 4 x 4, of 8 channels each, from 3 x 3 x 6 numbers (3 x 3 x 3 in two groups).
    found = count(functools.partial(convolve, groups, order), (2, 8, 8, 6), kernel)
    assert found == 2 * (2 * 4 * 4 * 8) * (3 * 3 * 6 // groups)


def test_functions_within_functions_are_counted_as_often_as_they_run():
    product = 2 * 4 * 4 * 4
    inner = jax.jit(lambda x: x @ x)
    assert count(lambda x: inner(inner(x)), (4, 4)) == 2 * product
    assert count(jax.checkpoint(lambda x: x @ x), (4, 4)) == product
    scan = lambda x: jax.lax.scan(lambda y, _: (y @ x, None), x, length=5)[0]  # noqa: E731
    assert count(scan, (4, 4)) == 5 * product
    branches = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x)  # noqa: E731
    assert count(branches, (4, 4)) == 2 * product


def test_loops_of_unknown_length_are_refused():
    with pytest.raises(ValueError, match="its number of iterations is not known"):
        count(lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ y, x), (4, 4))


def test_the_two_stack_hourglass_has_its_known_size():
    # The public PyTorch port: 17.98 GFLOP per image of 256 px, 6,730,912 parameters.
    found, parameters = flops.of_model(newell.Model(joints=16, stacks=2, stem="port"), 256)
    assert (f"{found / 1e9:.2f}", parameters) == ("17.98", 6_730_912)
