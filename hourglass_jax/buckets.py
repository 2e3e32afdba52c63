"""Buckets, gs:// and s3://: paths of etils' epath (Orbax and TFDS accept them), objects by fsspec.

An object appears completely or not at all, so that writing it is atomic. A bucket has no locks, no renaming
and no appending: instead a training has a `Lease`, and `copies.Spool` uploads files that grow.
"""

import base64
import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from hourglass_jax import extras

# The scheme -> the package that fsspec needs for it.
SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}
T = TypeVar("T")
BLOCK = 2**24  # bytes of one request
RENEWED, EXPIRED = 15.0, 60.0  # s until a lease is renewed, and until an unchanged lease counts as dead
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CUT = re.compile(rf"({'|'.join(SCHEMES)}):(?!//)")
_TIMEOUT = 60  # s, of one request
NOTICED = 30.0  # s of waiting for a store until a line says so
OUTAGE = 300.0  # s for which uploads and downloads are repeated, in addition to the half minute of gcsfs
_PAUSE = 1.0  # s between two tries
# Temporary statuses of HTTP: a time-out, too many requests, faults of the server.
_PASSING = ("408", "429", "500", "502", "503", "504")

# If TensorFlow is installed, epath uses it for gs://; but it cannot read s3:// and supports no emulator.
os.environ.setdefault("EPATH_USE_TF", "false")


def scheme(name: str | os.PathLike) -> str:
    """The scheme of a bucket's path; "" for a local path.

    Raises:
      ValueError: it is an address of another kind, for which the file system would make a folder.
    """
    text = os.fspath(name)
    if not isinstance(text, str):
        return ""
    known = " and ".join(f"{one}://" for one in SCHEMES)
    if found := _SCHEME.match(text):
        if found[1] not in SCHEMES:
            raise ValueError(
                f"{text}: {found[1]}:// is not supported; a path is local, or begins with {known}."
            )
        if not text[found.end() :].strip("/"):
            raise ValueError(f"{text}: names no bucket; expected {found[0]}BUCKET/FOLDER.")
        return found[1]
    if _CUT.match(text) and not os.path.lexists(text.partition("/")[0]):
        raise ValueError(f"{text}: two slashes are missing; buckets are {known}.")
    return ""


def path(name: str | os.PathLike) -> pathlib.Path:
    """The path of an object: an `epath.Path`, with the part of pathlib's interface that buckets support.

    Raises:
      ImportError: the scheme's package is not installed.
    """
    filesystem(name)
    from etils import epath

    return cast(pathlib.Path, epath.Path(os.fspath(name)))


def filesystem(name: str | os.PathLike) -> Any:
    """The fsspec file system of a bucket's path."""
    kind = scheme(name)
    with extras.needed(SCHEMES[kind], f"{os.fspath(name)}: reading and writing {kind}://"):
        __import__(SCHEMES[kind])
    import fsspec.config

    _register(kind)
    # Other processes write while this one reads; fsspec would show each folder as it was when first listed.
    options = fsspec.config.conf.setdefault(kind, {})
    options.setdefault("use_listings_cache", False)
    if kind == "gs":
        options.setdefault("requests_timeout", _TIMEOUT)
    # TensorStore would wait forever for a server that accepts a connection but sends nothing.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(_TIMEOUT))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    # The package logs the errors that it raises, with tracebacks.
    logging.getLogger(SCHEMES[kind]).setLevel(logging.CRITICAL)
    found = fsspec.filesystem(kind)
    if kind == "gs" and "token" not in options:
        # fsspec makes a file system for each thread, and Orbax has dozens of threads. Each would look for
        # credentials: this takes seconds if there are none, and else a request to the machine's metadata.
        options["token"] = found.credentials.credentials or "anon"
    return found


