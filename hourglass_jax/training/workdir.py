"""A run's folder: its files, the lock of a training that is running there, and the config of its start."""

import contextlib
import fcntl
import os
import pathlib
import re
import signal
from collections.abc import Iterator

import jax

from hourglass_jax import buckets, files
from hourglass_jax.config import completed, differences
from hourglass_jax.console import say
from hourglass_jax.training import optimizer

# Values that may change during a run: they do not alter the coming steps (remat: except for rounding).
FREE = (
    "train.log_every",
    "train.evaluate_every",
    "train.save_every",
    "train.keep_latest",
    "train.pictures",
    "train.tensorboard",
    "train.track",
    "train.profile",
    "train.stop_after",
    "train.skip_nonfinite",
    "train.remat",
    "data.data_dir",
    "data.manual_dir",
    "data.packed_dir",
    "data.annotations",
    "data.images",
    "data.source",
    "data.threads",
    "evaluate",
)
LENGTH = ("train.steps", "train.epochs")


class Workdir:
    """The folder in which a run keeps its files.

    Attributes:
      path: of the folder.
      config: config.json, the config with which the run started.
      checkpoints: the folder of the checkpoints.
      metrics: metrics.jsonl, a line for each log and each evaluation.
      evaluation: evaluation.json, the last evaluation's tables.
      pictures: the folder of the drawn pictures.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = files.path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "evaluation.json"
        self.pictures = self.path / "pictures"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint. An interrupted save leaves a name that is more than a number."""
        return any(name.isdigit() for name in files.names_in(self.checkpoints))

    @property
    def used(self) -> bool:
        """Whether a run has written here."""
        return files.exists(self.checkpoints) or files.exists(self.config)

    def diverged(self, step: int) -> pathlib.Path:
        """The file for the batch of a step whose loss is not finite."""
        return self.path / f"diverged_{step:07d}.npz"

    def check_writable(self) -> None:
        """Refuses a workdir in which no checkpoint could be saved.

        Raises:
          OSError: it is in a bucket that cannot be written to.
          ValueError: it is on S3, or has a name in a bucket that Orbax takes for a pattern.
        """
        check_place(self.path)
        if jax.process_index() == 0:
            files.check_writable(self.path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second training out; the lock ends with the process, however it ends. In a bucket it is a
        lease, see `buckets.Lease`: the lease of a process that died on another machine ends within a minute.

        Raises:
          ValueError: another training is running here.
          OSError: the folder cannot be written to.
        """
        if files.in_bucket(self.path):
            if jax.process_index():
                yield
                return
            with buckets.Lease(self.path / ".lock", self._lost, self._waits):
                yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if jax.process_index():
            yield
            return
        with files.open_lock(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self}: another training is running in this workdir.") from None
            yield

    def _waits(self, owner: str) -> None:
        say(f"{self}: {owner}, was training here; waiting up to {buckets.EXPIRED:.0f} s for a sign of it.")

    def _lost(self) -> None:
        say(f"{self}: another training has taken this workdir over.")
        os.kill(os.getpid(), signal.SIGTERM)  # like a preemption, which ends several processes too

    def check_config(self, config: dict, *, allow_changed: bool, examples: int = 0) -> None:
        """Compares a config with the one with which the run started, and writes it to config.json.

        Args:
          config: of this call.
          allow_changed: continue even if it differs.
          examples: of an epoch; 0 if unknown.

        Raises:
          ValueError: values differ on which the coming steps depend; the message lists them.
        """
        if files.exists(self.config) and not allow_changed:
            old = files.read_json(self.config)
            if not isinstance(old, dict):
                raise ValueError(f"{self.config}: expected a json object, found {type(old).__name__}.")
            found = changes(old, config)
            longer, effect = _longer(old, config, examples)
            if longer:
                found = [text for text in found if not text.startswith(LENGTH)]
            if found:
                raise ValueError(
                    f"{self} was started with another config: {'; '.join(found)}. {effect}Choose another "
                    "--workdir, or continue with --allow_changed_config."
                )
        if jax.process_index() == 0:
            files.write_json(self.config, config)


def check_place(path: str | os.PathLike) -> None:
    """Raises ValueError for a workdir on S3, and for a name in a bucket that Orbax takes for a pattern.

    Orbax writes an array on S3 with TensorStore's driver of local files, and ends a step by renaming its
    folder, which S3 cannot do.
    """
    if buckets.scheme(path) == "s3":
        raise ValueError(f"{os.fspath(path)}: checkpoints can be in gs:// or a local folder, not in s3://.")
    if files.in_bucket(path) and (found := re.search(r"[*?\[\]]", os.fspath(path))):
        raise ValueError(f"{os.fspath(path)}: checkpoints in a bucket need a path without {found[0]}.")


def changes(old: dict, new: dict) -> list[str]:
    """The differences between two configs that affect a run's coming steps, see `differences`."""
    return [text for text in differences(completed(old, new), new) if not text.startswith(FREE)]


def _longer(old: dict, new: dict, examples: int) -> tuple[bool, str]:
    """Whether a config only makes the training longer, so that the finished steps would be the same; and, if
    it is longer but they would not be the same, the reason."""
    try:
        if all(old["train"][name] == new["train"][name] for name in ("steps", "epochs")):
            return False, ""
        if not examples and any(not config["train"]["steps"] for config in (old, new)):
            return False, ""
        before, after = (optimizer.last_step(config["train"], examples) for config in (old, new))
        kind = new["optimizer"]["schedule"]
    except (KeyError, TypeError, ValueError, OverflowError):  # config.json may contain anything
        return False, ""
    if after <= before:
        return False, f"Only a longer training continues as it is ({before} steps -> {after}). "
    if kind not in ("constant", "steps", "plateau", "cosine"):
        return False, ""
    if kind == "cosine":
        return False, (
            f"optimizer.schedule=cosine lets the learning rate fall to 0 at the last step: with {after} "
            f"instead of {before} it would be higher from step 1 on, and jump up where the run continues. "
        )
    return True, ""
