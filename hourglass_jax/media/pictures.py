"""Reads users' pictures: files, folders, globs, videos and arrays -> (h, w, 3) uint8 RGB."""

import collections
import contextlib
import dataclasses
import glob
import math
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from hourglass_jax import copies, files
from hourglass_jax.media import videos
from hourglass_jax.pose import crop

# Only these formats are read. Pillow opens thirty more, for some of which it starts other programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # JPEG includes MPO, of two lenses
EXTENSIONS = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    ".webp",
}
_HEIF = {".heic", ".heif"}  # read if pillow-heif is installed
LARGEST = 2**26  # px of a picture in memory, 200 MB; larger pictures are reduced
HELD = 2**29  # bytes of decoded pictures that wait for the network, or for the rest of their batch
_MEMORY = 2**31  # bytes that decoding and converting a picture may take; larger pictures are refused
# Peak bytes per pixel, as measured: Pillow's 4, the result's 3, and copies in the decoders.
_BYTES = {"AVIF": 13, "HEIF": 16, "TIFF": 10, "WEBP": 17}
_BYTES_ELSE = 8
_BAND = 2**20  # px per conversion
_DEPTHS = (8, 10, 12, 14)  # bits that cameras and scanners fill in files of 16 bits
_limit = threading.Lock()


class Unreadable(ValueError):
    """A file that is not a readable picture. The message names it, and `path` is its path, if known."""

    path: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture, or one frame of a video.

    Attributes:
      image: (h, w, 3) uint8 RGB; reduced if the picture has more than LARGEST px, or if a reduced one is
        enough.
      size: (width, height) of the upright picture itself, px.
      path: path of the file; None for arrays.
      frame: the frame's number in the video, from 0; None for pictures.
      time: seconds from the beginning of the video; None for pictures.
      reduction: factor by which the picture's sides were divided to get those of `image`. These are rounded
        up, so that `image` may extend beyond the picture.
      start: place of the first pixel of `image` in the picture, (x, y) px; not (0, 0) if a reduced picture
        was rotated.
      remark: the part of the file that was changed or not read, in words; "" if there is none. A video's
        remark is in its first frame.
    """

    image: np.ndarray
    size: tuple[int, int]
    path: pathlib.Path | None = None
    frame: int | None = None
    time: Fraction | None = None
    reduction: int = 1
    start: tuple[int, int] = (0, 0)
    remark: str = ""

    @property
    def zoom(self) -> float:
        """Pixels of `image` per pixel of the picture; 1 unless it is reduced."""
        return 1 / self.reduction

    def cut(self, transform: np.ndarray, size: int) -> np.ndarray:
        """`crop.cut` with a map (2, 3) from the picture's own pixels."""
        from_held = np.column_stack([np.eye(2) * self.reduction, self.start])
        return crop.cut(self.image, crop.compose(transform, from_held), size)


@dataclasses.dataclass
class Found:
    """The result of a search for pictures.

    Attributes:
      items: paths of pictures and videos, without duplicates.
      unreadable: entries that are named like pictures, but are folders, dangling links or pipes.
      passed: by folder or glob, the numbers of files of other kinds in it, such as {".txt": 2}.
    """

    items: list[pathlib.Path] = dataclasses.field(default_factory=list)
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)
    passed: dict[pathlib.Path, collections.Counter] = dataclasses.field(default_factory=dict)

    def remarks(self) -> list[str]:
        """A line for each folder with files that are skipped."""
        lines = []
        for path, kinds in self.passed.items():
            hint = "; pip install pillow-heif reads HEIC" if kinds.keys() & _HEIF else ""
            lines.append(f"{path}: skipped {_counted(kinds)}{hint}.")
        return lines


