"""Pictures as people have them: files, folders, globs, videos and arrays -> (h, w, 3) uint8 RGB."""

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

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hourglass_jax.media import videos
from hourglass_jax.pose import crop

EXTENSIONS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LARGEST = 2**26  # px that are kept of a picture: 200 MB; larger ones are reduced
_MOST = 2**30  # px that are decoded at all: 3 GB
_limit = threading.Lock()


class Unreadable(ValueError):
    """A file that is no picture; the message names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture, or one frame of a video.

    Attributes:
      image: (h, w, 3) uint8 RGB; reduced where the picture has more than LARGEST px, or where nobody needs
        it whole.
      size: (width, height) of the picture itself in px, as it is to be seen.
      path: of its file, None for arrays.
      frame: its number in the video, from 0; None elsewhere.
      reduction: the sides of `image` are those of the picture divided by it, and rounded up, so that it may
        reach out of the picture.
      start: where in the picture `image` begins, (x, y) px; not at (0, 0) where a reduced one was turned.
    """

    image: np.ndarray
    size: tuple[int, int]
    path: pathlib.Path | None = None
    frame: int | None = None
    reduction: int = 1
    start: tuple[int, int] = (0, 0)

    @property
    def zoom(self) -> float:
        """Pixels of `image` per pixel of the picture; 1 unless it is reduced."""
        return 1 / self.reduction

    def cut(self, transform: np.ndarray, size: int) -> np.ndarray:
        """`crop.cut` by a map from the picture's own pixels, (2, 3)."""
        from_held = np.column_stack([np.eye(2) * self.reduction, self.start])
        return crop.cut(self.image, crop.compose(transform, from_held), size)


def expand(source) -> Iterable:
    """Single items, paths as `pathlib.Path`: a list where the source can be counted, else lazily.

    Args:
      source: a path (see `find`), a list of paths and pictures, or any other iterable of single ones.
    """
    if isinstance(source, (str, os.PathLike)):
        return find([source])
    if isinstance(source, (list, tuple)):
        return [found for item in source for found in (find([item]) if is_path(item) else [item])]
    return (pathlib.Path(item) if is_path(item) else item for item in source)


def is_single(source) -> bool:
    """Whether a source is one picture: the path of one, an array or a Pillow image."""
    if is_path(source):
        path = pathlib.Path(source)
        return path.is_file() and not is_video(path)
    return isinstance(source, Image.Image) or getattr(source, "ndim", 0) in (2, 3)


def is_path(item) -> bool:
    return isinstance(item, (str, os.PathLike))


def is_video(path: pathlib.Path) -> bool:
    return path.suffix.lower() in videos.EXTENSIONS


def find(paths) -> list[pathlib.Path]:
    """Files, the pictures and videos in folders, and what globs match; sorted within these, each once.

    Raises:
      FileNotFoundError: a path that is not there, or a folder or glob without pictures.
    """
    known = EXTENSIONS | videos.EXTENSIONS
    found = []
    for path in map(pathlib.Path, paths):
        if path.is_dir() or (glob.has_magic(str(path)) and not path.exists()):
            matches = path.iterdir() if path.is_dir() else glob.glob(str(path), recursive=True)
            inside = map(pathlib.Path, matches)
            # macOS leaves a hidden ._NAME.jpg beside each picture, which is none.
            here = sorted(f for f in inside if f.suffix.lower() in known and not f.name.startswith("."))
            if not here:
                raise FileNotFoundError(f"{path} holds no pictures or videos ({', '.join(sorted(known))}).")
            found += here
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such file or folder.")
    return list(dict.fromkeys(found))


def of(item) -> Iterator[Picture]:
    """The pictures of one item: a path of a picture or of a video, a Pillow image or an array.

    Raises:
      Unreadable: the file is damaged or something else; a video's first frames may have come before.
      ValueError: an array that is no picture.
    """
    if not is_path(item):
        yield _of_array(item)
    elif is_video(path := pathlib.Path(item)):
        try:
            for number, image in enumerate(videos.frames(path)):
                yield Picture(image, image.shape[1::-1], path, number)
        except ValueError as error:
            raise Unreadable(str(error)) from error
    else:
        yield read(path)


