"""Joints in archives of any size: a line of json per picture and frame, in shards, continued after a stop.

    hourglass predict photos/ --output=out --jsonl --shard=3/16

The command appends to out/predictions-3-of-16.jsonl. The lines of this file show which pictures are done, so
that the same command continues after a stop at any moment, and does nothing if everything is done. Shards
share nothing: any scheduler can run them, in parallel or one after another, each with --shard=auto. A file's
name decides its shard, and the file stays in it when other files are added or removed. Videos come after the
pictures; a video that was not finished starts again.
"""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import tqdm

from hourglass_jax import copies, extras, files, loading, weights
from hourglass_jax.media import pictures
from hourglass_jax.predictor import Predictor
from hourglass_jax.result import Result

# Variables of schedulers: the number of a process or a job, the first number, and how many there are (or a
# list of hosts).
_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "", "OMPI_COMM_WORLD_SIZE"),
    ("TPU_WORKER_ID", "", "TPU_WORKER_HOSTNAMES"),
)
_SYNC = 500  # number of lines after which they are flushed to the disk


class Shard(NamedTuple):
    """One of `count` parts, numbered from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """ "3/16" -> the third of sixteen; "auto" -> the one of this process, by its scheduler's variables.

        Raises:
          ValueError: it is not a shard, or no scheduler's variables are there.
        """
        if text == "auto":
            return cls._scheduled()
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard={text}: expected PART/PARTS, counted from 1, such as 3/16, or auto.")
        return cls(int(index), int(count))

    @classmethod
    def _scheduled(cls) -> "Shard":
        for number, first, count in _SCHEDULERS:
            found = [os.environ.get(name, "") for name in (number, count)]
            if not all(found):
                continue
            total = found[1] if found[1].isdecimal() else str(found[1].count(",") + 1)
            begin = os.environ.get(first) or "0"
            if not (found[0].isdecimal() and begin.isdecimal()):
                break
            return cls.parse(f"{int(found[0]) - int(begin) + 1}/{total}")
        names = ", ".join(f"{number} and {count}" for number, _, count in _SCHEDULERS)
        raise ValueError(f"--shard=auto: no scheduler says which part this is ({names}); give PART/PARTS.")

    def has(self, name: str) -> bool:
        """Whether a picture of this name belongs to the part."""
        return zlib.crc32(os.fsencode(name)) % self.count == self.index - 1

    def file(self, folder) -> pathlib.Path:
        part = "" if self.count == 1 else f"-{self.index}-of-{self.count}"
        return pathlib.Path(folder) / f"predictions{part}.jsonl"


def predict(
    paths: list[str], output, *, shard: Shard | None = None, checkpoint=None, boxes=None, **options
) -> int:
    """Appends a line for each picture, and for each frame of a video, that has no line yet.

    Lines are {"file_name", "width", "height", "people"}, people as COCO's results without an id. The lines of
    frames also have "frame", from 0, and "time" in seconds; {"file_name", "frames"}, their number, follows a
    video's last frame. {"file_name", "error"} stands for a file that cannot be read, or cannot be read to its
    end; it is not tried again until its line is removed.

    Args:
      paths: pictures, videos, folders, which are searched to any depth, and globs. If a single folder is
        given, names are relative to it; otherwise they are as given.
      output: the folder for the file.
      shard: which part of the files; None for all.
      checkpoint: see `Predictor`.
      boxes: people's boxes by a picture's file name, see `Predictor`.
      **options: of `Predictor`.

    Returns:
      the number of files in this call that could not be read.

    Raises:
      FileNotFoundError: there is nothing at a path.
      ValueError: the file belongs to another network or other options, is damaged, or is in use by another
        process.
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
        count, videos = 0, []
        for path in _todo(paths, root, shard, done):
            if pictures.is_video(path):
                videos.append(path)
            else:
                count += 1
        if not count and not videos:
            print(f"Nothing to do: {len(done)} files are in {file.name}.")
            return 0
        if videos:  # before the work
            with extras.needed("av", f"{videos[0]}: reading it", error=ValueError):
                import av  # noqa: F401
        predictor = Predictor(checkpoint, spread=True, **options)
        _check_same(shard.file(output), checkpoint, options, fresh=not done)
        lines = _Lines(file, root)
        common: dict = {"boxes": boxes, "unreadable": lines.unreadable, "remark": lambda line: None}
        todo = (path for path in _todo(paths, root, shard, done) if not pictures.is_video(path))
        results: Any = predictor(todo, threads=os.cpu_count() or 1, **common)
        for result in tqdm.tqdm(results, total=count, unit=" pictures", disable=None):
            lines.add(result)
        lines.flush()
        for path in videos:
            # Give an iterator: its frames are decoded only when they are needed.
            results = predictor(iter([path]), **common)
            before, failed = lines.count, lines.failed
            name = _name(path, root)
            for result in tqdm.tqdm(results, desc=name, unit=" frames", disable=None):
                lines.add(result)
            lines.flush()
            if lines.failed == failed:
                lines.append({"file_name": name, "frames": lines.count - before})
    frames = f" and frames of {len(videos)} videos" if videos else ""
    skipped = f", {lines.failed} skipped" if lines.failed else ""
    print(
        f"{lines.people} people in {lines.count} pictures{frames}{skipped}, {len(done)} files were done -> "
        f"{file.name}"
    )
    if lines.failed:
        print(f'Note: lines with "error" in {file.name} name the files that are skipped.', file=sys.stderr)
    return lines.failed


