"""Joints in pictures from Python: places, sources and batches."""

import importlib
import json
import subprocess
import sys
import threading

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SPOTS, picture
from PIL import Image

from hourglass_jax import Predictor, loading, predictor, weights
from hourglass_jax.media import pictures
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Metadata, Network
from hourglass_jax.people.boxes import Selection
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import per_example

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs", "one_look")


@pytest.fixture
def one_look(monkeypatch):
    """One look only: the tests' spots are not a body, so their extent is not a person's size."""
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 99)


CELLS = 16
RED, GREEN, BLUE = (skeletons.MPII.joints.index(name) for name in SPOTS)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


# Places of joints.


@pytest.mark.filterwarnings("ignore:an array of 517 x 33 px is treated as one person")
@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (64, 64), (33, 517), (1, 1)])
def test_joints_are_in_pixels_of_the_picture(spots, shape):
    height, width = shape
    places = np.array([[0.3, 0.4], [0.7, 0.6], [0.5, 0.8]]) * (width, height)
    result = Predictor("any")(picture(height, width, *places))
    assert result.joints.shape == (1, 16, 2) and result.joints.dtype == np.float64
    assert result.scores.shape == (1, 16) and result.scores.dtype == np.float32
    assert result.names == skeletons.MPII.joints and len(result.heatmaps) == 1
    assert result.heatmaps[0].shape == (CELLS, CELLS, 16)
    side = max(shape)
    np.testing.assert_allclose(result.crop, [[(width - side) / 2, (height - side) / 2, side]])
    if side > 1:
        found = result.joints[0, [RED, GREEN, BLUE]]
        assert np.abs(found - places).max() < 0.75 * side / CELLS  # the brightest cell, a quarter further
        assert (result.scores[0, [RED, GREEN, BLUE]] > 0.3).all()


def test_boxes_are_enlarged_by_a_quarter_around_their_centre(spots):
    np.testing.assert_allclose(predictor.around([[10, 20, 80, 40]]), [[0, -10, 100]])
    np.testing.assert_allclose(predictor.whole((200, 120)), [0, -40, 200])
    image = picture(120, 200, (60, 50), (140, 70))
    side = 200 / predictor.ENLARGEMENT
    box = [100 - side / 2, 60 - 10, side, 20]  # its crop is that of the whole picture
    find = Predictor("any")
    one, other = find(image), find(image, boxes=box)
    np.testing.assert_allclose(one.crop, other.crop)
    np.testing.assert_allclose(one.joints, other.joints, atol=1e-3)


def test_moved_boxes_do_not_move_joints(spots):
    image = picture(300, 400, (210, 160), radius=0.02)
    squares = np.array([(100, 60, 200), (150, 100, 120), (190.5, 140.25, 64)])
    inner = squares[:, 2:] / predictor.ENLARGEMENT
    boxes = np.concatenate([squares[:, :2] + (squares[:, 2:] - inner) / 2, inner, inner], axis=1)
    result = Predictor("any")(image, boxes=boxes)
    np.testing.assert_allclose(result.crop, squares)
    for joints, (_, _, side) in zip(result.joints, squares, strict=True):
        assert np.abs(joints[RED] - (210, 160)).max() < 0.75 * side / CELLS


def test_joints_of_a_reduced_picture_are_in_its_own_pixels(spots, tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", picture(600, 1000, (300, 200), (800, 500), radius=0.02))
    find = Predictor("any")
    monkeypatch.setattr(pictures, "LARGEST", 100_000)
    for boxes in (None, [[180, 80, 240, 240], [680, 380, 240, 240]]):
        result = find(path, boxes=boxes)
        assert result.image.shape == (200, 334, 3) and result.picture.size == (1000, 600)
        cell = result.crop[0, 2] / CELLS
        last = result.joints[-1]
        assert np.abs(result.joints[0, RED] - (300, 200)).max() < cell
        assert np.abs(last[GREEN] - (800, 500)).max() < cell
        # The overlay has the reduced pixels, and shows the joint at its place in them.
        overlay = result.draw()
        assert overlay.shape == (200, 334, 3)
        x, y = (last[GREEN] * result.picture.zoom).astype(int)
        assert (overlay[y, x] != result.image[y, x]).any()


class Bright(nn.Module):
    """All heatmaps have the mean of the whole input in their middle: 15 cells of 4 px."""

    @nn.compact
    def __call__(self, image, train=False):
        mean = image.mean(axis=(1, 2, 3))
        return Outputs((jnp.tile(mean[:, None, None, None], (1, 15, 15, 16)),))


class Red(nn.Module):
    """All heatmaps are the red channel: 15 cells of 4 px."""

    @nn.compact
    def __call__(self, image, train=False):
        maps = image[..., :1].reshape(-1, 15, 4, 15, 4, 1).mean(axis=(2, 4))
        return Outputs((jnp.tile(maps, (1, 1, 1, 16)),))


def replaced(monkeypatch, model):
    network = Network(model, skeletons.MPII, 60, (0.0, 0.0, 0.0), 1.5, logits=False)
    monkeypatch.setattr(loading, "load", lambda path, mesh: (network, {}, Metadata({}, {})))


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((1.0,), (60, 1.0)),
        ((1.1, 1.3), (60, 1.0)),
        ((0.75, 1.0), (80, 4 / 3)),  # 60 / 0.75 = 80
        ((0.7,), (86, 86 / 60)),  # 85.7: 12.9 and so 13 px more on each side
    ],
)
def test_canvases_cover_the_view_of_the_smallest_scale(scales, expected):
    assert predictor.surroundings(60, scales) == expected


