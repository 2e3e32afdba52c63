"""Files of MATLAB, versions 4 to 7, from strangers; those of 7.3 are HDF5."""

import os
import pathlib
import struct
import zlib

from hourglass_jax import files

_HEADER = 128  # bytes; the last two tell the order of the bytes in all numbers
_COMPRESSED = 15


def read(path: str | os.PathLike, expected: str, **options) -> dict:
    """The variables by name; see `scipy.io.loadmat` for the options.

    Args:
      expected: what the file should be, for the message.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, something else, or of more than `files.LARGEST` bytes; one line.
    """
    import scipy.io  # packed data do without

    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {expected}")
    try:
        _check_size(path.read_bytes())
        return scipy.io.loadmat(path, **options)
    except Exception as error:  # SciPy has a dozen different ones for what is not MATLAB's
        raise ValueError(f"{path}: not readable ({type(error).__name__}); {expected}") from error


def _check_size(data: bytes) -> None:
    """SciPy unpacks a variable first, however large, and looks at it then."""
    order, start, room = "<" if data[_HEADER - 2 : _HEADER] == b"IM" else ">", _HEADER, files.LARGEST
    while start + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, start)
        if kind == _COMPRESSED:
            packed = memoryview(data)[start + 8 : start + 8 + length]
            room -= len(zlib.decompressobj().decompress(packed, room + 1))
            if room < 0:
                raise ValueError("it unpacks to too much")
        start += 8 + length