def _todo(paths: list[str], root: str | None, shard: Shard, done: set[int]) -> Iterator[pathlib.Path]:
    """The shard's files that are not done yet, listed only when they are needed."""
    for found, name in _named(paths, root):
        if shard.has(name) and _key(name) not in done:
            yield pathlib.Path(found)


class _Lines:
    """Appends lines to the file.

    Attributes:
      people, count: of the pictures and frames that were added; failed: files that could not be read.
    """

    def __init__(self, file: BinaryIO, root: str | None):
        self._file, self._root, self._unread = file, root, []
        self.people = self.count = self.failed = 0

    def unreadable(self, error: pictures.Unreadable) -> None:
        """Keeps a line for a file that cannot be read; it may be called on any thread."""
        name = _name(error.path, self._root)
        self._unread.append({"file_name": name, "error": " ".join(str(error).split())})

    def add(self, result: Result) -> None:
        """Writes the line of a picture or of a frame."""
        if result.frame is None:
            self.flush()
        self.append(_line(result, _name(result.path, self._root)))
        self.people, self.count = self.people + len(result), self.count + 1
        if self.count % _SYNC == 0:
            os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Writes the lines of the files that could not be read so far."""
        while self._unread:
            self.append(self._unread.pop(0))
            self.failed += 1

    def append(self, line: dict) -> None:
        """Writes the whole line in one call: after a kill it is complete, cut off or missing."""
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def _line(result: Result, name: str) -> dict:
    width, height = result.picture.size
    people = [
        {key: value for key, value in person.items() if key not in ("image_id", "category_id")}
        for person in result.to_coco()
    ]
    when = {} if result.frame is None else {"frame": result.frame, "time": round(result.time or 0.0, 6)}
    return {"file_name": name, **when, "width": width, "height": height, "people": people}


def _named(paths: list[str], root: str | None) -> Iterator[tuple[str, str]]:
    """Pairs of the path of a picture or video and its name, in an order that is always the same.

    They are listed only when they are needed: of an archive only one folder's names are in memory.
    """
    kinds = pictures.known()
    for path in paths:
        if os.path.isdir(path):
            yield from ((found, _name(found, root)) for found in _walk(path, kinds))
        elif os.path.isfile(path):
            yield path, _name(path, root)
        else:
            for found in sorted(glob.iglob(path, recursive=True)):
                if os.path.splitext(found)[1].lower() in kinds:
                    yield found, _name(found, root)


def _walk(folder: str, kinds: set[str]) -> Iterator[str]:
    folders = []
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            folders.append(path)
        elif os.path.splitext(name)[1].lower() in kinds:
            yield path
    for inner in folders:
        if not os.path.islink(inner):  # a link may lead back to a parent
            yield from _walk(inner, kinds)


def _name(path, root: str | None) -> str:
    name = os.path.relpath(path, root) if root else os.fspath(path)
    # If a name is not UTF-8, its bytes are written as escapes.
    return os.fsencode(name).decode(errors="backslashreplace").replace(os.sep, "/")


def _key(name: str) -> int:
    """Eight bytes instead of a name: a million names would use most of the memory."""
    return hash(name)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple[BinaryIO, set[int]]]:
    """Opens the file to append to, for this process only; yields it with the keys of its finished files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{path}: another process is writing to it; wait for it, or end it.") from None
        yield file, _done(path, file)


def _done(path, file: BinaryIO) -> set[int]:
    """The keys of the finished files; a last line that was cut off and an unfinished video are removed."""
    done, whole, begun = set(), 0, None
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                content = json.loads(line)
                if "frame" in content:
                    begun = whole if begun is None else begun
                else:
                    done.add(_key(content["file_name"]))
                    begun = None
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}: line {number} is damaged; remove it, and run again.") from None
            whole += len(line)
    file.truncate(whole if begun is None else begun)
    return done


def _check_same(path: pathlib.Path, checkpoint, options: dict, *, fresh: bool) -> None:
    """Stores the network and options next to the lines, and refuses to continue with others."""
    source = weights.packaged() if checkpoint is None else files.path(loading.located(checkpoint))
    about = {"network": str(source), "options": {k: repr(v) for k, v in sorted(options.items())}}
    if files.is_file(source):
        about["crc32"] = zlib.crc32(copies.fetched(source).read_bytes())
        del about["network"]  # the same file may be in another place
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