def test_scales_below_1_see_the_picture_around_the_crop(monkeypatch):
    replaced(monkeypatch, Bright())
    white, box = np.full((300, 300, 3), 255, np.uint8), [102, 102, 96, 96]  # the crop's side is 120
    find = Predictor("any", scales=(0.8, 1.0), decode="dark")
    np.testing.assert_allclose(find(white, boxes=box).scores, 1, atol=1e-6)
    # If the picture ends with the crop, 0.8 * 0.8 of the smaller view is white: (0.64 + 1) / 2.
    np.testing.assert_allclose(find(white).scores, 0.82, atol=1e-6)


@pytest.mark.parametrize("decode", ["quarter", "dark", "soft_argmax"])
@pytest.mark.parametrize("scales", [(1.0,), (0.7, 1.0, 1.3)])
def test_all_protocols_find_the_same_joints(monkeypatch, scales, decode):
    replaced(monkeypatch, Red())
    place, side = np.array([211.0, 163.0]), 120  # a cell is 8 px, and a Gaussian of 1.5 cells 12 px
    x, y = (
        np.exp(-((np.arange(n) + 0.5 - c) ** 2) / (2 * 12**2)) for n, c in zip((400, 300), place, strict=True)
    )
    image = np.zeros((300, 400, 3), np.uint8)
    image[..., 0] = np.round(250 * np.outer(y, x))
    # In the middle of the 15 cells, and 2 cells from it, where a scale moves it between cells.
    for shift, exact in (((0, 0), True), ((16, -16), False)):
        corner = place - side / 2 + shift
        inner = side / predictor.ENLARGEMENT
        box = [*(corner + (side - inner) / 2), inner, inner]
        result = Predictor("any", scales=scales, decode=decode)(image, boxes=box)
        np.testing.assert_allclose(result.crop, [[*corner, side]])
        # "quarter" has errors of a quarter of a cell; with the others, linear resampling moves the peak
        # slightly.
        limit = 2.01 if decode == "quarter" else 0.1 if exact else 0.5
        assert np.abs(result.joints - place).max() < limit


def test_invalid_scales_and_decodings_are_refused(spots):
    for scales in ((), (0.0,), (0.001,), (-1.0, 1.0), (np.nan,), (np.inf,)):
        with pytest.raises(ValueError, match="must be one or more numbers from 0.1 to 10"):
            Predictor("any", scales=scales)
    for threshold in (2, np.nan):
        with pytest.raises(ValueError, match=f"threshold={threshold}: scores reach about 1"):
            Predictor("any", threshold=threshold)
    with pytest.raises(ValueError, match="decode='best' is unknown"):
        Predictor("any", decode="best")


def test_trained_network_predicts_what_it_evaluates(trained, quick_compiles):
    from hourglass_jax import devices, evaluate
    from hourglass_jax.data import pipeline, sources
    from hourglass_jax.pose import crop

    config, workdir, _ = trained
    network, variables, _ = loading.load(workdir, devices.mesh())
    source = sources.open_source(config.data, train=False)
    evaluator = evaluate.Evaluator(network, source, devices.mesh(), batch_size=10, flip=True)
    expected = evaluator.predict(variables)
    # The middle 32 px of the 48 px canvas, without resampling, as a picture of its own.
    images, frames = [], []
    for i in range(10):
        example = pipeline.load(source, i)
        images.append(example["image"][8:40, 8:40])
        center, scale = example["center"].astype(float), np.float64(example["scale"])
        frames.append(crop.square(center, scale * 200, 32))
    for i, result in enumerate(Predictor(workdir, batch_size=10)(images)):
        joints = crop.apply(crop.invert(frames[i]), result.joints[0])
        np.testing.assert_allclose(joints, expected.joints[i, -1], atol=1e-3)
        np.testing.assert_allclose(result.scores[0], expected.scores[i, -1], atol=1e-5)


