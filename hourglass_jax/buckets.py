"""Buckets, gs:// and s3://: paths by etils' epath, which Orbax and TFDS take too, and objects by fsspec.

An object appears whole or not at all, so that writing one is atomic by itself. A bucket has no locks, no
renaming and no appending: a training holds a `Lease`, and `copies.Spool` uploads files that grow.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from hourglass_jax import extras

# The scheme -> the package that fsspec needs for it.
SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}
BLOCK = 2**24  # bytes of one request of a download
RENEWED, EXPIRED = 15.0, 60.0  # s, after which a lease is renewed, and after which an unchanged one is dead
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CUT = re.compile(rf"({'|'.join(SCHEMES)}):(?!//)")
_TIMEOUT = 120  # s, of one request

# epath takes TensorFlow for gs:// where it is installed, which cannot read s3:// and knows no emulator.
os.environ.setdefault("EPATH_USE_TF", "false")


def scheme(name: str | os.PathLike) -> str:
    """The scheme of a bucket's path; "" for a local one.

    Raises:
      ValueError: an address of another kind, of which the file system would make a folder.
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
    """The path of an object: an `epath.Path`, whose interface is pathlib's as far as a bucket goes.

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

    # Others write while this process reads; fsspec would show each folder as it was when first listed.
    options = fsspec.config.conf.setdefault(kind, {})
    options.setdefault("use_listings_cache", False)
    if kind == "gs":
        options.setdefault("requests_timeout", _TIMEOUT)
    # TensorStore waits for ever for a server that accepts a connection and then is silent.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(_TIMEOUT))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    # It logs errors that it raises, with tracebacks.
    logging.getLogger(SCHEMES[kind]).setLevel(logging.CRITICAL)
    found = fsspec.filesystem(kind)
    if kind == "gs" and "token" not in options:
        # fsspec makes a file system for each thread, Orbax has dozens of them, and each would look for
        # credentials on its own: seconds where there are none, a request to the machine's metadata otherwise.
        options["token"] = found.credentials.credentials or "anon"
    return found


class Changed(OSError):
    """An object is not what it was when it was listed."""


class AtWork(ValueError):
    """Another process has a lease."""


@contextlib.contextmanager
def reported(name: str | os.PathLike) -> Iterator[None]:
    """Turns the many errors of stores into OSError of one line, which names the path and the remedy."""
    try:
        yield
    except (FileExistsError, AtWork):
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(name)}: there is no such bucket or object.") from None
    except Exception as error:  # gcsfs, aiohttp, google.auth, botocore: each has its own
        raise OSError(f"{os.fspath(name)}: {_reason(error, scheme(name))}.") from error


def is_error(error: BaseException) -> bool:
    """Whether an error is a store's own, of a class that is no OSError."""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "aiohttp", "google", "botocore", "s3fs")


def _reason(error: BaseException, kind: str) -> str:
    found = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    login = {"gs": "gcloud auth application-default login", "s3": "aws configure"}[kind]
    module, code = type(error).__module__, str(getattr(error, "code", ""))
    if module.startswith("google.auth") or code == "401" or type(error).__name__ == "NoCredentialsError":
        return f"the credentials are missing or have expired ({found}); {login}"
    if isinstance(error, PermissionError) or found.startswith("Forbidden"):
        return f"no permission ({found})"
    return f"the bucket does not respond as it should ({found})"


def check_writable(folder: str | os.PathLike) -> None:
    """Writes a small object into a folder and removes it.

    Raises:
      OSError: there is no such bucket, no permission, or no credentials; one line.
    """
    probe, store = f"{os.fspath(folder)}/.{secrets.token_hex(4)}.probe", filesystem(folder)
    with reported(folder):
        store.pipe_file(probe, b"")
        store.rm_file(probe)


def upload(local: str | os.PathLike, name: str | os.PathLike) -> None:
    """Copies a local file to an object, which replaces the one that was there when all of it has come."""
    with reported(name):
        filesystem(name).put_file(os.fspath(local), os.fspath(name))


def listing(name: str | os.PathLike) -> dict[str, dict]:
    """The objects at a path: {"": ...} of one, or by their names relative to a folder.

    Raises:
      FileNotFoundError: there is none.
    """
    store, text = filesystem(name), os.fspath(name).rstrip("/")
    with reported(name):
        root = store._strip_protocol(text)
        found = store.find(text, detail=True)
    if not found:
        raise FileNotFoundError(f"{text}: there is no such bucket or object.")
    if list(found) == [root]:
        return {"": found[root]}
    return {key.removeprefix(f"{root}/"): value for key, value in found.items() if not key.endswith("/")}


def version(about: dict) -> str:
    """A text that changes with an object's content, from its `listing`."""
    return str(about.get("generation") or about.get("ETag") or about.get("LastModified"))


def download(name: str, about: dict, file: BinaryIO) -> None:
    """Writes an object's content into a file, a block at a time; a block that fails is asked for again.

    Raises:
      Changed: its checksum is not the one that the store had.
      OSError: it cannot be read.
    """
    store, md5 = filesystem(name), hashlib.md5(usedforsecurity=False)
    with reported(name):
        for start in range(0, about["size"], BLOCK):
            block = store.cat_file(name, start=start, end=min(start + BLOCK, about["size"]))
            file.write(block)
            md5.update(block)
    wanted = about.get("md5Hash")  # objects that were composed of others have none
    if file.tell() != about["size"] or (wanted and base64.b64encode(md5.digest()).decode() != wanted):
        raise Changed(f"{name}: has not come as it is stored (its checksum differs); try again.")


class Lease:
    """An object that keeps a second process out of a folder, in the place of a lock.

    It names its owner and is renewed every `RENEWED` seconds. A process that finds one watches it: one that
    does not change for `EXPIRED` seconds is of a process that is dead, and is taken over; so is one of a
    process of this machine that is no longer there. Clocks are not compared.

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
        """Raises ValueError where another process has it."""
        with reported(self._name):
            while True:
                try:
                    self._store.pipe_file(self._name, self._content(), mode="create")
                    break
                except FileExistsError:
                    if (found := self._read()) is None:
                        continue  # it has just been given back
                    # An attempt of this very request may have come through although its answer did not.
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
        with contextlib.suppress(Exception):  # a lease that stays expires
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
        time.sleep(min(1.0, EXPIRED / 10))  # of several that take it at once the last one has it
        if (now := self._read() or {}).get("token") != self._owner["token"]:
            raise AtWork(f"{self._name.rpartition('/')[0]}: another training has begun in this workdir "
                             f"({str(now.get('owner', 'unknown'))[:99]}).")  # fmt: skip

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            with contextlib.suppress(Exception):  # the next time may do better
                if (now := self._read()) is not None and now.get("token") != self._owner["token"]:
                    self._lost()
                    return
                self._store.pipe_file(self._name, self._content())


def _process(number: int) -> list[str] | None:
    """What distinguishes a process of this machine from all others, also after its number is used again."""
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine number their processes alike.
        return [boot, os.readlink("/proc/self/ns/pid"), str(number), _started(number)]
    return None


def _started(number: int) -> str:
    """When a process began, in ticks since the machine did; "" of one that has ended and is still listed."""
    state, *fields = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def _is_dead(process) -> bool:
    """Whether a lease's process was one of this machine that has ended; False where that is not known."""
    if not (isinstance(process, list) and len(process) == 4 and all(isinstance(x, str) for x in process)):
        return False
    own = _process(os.getpid())
    if own is None or own[:2] != process[:2] or not process[2].isdigit():
        return False
    try:
        return _started(int(process[2])) != process[3]
    except OSError:
        return True
