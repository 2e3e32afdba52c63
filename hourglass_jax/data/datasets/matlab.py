"""Reads untrusted MATLAB files, versions 4 to 7; files of version 7.3 are HDF5."""

import math
import os
import pathlib
import struct
import zlib

from hourglass_jax import files

_HEADER = 128  # bytes; the last two give the byte order of all numbers
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}
_TEXT = _NUMBERS | {16, 17, 18}
_CELLS, _STRUCTURES, _OBJECTS, _CHARACTERS, _SPARSE = range(1, 6)  # classes of matrices; 6 to 15 are numbers


def read(path: str | os.PathLike, expected: str, **options) -> dict:
    """The variables by name; see `scipy.io.loadmat` for the options.

    Args:
      expected: a description of the expected file, for the message.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, of another kind, or larger than `files.LARGEST` bytes; one line.
    """
    import scipy.io  # packed data do not need it

    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {expected}")
    try:
        if scipy.io.matlab.matfile_version(path)[0] == 1:
            _check(path.read_bytes())
        return scipy.io.loadmat(path, **options)
    except Exception as error:  # SciPy raises many different exceptions for files that are not MATLAB's
        raise ValueError(f"{path}: not readable ({type(error).__name__}); {expected}") from error


def _check(data: bytes) -> None:
    """Walks through all elements of a file: SciPy unpacks any size, and a wrong kind crashes the process."""
    order, start, room = "<" if data[_HEADER - 2 : _HEADER] == b"IM" else ">", _HEADER, files.LARGEST
    while start < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, start)
        stop = start + 8 + length
        if kind == _COMPRESSED:
            content = zlib.decompressobj().decompress(memoryview(data)[start + 8 : stop], room + 1)
            room -= len(content)
            if room < 0:
                raise ValueError("it unpacks to too much")
            _matrix(content, order, 0)
        else:
            _matrix(data, order, start)
        start = stop


def _matrix(data: bytes, order: str, start: int) -> int:
    """The end of a matrix; raises ValueError or struct.error if an element is not as SciPy expects it."""
    length, start, _ = _element(data, order, start, {_MATRIX})
    if not length:
        return start
    _, flags, start = _element(data, order, start, {6})
    (flags,) = struct.unpack_from(f"{order}I", data, flags)
    length, sizes, start = _element(data, order, start, {5})
    count = math.prod(struct.unpack_from(f"{order}{length // 4}i", data, sizes))
    _, _, start = _element(data, order, start, {1, 16})  # its name
    kind, parts = flags & 0xFF, 2 if flags & 0x800 else 1  # complex numbers have two
    if kind in (_CELLS, _STRUCTURES, _OBJECTS):
        if kind == _OBJECTS:
            _, _, start = _element(data, order, start, {1, 16})
        if kind != _CELLS:
            _, width, start = _element(data, order, start, {5})
            length, _, start = _element(data, order, start, {1, 16})
            count *= length // struct.unpack_from(f"{order}i", data, width)[0]  # fields
        for _ in range(count):
            start = _matrix(data, order, start)
        return start
    if kind not in range(_CHARACTERS, 16):
        raise ValueError(f"a matrix of class {kind}")
    for _ in range(parts + 2 * (kind == _SPARSE)):
        _, _, start = _element(data, order, start, _TEXT if kind == _CHARACTERS else _NUMBERS)
    return start


def _element(data: bytes, order: str, start: int, kinds: set[int]) -> tuple[int, int, int]:
    """The length of an element's content, the start of the content, and the start of the next element."""
    kind, length = struct.unpack_from(f"{order}II", data, start)
    small = kind >> 16  # up to four bytes lie within the tag
    if (kind & 0xFFFF if small else kind) not in kinds:
        raise ValueError(f"an element of kind {kind}")
    return (small, start + 4, start + 8) if small else (length, start + 8, start + 8 + length + -length % 8)