# Batches.


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_across_pictures_and_people_change_nothing(spots, batch_size):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*rng.integers(40, 200, 2), 3), np.uint8) for _ in range(7)]
    boxes = [rng.uniform(10, 60, (people, 4)) for people in (2, 0, 1, 5, 0, 3, 0)]
    one = Predictor("any", batch_size=1)
    found = list(Predictor("any", batch_size=batch_size)(images, boxes=boxes))
    assert [len(result.joints) for result in found] == [2, 0, 1, 5, 0, 3, 0]
    for image, own, result in zip(images, boxes, found, strict=True):
        assert result.image is image and result.joints.shape[1:] == (16, 2)
        assert result.scores.shape == (len(own), 16) and len(result.heatmaps) == len(own)
        for person, box in enumerate(own):
            expected = one(image, boxes=box)
            np.testing.assert_allclose(result.joints[person], expected.joints[0], atol=1e-3)
            np.testing.assert_allclose(result.scores[person], expected.scores[0], atol=1e-5)
            np.testing.assert_allclose(result.crop[person], expected.crop[0])


def test_large_pictures_do_not_wait_for_a_whole_batch(spots, monkeypatch):
    images = [picture(40, 40, (x, 20)) for x in range(6, 36, 5)]
    one = Predictor("any", batch_size=1)
    expected = [result.joints for result in map(one, images)]
    monkeypatch.setattr(pictures, "HELD", 2 * images[0].nbytes)
    find, made = Predictor("any", batch_size=16), []
    results = find(made.append(number) or image for number, image in enumerate(images))
    first = next(results)
    assert len(made) <= 5  # of six: two in the batch, two ahead of it, one being decoded
    np.testing.assert_allclose([first.joints, *(r.joints for r in results)], expected, atol=1e-4)


def test_each_size_of_batch_is_compiled_once(spots, monkeypatch, own_programs):
    monkeypatch.setattr(per_example, "suits", lambda mesh: False)
    find = Predictor("any", batch_size=6, flip=False)
    spots.clear()  # it is traced once to be folded
    image = picture(40, 40, (20, 20))
    for people, made in (
        (1, [1]),  # one picture is not padded to six
        (1, [1]),
        (3, [1, 4]),
        (2, [1, 4, 2]),
        (4, [1, 4, 2]),
        (5, [1, 4, 2, 6]),  # at most batch_size
        (6, [1, 4, 2, 6]),
        (13, [1, 4, 2, 6]),
    ):
        assert len(list(find([image] * people))) == people
        assert spots == made
    own_programs.clear()
    fresh = Predictor("any", batch_size=6, flip=False)
    spots.clear()
    assert len(list(fresh([image] * 13))) == 13
    assert spots == [6]  # the rest of a stream is padded, because compiling would take longer


def test_on_a_cpu_one_program_serves_all_batches(spots, own_programs):
    find = Predictor("any", batch_size=6, flip=False)
    spots.clear()
    for people in (13, 1, 5):
        assert len(list(find([picture(40, 40, (20, 20))] * people))) == people
    assert spots == [1]


def test_a_stream_is_read_on_demand(spots):
    made, closed = [], []

    def camera():
        try:
            for number in range(1000):
                made.append(number)
                yield picture(40, 40, (20, 20))
        finally:
            closed.append(True)

    results = Predictor("any", batch_size=2)(camera())
    assert not made
    next(results)
    assert len(made) <= 4  # a batch, and a batch ahead of it
    results.close()
    assert len(made) <= 5


def test_a_frame_comes_as_soon_as_it_is_done(spots):
    """With batches of one a live stream gives a result for each frame."""
    results = Predictor("any", batch_size=1)(picture(40, 40, (x, 20)) for x in (10, 20, 30))
    for x, result in zip((10, 20, 30), results, strict=True):
        assert abs(result.joints[0, RED, 0] - x) < 3


def test_a_live_picture_is_read_after_the_previous_result(spots):
    made = []

    def camera():
        for number in range(10):
            made.append(number)
            yield picture(40, 40, (20, 20))

    results = Predictor("any", batch_size=8)(camera(), live=True)
    for count in (1, 2, 3):
        next(results)
        assert len(made) == count
    results.close()


def running():
    """The number of threads, without those that compute."""
    return sum(not thread.name.startswith("example") for thread in threading.enumerate())


def test_iterators_of_images_are_live_and_those_of_files_are_not(spots, tmp_path):
    path, made, threads = save(tmp_path / "a.png", picture(40, 40, (20, 20))), [], running()

    def items(one):
        for number in range(30):
            made.append(number)
            yield one

    find = Predictor("any", batch_size=2)
    results = find(items(picture(40, 40, (20, 20))))
    for count in (1, 2, 3):
        next(results)
        assert len(made) == count
    results.close()
    made.clear()
    results = find(items(path))
    next(results)
    assert len(made) > 1 and running() > threads  # read ahead
    results.close()
    assert len(made) < 10 and running() == threads
    assert list(find(iter([]))) == []


