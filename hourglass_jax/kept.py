"""Keeps facts and programs that take a second to trace in the user's cache, next to the compiled programs.

Nothing is kept until a command calls `keep`: a library must not write to a home folder unasked. A file's name
is the digest of everything on which its content depends, including this package's source and the versions of
JAX and Flax. A file is replaced as a whole, so that several processes can share the folder; a damaged file is
computed and written again.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax import export

from hourglass_jax import files

MOST = 200  # most files of a kind; the oldest are removed
_folder: pathlib.Path | None = None


def keep(folder: pathlib.Path | None) -> None:
    """From now on, keeps facts and programs in a folder; None keeps none."""
    global _folder
    _folder = folder


def fact(kind: str, about: Any, compute: Callable[[], Any]) -> Any:
    """The value that `compute` returns now, or returned in an earlier process.

    Args:
      kind: of the fact.
      about: json of everything, except the code, on which the value depends; None to keep no value.
      compute: returns a value that json can store: lists instead of tuples, text as keys.
    """
    if _folder is None or about is None:
        return compute()
    path = _place(_folder, kind, about, ".json")
    with contextlib.suppress(OSError, ValueError):  # not kept yet, or damaged
        return files.read_json(path)
    value = compute()
    _write(path, json.dumps(value).encode())
    return value


def program(kind: str, about: Any, function: Callable, *, platform: str, **options) -> Callable:
    """`jax.jit(function, **options)`, which an earlier process may have traced and lowered.

    The lowered program is kept (`jax.export`); JAX's own cache keeps the compiled one. For arguments of given
    shapes, JAX's settings are those of the first call.

    Args:
      kind: of the program.
      about: json of everything on which the program depends, except the code, the shapes of its arguments and
        JAX's settings; None to keep no program.
      function: takes arrays, or trees of arrays, as positional arguments only.
      platform: on which the program runs, as `jax.export` names it: "cpu", "cuda", "rocm" or "tpu".
      options: of `jax.jit`, for one device.
    """
    traced = jax.jit(function, **options)
    if _folder is None or about is None:
        return traced
    folder, of_shapes = _folder, {}

    def run(*args):
        leaves, tree = jax.tree.flatten(args)
        shapes = tree, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in of_shapes:
            path = _place(folder, kind, [about, platform, shapes, _settings()], ".program")
            exported = _exported(path, traced, args, platform)
            of_shapes[shapes] = jax.jit(exported.call, **options) if exported else traced
        return of_shapes[shapes](*args)

    return run


def _exported(path: pathlib.Path, traced: Any, args: tuple, platform: str) -> export.Exported | None:
    """Reads the program from a file, or traces it and writes it there; None if JAX cannot export it."""
    with contextlib.suppress(OSError, ValueError):
        return _read(path)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    try:
        content = bytes(export.export(traced, platforms=(platform,))(*shapes).serialize())
    except Exception:  # an operation that JAX does not keep stable, or the function's own error
        return None
    _write(path, hashlib.sha256(content).digest() + content)
    # Read it back: this process then compiles the same program as the next one, and JAX's cache keeps it.
    return export.deserialize(bytearray(content))


def _read(path: pathlib.Path) -> export.Exported:
    """Raises ValueError for a damaged file."""
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path}: damaged.")
    return export.deserialize(bytearray(content))


def _place(folder: pathlib.Path, kind: str, about: Any, ending: str) -> pathlib.Path:
    """The file for content that depends on `about` and the code."""
    text = json.dumps([kind, about, _code()], sort_keys=True, default=str)
    return folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}{ending}"


def _write(path: pathlib.Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk only costs time
        files.write(path, content)
        prune(path.parent, f"*{path.suffix}", count=MOST)


@functools.cache
def _code() -> list[str]:
    """The digest of this package's source files, and the versions of JAX and Flax."""
    root, digest = pathlib.Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)} ".encode() + content)
    return [digest.hexdigest(), *(importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax"))]


def _settings() -> dict[str, Any]:
    """JAX's settings, except those of its cache, and XLA's flags."""
    of_jax = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    return of_jax | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}


def prune(
    folder: pathlib.Path, pattern: str, *, count: float = float("inf"), size: float = float("inf")
) -> None:
    """If a limit is exceeded, removes the least recently used files of a folder, down to 3/4 of the limit.

    Another process may do the same, or may be reading a removed file: for that process it is missing.

    Args:
      pattern: of the files' names.
      count: the most files; size: the most bytes of all files together.
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
