"""Reads and writes videos with PyAV (`pip install 'hourglass_jax[video]'`).

Frames are (h, w, 3) uint8 RGB with a time in seconds.
"""

import contextlib
import dataclasses
import fractions
import math
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hourglass_jax import extras, files

EXTENSIONS = {
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
}
LARGEST = 2**26  # px of a frame; 8K has half as many
_RATE = fractions.Fraction(25)  # frames per second, if the file does not state it
_TICKS = 90_000  # ticks per second of a written video, if the source's own unit does not fit
_WIDEST = 4  # largest ratio of a pixel's sides; beyond it the ratio is an error, and pixels are square
_HDR = {16: "PQ", 18: "HLG"}  # transfer functions, ITU-T H.273


@dataclasses.dataclass(frozen=True)
class About:
    """The facts that a file states about its video.

    Attributes:
      frames: the number of frames; None if the file does not state it.
      rate: frames per second, on average.
      tick: unit of the frames' times, s.
      remark: the loss in the conversion of its frames to 8-bit RGB; "" if there is none.
    """

    frames: int | None
    rate: fractions.Fraction
    tick: fractions.Fraction
    remark: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame, upright, with square pixels.

    Attributes:
      image: (h, w, 3) uint8 RGB.
      time: seconds since the beginning of the video, as players show it.
    """

    image: np.ndarray
    time: fractions.Fraction


def frames(path: str | os.PathLike) -> Iterator[Frame]:
    """All frames as players show them: rotated and flipped by the display matrix, with square pixels.

    Raises:
      ValueError: the file is not a video, or its frames have more than LARGEST px. If the file is damaged,
        this is raised after its readable frames.
    """
    with _opened(path) as stream:
        _check_size(path, stream.codec_context)
        stream.thread_type = "AUTO"  # otherwise only one core decodes
        begin = fractions.Fraction(stream.container.start_time or 0, 1_000_000)
        rate, ratio = _rate(stream), _pixel_ratio(stream)
        for number, frame in enumerate(stream.container.decode(stream)):
            _check_size(path, frame)  # the size may change within a video
            time = number / rate if frame.pts is None else frame.pts * frame.time_base - begin
            yield Frame(_upright(_square(frame, ratio), _matrix(frame)), max(time, fractions.Fraction(0)))


def _check_size(path, shape) -> None:
    if shape.width * shape.height > LARGEST:
        raise ValueError(f"{path}: frames of {shape.width} x {shape.height} px are too many to decode")


def about(path: str | os.PathLike) -> About:
    """The facts that the file states; nothing is decoded.

    Raises:
      ValueError: the file is not a video.
    """
    with _opened(path) as stream:
        context = stream.codec_context
        bits = max((part.bits for part in context.format.components), default=8) if context.format else 8
        transfer = _HDR.get(int(context.color_trc))
        remark = f"{bits} bits per colour are reduced to 8" if bits > 8 else ""
        if transfer:
            remark += f"{', ' * bool(remark)}HDR ({transfer}) is shown without tone mapping, and so too pale"
        return About(stream.frames or None, _rate(stream), stream.time_base or 1 / _rate(stream), remark)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, rate: fractions.Fraction, tick: fractions.Fraction | None = None
) -> Iterator[Callable[..., None]]:
    """Yields a function that adds a frame to an MP4 file (H.264, no sound); the file is written atomically.

    The function takes an image (h, w, 3) and its time in seconds as a Fraction; None means one frame after
    the previous one. Times increase by at least one tick.

    Args:
      path: path of the file.
      rate: frames per second, on average.
      tick: unit of times, s; None: one that fits the rate.
    """
    with extras.needed("av", f"{path}: writing it"):
        import av

    tick = 1 / rate if tick is None else tick
    # MP4 counts in integer fractions of a second, at most 2^32 of them; players expect some thousands.
    if tick.numerator != 1 or not 1000 <= tick.denominator <= 1_000_000:
        tick = fractions.Fraction(1, _ticks(rate))
    with files.replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"  # every player reads it; it needs even sizes
        stream.time_base = stream.codec_context.time_base = tick
        before = step = None

        def write(image: np.ndarray, time: fractions.Fraction | None = None) -> None:
            nonlocal before, step
            height, width = image.shape[:2]
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            usual = max(1, round(1 / rate / tick))
            if time is None:
                place = 0 if before is None else before + usual
            else:
                place = round(time / tick)
            if before is not None:
                place = max(place, before + 1)
                step = place - before
            before = place
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, frame.duration = place, tick, step or usual
            _mux(container, stream, frame, step or usual)

        yield write
        _mux(container, stream, None, step or 1)


def _mux(container, stream, frame, duration: int) -> None:
    for packet in stream.encode(frame):
        packet.duration = packet.duration or duration  # otherwise the last frame has a duration of 0
        container.mux(packet)


def _ticks(rate: fractions.Fraction) -> int:
    """Ticks per second such that a frame of this rate lasts a whole number of ticks."""
    ticks = rate.numerator
    return ticks * math.ceil(10_000 / ticks) if ticks <= 1_000_000 else _TICKS


def _rate(stream) -> fractions.Fraction:
    """Frames per second; WebM counts milliseconds, and may state 1000 frames, which is only its unit."""
    stated = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    sound = [rate for rate in stated if rate and rate > 0]
    likely = [rate for rate in sound if rate < 1000]
    return (likely or [_RATE])[0]


def _pixel_ratio(stream) -> fractions.Fraction:
    """Width / height of a stored pixel."""
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and 1 / fractions.Fraction(_WIDEST) <= ratio <= _WIDEST else fractions.Fraction(1)


def _square(frame, ratio: fractions.Fraction) -> np.ndarray:
    """A decoded frame as (h, w, 3) RGB with square pixels; the shorter side of pixels is enlarged."""
    wide, high = max(ratio, fractions.Fraction(1)), max(1 / ratio, fractions.Fraction(1))
    size = {"width": round(frame.width * wide), "height": round(frame.height * high)} if ratio != 1 else {}
    return frame.to_ndarray(format="rgb24", **size)


def _matrix(frame) -> tuple[int, ...]:
    """a, b, c, d of the display matrix: a stored (x, y) is shown at (a x + c y, b x + d y), up to a shift."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return 1, 0, 0, 1
    values = struct.unpack("=9i", bytes(data)[:36])
    return values[0], values[1], values[3], values[4]


def _upright(image: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Rotates and flips an image by the nearest of the eight display matrices with right angles."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    image = image[:, ::-1] if a < 0 else image
    return np.ascontiguousarray(image[::-1] if d < 0 else image)


@contextlib.contextmanager
def _opened(path):
    """Opens the first video stream; errors of PyAV become a ValueError of one line."""
    with extras.needed("av", f"{path}: reading it", error=ValueError):
        import av
        from av import error as av_error
        from av import stream
    try:
        # Titles and other metadata may be in any encoding. This module does not read them; PyAV before 19
        # does.
        old = int(av.__version__.partition(".")[0]) < 19
        options: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
        with av.open(str(path), **options) as container:
            # Music and podcasts store their cover as a video with one picture.
            cover = stream.Disposition.attached_pic
            moving = [video for video in container.streams.video if not video.disposition & cover]
            if not moving:
                raise ValueError(f"{path}: holds no moving pictures")
            if moving[0].codec_context is None:  # for a codec that FFmpeg does not know
                raise ValueError(f"{path}: its video is in a format that FFmpeg cannot decode")
            yield moving[0]
    except av_error.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror or error})") from error