# Videos.


def moving(count, step=2, width=160, height=100, start=30):
    """A spot that moves by `step` px per frame."""
    for t in range(count):
        yield picture(height, width, (start + step * t, 50), radius=0.03)


def test_the_detector_is_called_every_few_frames_and_boxes_follow_joints_in_between(spots):
    asked = []

    def detector(image):
        asked.append(1)
        return spotlight(image)

    find = Predictor("any", detector=detector, detect_every=5)
    for t, result in enumerate(find(moving(12))):
        assert len(asked) == 1 + t // 5 and result.ids == (1,) and len(result) == 1
        x, y, width, height = result.boxes[0]
        assert abs(x + width / 2 - 30 - 2 * t) < 8 and abs(y + height / 2 - 50) < 8 and width < 60
        assert (result.box_scores is None) == (t % 5 > 0)
    asked.clear()
    assert (
        len(list(Predictor("any", detector=detector, detect_every=5)([picture(60, 90, (40, 30))] * 3))) == 3
    )
    assert len(asked) == 3  # pictures are not a video
    with pytest.raises(ValueError, match="detect_every=0 must be at least 1"):
        Predictor("any", detect_every=0)
    with pytest.raises(ValueError, match="follow=False: smooth"):
        Predictor("any", follow=False, smooth=True)


def test_people_of_a_video_keep_their_ids_with_boxes_in_any_order(spots):
    def detector(image):
        (box,), (first, *_) = spotlight(image)[0][:1], [[1, 1, 20, 20]]
        turn = [box, first] if image[0, 0, 2] % 2 else [first, box]
        return turn, [0.9, 0.8]

    def frames():
        for t, image in enumerate(moving(8)):
            image[0, 0, 2] = t
            yield image

    find = Predictor("any", detector=detector, follow=True)
    ids = [dict(zip(result.ids, result.boxes[:, 0] == 1, strict=True)) for result in find(frames())]
    assert all(one == ids[0] for one in ids) and set(ids[0]) == {1, 2}
    assert next(Predictor("any", detector=detector)(frames())).ids is None  # perhaps not a video
    result = next(find(frames()))
    assert [p["track_id"] for p in result.to_coco()] == [1, 2] and result[1].id == 2


def test_smooth_joints_follow_the_picture(spots):
    def jitter(results):
        places = np.array([result.joints[0, RED] for result in results])[10:]
        return np.linalg.norm(np.diff(places, axis=0) - [2, 0], axis=-1).mean()

    def frames():
        for x in range(10, 90, 2):
            yield picture(100, 160, (x, 10), (x + 60, 50), (x + 30, 90), radius=0.03)

    # A cell is 10 px, and a quarter of it is the smallest step.
    before, after = (jitter(Predictor("any", smooth=smooth)(frames())) for smooth in (False, True))
    assert before > 2 and after < 0.8


# A second look.


def test_the_second_square_is_robust_and_bounded(monkeypatch):
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 4)
    joints = np.array([[x, y] for x in (100.0, 120, 140) for y in (200.0, 240, 280, 300)])
    scores, first = np.full(12, 0.5), np.array([0.0, 0, 400])
    # With 12 equal weights the middle of the first one is at 1/24, above 2 %: the whole extent counts.
    x, y, side = predictor.second_square(joints, scores, first)
    np.testing.assert_allclose([x, y, side], [120 - 67.5, 250 - 67.5, 135])
    # A joint far off does not count below 0.15. With 0.2, of 6.2 in all, its middle lies at 1 - 0.1 / 6.2,
    # above 98 %, and the one before at 1 - 0.45 / 6.2: 98 % is 7 % of the way back.
    far = np.concatenate([joints, [[140, 1000]]])
    np.testing.assert_allclose(predictor.second_square(far, np.append(scores, 0.149), first), [x, y, side])
    low, high = 200, 1000 - (0.98 - (1 - 0.1 / 6.2)) / (-0.35 / 6.2) * 700
    found = predictor.second_square(far, np.append(scores, 0.2), [0, 0, 1000])
    np.testing.assert_allclose(found[2], 1.35 * (high - low))
    assert predictor.second_square(np.zeros((12, 2)), scores, first)[2] == 80  # a fifth
    assert predictor.second_square(100 * joints, scores, first)[2] == 500
    assert predictor.second_square(joints, np.full(12, 0.1), first) is None


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_second_look_uses_the_joints_of_the_first(spots, monkeypatch, batch_size):
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 4)
    monkeypatch.setattr(predictor, "second_square", lambda joints, scores, square: np.array([90.0, 30, 40]))
    image = picture(120, 200, (110.3, 50.7), radius=0.02)
    first, second = (
        list(Predictor("any", batch_size=batch_size, second_look=look)([image] * 3)) for look in (False, True)
    )
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.crop, [[0, -40, 200]])
        np.testing.assert_array_equal(two.crop, [[90, 30, 40]])
        np.testing.assert_array_equal(two.boxes, [[0, 0, 200, 120]])
        assert np.abs(two.joints[0, RED] - (110.3, 50.7)).max() < 0.75 * 40 / CELLS
    # By default it is for pictures taken as one person, not for given boxes.
    box = [[20, 10, 80, 80]]
    assert [Predictor("any")(image, boxes=boxes).crop[0, 2] for boxes in (None, box)] == [40, 100]
    assert Predictor("any", second_look=True)(image, boxes=box).crop[0, 2] == 40