@functools.cache
def _register(kind: str) -> None:
    """Makes fsspec, and so epath and Orbax, use a file system that does not hide errors.

    fsspec's `isdir` and `isfile` return False for most errors. During an outage a training would seem to have
    no checkpoints.
    """
    import fsspec

    theirs = fsspec.get_filesystem_class(kind)
    ours = type(theirs.__name__, (theirs,), {"_isdir": _is_dir, "_isfile": _is_file})
    for protocol in [theirs.protocol] if isinstance(theirs.protocol, str) else theirs.protocol:
        fsspec.register_implementation(protocol, ours, clobber=True)


async def _is_dir(self, path: str) -> bool:
    try:
        return (await self._info(path))["type"] == "directory"
    except FileNotFoundError:
        return False


async def _is_file(self, path: str) -> bool:
    try:
        return (await self._info(path))["type"] == "file"
    except FileNotFoundError:
        return False


class Changed(OSError):
    """An object has changed since it was listed."""


class AtWork(ValueError):
    """Another process has a lease."""


@contextlib.contextmanager
def reported(name: str | os.PathLike) -> Iterator[None]:
    """Turns the many errors of stores into an OSError of one line, with the path and what to do."""
    try:
        yield
    except (FileExistsError, AtWork):
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(name)}: there is no such bucket or object.") from None
    except Exception as error:  # gcsfs, aiohttp, google.auth and botocore have errors of their own
        raise OSError(f"{os.fspath(name)}: {reason(error, name)}.") from error


@contextlib.contextmanager
def awaited(name: str | os.PathLike, doing: str = "waiting for the bucket") -> Iterator[None]:
    """Prints a line on stderr every `NOTICED` seconds until the block ends; prints none for a local path."""
    if not scheme(name):
        yield
        return
    ended, began = threading.Event(), time.monotonic()

    def notice() -> None:
        while not ended.wait(NOTICED):
            say = f"{os.fspath(name)}: {doing}, {time.monotonic() - began:.0f} s so far."
            print(say, file=sys.stderr, flush=True)

    threading.Thread(target=notice, daemon=True, name="awaited").start()
    try:
        yield
    finally:
        ended.set()


def tried(name: str | os.PathLike, call: Callable[[], T]) -> T:
    """As `repeated`, with a line every `NOTICED` seconds, and with errors of one line.

    Raises:
      FileNotFoundError: there is no such bucket or object.
      OSError: the outage lasts, or the error is of another kind.
    """
    with awaited(name), reported(name):
        return repeated(name, call)


def repeated(name: str | os.PathLike, call: Callable[[], T]) -> T:
    """Returns the result of `call`; repeats it, with a line, during an outage of up to `OUTAGE` seconds."""
    end = time.monotonic() + OUTAGE
    while True:
        try:
            return call()
        except Exception as error:
            if not _passes(error) or time.monotonic() > end:
                raise
            say = f"{os.fspath(name)}: {reason(error, name)}; trying again."
        print(say, file=sys.stderr, flush=True)
        time.sleep(_PAUSE)


def _passes(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is temporary, so that the store may succeed later."""
    if isinstance(error, FileNotFoundError):
        return False
    while error is not None:
        if _is_temporary(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError) or str(getattr(error, "code", "")) in _PASSING:
        return True
    kind = type(error)
    return kind.__module__.partition(".")[0] in ("aiohttp", "requests") or kind.__name__ in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
    )


# TensorStore's words for a store's errors, at the beginning of a message or after the name of an array.
_STORES = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|ABORTED): |HTTP response code"
)


def is_error(error: BaseException) -> bool:
    """Whether an error is a store's own, with a class that is not an OSError."""
    modules = ("gcsfs", "aiohttp", "google", "botocore", "s3fs", "requests")
    return type(error).__module__.partition(".")[0] in modules


def comes_from(error: BaseException | None) -> bool:
    """Whether the error of a library that reads a bucket comes from the store, not from the content."""
    while error is not None:
        if is_error(error) or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError)):
            return True
        if _STORES.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException, name: str | os.PathLike) -> str:
    """Why an access to a path failed, in one line, with what to do if that is known."""
    found = " ".join(str(error).split())
    code, module = str(getattr(error, "code", "")), type(error).__module__
    if status := re.search(r"http_response_code='(\d+)'", found):  # TensorStore's, after a long address
        code, found = status[1], f"HTTP {status[1]}"
    found = found[:200].rstrip(".") or type(error).__name__
    login = {"gs": "gcloud auth application-default login", "s3": "aws configure"}[scheme(name)]
    if module.startswith("google.auth") or code == "401" or type(error).__name__ == "NoCredentialsError":
        return f"the credentials are missing or have expired ({found}); {login}"
    if isinstance(error, PermissionError) or code == "403" or found.startswith("Forbidden"):
        return f"no permission ({found})"
    return f"the bucket does not respond as it should ({found})"


