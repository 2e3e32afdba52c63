"""Pictures of every format compared with their values, and the search for pictures."""

import io
import os
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import picture
from PIL import Image

from hourglass_jax.media import pictures
from hourglass_jax.pose import crop

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def exif(orientation):
    """The JPEG segment with the orientation of the camera."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation]) + b"\x00\x00\x00"
    data = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    return b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data


def stored(upright, orientation):
    """The pixels that a camera stores for an upright picture."""
    mirrored = upright[:, ::-1]
    # The number of left turns from the camera's pixels to the stored ones.
    turns = {1: 0, 3: 2, 6: 1, 8: 3}
    if orientation in turns:
        return np.rot90(upright, turns[orientation])
    return np.rot90(mirrored, {2: 0, 4: 2, 5: 1, 7: 3}[orientation])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_a_rotated_picture_is_read_upright(tmp_path, orientation, suffix):
    upright = picture(100, 160, (40, 30), (120, 60))
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(stored(upright, orientation)).save(tmp_path / f"a{suffix}", exif=tags)
    found = pictures.read(tmp_path / f"a{suffix}")
    assert found.image.shape == (100, 160, 3) and found.size == (160, 100)
    assert np.abs(found.image.astype(int) - upright).mean() < 5
    assert found.zoom == found.reduction == 1


@pytest.mark.parametrize(
    "mode, values",
    [
        ("1", np.repeat(255 * (RGB[..., :1] > 127), 3, axis=2)),
        ("L", np.repeat(RGB[..., :1], 3, axis=2)),
        ("RGB", RGB),
    ],
)
def test_grey_and_black_and_white_are_read_as_colour(tmp_path, mode, values):
    plane = RGB if mode == "RGB" else RGB[..., 0]
    image = Image.fromarray(plane)
    (image.convert("1", dither=Image.Dither.NONE) if mode == "1" else image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png").image, values)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    deep = RGB.astype(np.uint16) * 256 + 200
    deep[0, 0] = 0x12FF
    for name, image in (("grey", deep[..., 0]), ("colour", deep), ("alpha", np.dstack([deep, deep[..., 0]]))):
        stored_ = image if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[2]]]
        assert cv2.imwrite(str(tmp_path / f"{name}{suffix}"), stored_)
    expected = RGB.copy()
    expected[0, 0] = 0x12
    np.testing.assert_array_equal(pictures.read(tmp_path / f"colour{suffix}").image, expected)
    grey = pictures.read(tmp_path / f"grey{suffix}").image
    np.testing.assert_array_equal(grey, np.repeat(expected[..., :1], 3, axis=2))
    assert pictures.read(tmp_path / f"alpha{suffix}").image.shape == (40, 60, 3)
    np.testing.assert_array_equal(pictures._of_array(deep).image, expected)
    np.testing.assert_array_equal(pictures._of_array(deep[..., 0]).image, grey)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_fewer_bits_in_16_are_brightened_with_a_remark(tmp_path, suffix, bits):
    # Cameras write 12 bits into 16: the upper 8 of 16 bits of 4095 would be 15, nearly black.
    deep = (RGB.astype(np.uint16) << (bits - 8)) + (3 if bits > 9 else 0)
    deep[0, 0] = 255 << (bits - 8)
    expected = RGB.copy()
    expected[0, 0] = 255
    remark = f"its values use {bits} of 16 bits, and were brightened" if bits < 16 else ""
    tags = Image.Exif()
    tags[0x0112] = 6
    for name, image in (("grey", deep[..., 0]), ("colour", deep)):
        assert cv2.imwrite(str(tmp_path / f"{name}{suffix}"), image if image.ndim == 2 else image[..., ::-1])
        shown = np.broadcast_to(expected[..., :1], expected.shape) if image.ndim == 2 else expected
        for found in (pictures.read(tmp_path / f"{name}{suffix}"), pictures._of_array(image)):
            np.testing.assert_array_equal(found.image, shown)
            assert found.remark == remark
    Image.fromarray(deep[..., 0]).save(tmp_path / f"turned{suffix}", exif=tags)
    found = pictures.read(tmp_path / f"turned{suffix}")
    np.testing.assert_array_equal(found.image[..., 0], np.rot90(expected[..., 0], -1))
    assert found.size == (40, 60)


def test_other_kinds_of_files_are_not_opened(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for EPS, with any ending of the file."""
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: started.append(args))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(eps)
    with pytest.raises(
        pictures.Unreadable, match="a.jpg: not a picture that can be read .of an unknown kind"
    ):
        pictures.read(tmp_path / "a.jpg")
    assert not started