def size(path: pathlib.Path) -> tuple[int, int]:
    """(width, height) as stored, whatever the EXIF orientation; nothing is decoded.

    Raises:
      Unreadable: the file is no picture.
    """
    with _named(path), _open(path) as file:
        return file.size


def read(path: pathlib.Path, reduction: Callable[[int, int], int] = lambda width, height: 1) -> Picture:
    """A picture from a file: upright, whatever its EXIF orientation; alpha over white; 16 bits scaled to 8.

    Args:
      path: of the file.
      reduction: of width and height as stored, to the factor by which a JPEG may be reduced while it is
        decoded, which saves time: 1, 2, 4 or 8.

    Raises:
      Unreadable: it cannot be decoded.
    """
    with _named(path):
        with _open(path) as file:
            width, height = file.size
            factor = max(_factor(file.size), reduction(width, height))
            # JPEGs are decoded to a half, a quarter or an eighth; the others whole.
            drafted = file.draft(None, (width // factor, height // factor))
            reduced = round(width / drafted[1][2]) if drafted else 1
            if math.prod(file.size) > _MOST:
                raise ValueError(f"{width} x {height} px are too many to decode")
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1) if reduced > 1 else 1
            image = _rgb(ImageOps.exif_transpose(file))
            size = (height, width) if orientation > 4 else (width, height) if reduced > 1 else image.size
            # What was the last row or column, which may reach out of the picture, is now perhaps the first.
            ends = (orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))
            start = tuple((s - n * reduced) * e for s, n, e in zip(size, image.size, ends, strict=True))
            if (factor := _factor(image.size)) > 1:
                image, reduced = image.reduce(factor), reduced * factor
    return Picture(np.asarray(image), size, pathlib.Path(path), reduction=reduced, start=start)


def ahead(items: Iterator, depth: int) -> Iterator:
    """Runs a generator on a thread of its own, `depth` items ahead; closes it when the consumer stops."""
    end, pending = object(), collections.deque()
    pool = futures.ThreadPoolExecutor(1)
    try:
        while True:
            while len(pending) < depth:
                pending.append(pool.submit(next, items, end))
            if (item := pending.popleft().result()) is end:
                return
            yield item
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the one that runs: a generator has one caller
        items.close()


@contextlib.contextmanager
def _named(path):
    """Errors become `Unreadable`, which names the file."""
    try:
        yield
    except Exception as error:  # each of Pillow's decoders has its own
        found = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # which tells the path once more
            found = "of no known kind" if os.path.getsize(path) else "empty"
        raise Unreadable(f"{path}: not a picture that can be read ({found})") from error


def _factor(size) -> int:
    """By how much both sides are divided to have at most LARGEST px."""
    return math.ceil(math.sqrt(math.prod(size) / LARGEST))


def _open(path) -> Image.Image:
    """Reads the header only."""
    with _limit:
        # Pillow refuses large pictures; they are reduced here, or refused by a limit of our own. The limit
        # is Pillow's only one, for everybody, and so is put back.
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as 8-bit RGB. It scales 16-bit colours itself, but clips 16-bit grey."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits; save it with 8 or 16")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _of_array(array) -> Picture:
    if isinstance(array, Image.Image):
        array = np.asarray(_rgb(ImageOps.exif_transpose(array)))
    array = np.asarray(array)
    sound = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not sound or not array.size or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"an image of shape {array.shape} and type {array.dtype}: expected a path, or an array (height, "
            "width), (height, width, 3) RGB or (height, width, 4) RGBA of uint8 or uint16."
        )
    array = (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array
    if array.shape[2:] != (3,):
        array = np.asarray(_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)))
    return Picture(array, array.shape[1::-1])
