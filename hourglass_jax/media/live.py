"""Reads cameras and streams with OpenCV: a camera's number, a URL (rtsp://...), or a `cv2.VideoCapture`."""

import contextlib
import pathlib
import re
import threading
import time
import urllib.parse
from collections.abc import Generator, Iterator
from fractions import Fraction

import cv2
import numpy as np

from hourglass_jax.media.pictures import Picture

_PATIENCE = 10_000  # ms, time-out for a server
_RATE = Fraction(25)  # frames per second, if the source does not state it
_ADDRESS = re.compile(r"(rtsps?|https?|rtmp|udp|tcp|srt)://", re.IGNORECASE)


class Camera:
    """Frames of a camera or a stream, in real time; one iteration reads it to its end.

    From a camera or a live stream the newest frame is read each time; frames that arrive while the network
    computes are skipped. A video at a URL, and a `cv2.VideoCapture`, are read frame by frame.

    Args:
      source: a camera's number from 0, a URL, or a `cv2.VideoCapture`, which stays open.

    Raises:
      ValueError: the source cannot be opened.
    """

    def __init__(self, source):
        self.name = _name(source)
        self._own = not isinstance(source, cv2.VideoCapture)
        if isinstance(source, str):
            patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _PATIENCE]
            self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, patience)
        else:
            self._capture = cv2.VideoCapture(source) if self._own else source
        if not self._capture.isOpened():
            hint = "is it connected, and not in use?" if isinstance(source, int) else "does it exist?"
            raise ValueError(f"{self.name}: cannot be opened; {hint}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate).limit_denominator(1001) if 1 <= rate < 1000 else _RATE
        self._counted = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        self._newest = self._own and not self._counted

    @property
    def path(self) -> pathlib.Path:
        """A name for files written from this source, "camera0.mp4"."""
        return pathlib.Path(f"{self.name}.mp4")

    def __iter__(self) -> Iterator[Picture]:
        """Frames with their number and time; closing the iterator releases the thread and the camera."""
        frames = self._latest() if self._newest else self._in_order()
        try:
            for number, (image, seconds) in enumerate(frames):
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Picture(image, image.shape[1::-1], self.path, number, seconds)
        finally:
            frames.close()
            if self._own:
                self._capture.release()

    def _in_order(self) -> Generator[tuple[np.ndarray, Fraction]]:
        number, start = 0, time.monotonic()
        while True:
            there, image = self._capture.read()
            if not there:
                return
            seconds = number / self.rate if self._counted else _since(start)
            yield image, seconds
            number += 1

    def _latest(self) -> Generator[tuple[np.ndarray, Fraction]]:
        with contextlib.closing(_Newest(self._capture)) as newest:
            while (frame := newest.take()) is not None:
                yield frame


class _Newest:
    """The newest frame of a capture, read by a thread."""

    def __init__(self, capture: cv2.VideoCapture):
        self._capture, self._start = capture, time.monotonic()
        self._changed = threading.Condition()
        self._frame: tuple[np.ndarray, Fraction] | None = None
        self._ended = False
        # A daemon, because a program may end without closing an iterator.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended:
            there, image = self._capture.read()
            with self._changed:
                self._frame = (image, _since(self._start)) if there else self._frame
                self._ended |= not there
                self._changed.notify()

    def take(self) -> tuple[np.ndarray, Fraction] | None:
        """Waits for a new frame; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended)
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        self._ended = True
        self._thread.join()


def _since(start: float) -> Fraction:
    return Fraction(round((time.monotonic() - start) * 1000), 1000)


def is_source(item) -> bool:
    """Whether `Camera` accepts the item: a number, a URL or a `cv2.VideoCapture`."""
    number = isinstance(item, int) and not isinstance(item, bool)
    return number or is_address(item) or isinstance(item, cv2.VideoCapture)


def is_address(item) -> bool:
    return isinstance(item, str) and bool(_ADDRESS.match(item))


def _name(source) -> str:
    """ "camera0", or the last part of a URL that is a name; without passwords."""
    if isinstance(source, int):
        return f"camera{source}"
    if not isinstance(source, str):
        return "capture"
    parts = urllib.parse.urlsplit(source)
    name = pathlib.PurePosixPath(parts.path).stem or parts.hostname or "stream"
    return re.sub(r"[^\w.-]", "_", name)
