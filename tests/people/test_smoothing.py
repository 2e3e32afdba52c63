"""The One-Euro filter of a person's joints: jitter, lag, what is not trusted."""

import numpy as np
import pytest

from hourglass_jax.people.smoothing import OneEuro, Smoother

RNG = np.random.default_rng(0)
BODY = RNG.uniform(0, 200, (14, 2))
ALL = np.ones(14, bool)


def smoothed(frames, fed=None, options=OneEuro(), times=None):  # noqa: B008
    smoother = Smoother(options)
    fed = [ALL] * len(frames) if fed is None else fed
    times = [t / 25 for t in range(len(frames))] if times is None else times
    return np.array([smoother(joints, of, time) for joints, of, time in zip(frames, fed, times, strict=True)])


def jitter(frames, motion=(2, 0)):
    """px by which each joint moves from frame to frame, beyond the motion: (t - 1, k)."""
    return np.linalg.norm(np.diff(frames, axis=0) - motion, axis=-1)


def test_a_still_picture_that_moves_by_2_px_a_frame_jitters_no_more():
    """Joints are off by 3 px at random, and an ankle is found at the other one, 60 px away, now and then."""
    frames = BODY + 2 * np.arange(100)[:, None, None] * [1, 0] + RNG.normal(0, 3, (100, 14, 2))
    frames[RNG.random(100) < 0.3, 0] += [60, 0]
    before, after = jitter(frames), jitter(smoothed(frames))
    assert before[:, 0].max() > 59 and before[:, 0].mean() > 20
    assert after[20:, 0].mean() < 5 and after[20:, 0].max() < 20 and after[20:, 1:].mean() < 1
    # And where it is, on average: neither behind nor ahead of the motion.
    off = (smoothed(frames) - BODY)[:, 1:, 0] - 2 * np.arange(100)[:, None]
    assert abs(off[20:].mean()) < 1


def test_motion_is_followed_without_much_lag():
    walk = BODY + 5 * np.arange(50)[:, None, None] * [1, 0.5]  # all joints, at 140 px/s
    assert np.abs(smoothed(walk) - walk)[25:].max() < 0.5
    kick = np.tile(BODY, (75, 1, 1))
    kick[:, 0, 0] += 60 * np.sin(
        2 * np.pi * np.arange(75) / 25
    )  # one joint, a third of the body, once a second
    assert np.abs(smoothed(kick) - kick)[25:, 0, 0].mean() < 8
    np.testing.assert_allclose(smoothed(kick)[:, 1:], kick[:, 1:], atol=1e-9)
    # The plain average of the same cutoff lags by half the motion.
    slow = smoothed(kick, options=OneEuro(beta=0))
    assert np.abs(slow - kick)[25:, 0, 0].mean() > 25


def test_the_average_is_the_papers():
    """Of one step at rest, by hand: r = 2 pi 0.5 / 25 = 0.1257, a = r / (1 + r) = 0.1116."""
    frames = np.array([BODY, BODY + [[10, 0]] * 1 + np.zeros((14, 1)) * 0])
    frames[1, 1:] = BODY[1:]  # one joint steps by 10 px; the common motion and the median speed are 0
    np.testing.assert_allclose(smoothed(frames)[1, 0] - BODY[0], [1.116, 0], atol=1e-3)


def test_joints_that_are_not_trusted_change_nothing():
    frames = np.tile(BODY, (40, 1, 1))
    fed = np.tile(ALL, (40, 1))
    frames[10:14, 3], fed[10:14, 3] = [900, 900], False
    found = smoothed(frames, fed)
    np.testing.assert_allclose(found[10:14, 3], 900)  # as found
    np.testing.assert_allclose(np.delete(found, np.s_[10:14], axis=0), np.tile(BODY, (36, 1, 1)), atol=1e-9)
    frames[20:, 3] += 50  # after more than half a second out of sight it begins where it is seen
    fed[20:34, 3] = False
    np.testing.assert_allclose(smoothed(frames, fed)[34, 3], BODY[3] + 50)
    frames[5, 2] = np.nan
    assert np.isfinite(smoothed(frames, fed)[6:]).all()


def test_times_count_and_parameters_are_checked():
    frames = np.tile(BODY, (2, 1, 1))
    frames[1, 0, 0] += 10
    slow = smoothed(frames, times=[0.0, 1.0])[1, 0, 0] - BODY[0, 0]
    assert slow == pytest.approx(10 * np.pi / (1 + np.pi))  # r = 2 pi 0.5 1
    assert smoothed(frames, times=[None, None])[1, 0, 0] == pytest.approx(smoothed(frames)[1, 0, 0])
    for wrong in ({"min_cutoff": 0}, {"beta": -1}, {"window": 0}, {"rate": np.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            OneEuro(**wrong)
