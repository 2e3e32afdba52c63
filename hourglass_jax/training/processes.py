"""Several processes of one training: they all start with the same config and data, or none starts."""

import atexit
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from hourglass_jax.config import differences

T = TypeVar("T")
START = 300  # s; hosts of a slice do not start at the same moment
_BAD_INPUT = (ValueError, OSError, ImportError, FloatingPointError)


def begin(*arguments, **options) -> None:
    """Calls `jax.distributed.initialize`, which waits `START` seconds for the other processes.

    If they do not come, JAX aborts this process; then one line is the last on stderr.
    """
    last_words = _LastWords(
        f"Error: {socket.gethostname()} ended while it waited for the other processes of the training, at "
        f"most {START} s; JAX's messages are above. Start all of them within this time."
    )
    try:
        jax.distributed.initialize(*arguments, initialization_timeout=START, **options)
    finally:
        last_words.end()


def introduce() -> None:
    """Prints in each process a line with its host, and the host of the process that writes the log."""
    if jax.process_count() == 1:
        return
    hosts = _gathered(socket.gethostname())
    number = jax.process_index()
    where = f"process {number} of {len(hosts)} runs on {hosts[number]}"
    others = ", ".join(f"{i} on {host}" for i, host in enumerate(hosts) if i != number)
    writer = f"process 0 on {hosts[0]} writes the log and the files"
    print(f"This {where}, {others}." if number == 0 else f"This {where}; {writer}.", flush=True)


def together(setup: Callable[[], T]) -> T:
    """Calls `setup` in each process; if it fails in one of them, all raise an error.

    Otherwise the others would wait for a process that has ended.

    Raises:
      ValueError: `setup` failed in another process; the message names that process.
      The error of `setup`, in the process where it failed.
    """
    if jax.process_count() == 1:
        return setup()
    result, error = None, None
    try:
        result = setup()
    except _BAD_INPUT as caught:
        error = caught
    text = "" if error is None else f"({socket.gethostname()}): {error or type(error).__name__}"
    texts = _gathered(text)
    if error is not None:
        raise error
    if failed := {number: text for number, text in enumerate(texts) if text}:
        number, text = next(iter(failed.items()))
        raise ValueError(f"Process {number} {text}")
    return result  # type: ignore[return-value]


def agree(facts: dict) -> None:
    """Compares facts (json) of all processes.

    Raises:
      ValueError: they differ; the message names the first process that differs from process 0, and the
        differences.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(facts, sort_keys=True, default=str)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if (multihost_utils.process_allgather(digest) == digest).all(axis=-1).all():
        # All digests equal this process's digest, so every process returns here.
        return
    others = [json.loads(text) for text in _gathered(text)]
    number = next(i for i, other in enumerate(others) if other != others[0])
    found = "; ".join(differences(others[0], others[number]))
    raise ValueError(f"The processes differ: from process 0 to process {number}, {found}.")


def _gathered(text: str) -> list[str]:
    """The texts of all processes, in the order of their numbers."""
    data = np.frombuffer(text.encode(errors="backslashreplace"), np.uint8)
    lengths = np.atleast_1d(multihost_utils.process_allgather(np.array(len(data), np.int32)))
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:n]).decode() for row, n in zip(rows, lengths, strict=True)]


@contextlib.contextmanager
def ending_when_one_is_lost() -> Iterator[None]:
    """If another process is lost, ends this process, with one line as the last on stderr.

    A collective that fails raises an error. If it hangs instead, or if the first process is lost, JAX aborts
    this process from a thread of its own: immediately, or after 30 s without heartbeats (`main.PATIENCE`).
    Python cannot print then, so a small helper process prints the line.
    """
    if jax.process_count() == 1:
        yield
        return
    here = f"process {jax.process_index()} ({socket.gethostname()})".replace("%", "%%")
    line = f"Error: {here} lost contact with another process (%s). {_REMEDY}"
    last_words = _LastWords(line % "or was ended itself; JAX's messages are above")
    try:
        yield
    except BaseException as error:
        if reason := lost_contact(error):
            # Exit without leaving the enclosing contexts: checkpoints and JAX would wait minutes for others.
            last_words.end(line % reason)
            sys.stdout.flush()
            os._exit(1)
        # While this process exits, JAX may still abort it.
        atexit.register(last_words.end)
        raise
    else:
        last_words.end()


class _LastWords:
    """A helper process, which prints a line on stderr if this process ends before it calls `end`."""

    def __init__(self, line: str):
        # It has a session of its own: Ctrl-C in a terminal must not reach it.
        self._helper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAST_WORDS, line],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def end(self, line: str = "") -> None:
        """Prints another line, or none, and waits until it is printed."""
        self._helper.communicate(line.encode(errors="backslashreplace") or _NOTHING)


def lost_contact(error: BaseException | None) -> str:
    """Why a collective failed, if that caused the error (for instance in a checkpoint); else ""."""
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, jax.errors.JaxRuntimeError):
            lost = _STATUS.match(text)
        elif isinstance(error, ValueError):
            lost = _COLLECTIVE.match(text) or (_STATUS.match(text) and not _passed_orbax(error))
        else:
            lost = None
        if lost:
            return text[:150]
        error = error.__cause__ or error.__context__
    return ""


def _passed_orbax(error: BaseException) -> bool:
    """Whether an error was raised in a function of Orbax, in any thread."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("orbax.") for frame, _ in frames)


# JAX raises a status of its C++ code: an error of its own class, or a ValueError while it copies an array.
# TensorStore raises the same statuses when a bucket or a disk fails, always as a ValueError, and is called
# only by Orbax. RESOURCE_EXHAUSTED is not in the list: it means that this process lacks memory.
_STATUS = re.compile(
    "(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): "
)
_COLLECTIVE = re.compile(_STATUS.pattern + r"(\S+: )?(Gloo|NCCL|RCCL) ")
_REMEDY = "Start all of them again: they continue after the latest checkpoint."
_NOTHING = b"-"
# Waits until the process that started it closes the pipe or ends. Prints what that process sent, or, if it
# sent nothing, its own argument.
_LAST_WORDS = """
import sys
words = sys.stdin.read()
if words != "-":
    print(words or sys.argv[1], file=sys.stderr, flush=True)
"""
