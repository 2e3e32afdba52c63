"""The One-Euro filter of a person's joints: jitter, lag, joints that are not trusted."""

import numpy as np
import pytest

from hourglass_jax.people.smoothing import OneEuro, Smoother

RNG = np.random.default_rng(0)
BODY = RNG.uniform(0, 200, (14, 2))
ALL = np.ones(14, bool)


def smoothed(frames, trusted=None, options=OneEuro(), times=None, scores=None):  # noqa: B008
    smoother = Smoother(options)
    trusted = [ALL] * len(frames) if trusted is None else trusted
    times = [t / 25 for t in range(len(frames))] if times is None else times
    scores = [None] * len(frames) if scores is None else scores
    each = zip(frames, trusted, times, scores, strict=True)
    return np.array([smoother(joints, of, time, weigh) for joints, of, time, weigh in each])


def jitter(frames, motion=(2, 0)):
    """px by which each joint moves from frame to frame, beyond the motion: (t - 1, k)."""
    return np.linalg.norm(np.diff(frames, axis=0) - motion, axis=-1)


def test_a_still_picture_that_moves_by_2_px_a_frame_jitters_no_more():
    """Joints have random errors of 3 px, and sometimes an ankle is found at the other one, 60 px away."""
    frames = BODY + 2 * np.arange(100)[:, None, None] * [1, 0] + RNG.normal(0, 3, (100, 14, 2))
    frames[RNG.random(100) < 0.3, 0] += [60, 0]
    before, after = jitter(frames), jitter(smoothed(frames))
    assert before[:, 0].max() > 59 and before[:, 0].mean() > 20
    assert after[20:, 0].mean() < 5 and after[20:, 0].max() < 20 and after[20:, 1:].mean() < 1
    # On average the joints are neither behind nor ahead of the motion.
    off = (smoothed(frames) - BODY)[:, 1:, 0] - 2 * np.arange(100)[:, None]
    assert abs(off[20:].mean()) < 1


def test_a_joint_whose_score_crosses_the_threshold_does_not_jump():
    """An ankle scores 0.35 at its place and, every third frame, 0.25 at the other one, 60 px away."""
    frames = BODY + 2 * np.arange(100)[:, None, None] * [1, 0]
    scores, other = np.full((100, 14), 0.6), np.arange(100) % 3 == 0
    frames[other, 0] += [60, 0]
    scores[:, 0] = np.where(other, 0.25, 0.35)
    after = smoothed(frames, scores >= 0.3, scores=scores)
    assert jitter(frames)[:, 0].mean() > 39
    assert jitter(after)[20:, 0].max() < 5 and jitter(after)[20:, 0].mean() < 3
    # Nearer than its mean by squared scores, 60 0.25^2 / (0.25^2 + 2 0.35^2) = 12.2 px from its place.
    off = after[20:, 0, 0] - BODY[0, 0] - 2 * np.arange(20, 100)
    assert 0 < off.mean() < 6


def test_a_joint_that_is_found_in_several_places_in_turn_stays_where_it_is_found_most():
    """An ankle that the network is unsure of: half the time at its place, else at one of three others."""
    size = np.ptp(BODY, axis=0).max()
    places = size * np.array([[0, 0], [0, 0], [0, 0], [0.3, 0], [-0.4, 0.1], [0.1, -0.35]])
    frames = np.tile(BODY, (200, 1, 1))
    frames[:, 0] += places[np.random.default_rng(3).integers(0, len(places), 200)]
    scores = np.full((200, 14), 0.6)
    scores[:, 0] = 0.2
    after = smoothed(frames, scores >= 0.3, scores=scores)[40:]
    assert jitter(frames, (0, 0))[40:, 0].mean() > 0.2 * size
    # At rest a new place weighs a = r / (1 + r) = 0.112, r = 2 pi 0.5 / 25: a step of 0.05 a of the body.
    assert jitter(after, (0, 0))[:, 0].mean() < 0.008 * size
    assert np.linalg.norm(after[:, 0] - BODY[0], axis=-1).mean() < 0.05 * size


def test_a_joint_that_settles_in_another_place_follows():
    """Its usual step is short again, so it goes there as fast as the average allows: (1 - a)^t."""
    frames = np.tile(BODY, (140, 1, 1))
    frames[60:, 0, 0] += 60
    left = BODY[0, 0] + 60 - smoothed(frames)[59:, 0, 0]
    np.testing.assert_allclose(left[:40], 60 * (1 - 0.1117) ** np.arange(40), rtol=0.1)


