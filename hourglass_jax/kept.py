"""Facts about networks that take a second to trace, kept in the user's cache beside the compiled programs.

Off until a command calls `keep`: a library leaves nothing in a home by itself. A fact is a small json file
whose name is the digest of all that it depends on, this package's source and JAX' and Flax' versions
included; writing replaces it whole, so that several processes may share the folder.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from hourglass_jax import files

MOST = 200  # facts; the oldest are removed
_folder: pathlib.Path | None = None


def keep(folder: pathlib.Path | None) -> None:
    """Keeps facts in a folder from now on; None keeps none."""
    global _folder
    _folder = folder


def fact(kind: str, about: Any, compute: Callable[[], Any]) -> Any:
    """The value that `compute` returns, or returned in an earlier process.

    Args:
      kind: of the fact.
      about: json of all that the value depends on besides the code; None for a value that is never kept.
      compute: gives a value of json: lists for tuples, text for keys.
    """
    if _folder is None or about is None:
        return compute()
    text = json.dumps([kind, about, _code()], sort_keys=True, default=str)
    path = _folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):  # not kept yet, or damaged
        return files.read_json(path)
    value = compute()
    with contextlib.suppress(OSError):  # a full disk costs time and nothing else
        files.write(path, json.dumps(value).encode())
        prune(_folder, "*.json", count=MOST)
    return value


def _code() -> list:
    """Versions, and the sizes and times of this package's source files."""
    root = pathlib.Path(__file__).parent
    source = [
        [str(path.relative_to(root)), (stat := path.stat()).st_size, stat.st_mtime_ns]
        for path in sorted(root.rglob("*.py"))
    ]
    return [source, *(importlib.metadata.version(name) for name in ("jax", "flax"))]


def prune(
    folder: pathlib.Path, pattern: str, *, count: float = float("inf"), size: float = float("inf")
) -> None:
    """Removes the files of a folder that were used least recently, down to three quarters of a limit.

    Another process may do the same, and may be reading one of them: it takes that for a missing one.

    Args:
      pattern: of the files' names.
      count: of files, at most; size: bytes of them together, at most.
    """
    found = []
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total, left = sum(bytes_ for _, bytes_, _ in found), len(found)
    if total <= size and left <= count:
        return
    for _, bytes_, path in sorted(found, key=lambda one: one[0]):
        if total <= 0.75 * size and left <= 0.75 * count:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total, left = total - bytes_, left - 1
