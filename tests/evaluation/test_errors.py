"""Kinds of errors, by hand."""

import numpy as np

from hourglass_jax.evaluation import errors
from hourglass_jax.pose.skeletons import Skeleton

FOUR = Skeleton("four", ("head", "left", "right", "tail"), ((1, 2),), (), (("All", (0, 1, 2, 3)),))


def test_each_joint_has_the_first_kind_that_applies():
    # Up to 10 px, with a reference of 100 px, is right; joints are at least 30 px apart.
    truth = np.array([[[0.0, 0], [40, 0], [80, 0], [0, 60]]] * 3)
    labelled = np.array([[True] * 4, [True] * 4, [True, False, True, True]])
    predicted = truth.copy()
    predicted[0] = [[10, 0], [80, 10], [80, 20], [40, 0]]  # right, mirrored, near, on "left"
    predicted[1] = [[0, 21], [30, 0], [np.nan, 0], [0, 60.5]]  # elsewhere, right, no number, right
    predicted[2] = [[40, 0], [40, 0], [40, 0], [0, 60]]  # where "left" is, which is not labelled
    reference = np.array([100.0, 100.0, 100.0])
    found = errors.kinds(predicted, truth, labelled, reference, 0.1, FOUR)
    names = [[errors.KINDS[kind] if kind >= 0 else "" for kind in row] for row in found]
    assert names == [
        ["right", "mirrored", "near", "another joint"],
        ["elsewhere", "right", "elsewhere", "right"],
        ["elsewhere", "", "elsewhere", "right"],
    ]
    # The second person's "head" is found where the first one's "tail" is; "right" has too low a score.
    predicted[1, 0], truth[0, 3] = [0, 300], [5, 300]
    shown = np.ones((3, 4), bool)
    shown[1, 2] = False
    found = errors.kinds(
        predicted, truth, labelled, reference, 0.1, FOUR, pictures=["a", "a", "b"], shown=shown
    )
    assert [errors.KINDS[kind] for kind in found[1]] == ["another person", "right", "missed", "right"]
    found = errors.kinds(predicted, truth, labelled, reference, 0.1, FOUR, pictures=["a", "b", "a"])
    assert errors.KINDS[found[1, 0]] == "elsewhere"
    assert (errors.kinds(predicted, truth, labelled, np.zeros(3), 0.1, FOUR) == -1).all()