def test_finding_another_person_for_one_frame_hardly_moves_the_joints():
    frames = np.tile(BODY, (60, 1, 1))
    frames[20::7] += [150, 0]
    assert jitter(frames, (0, 0)).max() == pytest.approx(150)
    assert jitter(smoothed(frames), (0, 0))[20:].max() < 18


def test_joints_follow_motion_with_little_lag():
    walk = BODY + 5 * np.arange(50)[:, None, None] * [1, 0.5]  # all joints, at 140 px/s
    assert np.abs(smoothed(walk) - walk)[25:].max() < 0.5
    # One joint of a person of length l that moves steadily at v l per second trails by (v l / 25) / r, where
    # r = 2 pi (0.5 + 20 v) / 25: by less than l / (2 pi 20) = 0.8 % of l.
    size = np.ptp(BODY[1:], axis=0).max()
    for v in (0.05, 0.2, 0.8):
        steady = np.tile(BODY, (75, 1, 1))
        steady[:, 0] = BODY[1:].mean(axis=0)  # within the others' extent
        steady[:, 0, 0] += v * size * (np.arange(75) - 74) / 25 * [-1, 1][v < 0.5]
        behind = np.abs(smoothed(steady) - steady)[-1, 0, 0]
        assert behind == pytest.approx(v * size / (2 * np.pi * (0.5 + 20 * v)), rel=0.35), v
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
    """For a step of 10 px from rest, by hand: r = 2 pi 0.5 / 25 = 0.1257, a = r / (1 + r) = 0.1116.

    In the second frame the first one weighs 1 - a: w / W = 1 / (1 + 0.8884) = 0.5295. After many frames
    w / W is a.
    """
    for before, share in ((1, 0.5295), (200, 0.1116)):
        frames = np.tile(BODY, (before + 1, 1, 1))
        frames[-1, 0] += [10, 0]  # the common motion and the median speed are 0
        np.testing.assert_allclose(smoothed(frames)[-1, 0] - BODY[0], [10 * share, 0], atol=1e-3)
        # Equal scores of any size give equal weights.
        equal = smoothed(frames, scores=np.full((before + 1, 14), 0.2))
        np.testing.assert_allclose(equal, smoothed(frames), atol=1e-4)


def test_joints_that_are_not_trusted_change_nothing():
    frames = np.tile(BODY, (90, 1, 1))
    trusted = np.tile(ALL, (90, 1))
    frames[10:14, 3], trusted[10:14, 3] = [900, 900], False
    np.testing.assert_allclose(smoothed(frames, trusted), np.tile(BODY, (90, 1, 1)), atol=0.1)
    # A joint is hidden for 1.6 s, with low scores, then found elsewhere: the filter is there in five frames.
    frames[20:, 3] += 50
    scores = np.where(trusted, 0.7, 0.02)
    frames[20:60, 3], scores[20:60, 3] = BODY[3] + [0, 30], 0.02
    found = smoothed(frames, scores >= 0.3, scores=scores)
    assert 0.9 * 50 < found[60, 3, 0] - BODY[3, 0] < found[64, 3, 0] - BODY[3, 0] <= 50
    frames[5, 2] = np.nan
    found = smoothed(frames, trusted)
    np.testing.assert_allclose(found[5:20, 2], np.tile(BODY[2], (15, 1)), atol=1e-9)
    frames[:3, 2] = np.nan
    assert np.isfinite(smoothed(frames, trusted)[3:]).all()


def test_times_are_used_and_parameters_are_checked():
    frames = np.tile(BODY, (2, 1, 1))
    frames[1, 0, 0] += 10
    slow = smoothed(frames, times=[0.0, 1.0])[1, 0, 0] - BODY[0, 0]
    share = np.pi / (1 + np.pi)  # r = 2 pi 0.5 1
    assert slow == pytest.approx(10 / (1 + (1 - share)))
    assert smoothed(frames, times=[None, None])[1, 0, 0] == pytest.approx(smoothed(frames)[1, 0, 0])
    for wrong in ({"min_cutoff": 0}, {"beta": -1}, {"window": 0}, {"rate": np.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            OneEuro(**wrong)