def test_an_animated_gif_is_a_video_and_further_pages_cause_a_remark(tmp_path):
    pytest.importorskip("av")
    frames = [Image.fromarray(picture(40, 60, (x, 20))) for x in (10, 30, 50)]
    for name in ("a.gif", "b.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=[100, 300, 100])
    frames[0].save(tmp_path / "c.gif")
    assert pictures.is_video(tmp_path / "a.gif") and not pictures.is_single(tmp_path / "a.gif")
    assert not pictures.is_video(tmp_path / "c.gif") and pictures.read(tmp_path / "c.gif").remark == ""
    assert [float(frame.time) for frame in pictures.of(tmp_path / "a.gif")] == [0, 0.1, 0.4]
    assert pictures.read(tmp_path / "b.tif").remark == "the first of 3 pictures is read"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_over_white(tmp_path, suffix):
    # Half-transparent black over white is grey: 255 - 128 = 127; a fully transparent pixel is white.
    rgba = np.zeros((10, 30, 4), np.uint8)
    rgba[:, 10:, 3] = 128
    rgba[:, 20:] = (10, 200, 30, 255)
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", lossless=True)
    expected = np.full((10, 30, 3), 255)
    expected[:, 10:20], expected[:, 20:] = 127, (10, 200, 30)
    np.testing.assert_array_equal(pictures.read(tmp_path / f"a{suffix}").image, expected)
    np.testing.assert_array_equal(pictures._of_array(rgba).image, expected)


def test_a_palettes_transparent_colour_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png").image, [[[255] * 3, [0, 0, 255]]])


def test_cmyk_is_read_as_rgb(tmp_path):
    # Without black, red = 255 - cyan, and so on; with 20 % black 0.8 of it remains.
    cmyk = np.zeros((32, 32, 4), np.uint8)
    cmyk[:] = (255 - 200, 255 - 100, 255 - 50, 51)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "a.jpg", quality=100)
    found = pictures.read(tmp_path / "a.jpg").image
    np.testing.assert_allclose(found.reshape(-1, 3), np.tile([160, 80, 40], (1024, 1)), atol=3)


@pytest.mark.parametrize("suffix", sorted(pictures.EXTENSIONS))
def test_every_known_format_is_read(tmp_path, suffix):
    image = picture(64, 96, (30, 30), (60, 40), (80, 20))
    Image.fromarray(image).save(tmp_path / f"a{suffix}")
    assert np.abs(pictures.read(tmp_path / f"a{suffix}").image.astype(int) - image).mean() < 8


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path, monkeypatch):
    upright = picture(403, 801, (200, 100), (600, 300))
    jpeg = io.BytesIO()
    Image.fromarray(stored(upright, 6)).save(jpeg, "jpeg", quality=95)
    data = jpeg.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:2] + exif(6) + data[2:])
    # 801 * 403 / 70^2 = 65.9: both sides by 9; JPEG's eighth, 101 x 51, is not enough, so it is halved again.
    monkeypatch.setattr(pictures, "LARGEST", 70**2)
    found = pictures.read(tmp_path / "a.jpg")
    assert found.size == (801, 403) and found.image.shape == (26, 51, 3)
    for channel, place in enumerate([(200, 100), (600, 300)]):
        bright = found.image[..., channel] > 100
        middle = np.array([axis.mean() + 0.5 for axis in np.nonzero(bright)[::-1]])
        np.testing.assert_allclose(
            middle / found.zoom + found.start, place, atol=8
        )  # half a pixel of the reduced image