# Sources.


def test_one_picture_gives_one_result_and_many_a_generator(spots, tmp_path):
    path = save(tmp_path / "in/a.png", picture(60, 80, (40, 30)))
    image = np.asarray(Image.open(path))
    find = Predictor("any")
    expected = find(image).joints
    for one in (
        path,
        str(path),
        image,
        Image.open(path),
        np.dstack([image, np.full((60, 80), 255, np.uint8)]),
    ):
        np.testing.assert_array_equal(find(one).joints, expected)
    assert find(path).path == path and find(image).path is None
    for many in (path.parent, f"{path.parent}/*.png", [path], [image], (image,), image[None], iter([path])):
        (result,) = find(many)
        np.testing.assert_array_equal(result.joints, expected)
    assert iter(find([path])) is not None and not isinstance(find([path]), list)
    assert [result.path.name for result in find([path.parent, str(path)])] == ["a.png", "a.png"]


def test_grey_pictures_are_accepted(spots):
    grey = picture(60, 80, (40, 30))[..., 0]
    joints = Predictor("any")(grey).joints[0]
    # Grey spots are white: every colour's.
    assert np.abs(joints[0] - (40, 30)).max() < 5


def test_videos_give_a_result_for_each_frame(spots, tmp_path):
    pytest.importorskip("av")
    import fractions

    from hourglass_jax.media import videos

    with videos.writing(tmp_path / "a.mp4", fractions.Fraction(25)) as write:
        for x in (20, 40, 60):
            write(picture(64, 96, (x, 30)))
    save(tmp_path / "b.png", picture(60, 80, (40, 30)))
    results = list(Predictor("any", batch_size=2)(tmp_path))
    assert [(r.path.name, r.frame) for r in results] == [
        ("a.mp4", 0),
        ("a.mp4", 1),
        ("a.mp4", 2),
        ("b.png", None),
    ]
    for x, result in zip((20, 40, 60), results, strict=False):
        assert np.abs(result.joints[0, RED] - (x, 30)).max() < 5
    one = list(Predictor("any")(tmp_path / "a.mp4", boxes={"a.mp4": [[10, 10, 40, 40], [30, 10, 50, 40]]}))
    assert [len(result.joints) for result in one] == [2, 2, 2]


def test_unreadable_files_are_reported_and_the_others_predicted(spots, tmp_path):
    save(tmp_path / "a.png", picture(60, 80, (40, 30)))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    save(tmp_path / "c.png", picture(60, 80, (40, 30)))
    find, said = Predictor("any"), []
    names = [result.path.name for result in find(tmp_path, unreadable=said.append)]
    assert names == ["a.png", "c.png"] and len(said) == 1 and "b.jpg: not a picture" in str(said[0])
    with pytest.warns(UserWarning, match="Skipped .*b.jpg: not a picture that can be read"):
        assert len(list(find(tmp_path))) == 2
    with pytest.raises(pictures.Unreadable, match="b.jpg"):
        find(tmp_path / "b.jpg")
    with pytest.raises(FileNotFoundError, match="none.jpg: there is no such file"):
        find(tmp_path / "none.jpg")


# Boxes.


