"""Phases: the schedule by step, and an optimiser that updates some labels and freezes the others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hourglass_jax.training import optimizer, phases

CYCLE = (("pose", 2.0), ("attention", 0.5), ("pose+attention", 1.0))  # epochs of two steps: 4, 1 and 2


class Two(nn.Module):
    """A model with two tasks and, optionally, a parameter without a task."""

    stray: bool = False
    tasks = ("pose", "attention")
    trained: tuple[str, ...] = tasks

    @staticmethod
    def label(path):
        return {"a": "attention", "p": "pose"}.get(path[0])

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.Dense(2, name="p")(image) + nn.Dense(2, name="a")(image)
        return nn.Dense(1, name="stray")(x) if self.stray else x


def test_a_step_trains_the_tasks_of_its_phase():
    plan = phases.plan(CYCLE, epoch=2.0)
    first = [("pose",)] * 4 + [("attention",)] + [("pose", "attention")] * 2
    assert [plan.trained(step) for step in range(15)] == [*first, *first, ("pose",)]
    assert str(plan) == "pose 4 steps, attention 1 steps, pose+attention 2 steps"


def test_a_new_round_starts_every_seven_steps():
    plan = phases.plan(CYCLE, epoch=2.0)
    assert plan.rounds(15) == [7, 14] and plan.rounds(14) == [7] and plan.rounds(7) == []


def test_without_phases_everything_is_trained():
    plan = phases.plan((), epoch=2.0)
    assert plan.trained(0) is None and plan.rounds(100) == []
    phases.check(plan, nn.Dense(1), 8)  # needs no labels
    new, old = {"a": 1}, {"a": 2}
    assert phases.select(nn.Dense(1), None, new, old) is new


def test_a_phase_lasts_at_least_one_step():
    assert phases.plan([("pose", 0.001)], epoch=2.0).trained(5) == ("pose",)  # at least one step
    with pytest.raises(ValueError, match="more than 0 epochs"):
        phases.plan([("pose", 0.0)], epoch=2.0)


def test_select_takes_the_trained_leaves():
    new = {"a": {"kernel": 1}, "p": {"kernel": 2, "bias": 3}}
    old = jax.tree.map(lambda x: -x, new)
    selected = phases.select(Two(), ("pose",), new, old)
    assert selected == {"a": {"kernel": -1}, "p": {"kernel": 2, "bias": 3}}


def test_phases_that_do_not_fit_the_model_are_refused():
    plan = phases.plan(CYCLE, epoch=2.0)
    phases.check(plan, Two(), 4)
    with pytest.raises(ValueError, match="gives stray/.* no task"):
        phases.check(plan, Two(stray=True), 4)
    with pytest.raises(ValueError, match="names atention; .* parameters of attention, pose"):
        phases.check(phases.plan([("atention", 1.0)], 2.0), Two(), 4)
    with pytest.raises(ValueError, match="has no tasks"):
        phases.check(plan, nn.Dense(1), 4)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_frozen_label_later_continues_as_if_never_frozen(name):
    params = {"a": {"kernel": jnp.array([1.0, -2.0])}, "p": {"kernel": jnp.array([3.0])}}
    gradients = {"a": {"kernel": jnp.array([0.5, 2.0])}, "p": {"kernel": jnp.array([-4.0])}}
    rate = optax.piecewise_constant_schedule(0.1, {3: 0.1})
    labels = functools.partial(phases.labels, Two())
    both = optimizer.by_label(rate, labels, Two.tasks, name=name)
    state, moves = both.init(params), []
    for trained in [("pose",), ("attention",), ("pose", "attention"), ("pose",)]:
        before = state[0].inner_states
        updates, state = both.update(gradients, state, params, trained=trained)
        moves.append(updates)
        for held in {"pose", "attention"} - set(trained):
            kept = jax.tree.map(np.array_equal, before[held], state[0].inner_states[held])
            assert jax.tree.all(kept)

    def alone(key, rates):
        """The updates of an optimiser that has this label only, with the given learning rates."""
        single = optimizer.transformation(lambda count: jnp.array(rates)[count], name=name)
        state, found = single.init(params[key]), []
        for _ in rates:
            updates, state = single.update(gradients[key], state, params[key])
            found.append(updates["kernel"])
        return found

    seen = {key: [move[key]["kernel"] for move in moves] for key in params}
    first, third, fourth = alone("p", [0.1, 0.1, 0.01])  # 0.01 from the fourth of all steps on
    for got, expected in zip(seen["p"], [first, 0.0 * first, third, fourth], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    second, third = alone("a", [0.1, 0.1])
    for got, expected in zip(seen["a"], [0.0 * second, second, third, 0.0 * second], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
