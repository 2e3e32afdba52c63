"""Checkpoints by Orbax: the only file that knows its interface.

WORKDIR/checkpoints/<step>/ holds
    model      {"params", "batch_stats"}
    averaged   the same, averaged over the steps (where the training averages)
    optimizer  the optimiser's state
    metadata   json: step, config, skeleton, checksums of all of this
so that a network loads without its optimiser. Those of before there were checksums load unchecked.
"""

import contextlib
import json
import logging
import math
import pathlib
import shutil
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from hourglass_jax.training.step import State

# Orbax tells every step of its work, and warns of each checkpoint without a score and of reading only.
_NOISE = ("tracked_metric", "read_only=True", "directory is read only")
# A save that fails is told by each of its threads; `Checkpoints` raises it as one error.
_NOISE += ("_SignalingThread", "Handler Commit operations", "Save Finalize thread")
logging.getLogger("absl").addFilter(
    lambda record: (
        record.levelno >= logging.WARNING and not any(text in record.getMessage() for text in _NOISE)
    )
)

logging.getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.getMessage())

_SCORE = "score"
_OVERHEAD = 4_000_000  # bytes of a checkpoint besides its arrays
_LOOKS = 20  # at a folder in which a training is at work


class Checkpoints:
    """The checkpoints of a workdir. Saving goes on in the background; use as a context manager."""

    def __init__(self, workdir, *, keep_latest: int = 2, keep_best: int = 1, read_only: bool = False):
        self.directory = pathlib.Path(workdir).resolve() / "checkpoints"
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
                self._manager = ocp.CheckpointManager(self.directory, options=options)
                break
            except FileNotFoundError:  # a training removed a step that had just been listed
                if not left:
                    raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc_info):
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext(), self._saving():
            self._manager.close()  # waits for what is being saved

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        return self._manager.best_step()

    @property
    def preferred(self) -> int | None:
        """The best by validation score, or the latest where none has a score."""
        return self.latest if self.best is None else self.best

    @property
    def steps(self) -> list[int]:
        return list(self._manager.all_steps())

    def save(self, state: State, metadata: dict, score: float | None) -> None:
        """Starts to save; a step that is there already is left alone."""
        step = int(state.step)
        if step in self.steps:
            return
        trees = {
            "model": {"params": state.params, "batch_stats": state.batch_stats},
            "optimizer": state.optimizer,
        }
        if state.averaged is not None:
            trees["averaged"] = state.averaged
        metadata = metadata | {"step": step, "checksums": {k: _checksum(tree) for k, tree in trees.items()}}
        metadata["checksum"] = _checksum_of_text(metadata)
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items["metadata"] = ocp.args.JsonSave(metadata)
        # Not a number where nothing is labelled; among others it would count as the best.
        metrics = None if score is None or math.isnan(score) else {_SCORE: score}
        with self._saving():
            self._check_room(trees)
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def wait(self) -> None:
        with self._saving():
            self._manager.wait_until_finished()

    def _check_room(self, trees) -> None:
        """A full disk is told before a save begins: in its middle Orbax' threads fail one by one."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(f"it takes up to {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")

    @contextlib.contextmanager
    def _saving(self):
        """Raises OSError for what goes wrong meanwhile, or went wrong in the background since."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore have no class of their own
            found = " ".join(str(error).split())[-200:]
            raise OSError(
                f"{self.directory}: a checkpoint could not be saved ({found}). The earlier ones are "
                "whole; once this is mended, the same command goes on after the latest."
            ) from error

    def metadata(self, step: int) -> dict:
        metadata = self._restore(step, metadata=ocp.args.JsonRestore())["metadata"]
        if metadata.pop("checksum", None) not in (None, _checksum_of_text(metadata)):
            raise ValueError(f"{self.directory / str(step)}: the checkpoint's metadata are damaged")
        return metadata

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
        """One of the items "model" and "averaged" alone."""
        return self._restore(step, **{name: ocp.args.StandardRestore(like)})[name]

    def _restore(self, step, **items):
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            known = {} if "metadata" in items else self.metadata(step).get("checksums", {})
            for name in known.keys() & items.keys():
                if _checksum(restored[name]) != known[name]:
                    raise ValueError(f"the checksum of {name} is not the one that was saved")
            return restored
        except Exception as error:  # Orbax, TensorStore, zstd and json each have their own
            found = " ".join(str(error).split())[:200]
            message = "the checkpoint is damaged or of another network"
            raise ValueError(f"{self.directory / str(step)}: {message} ({found})") from error


def _checksum(tree) -> int:
    """CRC-32 of all arrays in a row: Orbax' own chunks carry none, and flipped bits load silently."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        # Replicated arrays: any device's copy is the whole, also where there are several processes.
        whole = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        total = zlib.crc32(np.ascontiguousarray(whole).tobytes(), total)
    return total


def _checksum_of_text(metadata: dict) -> int:
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
