"""When a training ends before its last step: SIGTERM and Ctrl-C, in one process or on all hosts."""

import os
import signal

import jax
from jax.experimental import multihost_utils

from hourglass_jax.console import say


class Stop:
    """Notices SIGTERM and Ctrl-C; a second Ctrl-C stops at once.

    Of several processes JAX's preemption service catches SIGTERM, from `jax.distributed.initialize` on, and
    agrees on a step that none of them has passed. That waits for no device, and costs nothing until then.
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
        """Whether to stop as soon as possible; False where other processes would not stop as well."""
        return self._noticed

    def asked(self, step: int) -> bool:
        """Whether to stop after this step. All processes call it after every step, and all agree."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._noticed = True
            say(f"A process was asked to end: saving step {step} in all of them.")
        return self._noticed
