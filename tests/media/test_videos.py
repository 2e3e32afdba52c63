"""Videos: written frames are read back; damaged files are named."""

import fractions
import os
import pathlib
import struct
import sys

import numpy as np
import pytest

from hourglass_jax.media import pictures, videos

av = pytest.importorskip("av")

CASES = pathlib.Path(__file__).parents[3] / "shared/cases"


def moving(number, height=48, width=80):
    """A white square that moves to the right, over grey."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[10:26, 4 * number : 4 * number + 16] = (230, 40, 40)
    return image


def record(path, count=10, rate=25, **size):
    with videos.writing(path, fractions.Fraction(rate)) as write:
        for number in range(count):
            write(moving(number, **size))


@pytest.mark.parametrize("size", [{"height": 48, "width": 80}, {"height": 49, "width": 81}])
def test_video_comes_back(tmp_path, size):
    record(tmp_path / "a.mp4", **size, rate=fractions.Fraction(30000, 1001))
    assert os.listdir(tmp_path) == ["a.mp4"]
    about = videos.about(tmp_path / "a.mp4")
    assert (about.frames, about.rate, about.remark) == (10, fractions.Fraction(30000, 1001), "")
    found = list(videos.frames(tmp_path / "a.mp4"))
    assert [frame.time for frame in found] == [fractions.Fraction(1001 * n, 30000) for n in range(10)]
    for number, image in enumerate(frame.image for frame in found):
        # An odd size gets one more row and column, equal to the last ones.
        assert image.shape == (size["height"] + size["height"] % 2, size["width"] + size["width"] % 2, 3)
        image = image[: size["height"], : size["width"]].astype(int)
        assert np.abs(image - moving(number, **size)).mean() < 4
        left = np.flatnonzero(image[18, :, 0] > 150)[0]
        assert abs(left - 4 * number) <= 1


# The display matrix (ISO 14496-12, tkhd): a, b, u, c, d, v, x, y, w, and an image as a player shows it.
SHOWN = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # as phones write portraits
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],  # as front cameras write
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].transpose(1, 0, 2),
}


def test_every_display_matrix_is_followed_as_players_do(tmp_path):
    record(tmp_path / "a.mp4", count=2)
    data = (tmp_path / "a.mp4").read_bytes()

    def field(a, b, c, d):  # 16.16 fixed-point numbers, the last of each row 2.30
        one = 0x10000
        return struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 0x40000000)

    header = data.index(b"tkhd")
    assert data.count(field(1, 0, 0, 1), header) == 1
    place = data.index(field(1, 0, 0, 1), header)
    plain = [frame.image for frame in videos.frames(tmp_path / "a.mp4")]
    for matrix, shown in SHOWN.items():
        (tmp_path / "b.mp4").write_bytes(data[:place] + field(*matrix) + data[place + 36 :])
        for before, turned in zip(plain, videos.frames(tmp_path / "b.mp4"), strict=True):
            np.testing.assert_array_equal(turned.image, shown(before), str(matrix))
            assert turned.image.flags.c_contiguous


def encoded(path, images, times=None, *, tick=fractions.Fraction(1, 1000), codec="mpeg4", **fields):
    """A video written with PyAV directly, not with `videos.writing`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = fields.pop("pix_fmt", "yuv420p")
        stream.time_base = stream.codec_context.time_base = tick
        for name, value in fields.items():
            setattr(stream.codec_context, name, value)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times[number] if times else number * 40
            frame.time_base = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_times_of_a_variable_rate_are_kept(tmp_path):
    times = [0, 33, 50, 300, 301, 1000]  # ms
    encoded(tmp_path / "a.mkv", [moving(n) for n in range(6)], times)
    about = videos.about(tmp_path / "a.mkv")
    found = list(videos.frames(tmp_path / "a.mkv"))
    assert [round(1000 * frame.time) for frame in found] == times and about.tick == fractions.Fraction(
        1, 1000
    )
    with videos.writing(tmp_path / "b.mp4", about.rate, about.tick) as write:
        for frame in found:
            write(frame.image, frame.time)
    assert [round(1000 * frame.time) for frame in videos.frames(tmp_path / "b.mp4")] == times


