"""Ends a training before its last step: SIGTERM and Ctrl-C, in one process or on all hosts; patience."""

import math
import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

from hourglass_jax.console import say


class Stop:
    """Notices SIGTERM and Ctrl-C; a second Ctrl-C stops immediately.

    With several processes JAX's preemption service catches SIGTERM, from `jax.distributed.initialize` on, and
    the processes agree on a step that none of them has passed. This does not wait for a device, and costs
    nothing before a SIGTERM.
    """

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._noticed = self._interrupted = False

    def __enter__(self):
        numbers = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        self._before = {number: signal.signal(number, self._notice) for number in numbers}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number, frame):
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        if self._alone:
            self._noticed = True
            say(f"{signal.Signals(number).name}: saving after this step.")
        else:
            os.kill(os.getpid(), signal.SIGTERM)  # to JAX's service, for all processes

    @property
    def noticed(self) -> bool:
        """Whether to stop as soon as possible; False if other processes would not stop as well."""
        return self._noticed

    def asked(self, step: int) -> bool:
        """Whether to stop after this step. All processes call it after every step, and all agree."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._noticed = True
            say(f"A process was asked to end: saving step {step} in all of them.")
        return self._noticed


class Patience:
    """Ends a training whose score does not improve.

    Args:
      evaluations: the number of evaluations without a better score after which to end; 0 never ends.
      known: what `to_dict` returned at the latest checkpoint.
    """

    def __init__(self, evaluations: int, known: dict[str, Any]):
        self._evaluations = evaluations
        self._best, self._since = known.get("best"), known.get("since", 0)

    def add(self, score: float | None) -> None:
        """Counts an evaluation; NaN does not count as a better score."""
        if score is not None and not math.isnan(score) and (self._best is None or score > self._best):
            self._best, self._since = score, 0
        else:
            self._since += 1

    @property
    def over(self) -> bool:
        return 0 < self._evaluations <= self._since

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's metadata; {} if nothing is counted."""
        return {"best": self._best, "since": self._since} if self._evaluations else {}

    def __str__(self) -> str:
        best = "none is known" if self._best is None else f"the best is {self._best:.2f}"
        return f"{self._since} evaluations without a better score ({best})"
