"""What takes a second to trace, kept in the user's cache beside the compiled programs: facts and programs.

Off until a command calls `keep`: a library leaves nothing in a home by itself. A file's name is the digest of
all that its content depends on, this package's source and JAX' and Flax' versions included. Writing replaces
it whole, so that several processes may share the folder; a damaged one is computed and written again.
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

MOST = 200  # files of a kind; the oldest are removed
_folder: pathlib.Path | None = None


def keep(folder: pathlib.Path | None) -> None:
    """Keeps facts and programs in a folder from now on; None keeps none."""
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
    path = _place(_folder, kind, about, ".json")
    with contextlib.suppress(OSError, ValueError):  # not kept yet, or damaged
        return files.read_json(path)
    value = compute()
    _write(path, json.dumps(value).encode())
    return value


def program(kind: str, about: Any, function: Callable, *, platform: str, **options) -> Callable:
    """`jax.jit(function, **options)`, which an earlier process may have traced and lowered.

    Kept is the lowered program (`jax.export`); JAX's own cache has what it compiles to. JAX's settings are
    those of the first call with arguments of some shapes.

    Args:
      kind: of the program.
      about: json of all that the program depends on besides the code, the shapes of its arguments and JAX's
        settings; None for one that is never kept.
      function: of arrays, or of trees of them, all positional.
      platform: that the program runs on, as `jax.export` names it: "cpu", "cuda", "rocm" or "tpu".
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
    """The program in a file, or else traced and written there; None where JAX does not export it."""
    with contextlib.suppress(OSError, ValueError):
        return _read(path)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
    try:
        content = bytes(export.export(traced, platforms=(platform,))(*shapes).serialize())
    except Exception:  # an operation without a promise to stay as it is, or the function's own error
        return None
    _write(path, hashlib.sha256(content).digest() + content)
    # Read back, so that this process compiles what the next one does: JAX's cache then has it.
    return export.deserialize(bytearray(content))


def _read(path: pathlib.Path) -> export.Exported:
    """Raises ValueError for a damaged file."""
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path}: damaged.")
    return export.deserialize(bytearray(content))


def _place(folder: pathlib.Path, kind: str, about: Any, ending: str) -> pathlib.Path:
    """The file of what depends on `about` and the code."""
    text = json.dumps([kind, about, _code()], sort_keys=True, default=str)
    return folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}{ending}"


def _write(path: pathlib.Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk costs time and nothing else
        files.write(path, content)
        prune(path.parent, f"*{path.suffix}", count=MOST)


@functools.cache
def _code() -> list[str]:
    """Versions, and the digest of this package's source files."""
    root, digest = pathlib.Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)} ".encode() + content)
    return [digest.hexdigest(), *(importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax"))]


def _settings() -> dict[str, Any]:
    """JAX's, without those of its cache, and XLA's."""
    of_jax = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    return of_jax | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}


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
