"""Videos in and out, by PyAV (`pip install 'hourglass_jax[video]'`). Frames are (h, w, 3) uint8 RGB."""

import contextlib
import fractions
from collections.abc import Callable, Iterator

import numpy as np

from hourglass_jax import extras, files

EXTENSIONS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def frames(path) -> Iterator[np.ndarray]:
    """All frames, turned as the video says (telephones store portraits lying).

    Raises:
      ValueError: it is no video; also after some frames, where the rest is damaged.
    """
    with _opened(path) as stream:
        stream.thread_type = "AUTO"  # else one core decodes
        for frame in stream.container.decode(stream):
            image = frame.to_ndarray(format="rgb24")
            yield np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def about(path) -> tuple[int | None, fractions.Fraction]:
    """The number of frames, None where the file does not say it, and how many there are in a second.

    Raises:
      ValueError: it is no video.
    """
    with _opened(path) as stream:
        return stream.frames or None, stream.average_rate or fractions.Fraction(25)


@contextlib.contextmanager
def writing(path, rate: fractions.Fraction) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that adds a frame to an MP4 file (H.264, no sound), there whole or not at all.

    Args:
      path: of the file.
      rate: frames in a second.
    """
    with extras.needed("av", f"{path}: writing it"):
        import av

    with files.replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"  # what every player takes; wants even sizes

        def write(image):
            height, width = image.shape[:2]
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

        yield write
        container.mux(stream.encode(None))


@contextlib.contextmanager
def _opened(path):
    """The first stream of pictures; what PyAV finds wrong as ValueError, in one line."""
    with extras.needed("av", f"{path}: reading it", error=ValueError):
        import av
    try:
        # Titles and the like may be in any encoding; nobody reads them here, nor does PyAV from 19 on.
        old = int(av.__version__.partition(".")[0]) < 19
        with av.open(str(path), **({"metadata_errors": "replace"} if old else {})) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no moving pictures")
            yield container.streams.video[0]
    except av.FFmpegError as error:
        raise ValueError(f"{path}: no video that can be read ({error.strerror or error})") from error
