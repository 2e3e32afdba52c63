"""Removes the jitter of one person's joints in a video: the One-Euro filter.

Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012: an exponential average whose cutoff grows with speed,

    x <- p + a (z - p),   a = r / (1 + r),   r = 2 pi (min_cutoff + beta |speed|) dt

with four changes for networks that find joints. The filter delays no frame.

- A joint that jumps to the other leg and back counts as still: the speed is the median of the last `window`
  steps, times the cube of their efficiency, which is the length of the path's chord / the length of the path
  (Kaufman's ratio).
- p is the last x plus the motion that all joints have in common, so that the joints do not lag behind a
  person who walks.
- The weight of a place z depends on its score s: a becomes w / W, where w = s^2 and W <- (1 - a) W + w sums
  the past. With equal scores w / W tends to the paper's a. There is no threshold, so a joint whose score
  crosses one does not jump. In the first frames, and for a joint that was hidden for long, the average is
  over the frames in which the joint was seen.
- z - p of a restless joint, which the network finds in several places in turn, is cut to 5 % of the body, as
  in Huber's estimate of a mean: the joint stays at the place where it is found most, and not between them.
"""

import dataclasses

import numpy as np

_LEAST = 1e-3  # least score: a joint that always scores 0 is averaged, too
# Body lengths per second beyond the usual motion. A faster common motion is ignored: when the network finds
# another person for one frame, all joints jump together.
_JUMP = 2.0
# Body lengths. A network that is unsure of a joint finds it in several places in turn: a joint whose usual
# step to and fro is longer than the first number goes towards a new place as if that were no farther than the
# second. A motion that the filter follows is off by less than 1 / (2 pi beta), 0.8 %.
_RESTLESS, _FAR = 0.02, 0.05


