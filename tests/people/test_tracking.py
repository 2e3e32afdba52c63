"""Tracking from frame to frame, and the boxes of the next frame."""

import numpy as np
import pytest

from hourglass_jax.people.tracking import Tracker, box_of

FIGURE = np.array([[10, 0], [10, 20], [0, 20], [20, 20], [5, 60], [15, 60]], float)
TRUSTED = np.ones(6, bool)


def frame(*places, trusted=TRUSTED):
    joints = np.array([FIGURE + place for place in places], float).reshape(-1, 6, 2)
    boxes = np.array([[x - 2, y - 2, 24, 64] for x, y in places], float).reshape(-1, 4)
    return boxes, joints, np.tile(trusted, (len(places), 1))


def test_people_who_cross_keep_their_ids():
    tracker, seen = Tracker(), []
    for t in range(60):  # they meet at x = 60, one slightly below the other; the order changes in each frame
        places = [(4 * t, 0), (240 - 4 * t, 6)]
        ids, joints = tracker(*frame(*places[:: (-1) ** t]))
        np.testing.assert_array_equal(joints, frame(*places[:: (-1) ** t])[1])  # not smoothed
        seen.append(ids[:: (-1) ** t])
    assert set(seen) == {(1, 2)}


def test_a_person_who_is_gone_is_remembered_for_a_while():
    tracker = Tracker(memory=1.0)
    assert tracker(*frame((0, 0), (100, 0)), time=0.0)[0] == (1, 2)
    assert tracker(*frame((100, 0)), time=0.5)[0] == (2,)
    assert tracker(*frame(), time=0.9)[0] == ()
    assert tracker(*frame((100, 0), (2, 0)), time=1.0)[0] == (2, 1)
    assert tracker(*frame((2, 0)), time=4.0)[0] == (1,)  # in the frame before, 3 s ago: a slow machine
    assert tracker(*frame((100, 0), (2, 0)), time=4.1)[0] == (3, 1)  # unseen for more than 1 s
    assert tracker(*frame((300, 0), (100, 0)), time=4.2)[0] == (4, 3)  # a new person


def test_joints_distinguish_people_in_one_box():
    box = np.tile([0.0, 0, 200, 64], (2, 1))
    tracker, ids = Tracker(), []
    for order in (1, -1):
        joints = np.array([FIGURE, FIGURE + [150, 0]])[::order]
        ids.append(tracker(box, joints, np.ones((2, 6), bool))[0])
    assert ids == [(1, 2), (2, 1)]
    tracker, ids = Tracker(), []
    for _ in range(2):  # without any difference: in order
        ids.append(tracker(box, np.zeros((2, 6, 2)), np.zeros((2, 6), bool))[0])
    assert ids == [(1, 2), (1, 2)]


def test_the_next_box_is_around_the_joints():
    box = np.array([100.0, 100, 24, 72])
    # The joints' extent is 20 x 60 from (103, 105) on; 1.2 times that is 24 x 72 about (113, 135).
    np.testing.assert_allclose(box_of(FIGURE + [103, 105], TRUSTED, box), [101, 99, 24, 72])
    np.testing.assert_allclose(box_of(10 * FIGURE, TRUSTED, box)[2:], [30, 90])  # at most a quarter larger
    np.testing.assert_allclose(box_of(FIGURE / 10, TRUSTED, box)[2:], [19.2, 57.6])
    few = np.arange(6) < 3
    np.testing.assert_array_equal(box_of(FIGURE, few, box), box)
    tracker = Tracker()
    tracker(*frame((0, 0), (100, 0)), time=0.0)
    tracker(*frame((100, 0)), time=0.1)
    assert tracker.boxes() == pytest.approx(np.array([[98, -6, 24, 72]]))  # people of the last frame
