"""Checkpoints with Orbax; only this file uses its interface.

WORKDIR/checkpoints/<step>/ holds
    model      {"params", "batch_stats"}
    averaged   the same, averaged over the steps (if the training averages)
    optimizer  the optimiser's state
    metadata   json: step, config, skeleton, checksums of all of this
so that a network can be loaded without its optimiser. Older checkpoints have no checksums and are not
verified.
"""

import contextlib
import json
import logging
import math
import pathlib
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from hourglass_jax import buckets, files
from hourglass_jax.network import Metadata
from hourglass_jax.training.step import State
from hourglass_jax.training.workdir import check_place

# Orbax logs every step of its work, and warns about each checkpoint without a score and about read-only
# access.
_NOISE = ("tracked_metric", "read_only=True", "directory is read only")
_NOISE += ("Reached preemption sync point",)  # `training.stopping` reports it
# Each of its threads reports a failed save; `Checkpoints` raises it as one error.
_NOISE += ("_SignalingThread", "Handler Commit operations", "Save Finalize thread")
logging.getLogger("absl").addFilter(
    lambda record: (
        record.levelno >= logging.WARNING and not any(text in record.getMessage() for text in _NOISE)
    )
)

# After a failed save Orbax abandons its other tasks.
_ABANDONED = ("never retrieved", "was destroyed but it is pending")
logging.getLogger("asyncio").addFilter(
    lambda record: not any(text in record.getMessage() for text in _ABANDONED)
)

T = TypeVar("T")
_SCORE = "score"
_CLOSED = "Event loop is closed"
_PLAIN = re.compile(r"[A-Za-z0-9_./=+,@~ -]*")
_OVERHEAD = 4_000_000  # bytes of a checkpoint in addition to its arrays
_LOOKS = 20  # trials to list a folder in which a training is running