def check_writable(folder: str | os.PathLike) -> None:
    """Writes a small object into a folder and removes it.

    Raises:
      OSError: there is no such bucket, no permission, or no credentials; one line.
    """
    probe, store = f"{os.fspath(folder)}/.{secrets.token_hex(4)}.probe", filesystem(folder)
    with awaited(folder), reported(folder):
        store.pipe_file(probe, b"")
        store.rm_file(probe)


def upload(local: str | os.PathLike, name: str | os.PathLike) -> None:
    """Copies a local file to an object, which replaces the one that was there when all of it has come."""
    store = filesystem(name)
    tried(name, lambda: store.put_file(os.fspath(local), os.fspath(name), chunksize=BLOCK))


def kind_of(name: str | os.PathLike) -> str:
    """Either "file" or "directory"; "" if there is neither.

    Raises:
      OSError: this cannot be found out; one line.
    """
    store, text = filesystem(name), os.fspath(name).rstrip("/")
    try:
        return tried(name, lambda: store.info(text))["type"]
    except FileNotFoundError:
        return ""


def names_in(folder: str | os.PathLike) -> list[str]:
    """The names of the objects and folders in a folder; [] if there is none.

    Raises:
      OSError: this cannot be found out; one line.
    """
    store, text = filesystem(folder), os.fspath(folder).rstrip("/")
    try:
        found = tried(folder, lambda: store.ls(text, detail=False))
    except FileNotFoundError:
        return []
    return [name.rstrip("/").rpartition("/")[2] for name in found if name != store._strip_protocol(text)]


def listing(name: str | os.PathLike) -> dict[str, dict]:
    """The objects at a path: {"": ...} of one, or by their names relative to a folder.

    Raises:
      FileNotFoundError: there is none.
    """
    store, text = filesystem(name), os.fspath(name).rstrip("/")
    root, found = store._strip_protocol(text), tried(name, lambda: store.find(text, detail=True))
    if not found:
        raise FileNotFoundError(f"{text}: there is no such bucket or object.")
    if list(found) == [root]:
        return {"": found[root]}
    return {key.removeprefix(f"{root}/"): value for key, value in found.items() if not key.endswith("/")}


def version(about: dict) -> str:
    """A text that changes with an object's content, from its `listing`."""
    return str(about.get("generation") or about.get("ETag") or about.get("LastModified"))


def download(name: str, about: dict, file: BinaryIO) -> None:
    """Writes an object's content into a file, block by block; a block that fails is requested again.

    Raises:
      Changed: the checksum differs from the store's.
      OSError: the object cannot be read.
    """
    store, md5 = filesystem(name), hashlib.md5(usedforsecurity=False)
    for start in range(0, about["size"], BLOCK):
        end = min(start + BLOCK, about["size"])
        block = tried(name, functools.partial(store.cat_file, name, start=start, end=end))
        file.write(block)
        md5.update(block)
    wanted = about.get("md5Hash")  # objects that are composed of others have none
    if file.tell() != about["size"] or (wanted and base64.b64encode(md5.digest()).decode() != wanted):
        raise Changed(f"{name}: differs from the stored object (by its checksum); try again.")


