"""The optimiser's steps against the formula by hand with Torch's constants, and the schedules' values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hourglass_jax.training import optimizer


def updates(transformation, gradients, params=None):
    """The updates for a series of gradients."""
    params = jnp.zeros_like(jnp.asarray(gradients[0])) if params is None else params
    state, result = transformation.init(params), []
    step = jax.jit(transformation.update)  # one program; each operation alone would be compiled, too
    for gradient in gradients:
        update, state = step(jnp.asarray(gradient), state, params)
        result.append(np.asarray(update))
    return result


def constant(value):
    return optax.constant_schedule(value)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


# RMSprop


def test_rmsprop_takes_torchs_steps():
    # v <- 0.99 v + 0.01 g^2, step = -rate g / (sqrt(v) + 1e-8), v = 0 at first. With g = 2:
    # v = 0.04, sqrt 0.2, step -0.1 * 2 / 0.2 = -1; then g = -1: v = 0.0396 + 0.01 = 0.0496.
    first, second = updates(optimizer.transformation(constant(0.1)), [np.array([2.0]), np.array([-1.0])])
    np.testing.assert_allclose(first, -1.0, rtol=1e-6)
    np.testing.assert_allclose(second, 0.1 / math.sqrt(0.0496), rtol=1e-6)


def test_rmsprop_has_its_epsilon_outside_of_the_root():
    # g = 1e-7: sqrt(v) = 1e-8 = epsilon, so the first step is g / 2e-8 = 5 rates long. Inside of the
    # root, 1e-8 would leave g / 1e-4 = 0.001; without an epsilon it is 10.
    (first,) = updates(optimizer.transformation(constant(1.0)), [np.array([1e-7], np.float32)])
    np.testing.assert_allclose(first, -5.0, rtol=1e-5)


def test_rmsprop_has_neither_momentum_nor_a_step_without_gradient():
    ahead, still = updates(optimizer.transformation(constant(0.1)), [np.array([2.0]), np.array([0.0])])
    assert ahead != 0 and still == 0


# Adam


def test_adam_takes_its_steps_and_decays_the_weights_separately():
    # Adam's first step is the sign of the gradient; decay adds 0.2 of the weight 3.
    adam = optimizer.transformation(constant(0.1), name="adam", weight_decay=0.2)
    (first,) = updates(adam, [np.array([5.0])], params=jnp.array([3.0]))
    np.testing.assert_allclose(first, -0.1 * (1 + 0.2 * 3), rtol=1e-5)
    # The second step by hand: m = 0.1 g1 * 0.9 + 0.1 g2, v likewise with 0.999, both corrected.
    plain = optimizer.transformation(constant(0.1), name="adam")
    _, second = updates(plain, [np.array([5.0]), np.array([-1.0])])
    m = (0.9 * 0.1 * 5 + 0.1 * -1) / (1 - 0.9**2)
    v = (0.999 * 0.001 * 25 + 0.001 * 1) / (1 - 0.999**2)
    np.testing.assert_allclose(second, -0.1 * m / math.sqrt(v), rtol=1e-4)


# Lion and Muon


def test_lion_takes_signs_and_decays_the_weights_separately():
    lion = optimizer.transformation(constant(0.1), name="lion", weight_decay=0.2)
    (first,) = updates(lion, [np.array([-5.0])], params=jnp.array([3.0]))
    np.testing.assert_allclose(first, -0.1 * (-1 + 0.2 * 3), rtol=1e-6)
    # The sign of 0.9 m + 0.1 g with m = 0.01 * 5 after the first step: 0.045 - 0.04, and 0.045 - 0.05.
    plain = optimizer.transformation(constant(0.1), name="lion")
    for second, sign in ((-0.4, 1), (-0.5, -1)):
        found = updates(plain, [np.array([5.0]), np.array([second])])[1]
        np.testing.assert_allclose(found, -0.1 * sign, rtol=1e-6)


def test_muon_updates_kernels_equally_in_all_directions_and_vectors_by_adam():
    muon = optimizer.transformation(constant(0.1), name="muon")
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)) * np.geomspace(1e-2, 1, 8)
    gradients = jax.tree.map(jnp.asarray, {"kernel": kernel, "bias": np.array([2.0, -3.0])})
    params = jax.tree.map(jnp.zeros_like, gradients)
    step, _ = jax.jit(muon.update)(gradients, muon.init(params), params)
    values = np.linalg.svd(np.reshape(step["kernel"], (36, 8)), compute_uv=False)
    # Newton-Schulz gives singular values of about 1, from 0.68 to 1.13; times 0.1 * 0.2 * sqrt(36).
    assert np.linalg.cond(np.reshape(kernel, (36, 8))) > 50
    assert (values > 0.65 * 0.12).all() and (values < 1.15 * 0.12).all()
    # Nesterov's momentum looks one step ahead: 0.9 * 0.1 / (1 - 0.9^2) + 1.
    np.testing.assert_allclose(step["bias"], [-0.1 * 28 / 19, 0.1 * 28 / 19], rtol=1e-5)


# Clipping and the schedule


@pytest.mark.parametrize("name", ["rmsprop", "adam", "muon"])
def test_clipping_by_the_global_norm_comes_before_the_statistics(name):
    # The norm of (6, 8) is 10: clipped to 5 it becomes (3, 4), and (0.3, 0.4) does not change.
    clipping = optimizer.transformation(constant(0.1), name=name, clip_norm=5.0)
    clipped = updates(clipping, [[6.0, 8], [0.3, 0.4]])
    expected = updates(optimizer.transformation(constant(0.1), name=name), [[3.0, 4], [0.3, 0.4]])
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)


def test_the_schedule_is_read_at_each_step():
    halving = optimizer.schedule(learning_rate=0.1, kind="steps", steps=10, milestones=(1, 2), factor=0.5)
    # With a constant gradient v grows: g / sqrt(v) = 1 / sqrt(1 - 0.99^n).
    steps = updates(optimizer.transformation(halving), [np.array([3.0])] * 3)
    expected = [-rate / math.sqrt(1 - 0.99**n) for n, rate in enumerate((0.1, 0.05, 0.025), start=1)]
    np.testing.assert_allclose(np.ravel(steps), expected, rtol=1e-5)


def test_steps_multiply_at_each_milestone_from_that_step_on():
    schedule = optimizer.schedule(
        learning_rate=2.5e-4, kind="steps", steps=100, milestones=(40, 60), factor=0.2
    )
    values = rates(schedule, [0, 39, 40, 59, 60, 99])
    np.testing.assert_allclose(values, [2.5e-4, 2.5e-4, 5e-5, 5e-5, 1e-5, 1e-5], rtol=1e-6)


def test_cosine_falls_to_zero_at_the_last_step():
    schedule = optimizer.schedule(learning_rate=2.0, kind="cosine", steps=60)
    # 1 + cos(pi t / 60): t = 0, 20, 30, 60
    np.testing.assert_allclose(rates(schedule, [0, 20, 30, 60]), [2, 1.5, 1, 0], atol=1e-6)
    values = rates(schedule, range(61))
    assert all(np.diff(values) < 0)


def test_a_constant_schedule_does_not_change():
    schedule = optimizer.schedule(learning_rate=0.3, kind="constant", steps=10)
    np.testing.assert_allclose(rates(schedule, [0, 5, 1000]), 0.3, rtol=1e-6)


@pytest.mark.parametrize("kind", optimizer.SCHEDULES)
def test_warm_up_starts_above_zero_and_rises_to_the_schedule(kind):
    options = dict(learning_rate=0.8, kind=kind, steps=20, milestones=(2, 10), factor=0.5)
    plain, warm = optimizer.schedule(**options), optimizer.schedule(**options, warmup_steps=4)
    factors = [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]
    expected = np.multiply(rates(plain, range(6)), factors)
    np.testing.assert_allclose(rates(warm, range(6)), expected, rtol=1e-6)
    np.testing.assert_allclose(rates(warm, [10, 19]), rates(plain, [10, 19]), rtol=1e-6)


def test_an_unknown_name_gives_an_error_with_the_known_names():
    with pytest.raises(ValueError, match="(?s)'sgd'.*rmsprop.*adam"):
        optimizer.transformation(constant(0.1), name="sgd")
    with pytest.raises(ValueError, match="(?s)'linear'.*steps.*cosine.*constant"):
        optimizer.schedule(learning_rate=0.1, kind="linear", steps=10)


def test_a_plateau_drops_the_rate_once():
    # Means over two steps: 3, 2, then 2 and 2.5, which are not lower by a thousandth: after the second of
    # them all updates are a fifth, and stay so. If a mean in between is lower, the count starts again.
    losses = [4, 2, 2, 2, 2, 2, 2, 3, 5, 5, 5, 5, 5, 5]
    transformation = optimizer.plateau(optax.sgd(1.0), factor=0.2, patience=2, window=2)
    state, moved, scales = transformation.init(jnp.zeros(1)), [], []
    step = jax.jit(transformation.update)
    for loss in losses:
        update, state = step(jnp.ones(1), state, jnp.zeros(1), value=jnp.float32(loss))
        moved.append(float(update[0]))
        scales.append(optimizer.plateau_scale(state))
    np.testing.assert_allclose(moved, [-1.0] * 7 + [-0.2] * 7, rtol=1e-6)
    np.testing.assert_allclose(scales, np.abs(moved), rtol=1e-6)
    assert optimizer.plateau_scale(optax.adam(1.0).init(jnp.zeros(1))) == 1.0
