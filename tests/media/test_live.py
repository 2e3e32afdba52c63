"""Cameras and streams."""

import functools
import http.server
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from hourglass_jax.media import live


@pytest.fixture
def film(tmp_path):
    """A video of 6 frames; red increases by 40 from frame to frame."""
    path = tmp_path / "a film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPEG")
    for number in range(6):
        writer.write(np.full((48, 64, 3), (0, 0, 40 * number), np.uint8))
    writer.release()
    return path


def test_an_open_capture_is_read_frame_by_frame_and_stays_open(film):
    capture = cv2.VideoCapture(str(film))
    frames = iter(live.Camera(capture))
    first = next(frames)
    assert (first.frame, first.time, first.size, first.path.name) == (0, 0, (64, 48), "capture.mp4")
    frames.close()
    assert capture.isOpened()
    rest = list(live.Camera(capture))
    assert len(rest) == 5 and [round(p.image[..., 0].mean() / 40) for p in rest] == [1, 2, 3, 4, 5]
    assert rest[1].time == Fraction(1, 10) and rest[0].image[..., 2].mean() < 10  # RGB


def test_a_video_at_a_url_is_read_completely(film):
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(film.parent))
    serve.log_message = lambda *arguments: None
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=film.parent)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        camera = live.Camera(f"http://user:secret@127.0.0.1:{server.server_port}/a%20film.avi?key=secret")
        assert camera.name == "a_20film" and camera.rate == 10
        assert [picture.frame for picture in camera] == [0, 1, 2, 3, 4, 5]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Webcam:
    """Gives a frame every 5 ms; its brightness is its number."""

    def __init__(self, *arguments):
        self.read_, self.released = 0, False

    def isOpened(self):
        return True

    def get(self, what):
        return -1.0

    def read(self):
        time.sleep(0.005)
        self.read_ += 1
        return self.read_ < 200, np.full((4, 4, 3), self.read_ % 256, np.uint8)

    def release(self):
        self.released = True


def test_a_cameras_newest_frame_is_read_and_its_thread_ends(monkeypatch):
    monkeypatch.setattr(live.cv2, "VideoCapture", Webcam)
    threads, camera = threading.active_count(), live.Camera(3)
    assert camera.name == "camera3" and camera.rate == 25
    frames = iter(camera)
    one = next(frames)
    time.sleep(0.1)
    two = next(frames)
    assert two.image[0, 0, 0] - one.image[0, 0, 0] > 5 and two.frame == 1 and two.time > one.time
    frames.close()
    assert threading.active_count() == threads and camera._capture.released
    assert camera._capture.read_ < 200
    assert [picture.image[0, 0, 0] for picture in live.Camera(0)][-1] == 199  # the last one is not lost


def test_missing_cameras_are_named():
    assert live.is_source(0) and live.is_source("rtsp://a/b") and live.is_source("HTTPS://a/b.mp4")
    assert not any(map(live.is_source, (True, "a.mp4", "file://a", np.zeros((4, 4, 3)))))
    for source, message in ((77, "camera77: cannot be opened"), ("http://127.0.0.1:9/x.mp4", "x: cannot be")):
        with pytest.raises(ValueError, match=message) as error:
            live.Camera(source)
        assert "\n" not in str(error.value)
