"""Joints of one person through a film without their jitter: the One-Euro filter.

Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012: an exponential average whose cutoff grows with speed,

    x <- p + a (z - p),   a = r / (1 + r),   r = 2 pi (min_cutoff + beta |speed|) dt

with two changes for networks that find joints. A joint that jumps to the other leg and back is no motion: the
speed is the median of the last `window` steps, times the cube of their efficiency, the length of the way's
chord / the length of the way (Kaufman's ratio). And p is the last x moved on by the motion that all joints
have in common, so that a person who walks is not followed with a lag. No frame is held back.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class OneEuro:
    """The filter's parameters; `Smoother` is one person's filter.

    Attributes:
      min_cutoff: Hz, of a joint at rest. A lower one is steadier.
      beta: Hz for each body length per second: by how much the cutoff grows with speed. A larger one lags
        less.
      speed_cutoff: Hz, of the speed's own average.
      common_cutoff: Hz, of the average of the motion that all joints share; 0 for no such motion.
      window: steps that the speed is taken from.
      patience: s, after which a joint that was not seen begins afresh.
      rate: frames a second, for pictures without times.
    """

    min_cutoff: float = 0.5
    beta: float = 20.0
    speed_cutoff: float = 1.0
    common_cutoff: float = 2.0
    window: int = 5
    patience: float = 0.5
    rate: float = 25.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff", "rate", "patience"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)}: give a number above 0.")
        if not (0 <= self.beta < np.inf and 0 <= self.common_cutoff < np.inf and self.window >= 1):
            raise ValueError(
                f"beta={self.beta}, common_cutoff={self.common_cutoff}, window={self.window}: give numbers "
                "from 0, and a window of at least 1."
            )


class Smoother:
    """The filter of one person.

    Args:
      options: its parameters.
    """

    def __init__(self, options: OneEuro):
        self._options = options
        self._time: float | None = None
        self._size = 0.0

    def __call__(self, joints: np.ndarray, fed: np.ndarray, time: float | None = None) -> np.ndarray:
        """The next frame's joints.

        Args:
          joints: (k, 2) px, as found.
          fed: (k,) bool: joints that are trusted; the others are returned as found, and change nothing.
          time: s; None for one step of `OneEuro.rate` after the last frame.

        Returns:
          (k, 2) px.
        """
        options, fed = self._options, fed & np.isfinite(joints).all(axis=-1)
        if self._time is None:
            self._time = 0.0 if time is None else time
            self._place, self._found = np.where(fed[:, None], joints, np.nan), joints
            self._was_fed, self._unseen = fed, np.zeros(len(joints))
            self._speed, self._common = np.zeros_like(joints), np.zeros(2)
            self._steps = np.zeros((options.window, *joints.shape))
            self._measure(joints[fed])
            return joints.copy()
        time = self._time + 1 / options.rate if time is None else time
        step = max(time - self._time, 1e-3)
        self._time = time
        both = fed & self._was_fed
        moved = np.where(both[:, None], joints - self._found, 0) / step
        if both.sum() >= 3:  # of fewer the median is one joint's own motion
            common = np.median(moved[both], axis=0)
            self._common = self._common + _share(options.common_cutoff, step) * (common - self._common)
        self._measure(joints[fed])
        own = np.where(both[:, None], moved - self._common, 0) / max(self._size, 1.0)
        self._steps = np.concatenate([self._steps[1:], own[None]])
        way = np.linalg.norm(self._steps, axis=-1).sum(axis=0)
        chord = np.linalg.norm(self._steps.sum(axis=0), axis=-1)
        efficiency = (chord / np.maximum(way, 1e-9))[:, None]  # 0 to 1
        speed = np.median(self._steps, axis=0) * efficiency**3
        self._speed += _share(options.speed_cutoff, step) * (speed - self._speed)
        cutoff = options.min_cutoff + options.beta * np.linalg.norm(self._speed, axis=-1)
        predicted = self._place + self._common * step
        place = predicted + _share(cutoff, step)[:, None] * (joints - predicted)
        self._unseen = np.where(fed, 0.0, self._unseen + step)
        fresh = fed & ~np.isfinite(self._place).all(axis=-1)
        place = np.where(fresh[:, None], joints, np.where(fed[:, None], place, predicted))
        place[self._unseen > options.patience] = np.nan
        self._place, self._found, self._was_fed = place, np.where(fed[:, None], joints, self._found), fed
        return np.where(fed[:, None], place, joints)

    def _measure(self, trusted: np.ndarray) -> None:
        """The person's size, px: the longer side of the joints' extent, averaged."""
        if len(trusted) >= 2:
            extent = float(np.ptp(trusted, axis=0).max())
            self._size = extent if not self._size else 0.9 * self._size + 0.1 * extent


def _share(cutoff, step: float):
    """The weight of a new value in the average with a cutoff, Hz."""
    rate = 2 * np.pi * cutoff * step
    return rate / (1 + rate)
