"""The share of attention within a person's box."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.evaluation import attention, results, scores
from hourglass_jax.pose.skeletons import MPII

# A crop of 100 px around (60, 70); joints at (30, 50) and (70, 90), that is, (0.2, 0.3) and (0.6, 0.7).
PERSON = {
    "joints": jnp.array([[[30.0, 50.0], [70.0, 90.0], [500.0, 500.0]]]),
    "visible": jnp.array([[1, 2, 0]]),
    "center": jnp.array([[60.0, 70.0]]),
    "scale": jnp.array([0.5]),
}


def test_the_box_is_that_of_labelled_joints():
    # 0.4 in x and y, and a tenth of that on each side; the joint without a label does not count.
    np.testing.assert_allclose(attention.boxes(**PERSON), [[0.16, 0.26, 0.64, 0.74]], atol=1e-6)
    np.testing.assert_allclose(attention.boxes(**PERSON, margin=0.0), [[0.2, 0.3, 0.6, 0.7]], atol=1e-6)
    np.testing.assert_allclose(attention.boxes(**PERSON, margin=2.0), [[0, 0, 1, 1]], atol=1e-6)  # the crop
    one = PERSON | {"visible": jnp.array([[2, 0, -1]])}
    assert np.isnan(attention.boxes(**one)).all()


def test_a_share_by_hand():
    box = jnp.array([[0.25, 0.0, 1.0, 0.5]])  # of 4 x 4 cells: columns 1 to 3, rows 0 and 1
    maps = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert attention.share(maps, box)[0] == pytest.approx((1 + 2 + 3 + 5 + 6 + 7) / 120)
    # A uniform map has the area's share, also if edges cut cells; for two maps it is the mean.
    cut = jnp.array([[0.1, 0.3, 0.45, 0.95]])
    even = jnp.ones((1, 4, 8, 1))
    assert attention.share(even, cut)[0] == pytest.approx(0.35 * 0.65)
    both = jnp.concatenate([maps, jnp.ones_like(maps)], axis=-1)
    assert attention.share(both, box)[0] == pytest.approx((24 / 120 + 6 / 16) / 2)
    assert np.isnan(attention.share(0 * maps, box)[0])


def test_people_without_a_box_are_left_out_and_the_line_says_it():
    people = {name: jnp.concatenate([value, value]) for name, value in PERSON.items()}
    people["visible"] = people["visible"].at[1].set(0)
    even, edge = np.ones((2, 8, 8, 1)), np.zeros((2, 8, 8, 1))
    edge[:, 4, 4], edge[:, 0, 0] = 3.0, 1.0  # three quarters inside
    found = attention.shares({"stack1_even": even, "stack1_edge": edge}, people)
    summary = attention.summary({name: np.asarray(value) for name, value in found.items()})
    chance = 100 * 0.48**2
    assert summary["people"] == 1 and summary["chance"] == pytest.approx(chance)
    assert summary["maps"] == pytest.approx({"stack1_even": chance, "stack1_edge": 75.0})
    assert summary["mean"] == pytest.approx((chance + 75) / 2)

    joints = np.random.default_rng(0).uniform(0, 100, (2, 16, 2))
    predictions = results.Predictions(
        joints[:, None], np.ones((2, 1, 16)), joints, np.full((2, 16), 2), np.ones(2), []
    )
    plain = results.score_predictions(predictions, MPII)
    assert "attention" not in plain.to_dict() and "Attention" not in scores.report(plain)
    attended = {name: np.asarray(value) for name, value in found.items()}
    scored = results.score_predictions(dataclasses.replace(predictions, attention=attended), MPII)
    assert scores.Scores.from_dict(scored.to_dict()).attention == summary
    line = "labelled joints: 49.0% (stack1_even 23.0, stack1_edge 75.0); a uniform map has 23.0%."
    assert line in scores.report(scored)
    assert attention.summary({name: np.full(2, np.nan) for name in found}) is None