class Checkpoints:
    """The checkpoints of a workdir. Saving runs in the background; use this as a context manager."""

    def __init__(self, workdir, *, keep_latest: int = 2, keep_best: int = 1, read_only: bool = False):
        check_place(workdir)
        self.directory = files.absolute(workdir) / "checkpoints"
        self._link, opened = None, self.directory
        if not files.in_bucket(opened) and not _PLAIN.fullmatch(str(opened)):
            if not read_only:
                opened.mkdir(parents=True, exist_ok=True)
            self._link, opened = _linked(opened)
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep_latest),
                # Best by validation score; checkpoints without one are never the best.
                policies.BestN(
                    n=keep_best,
                    get_metric_fn=lambda metrics: metrics[_SCORE],
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            best_fn=lambda metrics: metrics[_SCORE],
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        for left in reversed(range(_LOOKS if read_only else 1)):
            try:
                with files.reported(opened):
                    self._manager = _again(opened, lambda: ocp.CheckpointManager(opened, options=options))
                break
            except FileNotFoundError:  # a training removed a step just after it was listed
                if not left:
                    raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc_info):
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext(), self._saving():
            try:
                self._manager.close()  # waits for running saves
            finally:
                if self._link is not None:
                    self._link.cleanup()

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        return self._manager.best_step()

    @property
    def preferred(self) -> int | None:
        """The best step by validation score, or the latest if none has a score."""
        return self.latest if self.best is None else self.best

    @property
    def steps(self) -> list[int]:
        return list(self._manager.all_steps())

    def save(self, state: State, metadata: Metadata | Mapping[str, Any], score: float | None) -> None:
        """Starts to save; an existing step is not saved again."""
        step = int(state.step)
        if step in self.steps:
            return
        trees = {
            "model": {"params": state.params, "batch_stats": state.batch_stats},
            "optimizer": state.optimizer,
        }
        if state.averaged is not None:
            trees["averaged"] = state.averaged
        checksums = {name: _checksum(tree) for name, tree in trees.items()}
        content = metadata.to_dict() if isinstance(metadata, Metadata) else dict(metadata)
        content |= {"step": step, "checksums": checksums}
        content["checksum"] = _checksum_of_text(content)
        items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items["metadata"] = ocp.args.JsonSave(content)
        # The score is nan if nothing is labelled; nan would count as the best score.
        metrics = None if score is None or math.isnan(score) else {_SCORE: score}
        with self._saving():
            self._check_room(trees)
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def replace(self, state: State, metadata: Metadata, score: float | None) -> None:
        """Saves the latest step again, with a score; if it is the only step, it is not replaced."""
        if len(self.steps) > 1:
            with self._saving():
                self._manager.delete(int(state.step))
            self.save(state, metadata, score)

    def wait(self) -> None:
        with self._saving():
            self._manager.wait_until_finished()

    def _found(self, error: Exception) -> str:
        """An error's text on one line, with the real name of the folder."""
        text = " ".join(str(error).split())
        return (
            text
            if self._link is None
            else text.replace(f"{self._link.name}/checkpoints", str(self.directory))
        )

    def read_back(self, state: State) -> None:
        """Waits for the checkpoint of a state, and reads its network once.

        Raises:
          OSError: it cannot be read, or differs from the saved network.
        """
        self.wait()
        model = {"params": state.params, "batch_stats": state.batch_stats}
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), model)
        try:
            self.variables(int(state.step), "model", like)
        except ValueError as error:
            raise OSError(f"A checkpoint was saved, but cannot be read back: {error}") from error

    def _check_room(self, trees) -> None:
        """Reports a full disk before a save starts; during a save, Orbax's threads would fail one by one."""
        if files.in_bucket(self.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(f"it takes up to {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")

    @contextlib.contextmanager
    def _saving(self):
        """Turns errors of the block, and earlier ones of saves in the background, into OSError."""
        try:
            with buckets.awaited(self.directory, "waiting for a checkpoint to be saved"):
                yield
        except Exception as error:  # Orbax and TensorStore have no exceptions of their own
            found = self._found(error)[-200:]
            if files.in_bucket(self.directory):
                found = buckets.reason(error, self.directory)
            raise OSError(
                f"{self.directory}: a checkpoint could not be saved ({found}). Earlier checkpoints are "
                "complete; after this is fixed, the same command continues from the latest."
            ) from error

    def metadata(self, step: int) -> Metadata:
        """The metadata of a step.

        Raises:
          ValueError: they are damaged, belong to another step, or do not describe a network.
        """
        content = self._content(step)
        try:
            return Metadata.from_dict(content)
        except ValueError as error:
            path = self.directory / str(step)
            raise ValueError(f"{path}: the checkpoint describes no network ({error})") from None

    def _content(self, step: int) -> dict:
        """The metadata's json, checked against its checksum and the name of its folder."""
        path = self.directory / str(step)
        content = self._items(step, metadata=ocp.args.JsonRestore())["metadata"]
        if not isinstance(content, dict):
            raise ValueError(f"{path}: the checkpoint describes no network (metadata: not an object)")
        if content.pop("checksum", None) not in (None, _checksum_of_text(content)):
            raise ValueError(f"{path}: the checkpoint's metadata are damaged")
        if (known := content.get("step", step)) != step:
            raise ValueError(
                f"{path}: the checkpoint is of step {str(known)[:20]}, so its folder was copied or renamed; "
                "remove it, or restore its own name."
            )
        return content

    def restore(self, step: int, like: State) -> State:
        """The whole state.

        Args:
          step: one of `steps`.
          like: an abstract state (`jax.ShapeDtypeStruct` with shardings) of the same structure.
        """
        items = {
            "model": ocp.args.StandardRestore({"params": like.params, "batch_stats": like.batch_stats}),
            "optimizer": ocp.args.StandardRestore(like.optimizer),
        }
        if like.averaged is not None:
            items["averaged"] = ocp.args.StandardRestore(like.averaged)
        restored = self._restore(step, **items)
        return State(
            step=jax.device_put(np.int32(step), like.step.sharding),
            optimizer=restored["optimizer"],
            averaged=restored["averaged"] if like.averaged is not None else None,
            **restored["model"],
        )

    def variables(self, step: int, name: str, like: dict) -> dict:
        """Only the item `name`, "model" or "averaged"."""
        return self._restore(step, **{name: ocp.args.StandardRestore(like)})[name]

    def _restore(self, step, **items):
        checksums = self._content(step).get("checksums", {})
        restored = self._items(step, **items)
        for name in items.keys() & (checksums.keys() if isinstance(checksums, dict) else ()):
            if _checksum(restored[name]) != checksums[name]:
                raise ValueError(
                    f"{self.directory / str(step)}: the checkpoint is damaged or of another network (the "
                    f"checksum of {name} is not the one that was saved)"
                )
        return restored

    def _items(self, step, **items):
        if not isinstance(sys.unraisablehook, _Unraisable):
            sys.unraisablehook = _Unraisable(sys.unraisablehook)
        try:
            with buckets.awaited(self.directory, "reading a checkpoint"):
                wanted = ocp.args.Composite(**items)
                return _again(self.directory, lambda: self._manager.restore(step, args=wanted))
        except Exception as error:  # Orbax, TensorStore, zstd and json each have their own exceptions
            found = self._found(error)[:200]
            if files.in_bucket(self.directory) and buckets.comes_from(error):
                path = self.directory / str(step)
                raise OSError(f"{path}: cannot be read; {buckets.reason(error, path)}.") from error
            message = "the checkpoint is damaged or of another network"
            raise ValueError(f"{self.directory / str(step)}: {message} ({found})") from error


def _again(folder: pathlib.Path, call: Callable[[], T]) -> T:
    """The result of `call`, repeated in an outage (`buckets.repeated`).

    Several processes wait for each other within Orbax, so that one of them cannot repeat its part.
    """
    if jax.process_count() > 1 or not files.in_bucket(folder):
        return call()
    return buckets.repeated(folder, call)


class _Unraisable:
    """`sys.unraisablehook` without TensorStore's messages about a failed read.

    Orbax closes its event loop at the first array that it cannot read. For every other array TensorStore then
    prints a traceback, because the loop is closed, from its own threads and until the end of the process.
    """

    def __init__(self, before: Callable[[Any], Any]):
        self._before = before

    def __call__(self, unraisable) -> None:
        if isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == _CLOSED:
            return
        self._before(unraisable)


def _linked(directory: pathlib.Path) -> tuple[tempfile.TemporaryDirectory, pathlib.Path]:
    """A link to a folder, with a name that Orbax can read.

    Orbax and etils use a path as a pattern, so that they never find a folder called [1], and TensorStore
    accepts only UTF-8.

    Raises:
      ValueError: the temporary folder has a name that Orbax cannot read, either.
    """
    held = tempfile.TemporaryDirectory(prefix="hourglass_jax-")
    link = pathlib.Path(held.name) / "checkpoints"
    if not _PLAIN.fullmatch(str(link)):
        held.cleanup()
        name = str(directory).encode(errors="backslashreplace").decode()
        raise ValueError(f"{name}: checkpoints need a path of plain letters, or TMPDIR does.")
    link.symlink_to(directory, target_is_directory=True)
    return held, link


def _checksum(tree) -> int:
    """CRC-32 of all arrays; Orbax's own chunks have no checksums, so that flipped bits load silently."""
    # Arrays are replicated: every device has the whole array, also with several processes.
    leaves = jax.tree.leaves(tree)
    wholes = [leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    for whole in wholes:
        if isinstance(whole, jax.Array):
            whole.copy_to_host_async()  # in parallel; waiting for each of 2,000 small arrays takes seconds
    total = 0
    for whole in wholes:
        total = zlib.crc32(np.ascontiguousarray(whole).tobytes(), total)
    return total


def _checksum_of_text(metadata: dict) -> int:
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
