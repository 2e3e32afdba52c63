"""Published PyTorch weights by name: fetched once into the user's cache, and converted to our format.

Predictor("hg8")
python -m hourglass_jax.weights list
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Iterator

import tqdm

from hourglass_jax import files, weights
from hourglass_jax.console import say
from hourglass_jax.weights import pytorch

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # connections, each of which continues where the previous one ended
LARGEST = 2**31  # bytes
_CHUNK = 2**18


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights that other people publish.

    Attributes:
      address: of the file.
      digits: the first digits of its SHA-256; "" if its publisher states none: then the SHA-256 of the first
        download is kept, and later downloads have to agree with it.
      stacks: of the network.
      size: in MB, an estimate from the parameters in float32.
      score: its publisher's, PCKh@0.5 on MPII's validation people; "" if none is stated.
      licence: of the publisher's code.
    """

    address: str
    digits: str
    stacks: int
    size: int
    score: str
    licence: str


_BEARPAW = "https://github.com/anibali/pytorch-stacked-hourglass/releases/download/v0.0.0"
_PRINCETON = "http://www-personal.umich.edu/~cnris"
_SEE, _BSD = "see address", "BSD-3-Clause"
NAMES = {
    "hg1": Published(f"{_BEARPAW}/bearpaw_hg1-ce125879.pth", "ce125879", 1, 15, "86.8", _SEE),
    "hg2": Published(f"{_BEARPAW}/bearpaw_hg2-15e342d9.pth", "15e342d9", 2, 27, "87.3", _SEE),
    "hg8": Published(f"{_BEARPAW}/bearpaw_hg8-90e5d470.pth", "90e5d470", 8, 103, "89", _SEE),
    "princeton-2hg": Published(f"{_PRINCETON}/original_2hg/checkpoint.pt", "", 2, 27, "88.3", _BSD),
    "princeton-8hg": Published(f"{_PRINCETON}/original_8hg/checkpoint.pt", "", 8, 110, "90.2", _BSD),
}


def folder() -> pathlib.Path:
    """The folder of fetched weights, in the user's cache.

    Raises:
      OSError: there is no cache.
    """
    if (cache := files.user_cache()) is None:
        raise OSError("no folder for fetched weights: set XDG_CACHE_HOME or HOME.")
    return cache / "weights"


def fetch(name: str) -> pathlib.Path:
    """The file of published weights, for `weights.read`; fetched and converted if it is not there.

    Args:
      name: one of `NAMES`.

    Raises:
      OSError: it cannot be fetched; the message says where to put the file by hand.
      ValueError: it is not the file that its publisher describes.
      ImportError: PyTorch, which converts it, is not installed.
    """
    published, target = NAMES[name], folder() / f"{name}.npz"
    if target.is_file():
        return target
    foreign = folder() / f"{name}-{published.address.rpartition('/')[2]}"
    if importlib.util.find_spec("torch") is None:  # before the download
        raise ImportError(f"{name}: converting these weights needs PyTorch, once: pip install torch.")
    with _alone(folder() / ".lock"):
        if target.is_file():  # another process has fetched it in the meantime
            return target
        by_hand = foreign.is_file()
        if not by_hand:
            _download(name, published, foreign)
        try:
            digest = _check(name, published, foreign)
            network, variables, metadata = pytorch.load(foreign)
            if (stacks := network.model.stacks) != published.stacks:
                raise ValueError(f"{foreign}: expected {published.stacks} stacks, found {stacks}.")
        except ValueError:
            if not by_hand:
                foreign.unlink(missing_ok=True)
            raise
        card = {"name": name, "address": published.address, "sha256": digest, "score": published.score}
        weights.write(target, variables, dataclasses.replace(metadata, card=card), half=False)
        if not published.digits:
            _pin(name, digest)
        if not by_hand:
            foreign.unlink()
    return target


