"""The logs of a run: the console, WORKDIR/metrics.jsonl and parameters.txt, TensorBoard and trackers."""

import contextlib
import json
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from hourglass_jax import copies, files
from hourglass_jax.console import say
from hourglass_jax.training import writers

CLOCKED = ("images_per_second", "input_share")  # numbers that differ between equal runs


class Log:
    """Logs numbers and pictures by step.

    Args:
      workdir: gets metrics.jsonl and, if its package is installed, TensorBoard's files.
      step: the run continues after this step; later entries of a killed run are deleted, because those
        steps are repeated.
      tensorboard: whether to write TensorBoard's files.
      track: trackers and projects, see `writers.trackers`.
      config: of the training, for the trackers.
      due: whether the step's evaluation is repeated.

    Attributes:
      folder: the folder that the writers write to.
    """

    def __init__(
        self,
        workdir,
        step: int,
        *,
        tensorboard: bool = True,
        track: str = "",
        config: dict | None = None,
        due: bool = False,
    ):
        self._spool = copies.Spool(workdir)
        self.folder = self._spool.folder
        found: list = []
        if jax.process_index() == 0:  # only the first process writes
            path = self._spool.fetch("metrics.jsonl")
            self._spool.fetch("trackers.json")
            if path.exists():
                _drop_after(path, step, due)
            found.append(writers.JsonLines(path))
            found += _tensorboard(self.folder) if tensorboard else []
            found += [make(project, self.folder, config or {}) for make, project in writers.trackers(track)]
        self._writer = writers.Several(found)
        self._shows = len(found) > 1

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc_info):
        self._writer.close()
        # If an error ended the run, do not hide it behind the bucket's own error.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._spool.close()

    def push(self, *, now: bool = True) -> None:
        """Uploads the logs if the workdir is in a bucket, see `copies.Spool.push`."""
        if now:
            self._writer.flush()
        self._spool.push(now=now)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._writer.write_scalars(step, {name: float(value) for name, value in values.items()})
        self.push(now=False)

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Pictures (h, w, 3) uint8 by title, for TensorBoard and the trackers."""
        if self._shows:
            self._writer.write_images(step, {name: picture[None] for name, picture in pictures.items()})
            self._writer.flush()

    def parameters(self, step: int, params) -> None:
        """A line with the largest modules; and, if clu is installed, the table of all parameters, for
        parameters.txt, TensorBoard and the trackers. The table of a large network has 1,500 lines."""
        if jax.process_index():
            return
        modules, table = summary(params), ""
        with contextlib.suppress(ImportError):
            from clu import parameter_overview

            table = parameter_overview.get_parameter_overview(params, include_stats=False)
            files.write(self.folder / "parameters.txt", f"{table}\n".encode())
        say(f"Parameters: {modules}{'; all are in parameters.txt' if table else ''}.")
        if table and self._shows:
            lines = "\n".join(f"    {line}" for line in table.splitlines())  # code, in Markdown
            self._writer.write_texts(step, {"parameters": lines})


def summary(params, most: int = 4) -> str:
    """The numbers of parameters of the largest modules and of all others, in one line.

    Modules whose names differ in numbers are one: stack0_lin and stack1_lin are stack*_lin.
    """
    sizes: dict[str, list[int]] = {}
    for name, module in params.items():
        count = sum(leaf.size for leaf in jax.tree.leaves(module))
        sizes.setdefault(re.sub(r"\d+", "*", name), []).append(count)
    found = sorted(sizes.items(), key=lambda item: -sum(item[1]))
    texts = [
        f"{name} {sum(counts):,}" + (f" ({len(counts)} modules)" if len(counts) > 1 else "")
        for name, counts in found[:most]
    ]
    if rest := [count for _, counts in found[most:] for count in counts]:
        texts.append(f"{sum(rest):,} in {len(rest)} others")
    return ", ".join(texts)


class Progress:
    """Measures the speed, the wait for input, and the remaining time."""

    def __init__(self, step: int, last_step: int):
        self._start_step, self._last_step = step, last_step
        self._start = self._mark = time.monotonic()
        self._mark_step, self._away, self._waited = step, 0.0, 0.0

    def lap(self, step: int) -> tuple[float, float, float]:
        """Seconds per step since the last lap; the share of them, in [0, 1], that `waiting` counted; and the
        remaining seconds at the run's mean pace."""
        now = time.monotonic()
        seconds = now - self._mark - self._away
        pace, share = seconds / max(step - self._mark_step, 1), self._waited / max(seconds, 1e-9)
        whole = (now - self._start) / max(step - self._start_step, 1)
        self._mark, self._mark_step, self._away, self._waited = now, step, 0.0, 0.0
        return pace, share, whole * (self._last_step - step)

    def waiting(self, batches: Iterator, idle: Callable[[], bool]) -> Iterator:
        """Yields the batches, and counts the time until each is available.

        idle: whether the devices have nothing to do; called when the batch has arrived. If they still
          compute, the wait cost nothing; if they finished during the wait, all of it counts.
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
        """Excludes time that was not spent on training steps."""
        self._away += seconds


class Profile:
    """A context that traces some steps in the first process, for TensorBoard and Perfetto.

    Args:
      steps: the first and the last step, counted from 1; () for none.
      folder: gets plugins/profile/, where TensorBoard looks for traces.
    """

    def __init__(self, steps: Sequence[int], folder: pathlib.Path):
        self._steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self._folder, self._running = folder, False

    @staticmethod
    def check(steps: Sequence[int]) -> None:
        """Raises ValueError if `steps` is not a first and a last step."""
        if len(steps) not in (0, 2) or (steps and not 1 <= steps[0] <= steps[1]):
            raise ValueError(
                f"train.profile={tuple(steps)}: expected the first and the last step, as (11,15)."
            )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._stop()

    def before(self, step: int) -> None:
        """Starts the trace if this is its first step."""
        if step in self._steps and not self._running and jax.process_index() == 0:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, metrics) -> None:
        """Ends the trace after its last step: first waits for that step's metrics."""
        if self._running and step + 1 not in self._steps:
            jax.block_until_ready(metrics)
            self._stop()
            say(f"Traced to step {step}: {self._folder}/plugins/profile, also for https://ui.perfetto.dev.")

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


def _drop_after(path, step, due):
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line, if the run was killed
        again = due and entry["step"] == step and any(name.startswith("validation/") for name in entry)
        if entry["step"] <= step and not again:
            kept.append(line + "\n")
    files.write(path, "".join(kept).encode())


def _tensorboard(workdir):
    try:
        return [writers.TensorBoard(workdir)]
    except ImportError as error:
        say(f"TensorBoard's files are not written: {error}")
        return []
