"""The logs of a run: the console, WORKDIR/metrics.jsonl and TensorBoard."""

import json
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from hourglass_jax import files
from hourglass_jax.console import say
from hourglass_jax.data import pipeline

CLOCKED = ("images_per_second", "input_share")  # what differs among equal runs


class Log:
    """Numbers and pictures by step.

    Args:
      workdir: gets metrics.jsonl and, where TensorFlow and clu are installed, TensorBoard's files.
      step: the run goes on after this step; later entries of a killed run are dropped, since those
        steps come again.
      tensorboard: whether to write TensorBoard's files.
    """

    def __init__(self, workdir, step: int, *, tensorboard: bool = True):
        self._file = self._tensorboard = None
        if jax.process_index():
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        if path.exists():
            _drop_after(path, step)
        self._file = path.open("a")
        self._tensorboard = _tensorboard(workdir) if tensorboard else None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for writer in filter(None, (self._file, self._tensorboard)):
            writer.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        values = {name: float(value) for name, value in values.items()}
        if self._file:
            self._file.write(json.dumps({"step": step} | values) + "\n")
            self._file.flush()
        if self._tensorboard:
            self._tensorboard.write_scalars(step, values)

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Pictures (h, w, 3) uint8 by title, for TensorBoard."""
        if self._tensorboard:
            self._tensorboard.write_images(step, {name: p[None] for name, p in pictures.items()})
            self._tensorboard.flush()


class Progress:
    """Speed, the wait for input, and the time that is left."""

    def __init__(self, step: int, last_step: int):
        self._start_step, self._last_step = step, last_step
        self._start = self._mark = time.monotonic()
        self._mark_step, self._away, self._waited = step, 0.0, 0.0

    def lap(self, step: int) -> tuple[float, float, float]:
        """Since the last lap seconds per step and the share of them that `waiting` counted, in [0, 1]; and
        the seconds that are left at the run's own pace."""
        now = time.monotonic()
        seconds = now - self._mark - self._away
        pace, share = seconds / max(step - self._mark_step, 1), self._waited / max(seconds, 1e-9)
        whole = (now - self._start) / max(step - self._start_step, 1)
        self._mark, self._mark_step, self._away, self._waited = now, step, 0.0, 0.0
        return pace, share, whole * (self._last_step - step)

    def waiting(self, batches: Iterator, idle: Callable[[], bool]) -> Iterator:
        """Passes batches on, and counts the time until each is there.

        idle: whether the devices have nothing else to do, asked when the batch has come. If they still
          compute, the wait cost nothing; if they finished meanwhile, all of it counts.
        """
        while True:
            start = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if idle():
                self._waited += time.monotonic() - start
            yield batch

    def away(self, seconds: float) -> None:
        """Time that was spent on something else than training steps."""
        self._away += seconds


def _drop_after(path, step):
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed run
        if entry["step"] <= step:
            kept.append(line + "\n")
    files.write(path, "".join(kept).encode())


def _tensorboard(workdir):
    try:
        pipeline.tensorflow()  # clu imports it, too
        from clu import metric_writers
    except ImportError:
        say("TensorBoard's files are not written: clu or TensorFlow is not installed.")
        return None
    return metric_writers.SummaryWriter(str(workdir))