def table() -> str:
    """The package's weights and the published ones as lines of text."""
    rows = [("name", "stacks", "px", "MB", "data", "score", "licence", "")]
    for name, path in weights.SHIPPED.items():
        if not path.is_file():
            continue
        metadata, _ = weights.read(path)
        model, size = metadata.config["model"], path.stat().st_size / 1e6
        score = f"{metadata.evaluation['metric']} {metadata.evaluation['table']['Mean']:.1f}"
        place = "in the package" + (", the default" if name == weights.DEFAULT else "")
        row = (str(model["stacks"]), str(metadata.config["data"]["size"]), f"{size:.1f}", "LSP extended")
        rows.append((name, *row, score, "see its card", place))
    for name, one in NAMES.items():
        try:
            here = (folder() / f"{name}.npz").is_file()
        except OSError:  # there is no cache
            here = False
        where = "in the cache" if here else one.address
        row = (str(one.stacks), "256", f"~{one.size}", "MPII", f"PCKh@0.5 {one.score}", one.licence)
        rows.append((name, *row, where))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    lines += [
        "Scores are in per cent, of validation people, with flip. Those on MPII are the publishers' figures,",
        "not measured here; the licence is that of their code, none is stated for the weights. ~MB are",
        "estimates. On a CPU lspet-small takes about a fourteenth of lspet's time for a person.",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _download(name: str, published: Published, target: pathlib.Path) -> None:
    """Fetches a file; continues an incomplete download of an earlier call."""
    partial = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    reason = "no connection"
    for _ in range(TRIES):
        try:
            if _receive(name, published, partial):
                os.replace(partial, target)
                return
            reason = "the connection ended before the file did"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file
                partial.unlink(missing_ok=True)
            reason = f"the server responds with {error.code} {error.reason}"
            if error.code in (401, 403, 404, 410):
                break
        except (OSError, ValueError) as error:  # of urllib, http.client and socket
            if partial.is_dir() or isinstance(error, PermissionError):
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    left = f" {partial.stat().st_size:,} bytes are kept; the same call continues." if partial.exists() else ""
    raise OSError(
        f"{name}: {published.address} could not be fetched ({' '.join(reason.split())}).{left} By hand: put "
        f"the file there as {target}"
    )


def _receive(name: str, published: Published, partial: pathlib.Path) -> bool:
    """Appends the bytes of one connection to the partial file; returns whether the file is complete."""
    begun = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(published.address, headers={"User-Agent": "hourglass_jax"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # uses the proxies of the environment
        if begun and answer.status != 206:
            begun = 0
        length = answer.headers.get("Content-Length")
        whole = None if length is None else begun + int(length)
        if (whole or 0) > LARGEST:
            raise ValueError(f"{whole:,} bytes, above {LARGEST:,}")
        received = begun
        with (
            partial.open("ab" if begun else "wb") as file,
            tqdm.tqdm(
                total=whole, initial=begun, unit="B", unit_scale=True, desc=f"Fetching {name}", disable=None
            ) as bar,
        ):
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
                if received > LARGEST:
                    raise ValueError(f"more than {LARGEST:,} bytes")
    return whole is None or received == whole


def _check(name: str, published: Published, path: pathlib.Path) -> str:
    """The SHA-256 of a file, after comparing it with the known one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = published.digits or _pins().get(name, "")
    if known and not digest.startswith(known):
        size = f"{path.stat().st_size:,} bytes"
        raise ValueError(
            f"{name}: not the published file: its SHA-256 begins with {digest[:8]} instead of {known[:8]} "
            f"({path}, {size})."
        )
    return digest


def _pins() -> dict[str, str]:
    path = folder() / "sha256.json"
    found = files.read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def _pin(name: str, digest: str) -> None:
    if name not in (pins := _pins()):
        files.write_json(folder() / "sha256.json", pins | {name: digest})
        say(f"{name}: no SHA-256 is published; from now on only {digest[:16]}... is accepted.")


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from fetching at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
