"""Paths that users give, local or in a bucket: atomic writing, size-limited reading of untrusted files."""

import collections
import contextlib
import gzip
import io
import json
import os
import pathlib
import secrets
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from hourglass_jax import buckets

LARGEST = 2**29  # most bytes that a user's file may unpack to: twice the largest public annotations

_TEMPORARY, _OLD = ".partial", 3600  # ending of temporary files; seconds after which one counts as abandoned
_SWEPT: set[pathlib.Path] = set()


def path(name: str | os.PathLike) -> pathlib.Path:
    """A path that a user gave: local, or in a bucket (gs://, s3://), with the same interface.

    Raises:
      ValueError: it is an address of another kind.
      ImportError: the bucket's package is not installed.
    """
    return buckets.path(name) if buckets.scheme(name) else pathlib.Path(name)


def absolute(name: str | os.PathLike) -> pathlib.Path:
    """Like `path`; a local path becomes absolute, without links. A bucket's path stays as it is, because
    epath would turn it into a local one."""
    return path(name) if in_bucket(name) else pathlib.Path(name).resolve()


def local(name: str | os.PathLike) -> pathlib.Path:
    """A path that a user gave and that must be on a disk. Raises ValueError for any address."""
    if in_bucket(name):
        raise ValueError(f"{os.fspath(name)}: this needs a folder on a disk, not in a bucket.")
    return pathlib.Path(name)


def in_bucket(name: str | os.PathLike) -> bool:
    """Whether a path is in a bucket. Raises ValueError for other kinds of addresses."""
    return bool(buckets.scheme(name))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a temporary binary file next to `path`, which replaces `path` when the block ends without error.

    Makes the folder if it does not exist. If the block raises an error, the previous file stays. A link stays
    a link, and its target is replaced. A new file gets the mode that the umask allows; a replaced file keeps
    its mode.

    In a bucket the content is uploaded when the block ends without error.

    Raises:
      OSError: the path is a folder, a device, a pipe or a socket, or the folder cannot be written to.
    """
    if in_bucket(path):
        with tempfile.NamedTemporaryFile(prefix="hourglass_jax-", suffix=pathlib.Path(path).suffix) as file:
            yield cast(BinaryIO, file.file)  # SciPy refuses the wrapper around it
            file.flush()
            buckets.upload(file.name, path)
        return
    target = pathlib.Path(os.path.realpath(path)) if os.path.islink(path) else pathlib.Path(path)
    before = _regular(path, target)
    if target == pathlib.Path(path):
        target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    name = os.fsdecode(os.fsencode(target.name)[:200])  # a file's name has at most 255 bytes
    temporary = target.with_name(f".{name}.{secrets.token_hex(4)}{_TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if before is not None:
                os.chmod(temporary, stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _regular(path, target: pathlib.Path) -> os.stat_result | None:
    """The `os.stat` of the regular file at `target`; None if there is no file."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return found
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
    raise OSError(f"{os.fspath(path)!s} is {kind}, not a file; choose another name.")


def _sweep(folder: pathlib.Path) -> None:
    """Removes temporary files that killed processes left, once per process and folder."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)):
                continue
            with contextlib.suppress(OSError):
                # Another process may still be writing a younger one.
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD:
                    os.unlink(entry.path)


def open_lock(path: pathlib.Path) -> BinaryIO:
    """Opens a lock file for writing, without changing its content and without following a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path}: there is a link instead of the lock file; remove it.") from None
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: this is not a lock file; remove it.") from None
        raise error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: this is not a lock file; remove it.")
    return os.fdopen(descriptor, "r+b", buffering=0)


def user_cache() -> pathlib.Path | None:
    """The project's folder in the user's cache; None if neither XDG_CACHE_HOME nor a home folder is known.

    In containers, for instance, a process may have no HOME and a user id that the system does not know.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(home) / "hourglass_jax" if os.path.isabs(home) else None


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """Like `path`, with ~ replaced by the user's home.

    Raises:
      ValueError: the path begins with ~, but no home is known.
    """
    if in_bucket(path):
        return buckets.path(path)
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        found = f"{os.fspath(path)}: no home folder is known"
        raise ValueError(f"{found}; set HOME, or name another folder.") from None


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file, completely or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes json, indented, with NaN as null."""
    write(path, json.dumps(_plain(value), indent=1, allow_nan=False).encode())


def read(path: str | os.PathLike) -> bytes:
    """The content of a file; see `opened`."""
    with opened(path) as file:
        return file.read()


