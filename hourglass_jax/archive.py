"""Joints in archives of any size: one line of json for each picture, in shards, resumed where they stopped.

    hourglass predict photos/ --output=out --jsonl --shard=3/16

appends to out/predictions-3-of-16.jsonl. Which pictures are done is read from its lines, so that the same
command goes on after a stop at any moment, and does nothing when all is done. Shards share nothing: any
scheduler may run them, at once or one after another. A picture belongs to a shard by its name, and stays in
it when others come or go.
"""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import tqdm

from hourglass_jax import copies, files, loading, weights
from hourglass_jax.media import pictures
from hourglass_jax.predictor import Predictor
from hourglass_jax.result import Result

_SYNC = 500  # lines, after which the disk has them


class Shard(NamedTuple):
    """One of `count` parts, numbered from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """ "3/16" -> the third of sixteen.

        Raises:
          ValueError: it is none.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard={text}: expected a number of many, from 1 on, such as 3/16.")
        return cls(int(index), int(count))

    def has(self, name: str) -> bool:
        """Whether a picture of this name belongs to the part."""
        return zlib.crc32(os.fsencode(name)) % self.count == self.index - 1

    def file(self, folder) -> pathlib.Path:
        part = "" if self.count == 1 else f"-{self.index}-of-{self.count}"
        return pathlib.Path(folder) / f"predictions{part}.jsonl"


def predict(
    paths: list[str], output, *, shard: Shard | None = None, checkpoint=None, boxes=None, **options
) -> int:
    """Appends a line for each picture that has none yet.

    Lines are {"file_name", "width", "height", "people"}, people as COCO's results without an id, or
    {"file_name", "error"} for a file that is no picture; it is not tried again until its line is removed.

    Args:
      paths: pictures, folders, which are searched to any depth, and globs. Names are relative to the folder
        where one folder is given, and as they are given otherwise.
      output: folder of the file.
      shard: which part of the pictures; None for all.
      checkpoint: see `Predictor`.
      boxes: people's boxes by a picture's file name, see `Predictor`.
      **options: of `Predictor`.

    Returns:
      how many of this call's files could not be read.

    Raises:
      FileNotFoundError: there is nothing at a path.
      ValueError: the file is of another network or of other options, damaged, or at work in another process.
    """
    shard = shard or Shard()
    if files.in_bucket(output):
        raise ValueError(
            f"--output={output}: a bucket cannot append lines; write locally with --jsonl, and copy it."
        )
    paths = [str(copies.fetched(path)) if files.in_bucket(path) else path for path in paths]
    root = paths[0] if len(paths) == 1 and os.path.isdir(paths[0]) else None
    for path in paths:
        if not glob.has_magic(path) and not os.path.exists(path):
            raise FileNotFoundError(f"{path}: there is no such file or folder.")
    with _opened(shard.file(output)) as (file, done):
        ours = ((p, n) for p, n in _named(paths, root) if shard.has(n))
        first = next((p for p, name in ours if _key(name) not in done), None)
        if first is None:
            print(f"Nothing to do: {len(done)} pictures are in {file.name}.")
            return 0
        predictor = Predictor(checkpoint, spread=True, **options)
        _check_same(shard.file(output), checkpoint, options, fresh=not done)
        unread: list[dict] = []

        def unreadable(error: pictures.Unreadable) -> None:
            unread.append({"file_name": _name(error.path, root), "error": " ".join(str(error).split())})

        todo = (pathlib.Path(p) for p, n in _named(paths, root) if shard.has(n) and _key(n) not in done)
        results = predictor(
            todo, boxes=boxes, unreadable=unreadable, remark=lambda line: None, threads=os.cpu_count() or 1
        )
        people = count = failed = 0
        lines: Iterable[Result] = tqdm.tqdm(results, unit=" pictures", disable=None)  # pyright: ignore
        for result in lines:
            failed += _flush(file, unread)
            _append(file, _line(result, _name(result.path, root)))
            people, count = people + len(result), count + 1
            if count % _SYNC == 0:
                os.fsync(file.fileno())
        failed += _flush(file, unread)
    skipped = f", {failed} skipped" if failed else ""
    print(f"{people} people in {count} pictures{skipped}, {len(done)} were done -> {file.name}")
    if failed:
        print(f'Note: lines with "error" in {file.name} name the files that are skipped.', file=sys.stderr)
    return failed


def _flush(file, unread: list[dict]) -> int:
    """Writes what could not be read so far; how many."""
    count = 0
    while unread:
        _append(file, unread.pop(0))
        count += 1
    return count


def _append(file: BinaryIO, line: dict) -> None:
    """One write for the whole line: a process that is killed leaves it whole, or not there."""
    file.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def _line(result: Result, name: str) -> dict:
    width, height = result.picture.size
    people = [
        {key: value for key, value in person.items() if key not in ("image_id", "category_id")}
        for person in result.to_coco()
    ]
    return {"file_name": name, "width": width, "height": height, "people": people}


def _named(paths: list[str], root: str | None) -> Iterator[tuple[str, str]]:
    """Pairs of a picture's path and its name, in an order that is always the same, listed as they are
    needed: of an archive only the names in one folder are held at once."""
    for path in paths:
        if os.path.isdir(path):
            yield from ((found, _name(found, root)) for found in _walk(path))
        elif os.path.isfile(path):
            yield path, _name(path, root)
        else:
            for found in sorted(glob.iglob(path, recursive=True)):
                if _is_picture(found):
                    yield found, _name(found, root)


def _walk(folder: str) -> Iterator[str]:
    folders = []
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            folders.append(path)
        elif _is_picture(name):
            yield path
    for inner in folders:
        if not os.path.islink(inner):  # which may lead back
            yield from _walk(inner)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in pictures.EXTENSIONS


def _name(path, root: str | None) -> str:
    name = os.path.relpath(path, root) if root else os.fspath(path)
    # A name that is no UTF-8 keeps its bytes, visibly.
    return os.fsencode(name).decode(errors="backslashreplace").replace(os.sep, "/")


def _key(name: str) -> int:
    """Eight bytes for a name: a million names would be most of the memory."""
    return hash(name)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple[BinaryIO, set[int]]]:
    """The file to append to, for this process alone, and the keys of the pictures that it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{path}: another process is writing it; wait for it, or end it.") from None
        yield file, _done(path, file)


def _done(path, file: BinaryIO) -> set[int]:
    """The keys of the lines; a last one that was cut off is removed."""
    done, whole = set(), 0
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                done.add(_key(json.loads(line)["file_name"]))
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}: line {number} is damaged; remove it, and run again.") from None
            whole += len(line)
    file.truncate(whole)
    return done


def _check_same(path: pathlib.Path, checkpoint, options: dict, *, fresh: bool) -> None:
    """Keeps what made the lines beside them, and refuses to go on with something else."""
    source = weights.shipped() if checkpoint is None else pathlib.Path(loading.located(checkpoint))
    about = {"network": str(source), "options": {k: repr(v) for k, v in sorted(options.items())}}
    if source.is_file():
        about["crc32"] = zlib.crc32(source.read_bytes())
        del about["network"]  # the same file may lie elsewhere
    beside = path.with_suffix(".about.json")
    if fresh or not beside.exists():
        files.write_json(beside, about)
        return
    before = files.read_json(beside)
    if before != about:
        keys = sorted(k for k in before.keys() | about.keys() if before.get(k) != about.get(k))
        raise ValueError(
            f"{path}: its lines were made with another {' and other '.join(keys)} ({beside.name}); choose "
            "another --output."
        )