def expand(source, unreadable: Callable[[Unreadable], None], remark: Callable[[str], None]) -> Iterable[Any]:
    """Single items, with paths as `pathlib.Path`: a list if the source can be counted, else lazily.

    Args:
      source: a path (see `search`), a list of paths and pictures, or any other iterable of single items.
      unreadable: called with each entry that is named like a picture but is not one.
      remark: called with a line about each folder with files that are skipped.
    """
    if not isinstance(source, (str, os.PathLike, list, tuple)):
        return (files.path(item) if is_path(item) else item for item in source)
    items = []
    for item in source if isinstance(source, (list, tuple)) else [source]:
        if not is_path(item):
            items.append(item)
            continue
        found = search([item])
        items += found.items
        for error in found.unreadable:
            unreadable(error)
        for line in found.remarks():
            remark(line)
    return items


def is_single(source) -> bool:
    """Whether a source is one picture: the path of one, an array or a Pillow image."""
    if is_path(source):
        path = copies.fetched(source)
        return _is_file(path) and not is_video(path)
    return isinstance(source, Image.Image) or getattr(source, "ndim", 0) in (2, 3)


def is_path(item) -> bool:
    return isinstance(item, (str, os.PathLike))


def is_video(path: pathlib.Path) -> bool:
    """Whether a file is a video, by its ending; a GIF is one if it is animated."""
    suffix = path.suffix.lower()
    if suffix == ".gif":
        try:
            with _open(path) as file:
                return getattr(file, "is_animated", False)
        except Exception:  # reading it raises the message
            return False
    return suffix in videos.EXTENSIONS


