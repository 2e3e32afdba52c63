"""Tracks people from frame to frame by their boxes and joints, so that each person keeps an id."""

import dataclasses

import numpy as np

from hourglass_jax.people.boxes import iou
from hourglass_jax.people.smoothing import OneEuro, Smoother

_SPREAD = 0.15  # spread of a joint between two frames / the person's size: the mean of COCO's 2 sigma
_LEAST = 4  # trusted joints that are needed to compare joints, or to get a box from them
_AROUND = 1.2  # side of a box / extent of the joints in it
_CHANGE = 1.25  # largest change of a box's side from one frame to the next


@dataclasses.dataclass(eq=False)
class Track:
    """One person.

    Attributes:
      id: counts from 1.
      box: (4,) px; joints: (k, 2) px; trusted: (k,) bool; all when the person was last seen.
      time: when the person was last seen, s.
      motion: (2,) px/s, velocity of the box's centre.
      smoother: the filter of the joints.
    """

    id: int
    box: np.ndarray
    joints: np.ndarray
    trusted: np.ndarray
    time: float
    motion: np.ndarray
    smoother: Smoother | None = None

    def box_at(self, time: float) -> np.ndarray:
        """(4,): the box, extrapolated to a time."""
        return self.box + np.concatenate([self.motion * max(time - self.time, 0), [0, 0]])


class Tracker:
    """Assigns ids to the people in each frame of one video.

    People are assigned to tracks by the Hungarian method, with the largest sum of similarities. A similarity
    is the mean of the boxes' intersection / union and of the joints' OKS, or only the former if few joints
    are trusted.

    Args:
      smooth: the filter of joints; None: no filter.
      least: lowest similarity, 0 to 1, of a person to a track; below it the person is a new one.
      memory: time for which a person who is not seen is remembered, s.
      rate: frames per second, for pictures without times.
    """

    def __init__(
        self,
        *,
        smooth: OneEuro | None = None,
        least: float = 0.2,
        memory: float = 1.0,
        rate: float = 25.0,
    ):
        self.tracks: list[Track] = []
        self._smooth, self._least, self._memory, self._rate = smooth, least, memory, rate
        self._last, self._time = 0, 0.0

    def __call__(
        self,
        boxes: np.ndarray,
        joints: np.ndarray,
        trusted: np.ndarray,
        time: float | None = None,
        scores: np.ndarray | None = None,
    ) -> tuple[tuple[int, ...], np.ndarray]:
        """Processes the next frame.

        Args:
          boxes: (p, 4) px.
          joints: (p, k, 2) px; trusted: (p, k) bool.
          time: s; None: one step of `rate` after the last frame.
          scores: (p, k) scores of the joints, the filter's weights; None: 1 for trusted joints, else 0.

        Returns:
          ids (p,), and the joints (p, k, 2), smoothed if asked for.
        """
        before, self._time = self._time, self._time + 1 / self._rate if time is None else time
        # People of the last frame are remembered even if a slow machine took longer than `memory` since.
        recent = min(before, self._time - self._memory)
        self.tracks = [track for track in self.tracks if track.time >= recent]
        found = self._assigned(boxes, joints, trusted)
        ids, smoothed = [], np.array(joints, np.float64)
        for i, track in enumerate(found):
            if track is None:
                self._last += 1
                smoother = None if self._smooth is None else Smoother(self._smooth)
                track = Track(self._last, boxes[i], joints[i], trusted[i], self._time, np.zeros(2), smoother)
                self.tracks.append(track)
            else:
                step = max(self._time - track.time, 1e-3)
                motion = (_middle(boxes[i]) - _middle(track.box)) / step
                track.motion = 0.5 * (track.motion + motion)
                track.box, track.joints, track.trusted, track.time = (
                    boxes[i],
                    joints[i],
                    trusted[i],
                    self._time,
                )
            ids.append(track.id)
            if track.smoother is not None:
                of_person = None if scores is None else scores[i]
                smoothed[i] = track.smoother(joints[i], trusted[i], self._time, of_person)
        return tuple(ids), smoothed

    def boxes(self) -> np.ndarray:
        """(p, 4) px: the boxes of the last frame's people, from their joints; see `box_of`."""
        seen = [track for track in self.tracks if track.time == self._time]
        return np.reshape([box_of(track.joints, track.trusted, track.box) for track in seen], (-1, 4))

    def _assigned(self, boxes, joints, trusted) -> list[Track | None]:
        from scipy.optimize import linear_sum_assignment  # slow to import, and pictures do not need it

        found: list[Track | None] = [None] * len(boxes)
        if not self.tracks or not len(boxes):
            return found
        before = np.array([track.box_at(self._time) for track in self.tracks])
        similarity = iou(before, np.asarray(boxes, np.float64))
        for t, track in enumerate(self.tracks):
            moved = track.joints + track.motion * max(self._time - track.time, 0)
            for p in range(len(boxes)):
                both = track.trusted & trusted[p]
                if both.sum() >= _LEAST:
                    size = np.sqrt(max(np.prod(track.box[2:]), 1.0))
                    apart = ((moved - joints[p])[both] ** 2).sum(axis=-1) / (_SPREAD * size) ** 2
                    similarity[t, p] = 0.5 * (similarity[t, p] + np.exp(-apart / 2).mean())
        # Break ties in favour of the given order.
        order = 1e-9 * np.abs(np.subtract.outer(np.arange(len(before)), np.arange(len(boxes))))
        rows, columns = linear_sum_assignment(order - similarity)
        for t, p in zip(rows, columns, strict=True):
            if similarity[t, p] >= self._least:
                found[p] = self.tracks[t]
        return found


def box_of(joints: np.ndarray, trusted: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box (4,) for the next frame, around the trusted ones of the joints (k, 2) px.

    Its sides differ by at most a quarter from those of `box`, in which the person was found. With fewer than
    four trusted joints it is that box.
    """
    if trusted.sum() < _LEAST:
        return box
    low, high = joints[trusted].min(axis=0), joints[trusted].max(axis=0)
    size = np.clip(_AROUND * (high - low), box[2:] / _CHANGE, box[2:] * _CHANGE)
    return np.concatenate([(low + high - size) / 2, size])


def _middle(box: np.ndarray) -> np.ndarray:
    return box[:2] + box[2:] / 2
