"""Local copies of files in a bucket: of input, kept in the user's cache, and of output that grows."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import tempfile
import time
import zlib
from concurrent import futures

from hourglass_jax import buckets, files

_PUSHED = 30.0  # s between two uploads of files that grow
_INDEX = ".fetched.json"


def fetched(path: str | os.PathLike) -> pathlib.Path:
    """A local copy of a file or folder in a bucket, in the user's cache; a local path is returned as it is.

    A file is copied once. It is copied again if it has changed in the bucket, or if the copy's checksum has
    changed.

    Raises:
      FileNotFoundError: the bucket has no such file or folder.
      OSError: it cannot be read, or the disk is full.
    """
    if not files.in_bucket(path):
        return pathlib.Path(path)
    address = os.fspath(path).rstrip("/")
    wanted = buckets.listing(address)
    single = wanted.keys() == {""}
    name = address.rpartition("/")[2]
    cache = files.user_cache() or pathlib.Path(tempfile.gettempdir()) / f"hourglass_jax-{os.getuid()}"
    root = cache / "buckets" / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder = root if single else root / name
    folder.mkdir(parents=True, exist_ok=True)
    with files.open_lock(root / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits if another process is copying it
        index = root / _INDEX
        known = files.read_json(index) if index.is_file() else {}
        at = {one: folder / (one or name) for one in wanted}
        missing = [one for one in wanted if not _is_copy(at[one], known.get(one), wanted[one])]
        if (needed := sum(wanted[one]["size"] for one in missing)) > (room := shutil.disk_usage(root).free):
            raise OSError(
                f"{address}: a copy takes {needed / 1e6:,.1f} MB, but {root} has {room / 1e6:,.1f} MB free; "
                "set XDG_CACHE_HOME to another folder."
            )

        def fetch(one: str) -> list:
            with files.replacing(at[one]) as file:
                buckets.download(f"{address}/{one}".rstrip("/"), wanted[one], file)
            return [buckets.version(wanted[one]), _crc(at[one])]

        with futures.ThreadPoolExecutor(8) as pool:
            known = {one: known.get(one) for one in wanted}
            known |= dict(zip(missing, pool.map(fetch, missing), strict=True))
        for other in [] if single else sorted(folder.rglob("*")):
            if other.is_file() and other not in set(at.values()):
                other.unlink()  # it is no longer in the bucket
        if missing:
            files.write_json(index, known)
    return at[""] if single else folder


def _is_copy(path: pathlib.Path, known: list | None, wanted: dict) -> bool:
    """Whether a file is unchanged since it was copied, and the bucket still has the same version."""
    if not known or known[0] != buckets.version(wanted) or not path.is_file():
        return False
    return path.stat().st_size == wanted["size"] and _crc(path) == known[1]


def _crc(path: pathlib.Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(buckets.BLOCK):
            total = zlib.crc32(block, total)
    return total


class Spool:
    """A folder for files that grow. A bucket cannot append to a file: for a folder in a bucket, this is a
    local folder whose files are uploaded whole.

    Attributes:
      folder: the local folder to write to.
    """

    def __init__(self, folder: str | os.PathLike):
        self._bucket = os.fspath(folder) if files.in_bucket(folder) else None
        self._held = tempfile.TemporaryDirectory(prefix="hourglass_jax-") if self._bucket else None
        self.folder = pathlib.Path(folder)
        if self._held:
            self.folder = (
                pathlib.Path(self._held.name) / files.path(folder).name
            )  # trackers use the folder's name as the run's name
            self.folder.mkdir()
        self._sent: dict[pathlib.Path, tuple[int, int]] = {}
        self._last = time.monotonic()

    def fetch(self, name: str) -> pathlib.Path:
        """The path of a file to append to, with the content that it already has."""
        if self._bucket:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).write_bytes(files.read(f"{self._bucket}/{name}"))
        return self.folder / name

    def push(self, *, now: bool = True) -> None:
        """Uploads the files that have changed since the last upload.

        Without `now`, it does so only if the last upload was some time ago: a store accepts at most one
        upload of an object per second."""
        if not self._bucket or (not now and time.monotonic() - self._last < _PUSHED):
            return
        for path in sorted(self.folder.rglob("*")):
            state = (path.stat().st_size, path.stat().st_mtime_ns)
            if path.is_file() and self._sent.get(path) != state:
                buckets.upload(path, f"{self._bucket}/{path.relative_to(self.folder).as_posix()}")
                self._sent[path] = state
        self._last = time.monotonic()

    def close(self) -> None:
        """Uploads the rest and removes the local folder."""
        if self._held:
            self.push()
            self._held.cleanup()