def find(paths: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """The items of `search`."""
    return search(paths).items


def search(paths: Iterable[str | os.PathLike]) -> Found:
    """Files, pictures and videos in folders, and matches of globs; each of these sorted, without duplicates.

    Raises:
      FileNotFoundError: a path does not exist or is not a regular file, or a folder or glob has no pictures.
    """
    found = Found()
    for path in map(copies.fetched, paths):
        inside = _inside(path)
        if inside is None:
            found.items.append(path)
            continue
        kinds, before = collections.Counter(), len(found.items) + len(found.unreadable)
        for entry in sorted(inside):
            if entry.name.startswith("."):
                continue  # macOS writes a hidden ._NAME.jpg, which is not a picture, next to each picture
            if entry.suffix.lower() not in known():
                kinds["folder" if _is_dir(entry) else entry.suffix.lower() or "without an ending"] += 1
            elif _is_file(entry):
                found.items.append(entry)
            else:
                found.unreadable.append(Unreadable(f"{entry}: {_what_else(entry)}"))
        if len(found.items) + len(found.unreadable) == before:
            raise FileNotFoundError(
                f"{path} holds no pictures or videos ({', '.join(sorted(known()))})"
                f"{f', but {_counted(kinds)}' if kinds else ''}."
            )
        if kinds:
            found.passed[path] = kinds
    found.items = list(dict.fromkeys(found.items))
    return found


def _counted(kinds: collections.Counter) -> str:
    """ "2 .txt, 1 folder"."""
    named = {"folder": ("folder", "folders")}
    return ", ".join(
        f"{count} {named.get(kind, (kind, kind))[count != 1]}" for kind, count in sorted(kinds.items())
    )


def _inside(path: pathlib.Path) -> list[pathlib.Path] | None:
    """Entries of a folder or matches of a glob; None for a file."""
    if _is_dir(path):
        return list(path.iterdir())
    if _is_file(path):
        return None
    if glob.has_magic(str(path)) and not os.path.lexists(path):
        return [pathlib.Path(match) for match in glob.glob(str(path), recursive=True)]
    if os.path.lexists(path):
        raise FileNotFoundError(f"{path}: {_what_else(path)}.")
    raise FileNotFoundError(f"{path}: there is no such file or folder.")


def known() -> set[str]:
    """The endings of the names of pictures and videos that can be read, in lower case."""
    return EXTENSIONS | videos.EXTENSIONS | (_HEIF if _register_heif() else set())


def _is_file(path: pathlib.Path) -> bool:
    """Whether the path is a regular file, or a link to one; opening a pipe would wait forever."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a folder that cannot be entered; a name with a zero byte
        return False


def _is_dir(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _what_else(path: pathlib.Path) -> str:
    """A description of a path that should be a picture but is not."""
    if _is_dir(path):
        return "a folder, not a picture or video"
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which does not exist"
    if os.path.lexists(path):
        return "a pipe or device, not a file"
    return "there is no such file"


def of(item) -> Iterator[Picture]:
    """The pictures of one item: a path of a picture or of a video, a Pillow image or an array.

    Raises:
      Unreadable: the file is damaged or of another kind; for a video, possibly after its first frames.
      ValueError: the array is not a picture.
    """
    if not is_path(item):
        yield _of_array(item)
        return
    try:
        path = copies.fetched(item)
    except FileNotFoundError as error:  # of a bucket
        raise Unreadable(str(error)) from None
    if not _is_file(path):
        raise Unreadable(f"{path}: {_what_else(path)}")
    if not is_video(path):
        yield read(path)
        return
    try:
        remark = videos.about(path).remark
        for number, frame in enumerate(videos.frames(path)):
            size = frame.image.shape[1::-1]
            yield Picture(frame.image, size, path, number, frame.time, remark="" if number else remark)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def size(path: pathlib.Path, *, upright: bool = False) -> tuple[int, int]:
    """(width, height) as stored, or made upright by the EXIF orientation; nothing is decoded.

    Raises:
      Unreadable: the file is not a readable picture.
    """
    with _named(path), _open(path) as file:
        width, height = file.size
        return (height, width) if upright and _orientation(file) > 4 else (width, height)


def read(path: str | os.PathLike, reduction: Callable[[int, int], int] = lambda width, height: 1) -> Picture:
    """Reads a picture: made upright by its EXIF orientation, transparent parts over white.

    16 bits are scaled to 8. If all values fit into 8, 10, 12 or 14 bits, as written by cameras and scanners,
    these bits are scaled, and the picture's remark says so.

    Args:
      path: path of the file.
      reduction: stored width and height -> the factor by which a JPEG may be reduced while it is decoded,
        which saves time: 1, 2, 4 or 8.

    Raises:
      Unreadable: the file cannot be decoded.
    """
    path = copies.fetched(path)
    with _named(path):
        with _open(path) as file:
            width, height = file.size
            factor = max(_factor(file.size), reduction(width, height))
            # JPEGs are decoded at a half, a quarter or an eighth; other formats at full size.
            drafted = file.draft(None, (width // factor, height // factor))
            reduced = round(width / drafted[1][2]) if drafted else 1
            # All coefficients of a progressive JPEG are in memory, even if the result is reduced.
            decoded = math.prod((width, height) if file.info.get("progressive") else file.size)
            if decoded * _BYTES.get(file.format or "", _BYTES_ELSE) > _MEMORY:
                raise ValueError(f"{width} x {height} px are too many to decode")
            # Read the tiles first, because reading the EXIF of a PNG loads it.
            tiles = getattr(file, "tile", None)
            stored = str(tiles[0].args) if tiles else ""
            orientation = _orientation(file)
            count = getattr(file, "n_frames", 1)
            remarks = [f"the first of {count} pictures is read"] if count > 1 and file.format != "MPO" else []
            values, remark, orientation = _deep(path, file, orientation, stored)
            remarks += [remark] if remark else []
            # The stored size may differ from the header, unless it is reduced: Pillow rotates TIFFs itself.
            width, height = (width, height) if reduced > 1 else values.size
            factor = _factor(values.size)
            image, reduced = _upright(_reduced(values, factor), orientation), reduced * factor
            size = (height, width) if orientation > 4 else (width, height)
            # A rotation may make the last row or column, which may extend beyond the picture, the first.
            ends = (orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))
            start = tuple(
                (s - n * reduced) * e for s, n, e in zip(size, image.shape[1::-1], ends, strict=True)
            )
    return Picture(
        image,
        size,
        path,
        reduction=reduced,
        start=(start[0], start[1]),
        remark="; ".join(remarks),
    )


def ahead(items: Iterator, depth: int, size: Callable[[Any], int] = lambda item: 0) -> Iterator:
    """Runs a generator on its own thread, `depth` items ahead; closes it when the consumer stops.

    Args:
      items: the generator.
      depth: the largest number of items that wait for the consumer.
      size: bytes of an item. While the waiting items have HELD bytes, the thread waits.
    """
    end, pending = object(), collections.deque()
    held, stopped, changed = 0, False, threading.Condition()

    def one():
        nonlocal held
        with changed:
            changed.wait_for(lambda: held < HELD or stopped)
        if stopped:
            return end
        item = next(items, end)
        if item is not end:
            with changed:
                held += size(item)
        return item

    pool = futures.ThreadPoolExecutor(1)
    try:
        while True:
            while len(pending) < depth:
                pending.append(pool.submit(one))
            if (item := pending.popleft().result()) is end:
                return
            with changed:
                held -= size(item)
                changed.notify()
            yield item
    finally:
        with changed:
            stopped = True
            changed.notify()
        pool.shutdown(cancel_futures=True)  # waits for the running call, because a generator allows only one
        close = getattr(items, "close", None)
        if close:
            close()


def in_parallel(
    function: Callable[[Any], list],
    items: Iterable,
    threads: int,
    *,
    depth: int,
    size: Callable[[Any], int] = lambda item: 0,
) -> Iterator:
    """The function's values for all items, in the items' order, computed on several threads.

    Args:
      function: an item -> a list of values.
      items: the items; they are read on the caller's thread.
      threads: number of threads.
      depth: the largest number of items that wait for the consumer, in addition to those on the threads.
      size: bytes of one of the values. While the waiting values have HELD bytes, no item is started.
    """
    pending: collections.deque[futures.Future] = collections.deque()
    source, end = iter(items), object()
    pool = futures.ThreadPoolExecutor(threads, "decode")
    try:
        while True:
            ready = sum(
                size(value) for f in pending if f.done() and not f.exception() for value in f.result()
            )
            while len(pending) < depth + threads and (ready < HELD or not pending):
                if (item := next(source, end)) is end:
                    break
                pending.append(pool.submit(function, item))
            if not pending:
                return
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _named(path):
    """Turns errors into `Unreadable`, which names the file."""
    try:
        yield
    except Exception as error:  # each of Pillow's decoders has its own exceptions
        found = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its message would repeat the path
            found = "of an unknown kind" if os.path.getsize(path) else "empty"
            if pathlib.Path(path).suffix.lower() in _HEIF:
                found = "HEIC needs pillow-heif; pip install pillow-heif"
        raise Unreadable(f"{path}: not a picture that can be read ({found})") from error


def _factor(size) -> int:
    """The factor by which both sides are divided to have at most LARGEST px."""
    return math.ceil(math.sqrt(math.prod(size) / LARGEST))


def _open(path) -> Image.Image:
    """Opens a picture; reads only its header."""
    formats = FORMATS
    if pathlib.Path(path).suffix.lower() in _HEIF and _register_heif():
        formats += ("HEIF",)
    elif not _is_file(pathlib.Path(path)):
        raise ValueError(_what_else(pathlib.Path(path)))
    with _limit:
        # Pillow refuses large pictures; this module reduces them, or refuses them by its own limit. Pillow
        # has one limit for all users, so it is restored.
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            Image.init()  # otherwise a format that this Pillow was built without raises a KeyError
            image = Image.open(path, formats=[name for name in formats if name in Image.OPEN])
            # Pillow maps files with a name into memory if possible, and then does not rotate TIFFs of 16
            # bits.
            image.filename = ""
            return image
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _register_heif() -> bool:
    """Registers the optional pillow-heif; returns whether Pillow reads HEIC."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(2, 9) else 1


def _deep(path: pathlib.Path, file: Image.Image, orientation: int, raw: str) -> tuple[Image.Image, str, int]:
    """A picture with 8 bits, a remark if its values fill fewer than 16 bits, and its orientation.

    Args:
      orientation: the orientation in the file; Pillow makes some formats upright while it loads them.
      raw: Pillow's name for the layout of the values in the file.
    """
    file.load()
    if file.mode.startswith("I;16"):
        values, bits = _to_8_bits(np.asarray(file))
        return Image.fromarray(values), _fewer_bits(bits), _orientation(file)
    # Pillow keeps only the upper 8 of a colour's 16 bits, which is nearly black if the values fill fewer.
    # OpenCV keeps all bits.
    if ";16" in raw and file.mode == "RGB" and _brightest(file) < 64:
        deep = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if deep is not None and deep.dtype == np.uint16 and deep.shape[2:] == (3,):
            values, bits = _to_8_bits(deep[..., ::-1])
            return Image.fromarray(np.ascontiguousarray(values)), _fewer_bits(bits), orientation
    return file, "", _orientation(file)


def _brightest(image: Image.Image) -> int:
    return int(np.max(image.getextrema()))


def _to_8_bits(values: np.ndarray) -> tuple[np.ndarray, int]:
    """uint16 -> uint8, by the fewest of 8, 10, 12, 14 and 16 bits that hold all values; and these bits."""
    most = int(values.max(initial=0))
    bits = next((bits for bits in _DEPTHS if 0 < most < 1 << bits), 16)
    return (values >> (bits - 8)).astype(np.uint8), bits


def _fewer_bits(bits: int) -> str:
    return f"its values use {bits} of 16 bits, and were brightened" if bits < 16 else ""


def _reduced(image: Image.Image, factor: int) -> np.ndarray:
    """A picture as RGB, (h, w, 3) uint8, with both sides divided by a factor; in bands, to save memory."""
    width, height = image.size
    result = np.empty((math.ceil(height / factor), math.ceil(width / factor), 3), np.uint8)
    rows = max(1, _BAND // (width * factor)) * factor
    for top in range(0, height, rows):
        whole = rows >= height  # Pillow's crop would copy even then
        band = _rgb(image if whole else image.crop((0, top, width, min(top + rows, height))))
        band = band.reduce(factor) if factor > 1 else band
        result[top // factor : top // factor + band.height] = np.asarray(band)
    return result


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image (h, w, 3) of EXIF orientation 1 to 8, made upright."""
    image = image.transpose(1, 0, 2) if orientation > 4 else image
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image)


def _rgb(image: Image.Image) -> Image.Image:
    """A picture in any of Pillow's modes with 8 bits as RGB, transparent parts over white."""
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits; save it with 8 or 16")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _of_array(array) -> Picture:
    remark = ""
    if isinstance(array, Image.Image):
        orientation = _orientation(array)
        if array.mode.startswith("I;16"):
            values, bits = _to_8_bits(np.asarray(array))
            array, remark = Image.fromarray(values), _fewer_bits(bits)
        array = _upright(_reduced(array, 1), orientation)
    array = np.asarray(array)
    sound = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not sound or not array.size or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"an image of shape {array.shape} and type {array.dtype}: expected a path, or an array (height, "
            "width), (height, width, 3) RGB or (height, width, 4) RGBA of uint8 or uint16."
        )
    if array.dtype == np.uint16:
        values, bits = _to_8_bits(array)
        array, remark = values, _fewer_bits(bits)
    if array.shape[2:] != (3,):
        array = np.asarray(_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)))
    return Picture(array, array.shape[1::-1], remark=remark)