def test_boxes_go_with_their_pictures(spots, tmp_path):
    image = picture(60, 80, (40, 30))
    paths = [save(tmp_path / name, image) for name in ("a.png", "b.png", "in/a.png")]
    (tmp_path / "b.png").write_bytes(b"no picture")  # its boxes are skipped, too
    find = Predictor("any")
    two, one, none = [[0, 0, 8, 8], [9, 9, 8, 8]], [5, 5, 16, 8], []
    by_name = {"a.png": two, str(paths[2]): one}  # a path has priority over a name
    for boxes in (by_name, [two, none, one], [two, None, [one]]):
        found = list(find(paths, boxes=boxes, unreadable=lambda error: None))
        assert [result.path for result in found] == [paths[0], paths[2]]
        np.testing.assert_allclose(found[0].crop, [[-1, -1, 10], [8, 8, 10]])
        np.testing.assert_allclose(found[1].crop, [[3, -1, 20]])
        found = list(find(iter(paths), boxes=boxes, unreadable=lambda error: None))  # uncounted
        assert [len(result.crop) for result in found] == [2, 1]
    result = find(paths[0], boxes=none)
    assert result.joints.shape == (0, 16, 2) and result.crop.shape == (0, 3)
    assert len(find(paths[0], boxes=by_name).joints) == 2
    (result,) = find([paths[0]], boxes={})
    np.testing.assert_allclose(result.crop, [[0, -10, 80]])  # not named: the whole picture


@pytest.mark.parametrize(
    "boxes, message",
    [
        ({"photo1.png": []}, r"there is no picture 'photo1.png'; did you mean photo.png( or .*)?\?"),
        ({"x": []}, "there is no picture 'x'; there are other.png, photo.png."),
        ([[]], "boxes: 1 for 2 pictures; give one or None for each."),
        (
            [None, [[1, 2, 3]]],
            r"boxes of 1: expected \[\[x, y, width, height\], ...\].*found \[\[1, 2, 3\]\]",
        ),
        ([None, [1, 2, -3, 4]], "boxes of 1: expected"),
        ([None, [1, np.nan, 3, 4]], "boxes of 1: expected"),
        ([None, "abcd"], "boxes of 1: expected"),
        ([None, 7], "boxes of 1: expected"),
        ([None, [[1, 2, 3, 4], [1]]], "boxes of 1: expected"),
        ({"photo.png": {"x": 1}}, "boxes of 'photo.png': expected"),
        ({"photo.png": [[1e300, 1, 1e300, 3]]}, "boxes of 'photo.png': expected"),
    ],
)
def test_wrong_boxes_are_refused_at_once(spots, tmp_path, boxes, message):
    paths = [save(tmp_path / name, picture(60, 80, (40, 30))) for name in ("photo.png", "other.png")]
    with pytest.raises(ValueError, match=message):
        Predictor("any")(paths, boxes=boxes)


def test_wrong_boxes_of_a_stream_are_refused_at_their_turn(spots):
    image = picture(60, 80, (40, 30))
    results = Predictor("any", batch_size=1)(iter([image, image]), boxes=iter([None, [0, 0, 0, 1]]))
    with pytest.raises(ValueError, match="boxes of 1: expected"):
        list(results)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        list(Predictor("any")(iter([image, image]), boxes=[None]))


# Drawings.


def test_joints_from_the_threshold_on_are_drawn(spots):
    image = picture(400, 400, (100, 100), (300, 300))
    result = Predictor("any", threshold=0.2)(image)
    assert result.threshold == 0.2
    np.testing.assert_array_equal(result.draw(1.1), image)
    assert (result.draw() != image).any() and (result.draw(0.0) != result.draw()).any()
    np.testing.assert_array_equal(result.image, image)


@pytest.mark.parametrize("shape", [(320, 100), (20, 30), (1, 1)])
def test_pictures_are_drawn_at_their_own_size(spots, shape):
    overlay = Predictor("any")(picture(*shape, (shape[1] / 2, shape[0] / 2))).draw(0.0)
    assert overlay.shape == (*shape, 3)


def test_a_result_is_a_collection_of_people(spots, tmp_path):
    image = picture(100, 600, (50, 50), (550, 50))
    boxes = [[10, 10, 80, 80], [510, 20, 80, 60]]
    result = Predictor("any")(save(tmp_path / "a.png", image), boxes=boxes)
    mean = f"{result.scores.mean():.2f}"
    assert repr(result) == f"Result(a.png, 2 people, 16 joints, mean {mean})" and len(result) == 2
    np.testing.assert_array_equal(result.boxes, boxes)
    first, second = result
    np.testing.assert_array_equal(second.joints, result.joints[1])
    np.testing.assert_array_equal(second.box, boxes[1])
    assert first.id is None and first.names == skeletons.MPII.joints
    content = json.loads(result.to_json())
    assert content == result.to_dict() and (content["width"], content["height"]) == (600, 100)
    assert content["file"] == str(tmp_path / "a.png") and content["frame"] is content["time"] is None
    np.testing.assert_allclose(content["people"][0]["joints"]["pelvis"][:2], first.joints[RED], atol=0.006)
    (one, two) = result.to_coco(image_id=7)
    assert one["image_id"] == 7 and two["bbox"] == boxes[1] and len(two["keypoints"]) == 48
    result.save(tmp_path / "out.png", boxes=True, labels=True, colours="person")
    assert pictures.read(tmp_path / "out.png").size == (600, 100)
    assert result._repr_png_().startswith(b"\x89PNG")
    box = result.draw(1.0, boxes=True)
    assert (box[10, 15:85] != image[10, 15:85]).any(-1).all()  # its upper edge
    assert (result.draw(lines=False, points=False) == image).all()
    with pytest.raises(ValueError, match="colours='red': choose 'side' or 'person'"):
        result.draw(colours="red")
    empty = Predictor("any")(image, boxes=[])
    assert repr(empty) == "Result(array 600x100, 0 people, 16 joints)" and list(empty) == []