class Lease:
    """An object that keeps a second process out of a folder, instead of a lock.

    The object names its owner and is renewed every `RENEWED` seconds. A process that finds a lease watches
    it. If the lease does not change for `EXPIRED` seconds, its owner is dead and the lease is taken over; if
    the owner is a process of this machine that has ended, the lease is taken over immediately. Clocks are not
    compared.

    Args:
      name: of the object.
      lost: is called, from a thread, when another process has taken the lease over.
      waits: is called with the owner before the lease is watched.
    """

    def __init__(
        self,
        name: str | os.PathLike,
        lost: Callable[[], None],
        waits: Callable[[str], None] = lambda owner: None,
    ):
        self._name, self._lost, self._waits = os.fspath(name), lost, waits
        self._store, self._ended = filesystem(name), threading.Event()
        self._owner = {
            "owner": f"{socket.gethostname()}, process {os.getpid()}",
            "process": _process(os.getpid()),
        }
        self._owner["token"] = secrets.token_hex(8)

    def __enter__(self) -> "Lease":
        """Raises ValueError if another process has the lease."""
        with reported(self._name):
            while True:
                try:
                    self._store.pipe_file(self._name, self._content(), mode="create")
                    break
                except FileExistsError:
                    if (found := self._read()) is None:
                        continue  # it has just been released
                    # An earlier try of this same request may have succeeded although its response was lost.
                    if found.get("token") == self._owner["token"]:
                        break
                    self._take(found)
                    break
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # a lease that is not removed expires
            if (self._read() or {}).get("token") == self._owner["token"]:
                self._store.rm_file(self._name)

    def _content(self) -> bytes:
        return json.dumps(self._owner | {"time": time.time()}).encode()

    def _read(self) -> dict | None:
        try:
            found = json.loads(self._store.cat_file(self._name))
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _take(self, found: dict) -> None:
        owner = str(found.get("owner", "unknown"))[:99]
        if not _is_dead(found.get("process")):
            self._waits(owner)
            end = time.monotonic() + EXPIRED
            while time.monotonic() < end:
                time.sleep(min(1.0, EXPIRED / 10))
                now = self._read()
                if now is None:
                    break
                if now != found:
                    raise AtWork(f"{self._name.rpartition('/')[0]}: another training is running in this "
                                     f"workdir ({str(now.get('owner', owner))[:99]}).")  # fmt: skip
        self._store.pipe_file(self._name, self._content())
        time.sleep(min(1.0, EXPIRED / 10))  # if several processes take it together, the last one has it
        if (now := self._read() or {}).get("token") != self._owner["token"]:
            raise AtWork(f"{self._name.rpartition('/')[0]}: another training has begun in this workdir "
                             f"({str(now.get('owner', 'unknown'))[:99]}).")  # fmt: skip

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            with contextlib.suppress(Exception):  # the next try may succeed
                if (now := self._read()) is not None and now.get("token") != self._owner["token"]:
                    self._lost()
                    return
                self._store.pipe_file(self._name, self._content())


def _process(number: int) -> list[str] | None:
    """Identifies a process of this machine, even after its number is used again."""
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers on the same machine use the same numbers for their processes.
        return [boot, os.readlink("/proc/self/ns/pid"), str(number), _started(number)]
    return None


def _started(number: int) -> str:
    """When a process started, in ticks since the machine's start; "" if it has ended but is still listed."""
    state, *fields = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def _is_dead(process) -> bool:
    """Whether a lease's process was on this machine and has ended; False if that is not known."""
    if not (isinstance(process, list) and len(process) == 4 and all(isinstance(x, str) for x in process)):
        return False
    own = _process(os.getpid())
    if own is None or own[:2] != process[:2] or not process[2].isdigit():
        return False
    try:
        return _started(int(process[2])) != process[3]
    except OSError:
        return True
