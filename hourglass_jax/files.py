"""Files are written whole or not at all, and those of strangers unpacked only as far as memory bears it."""

import contextlib
import gzip
import json
import os
import pathlib
import tempfile
import zipfile
import zlib

LARGEST = 2**29  # bytes that a foreign file may unpack to: twice those of the largest public annotations


@contextlib.contextmanager
def replacing(path: str | os.PathLike):
    """Opens a temporary binary file beside `path`, which takes its place when the block ends well.

    Makes the folder if need be. If the block raises, the file that was there stays.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes json, indented, not-a-number as null."""
    write(path, json.dumps(_plain(value), indent=1, allow_nan=False).encode())


def read_json(path: str | os.PathLike):
    """What a json file holds, as it is or packed by gzip.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, no json, or of more than `LARGEST` bytes; one line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB")
        return json.loads(data)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:  # the last: [[[[...
        raise ValueError(f"{path}: not readable as json, perhaps cut off ({error}).") from None


def check_names(path: str | os.PathLike, pictures) -> None:
    """Raises ValueError where a file at `path` names a picture by more than a plain file's name.

    With folders in it any file of the machine could be read as a picture.
    """
    for picture in pictures:
        if pathlib.Path(picture).name != picture or not picture.isprintable():
            raise ValueError(f"{path}: a picture is named {picture[:99]!r}; expected a file's name alone")


def check_archive(path: str | os.PathLike) -> None:
    """Refuses a zip archive that unpacks to more bytes than it has: ours and PyTorch's are not compressed.

    Raises:
      ValueError: it does.
      zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > os.path.getsize(path):
        raise ValueError("its content is compressed, or overlaps")


def _plain(value):
    """Numpy values as Python's, and nan as None, which json does not know."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value