def test_other_packages_forms(spots, monkeypatch):
    import types

    result = Predictor("any")(picture(100, 150, (50, 50)))
    made = types.SimpleNamespace(
        DataFrame=lambda rows, columns: (rows, columns),
        KeyPoints=lambda xy, confidence, class_id: {"xy": xy, "confidence": confidence},
    )
    monkeypatch.setitem(sys.modules, "pandas", made)
    monkeypatch.setitem(sys.modules, "supervision", made)
    rows, columns = result.to_pandas()
    assert columns[3:] == ["person", "joint", "x", "y", "score"] and len(rows) == 16 and rows[0][3] == 1
    points = result.to_supervision()
    assert points["xy"].shape == (1, 16, 2) and points["confidence"].shape == (1, 16)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result.to_pandas()


@pytest.mark.filterwarnings("default")  # of those packages
def test_the_real_packages_take_a_result(spots):
    result = Predictor("any")(picture(100, 150, (50, 50)), boxes=[[10, 10, 80, 80], [60, 20, 50, 60]])
    if pandas := importable("pandas"):
        table = result.to_pandas()
        assert isinstance(table, pandas.DataFrame) and len(table) == 32
        np.testing.assert_array_equal(table[table.person == 2][["x", "y"]].to_numpy(), result.joints[1])
    if supervision := importable("supervision"):
        points = result.to_supervision()
        assert isinstance(points, supervision.KeyPoints) and len(points) == 2
        np.testing.assert_allclose(points.xy, result.joints, rtol=1e-6)
        np.testing.assert_array_equal(points.keypoint_confidence, result.scores)
        edges = [(a + 1, b + 1) for a, b in result.skeleton.limbs]
        drawn = supervision.EdgeAnnotator(edges=edges).annotate(result.image.copy(), points)
        assert (drawn != result.image).any()
    if coco := importable("pycocotools.coco"):
        truth = coco.COCO()
        truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 1}], "info": {}}
        truth.createIndex()
        loaded = truth.loadRes(result.to_coco(7)).loadAnns([1, 2])
        assert [one["score"] for one in loaded] == [round(person.score, 4) for person in result]
        # pycocotools makes its own box, of the joints.
        assert [one["image_id"] for one in loaded] == [7, 7] and loaded[0]["keypoints"][2::3].count(1) == 0


