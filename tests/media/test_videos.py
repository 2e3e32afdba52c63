"""Videos: what is written comes back; what is damaged is told."""

import fractions
import os

import numpy as np
import pytest

from hourglass_jax.media import pictures, videos

av = pytest.importorskip("av")


def moving(number, height=48, width=80):
    """A white square that goes to the right, over grey."""
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
    assert videos.about(tmp_path / "a.mp4") == (10, fractions.Fraction(30000, 1001))
    found = list(videos.frames(tmp_path / "a.mp4"))
    assert len(found) == 10
    for number, image in enumerate(found):
        # An odd size gets one row and one column more, which are like the last ones.
        assert image.shape == (size["height"] + size["height"] % 2, size["width"] + size["width"] % 2, 3)
        image = image[: size["height"], : size["width"]].astype(int)
        assert np.abs(image - moving(number, **size)).mean() < 4
        left = np.flatnonzero(image[18, :, 0] > 150)[0]
        assert abs(left - 4 * number) <= 1


def test_a_telephones_portrait_is_turned_upright(tmp_path):
    record(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    # The track's matrix (ISO 14496-12, tkhd): 16.16 fixed-point numbers, the last of each row 2.30.
    one, nil, last = (0x10000).to_bytes(4), bytes(4), (0x40000000).to_bytes(4)
    upright = one + nil * 3 + one + nil * 3 + last
    quarter = nil + one + nil + (0xFFFF0000).to_bytes(4) + nil * 4 + last  # to the right, as telephones write
    header = data.index(b"tkhd")
    assert data.count(upright, header) == 1
    place = data.index(upright, header)
    (tmp_path / "b.mp4").write_bytes(data[:place] + quarter + data[place + 36 :])
    for plain, turned in zip(
        videos.frames(tmp_path / "a.mp4"), videos.frames(tmp_path / "b.mp4"), strict=True
    ):
        np.testing.assert_array_equal(turned, np.rot90(plain, -1))
        assert turned.flags.c_contiguous


def test_frames_are_decoded_as_they_are_asked_for(tmp_path):
    record(tmp_path / "a.mp4", count=3)
    frames = pictures.of(tmp_path / "a.mp4")
    first = next(frames)
    assert first.frame == 0 and first.path == tmp_path / "a.mp4" and first.size == (80, 48)
    assert next(frames).frame == 1
    frames.close()


def test_damaged_videos_are_told_in_one_line(tmp_path):
    record(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])  # the index is at its end
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("cut.mp4", "empty.mp4", "none.mp4"):
        for attempt in (videos.about, lambda path: list(pictures.of(path))):
            with pytest.raises(ValueError) as error:
                attempt(tmp_path / name)
            assert str(error.value).startswith(f"{tmp_path / name}: no video that can be read (")
            assert "\n" not in str(error.value)


def test_a_title_in_another_encoding_changes_nothing(tmp_path):
    record(tmp_path / "a.mp4", count=3)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count(b"ftypisom") == 1
    (tmp_path / "a.mp4").write_bytes(data.replace(b"ftypisom", b"ftyp\xe9som"))  # no UTF-8
    assert videos.about(tmp_path / "a.mp4") == (3, 25)
    assert len(list(pictures.of(tmp_path / "a.mp4"))) == 3


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(pictures.Unreadable, match="a.mp4: holds no moving pictures"):
        list(pictures.of(tmp_path / "a.mp4"))


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with videos.writing(tmp_path / "a.mp4", fractions.Fraction(25)) as write:
            write(moving(0))
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_without_pyav_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(pictures.Unreadable, match="a.mp4: reading it needs PyAV, which is not"):
        list(pictures.of(tmp_path / "a.mp4"))