def opened(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading; a file in a bucket is read into memory as a whole.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read, or it is in a bucket and has more than `LARGEST` bytes.
    """
    if not in_bucket(path):
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file.")
        return open(path, "rb")
    for left in reversed(range(3)):  # another process may replace it during the download
        about = buckets.listing(path).get("")
        if about is None:
            raise FileNotFoundError(f"{path}: no such file.")
        if about["size"] > LARGEST:
            raise OSError(f"{path}: more than {LARGEST >> 20} MiB")
        content = io.BytesIO()
        try:
            buckets.download(os.fspath(path), about, content)
            break
        except buckets.Changed:
            if not left:
                raise
    content.seek(0)
    return content


def reported(path: str | os.PathLike) -> contextlib.AbstractContextManager:
    """For a path in a bucket, `buckets.reported`: errors of the store become one line."""
    return buckets.reported(path) if in_bucket(path) else contextlib.nullcontext()


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or a folder. For a bucket, an outage is not an absence: it raises OSError."""
    return buckets.kind_of(path) != "" if in_bucket(path) else pathlib.Path(path).exists()


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is a file; see `exists`."""
    return buckets.kind_of(path) == "file" if in_bucket(path) else pathlib.Path(path).is_file()


def is_dir(path: str | os.PathLike) -> bool:
    """Whether there is a folder; see `exists`."""
    return buckets.kind_of(path) == "directory" if in_bucket(path) else pathlib.Path(path).is_dir()


def names_in(folder: str | os.PathLike) -> list[str]:
    """The names of the files and folders in a folder; [] if there is no folder.

    Raises:
      OSError: it cannot be read.
    """
    if in_bucket(folder):
        return buckets.names_in(folder)
    return os.listdir(folder) if os.path.isdir(folder) else []


def size(path: str | os.PathLike) -> int:
    """The size of a file in bytes."""
    return buckets.listing(path)[""]["size"] if in_bucket(path) else os.path.getsize(path)


def check_writable(folder: str | os.PathLike) -> None:
    """Raises OSError, in one line, for a bucket that cannot be written to, before minutes of work are lost.

    A local folder is not checked: it may not exist yet.
    """
    if in_bucket(folder):
        buckets.check_writable(folder)


def check_output(name: str, path: str | os.PathLike | None, endings: tuple[str, ...] = ()) -> None:
    """Refuses a file that could not be written in the end, before the work of which it is the result.

    Args:
      name: of the option, for the message.
      path: of the file; None and "" are not checked.
      endings: the possible ones, in lower case; () for all.

    Raises:
      ValueError: the ending is not possible.
      OSError: the path is a folder or a device, or its bucket cannot be written to.
    """
    if not path:
        return
    suffix = pathlib.PurePath(path).suffix.lower()
    if endings and suffix not in endings:
        found = f"the ending {suffix}" if suffix else "a name without an ending"
        known = ", ".join(endings)
        raise ValueError(f"--{name}={os.fspath(path)}: {found} is not possible; choose {known}.")
    if in_bucket(path):
        check_writable(buckets.path(path).parent)
    else:
        _regular(path, pathlib.Path(path))


def read_json(path: str | os.PathLike, *, unique: bool = False):
    """The content of a json file, plain or compressed by gzip.

    Args:
      path: of the file.
      unique: refuse an object that contains a name twice; json's readers would keep only the last value.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, not json, or larger than `LARGEST` bytes; one line.
    """
    stream = opened(path)
    try:
        with stream as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            data = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB")
        return json.loads(data, object_pairs_hook=_unique if unique else None)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:  # RecursionError: [[[[...
        raise ValueError(f"{path}: not readable as json, perhaps cut off ({error}).") from None


def _unique(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{twice[:99]!r} appears twice")
    return found


def check_names(path: str | os.PathLike, pictures) -> None:
    """Raises ValueError if the file at `path` names a picture by more than a plain file name.

    With folders in the name, any file of the machine could be read as a picture.
    """
    for picture in pictures:
        if pathlib.Path(picture).name != picture or not picture.isprintable():
            raise ValueError(f"{path}: a picture is named {picture[:99]!r}; expected a name without folders")


def check_archive(path: str | os.PathLike) -> None:
    """Refuses a zip archive that unpacks to more bytes than it has: ours and PyTorch's are not compressed.

    Raises:
      ValueError: it unpacks to more bytes.
      zipfile.BadZipFile: it is not a zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > os.path.getsize(path):
        raise ValueError("its content is compressed, or overlaps")


def _plain(value):
    """NumPy values as Python's, and NaN, which json does not have, as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value