def test_pixels_that_are_not_square_become_square(tmp_path):
    for ratio, shape in (("3/2", (48, 120)), ("2/3", (72, 80)), ("1000/1", (48, 80))):
        encoded(tmp_path / "a.mkv", [moving(3)], sample_aspect_ratio=fractions.Fraction(ratio))
        (frame,) = videos.frames(tmp_path / "a.mkv")
        assert frame.image.shape == (*shape, 3), ratio
        wide, high = shape[1] / 80, shape[0] / 48
        red = frame.image[..., 0] > 150  # from (12, 10) to (28, 26) of the stored pixels
        y, x = (axis.mean() + 0.5 for axis in np.nonzero(red))
        np.testing.assert_allclose([x, y], [20 * wide, 18 * high], atol=1)


def test_more_than_8_bits_and_hdr_cause_a_remark(tmp_path):
    encoded(tmp_path / "a.mkv", [moving(0)], codec="libx264", pix_fmt="yuv420p10le", color_trc=16)
    assert videos.about(tmp_path / "a.mkv").remark == (
        "10 bits per colour are reduced to 8, HDR (PQ) is shown without tone mapping, and so too pale"
    )
    first, *_ = pictures.of(tmp_path / "a.mkv")
    assert first.remark.startswith("10 bits per colour")


def test_a_cover_picture_is_not_a_video():
    path = CASES / "22-cover-picture-as-film/podcast.mp4"
    if not path.exists():
        pytest.skip("The shared cases are not here.")
    with pytest.raises(pictures.Unreadable, match="podcast.mp4: holds no moving pictures"):
        list(pictures.of(path))


def test_frames_are_decoded_on_demand(tmp_path):
    record(tmp_path / "a.mp4", count=3)
    frames = pictures.of(tmp_path / "a.mp4")
    first = next(frames)
    assert (first.frame, first.time) == (0, 0) and first.path == tmp_path / "a.mp4" and first.size == (80, 48)
    second = next(frames)
    assert (second.frame, second.time) == (1, fractions.Fraction(1, 25))
    frames.close()


def test_a_damaged_video_is_a_one_line_error(tmp_path):
    record(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])  # the index is at its end
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("cut.mp4", "empty.mp4"):
        for attempt in (videos.about, lambda path: list(pictures.of(path))):
            with pytest.raises(ValueError) as error:
                attempt(tmp_path / name)
            assert str(error.value).startswith(f"{tmp_path / name}: not a readable video (")
            assert "\n" not in str(error.value)


def test_a_title_in_another_encoding_changes_nothing(tmp_path):
    record(tmp_path / "a.mp4", count=3)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count(b"ftypisom") == 1
    (tmp_path / "a.mp4").write_bytes(data.replace(b"ftypisom", b"ftyp\xe9som"))  # not UTF-8
    assert videos.about(tmp_path / "a.mp4").frames == 3
    assert len(list(pictures.of(tmp_path / "a.mp4"))) == 3


def test_a_file_with_only_sound_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(pictures.Unreadable, match="a.mp4: holds no moving pictures"):
        list(pictures.of(tmp_path / "a.mp4"))


def test_an_unknown_codec_is_a_one_line_error(tmp_path):
    path = tmp_path / "a.mp4"
    record(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzz"))
    for read in (videos.about, lambda path: list(videos.frames(path))):
        with pytest.raises(ValueError, match=r"a\.mp4: its video is in a format that FFmpeg cannot decode"):
            read(path)


def test_frames_too_large_to_decode_are_refused(tmp_path, monkeypatch):
    record(tmp_path / "a.mp4")
    monkeypatch.setattr(videos, "LARGEST", 80 * 48 - 1)
    with pytest.raises(pictures.Unreadable, match="a.mp4: frames of 80 x 48 px are too many to decode"):
        next(pictures.of(tmp_path / "a.mp4"))


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with videos.writing(tmp_path / "a.mp4", fractions.Fraction(25)) as write:
            write(moving(0))
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_without_pyav_the_error_names_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(pictures.Unreadable, match="a.mp4: reading it needs PyAV, which is not"):
        list(pictures.of(tmp_path / "a.mp4"))
