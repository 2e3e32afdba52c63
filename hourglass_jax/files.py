"""Files are written whole or not at all."""

import contextlib
import json
import os
import pathlib
import tempfile


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


def _plain(value):
    """Numpy values as Python's, and nan as None, which json does not know."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value