@pytest.mark.parametrize("wanted, factor", [(1, 1), (2, 2), (3, 2), (4, 4), (8, 8)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_decoded_at_a_reduced_size_if_that_is_enough(tmp_path, wanted, factor, orientation):
    upright = picture(403, 805, (200, 100), (600, 300))
    jpeg = io.BytesIO()
    Image.fromarray(stored(upright, orientation)).save(jpeg, "jpeg", quality=95)
    data = jpeg.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:2] + exif(orientation) + data[2:])
    asked = []
    found = pictures.read(tmp_path / "a.jpg", lambda *size: asked.append(size) or wanted)
    assert asked == [pictures.size(tmp_path / "a.jpg")] == [(403, 805) if orientation > 4 else (805, 403)]
    assert found.reduction == factor and found.size == (805, 403)
    assert found.image.shape == (-(-403 // factor), -(-805 // factor), 3)
    # Spots keep their places in a view, within 1/8 of the picture's own pixels.
    view = crop.square(np.array([420.0, 200.0]), np.array(800.0), 100)
    seen = np.maximum(found.cut(view, 100)[..., :2].astype(float) - 30, 0)
    y, x = np.mgrid[:100, :100, :1][:2] + 0.5
    middles = np.stack([(seen * axis).sum((0, 1)) / seen.sum((0, 1)) for axis in (x, y)], axis=1)
    np.testing.assert_allclose(middles, crop.apply(view, np.array([(200.0, 100), (600, 300)])), atol=0.05)


def test_other_formats_are_read_at_full_size(tmp_path):
    Image.fromarray(picture(40, 80, (20, 20))).save(tmp_path / "a.png")
    assert pictures.read(tmp_path / "a.png", lambda *_: 8).reduction == 1


def test_the_size_of_a_file_that_is_not_a_picture_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(pictures.Unreadable, match="a.jpg: not a picture that can be read"):
        pictures.size(tmp_path / "a.jpg")


def test_a_large_picture_of_another_format_is_reduced_after_decoding(tmp_path, monkeypatch):
    Image.fromarray(picture(300, 500, (100, 200))).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "LARGEST", 100 * 100)  # 150000 / 10000 = 15: by 4
    found = pictures.read(tmp_path / "a.png")
    assert found.size == (500, 300) and found.image.shape == (75, 125, 3)
    monkeypatch.setattr(pictures, "_MEMORY", 500 * 300 * 8 - 1)  # of 8 bytes a pixel
    with pytest.raises(pictures.Unreadable, match="a.png: .*500 x 300 px are too many to decode"):
        pictures.read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1)])
def test_the_smallest_and_the_longest_are_read(tmp_path, size):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
    found = pictures.read(tmp_path / "a.png")
    assert found.size == size and (found.image == (10, 20, 30)).all()