@dataclasses.dataclass(frozen=True)
class OneEuro:
    """The filter's parameters; `Smoother` is one person's filter.

    Attributes:
      min_cutoff: Hz, of a joint at rest. A lower value jitters less.
      beta: Hz for each body length per second: how fast the cutoff grows with speed. A larger value lags
        less.
      speed_cutoff: Hz, of the speed's own average.
      common_cutoff: Hz, of the average of the motion that all joints share; 0 ignores that motion.
      window: number of steps from which the speed is computed.
      rate: frames per second, for pictures without times.
    """

    min_cutoff: float = 0.5
    beta: float = 20.0
    speed_cutoff: float = 1.0
    common_cutoff: float = 2.0
    window: int = 5
    rate: float = 25.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff", "rate"):
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

    # The state, set by the first frame: of k joints or of the body, in px, and the last `window` steps.
    _place: np.ndarray
    _weight: np.ndarray
    _found: np.ndarray
    _was_trusted: np.ndarray
    _all: np.ndarray
    _jumped: np.ndarray
    _speed: np.ndarray
    _common: np.ndarray
    _steps: np.ndarray
    _common_steps: np.ndarray

    def __init__(self, options: OneEuro):
        self._options = options
        self._time: float | None = None
        self._size = 0.0

    def __call__(
        self,
        joints: np.ndarray,
        trusted: np.ndarray,
        time: float | None = None,
        scores: np.ndarray | None = None,
    ) -> np.ndarray:
        """The next frame's joints.

        Args:
          joints: (k, 2) px, as found.
          trusted: (k,) bool: joints whose motion counts. A joint that is untrusted for long is filtered like
            a joint at rest, so it lags behind its own motion.
          time: s; None for one step of `OneEuro.rate` after the last frame.
          scores: (k,) of the joints; None for 1 for trusted joints and 0 for others.

        Returns:
          (k, 2) px.
        """
        options = self._options
        seen = np.asarray(np.isfinite(joints).all(axis=-1))
        trusted = trusted & seen
        weights = np.where(seen, np.maximum(trusted if scores is None else scores, _LEAST) ** 2, 0.0)
        if self._time is None:
            self._time = 0.0 if time is None else time
            self._place, self._weight = joints.copy(), weights
            self._found, self._was_trusted = joints, trusted
            self._all, self._jumped = joints.copy(), np.zeros((options.window, *joints.shape))
            self._speed, self._common = np.zeros_like(joints), np.zeros(2)
            self._steps = np.zeros((options.window, *joints.shape))
            self._common_steps = np.zeros((options.window, 2))
            self._measure(joints[trusted])
            return joints.copy()
        time = self._time + 1 / options.rate if time is None else time
        step = max(time - self._time, 1e-3)
        self._time = time
        both = trusted & self._was_trusted
        moved = np.where(both[:, None], joints - self._found, 0) / step
        if both.sum() >= 3:  # the median of fewer would be the motion of a single joint
            common = np.median(moved[both], axis=0)
            self._common_steps = np.concatenate([self._common_steps[1:], common[None]])
            usual = np.median(self._common_steps, axis=0)
            if np.linalg.norm(common - usual) > _JUMP * self._size:
                common = usual
            self._common = self._common + _share(options.common_cutoff, step) * (common - self._common)
        self._measure(joints[trusted])
        own = np.where(both[:, None], moved - self._common, 0) / max(self._size, 1.0)
        self._steps = np.concatenate([self._steps[1:], own[None]])
        # Shorten a step that is far longer than the others: it would be both the path and its chord.
        length = np.linalg.norm(self._steps, axis=-1, keepdims=True)
        longest = 2 * np.median(length, axis=0)
        steps = self._steps * np.minimum(1, longest / np.maximum(length, 1e-9))
        path = np.linalg.norm(steps, axis=-1).sum(axis=0)
        chord = np.linalg.norm(steps.sum(axis=0), axis=-1)
        efficiency = (chord / np.maximum(path, 1e-9))[:, None]  # 0 to 1
        speed = np.median(self._steps, axis=0) * efficiency**3
        self._speed += _share(options.speed_cutoff, step) * (speed - self._speed)
        cutoff = options.min_cutoff + options.beta * np.linalg.norm(self._speed, axis=-1)
        self._weight = (1 - _share(cutoff, step)) * self._weight + weights
        share = weights / np.maximum(self._weight, 1e-12)
        predicted = np.where(np.isfinite(self._place), self._place, joints) + self._common * step
        # Of all joints, trusted or not: an unsure network scores low, too.
        jumped = (joints - self._all - self._common * step) / max(self._size, 1.0)
        self._jumped = np.concatenate(
            [self._jumped[1:], np.where(seen[:, None], np.nan_to_num(jumped), 0)[None]]
        )
        self._all = np.where(seen[:, None], joints, self._all)
        lengths = np.linalg.norm(self._jumped, axis=-1)
        straight = np.linalg.norm(self._jumped.sum(axis=0), axis=-1) / np.maximum(lengths.sum(axis=0), 1e-9)
        usual = np.median(lengths, axis=0) * (1 - straight)
        jump = self._limited(joints - predicted, share / _share(options.min_cutoff, step), usual)
        new = predicted + share[:, None] * jump
        self._place = np.where(seen[:, None], new, predicted)
        self._found, self._was_trusted = np.where(trusted[:, None], joints, self._found), trusted
        return self._place.copy()

    def _limited(self, jumps: np.ndarray, shares: np.ndarray, usual: np.ndarray) -> np.ndarray:
        """Jumps (k, 2) px, those of restless joints cut to `_FAR` body lengths.

        Args:
          shares: (k,) the weight of the new place / the weight at rest. A joint that moves, or whose place is
            not known well yet, may jump as much farther.
          usual: (k,) body lengths of the last steps, 0 where they go one way: a joint that moves or
            settles in another place is not cut.
        """
        length = np.linalg.norm(jumps, axis=-1)
        most = np.where(usual > _RESTLESS, _FAR * self._size * np.maximum(shares, 1), np.inf)
        return jumps * np.minimum(1, most / np.maximum(length, 1e-9))[:, None]

    def _measure(self, trusted: np.ndarray) -> None:
        """The person's size, px: the longer side of the joints' extent, averaged."""
        if len(trusted) >= 2:
            extent = float(np.ptp(trusted, axis=0).max())
            self._size = extent if not self._size else 0.9 * self._size + 0.1 * extent


def _share(cutoff, step: float):
    """The weight of a new value in the average with a cutoff, Hz."""
    rate = 2 * np.pi * cutoff * step
    return rate / (1 + rate)