def importable(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def test_a_predictor_says_what_it_knows(spots):
    find = Predictor("any")
    assert find.names == skeletons.MPII.joints and find.skeleton is skeletons.MPII
    assert repr(find) == "Predictor(Spots, 16 joints of mpii, 64 px, threshold 0.1)"


# Detectors.


def spotlight(image):
    """A detector: a box around all bright pixels, and two boxes to be dropped."""
    y, x = np.nonzero(image.max(axis=-1) > 60)
    pad = image.shape[0] // 8
    box = [x.min() - pad, y.min() - pad, np.ptp(x) + 2 * pad, np.ptp(y) + 2 * pad]
    return [box, box, [0, 0, 9, 9]], [0.9, 0.8, 0.2], ["person", "person", "person"]


def test_a_detector_finds_the_people_of_pictures_without_boxes(spots, tmp_path):
    image = picture(100, 300, (240, 50), radius=0.03)
    find = Predictor("any", detector=spotlight)
    result = find(image)
    box = np.array(spotlight(image)[0][:1])
    np.testing.assert_array_equal(result.boxes, box)
    np.testing.assert_allclose(result.crop, predictor.around(box))
    assert result.box_scores.tolist() == [0.9] and not result.whole and result[0].box_score == 0.9
    assert np.abs(result.joints[0, RED] - (240, 50)).max() < 6
    given, found, none = find([image] * 3, boxes=[[10, 10, 50, 50], None, []])
    assert given.boxes.tolist() == [[10, 10, 50, 50]] and given.box_scores is None and len(none) == 0
    np.testing.assert_array_equal(found.boxes, box)
    all_ = Predictor("any", detector=spotlight, selection=Selection(threshold=0, overlap=1, limit=2))
    with pytest.warns(UserWarning, match="an array: 1 more people are left out by limit=2"):
        assert len(all_(image)) == 2
    assert len(Predictor("any", detector=lambda image: [])(image)) == 0
    with pytest.raises(ValueError, match="detector=7: give a callable or one of torchvision"):
        Predictor("any", detector=7)
    with pytest.raises(ValueError, match="The detector must return boxes"):
        Predictor("any", detector=lambda image: 7)(image)


def test_detected_boxes_of_a_reduced_picture_are_in_its_own_pixels(spots, tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", picture(600, 1000, (800, 500), radius=0.02))
    monkeypatch.setattr(pictures, "LARGEST", 100_000)  # a third
    result = Predictor("any", detector=spotlight)(path)
    assert result.image.shape == (200, 334, 3)
    x, y, width, height = result.boxes[0]
    assert (
        x <= 800 <= x + width
        and y <= 500 <= y + height
        and np.abs(result.joints[0, RED] - (800, 500)).max() < 9
    )


def test_a_wide_picture_without_boxes_gets_a_remark(spots):
    find, said = Predictor("any"), []
    assert (
        len(list(find([picture(90, 160, (40, 30))] * 2 + [picture(160, 90, (40, 30))], remark=said.append)))
        == 3
    )
    assert said == [
        "an array of 160 x 90 px is treated as one person; boxes or a detector say where the people are."
    ]
    find(picture(90, 130, (40, 30)), remark=said.append)
    find(picture(90, 160, (40, 30)), boxes=[0, 0, 9, 9], remark=said.append)
    assert len(said) == 1


def test_names_are_equal_in_all_encodings_of_accents(spots, tmp_path):
    path = save(tmp_path / "e\u0301.png", picture(60, 80, (40, 30)))  # as macOS stores it
    (result,) = Predictor("any")([path], boxes={"\u00e9.png": [0, 0, 8, 8]})
    np.testing.assert_array_equal(result.boxes, [[0, 0, 8, 8]])


def test_everybody_is_drawn(spots):
    image = picture(100, 600, (50, 50), (550, 50))
    result = Predictor("any")(image, boxes=[[10, 10, 80, 80], [510, 10, 80, 80]])
    changed = (result.draw() != image).any(axis=(0, 2))
    assert changed[:100].any() and not changed[150:450].any() and changed[500:].any()


# Loading.


def test_threshold_is_the_weights_own(spots, monkeypatch):
    assert Predictor("any").threshold == predictor.THRESHOLD == 0.1
    network, variables, _ = loading.load("any", None)
    for evaluation, expected in (
        ({"confidence": {"auroc": 0.8, "threshold": 0.3}}, 0.3),
        ({"confidence": {"auroc": None, "threshold": None}}, 0.1),
        ({}, 0.1),  # evaluated before confidence existed
    ):
        metadata = Metadata({}, {}, evaluation=evaluation)
        monkeypatch.setattr(loading, "load", lambda path, mesh, m=metadata: (network, variables, m))
        assert Predictor("any").threshold == expected
        assert Predictor("any", threshold=0.0).threshold == 0.0


def test_shipped_weights_are_the_default(spots, monkeypatch, tmp_path):
    monkeypatch.setitem(weights.SHIPPED, weights.DEFAULT, tmp_path / "lspet.npz")
    with pytest.raises(FileNotFoundError, match="No weights come with this copy"):
        Predictor()
    (tmp_path / "lspet.npz").touch()
    loaded, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda path, mesh: loaded.append(path) or load(path, mesh))
    Predictor()
    assert loaded == [tmp_path / "lspet.npz"]


def test_the_device_is_chosen_by_its_kind(spots, monkeypatch):
    import jax

    assert Predictor("any", device="cpu")(picture(60, 80, (40, 30))).joints.shape == (1, 16, 2)
    monkeypatch.setattr(jax, "local_devices", lambda backend: jax.devices("abacus"))
    with pytest.raises(ValueError, match="device='tpu': there is none, or .*; the default is cpu.") as error:
        Predictor("any", device="tpu")
    assert "\n" not in str(error.value)


def test_the_package_itself_is_imported_in_a_moment():
    code = "import sys, hourglass_jax; assert not {'jax', 'numpy', 'cv2', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    import hourglass_jax

    assert hourglass_jax.Predictor is predictor.Predictor
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        _ = hourglass_jax.Predicter


@pytest.mark.parametrize("size", [0, -1, 10**11])
def test_batch_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=f"batch_size={size} must be in 1 ... 4096"):
        Predictor("any", batch_size=size)


def test_opencv_reads_a_results_image(spots, tmp_path):
    path = save(tmp_path / "a.png", picture(600, 600, (300, 300)))
    result = Predictor("any")(path)  # its array is read-only
    assert cv2.resize(result.image, (10, 10)).shape == (10, 10, 3)