def test_pillows_own_limit_is_neither_applied_nor_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # refuses from 2000 on
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert pictures.read(tmp_path / "a.png").image.shape == (40, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def damaged(folder):
    """Files that are not readable pictures, by name."""
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    jpeg, png = (cv2.imencode(kind, image)[1].tobytes() for kind in (".jpg", ".png"))
    files = {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "empty.jpg": b"",
        "text.png": b"no picture",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    return sorted([*files, "folder.jpg", "gone.jpg", "float.tif"])


def test_a_file_that_is_not_a_picture_is_a_one_line_error(tmp_path):
    for name in damaged(tmp_path):
        with pytest.raises(pictures.Unreadable) as error:
            pictures.read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: not a picture that can be read (")
        assert "\n" not in str(error.value)
    for data, reason in ((b"", "empty"), (b"text", "of an unknown kind")):
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(pictures.Unreadable) as error:
            pictures.read(tmp_path / "a.jpg")
        assert str(error.value) == f"{tmp_path / 'a.jpg'}: not a picture that can be read ({reason})"


def test_arrays_and_pillow_images_are_pictures():
    for array in (RGB, Image.fromarray(RGB), RGB.copy(order="F")):
        (found,) = pictures.of(array)
        np.testing.assert_array_equal(found.image, RGB)
        assert found.size == (60, 40) and found.path is None and found.frame is None
    for grey in (RGB[..., 0], RGB[..., :1]):
        (found,) = pictures.of(grey)
        np.testing.assert_array_equal(found.image, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    "array", [RGB / 255, RGB[None], RGB[..., :2], RGB[:0], RGB[0, 0], RGB.astype(np.int64), 3, None]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="expected a path, or an array .height, width.* of uint8 or uint16"):
        list(pictures.of(array))


# The search for pictures.


def test_folders_and_globs_are_searched_for_pictures_and_videos(tmp_path):
    names = ["b.JPG", "a.png", "c.mp4", "d.txt", "._a.png", "in/e.png", "[f].png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*paths):
        return [str(p.relative_to(tmp_path)) for p in pictures.find([tmp_path / path for path in paths])]

    assert found("") == ["[f].png", "a.png", "b.JPG", "c.mp4"]
    assert found("d.txt", "a.png", "in", "a.png") == ["d.txt", "a.png", "in/e.png"]  # each once
    assert found("*.png") == ["[f].png", "a.png"]
    assert found("**/*.png") == ["[f].png", "a.png", "in/e.png"]
    assert found("[f].png") == ["[f].png"]  # the file of this name


@pytest.mark.parametrize(
    "path, message",
    [
        ("none", "none: there is no such file or folder."),
        ("empty", r"empty holds no pictures or videos \(.3g2, .3gp, .asf, .avi"),
        ("*.png", r"\*.png holds no pictures"),
    ],
)
def test_a_missing_path_is_an_error(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        pictures.find([tmp_path / path])


def test_other_files_in_a_folder_are_named_and_counted(tmp_path):
    for name in ("ok.jpg", "photo.heic", "notes.txt", "more.txt", "README", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "clip.mp4").mkdir()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait forever
    for path in (tmp_path, tmp_path / "*"):
        found = pictures.search([path])
        assert found.items == [tmp_path / "ok.jpg"]
        assert [str(error) for error in found.unreadable] == [
            f"{tmp_path}/clip.mp4: a folder, not a picture or video",
            f"{tmp_path}/gone.jpg: a link to /nowhere/gone.jpg, which does not exist",
            f"{tmp_path}/pipe.png: a pipe or device, not a file",
        ]
        (line,) = found.remarks()
        assert line.startswith(f"{path}: skipped 1 .heic, 2 .txt, 2 folders, 1 without an ending")
    # If given one by one they are refused, and in a stream skipped; they are never opened.
    for name in ("gone.jpg", "pipe.png"):
        with pytest.raises(FileNotFoundError, match=f"{name}: a "):
            pictures.find([tmp_path / name])
        with pytest.raises(pictures.Unreadable, match=f"{name}: a "):
            list(pictures.of(tmp_path / name))
    with pytest.raises(pictures.Unreadable, match="pipe.png: .*a pipe"):
        pictures.read(tmp_path / "pipe.png")
    with pytest.raises(FileNotFoundError, match=r"deeper holds no .*webp.*\)\."):
        pictures.find([tmp_path / "deeper"])


# Work ahead of the consumer.


def test_a_generator_runs_ahead_by_the_depth_and_ends_with_its_consumer():
    made, closed = [], []

    def numbers():
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            closed.append(True)

    items = pictures.ahead(numbers(), depth=3)
    assert not made
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert closed and len(made) <= 4  # the second, and two more


def test_a_generator_stops_ahead_when_its_items_take_too_many_bytes(monkeypatch):
    monkeypatch.setattr(pictures, "HELD", 20)
    made, third = [], threading.Event()

    def numbers():
        for number in range(6):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    items = pictures.ahead(numbers(), depth=5, size=lambda number: 10)
    assert next(items) == 0 and third.wait(10)  # the second and the third item have 20 bytes
    time.sleep(0.05)
    assert made == [0, 1, 2]
    assert list(items) == [1, 2, 3, 4, 5]
    stopped = pictures.ahead(numbers(), depth=5, size=lambda number: 30)
    assert next(stopped) == 0
    stopped.close()  # while the thread waits


def test_a_generators_error_is_raised_in_its_turn():
    def numbers():
        yield 1
        yield 2
        raise ValueError("no third")

    items = pictures.ahead(numbers(), depth=5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(items)
    assert list(pictures.ahead(iter_of(range(7)), depth=2)) == list(range(7))


def iter_of(values):
    yield from values
