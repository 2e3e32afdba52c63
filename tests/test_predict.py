import json

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import inference, predict
from hourglass_jax.data import skeletons
from hourglass_jax.models.outputs import Outputs

SIZE, CELLS = 64, 16
RED, GREEN, BLUE = (skeletons.MPII.joints.index(n) for n in ("pelvis", "thorax", "head_top"))


class Spots(nn.Module):
    """A network that finds spots: pelvis the red one, thorax green, head_top blue, the others any."""

    @nn.compact
    def __call__(self, image, train=False):
        cell = SIZE // CELLS
        maps = image.reshape(-1, CELLS, cell, CELLS, cell, 3).mean(axis=(2, 4))
        weights = jnp.full((3, 16), 1 / 3).at[:, jnp.array([RED, GREEN, BLUE])].set(1.5 * jnp.eye(3) - 0.5)
        return Outputs(heatmaps=(0 * (maps @ weights), maps @ weights))  # the last stack answers


@pytest.fixture
def spots(monkeypatch):
    """Whatever workdir is loaded, it is this network's."""
    network = inference.Network(Spots(), skeletons.MPII, SIZE, (0.0, 0.0, 0.0), 1.0, logits=False)
    monkeypatch.setattr(predict.checkpoint, "load", lambda path, mesh: (network, {}, {"step": 1}))
    return network


def picture(height, width, red, green=None, blue=None, radius=0.06):
    """Black, with spots at continuous positions (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for channel, place in enumerate((red, green, blue)):
        if place is not None:
            near = np.hypot(x - place[0], y - place[1]) < radius * max(height, width)
            image[near, channel] = 255
    return image


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)


def run(tmp_path, *paths, **flags):
    """The command's exit code, and predictions.json."""
    flags = {"workdir": "any", "output": tmp_path / "out"} | flags
    code = predict.main([*map(str, paths), *(f"--{name}={value}" for name, value in flags.items())])
    file = flags["output"] / "predictions.json"
    return code, json.loads(file.read_text()) if file.exists() else None


def keypoints(annotation):
    return np.array(annotation["keypoints"]).reshape(-1, 3)


# Where joints are.


@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (64, 64), (33, 517)])
def test_joints_are_in_pixels_of_the_picture(spots, shape):
    height, width = shape
    places = np.array([[0.3, 0.4], [0.7, 0.6], [0.5, 0.8]]) * (width, height)
    image = picture(height, width, *places)
    predictor = predict.Predictor("any")
    ((joints, scores),) = predictor([(image, predict.whole(image))])
    cell = max(shape) / CELLS
    found = joints[[RED, GREEN, BLUE]]
    assert np.abs(found - places).max() < 0.75 * cell  # the brightest cell, a quarter towards the next
    assert joints.shape == (16, 2) and joints.dtype == np.float64 and scores.shape == (16,)
    assert (scores[[RED, GREEN, BLUE]] > 0.3).all()


def test_whole_picture_and_its_box_are_the_same_crop(spots):
    image = picture(120, 200, (60, 50), (140, 70))
    side = 200 / predict.ENLARGEMENT  # around() enlarges a box by a quarter
    box = predict.around([100 - side / 2, 60 - 10, side, 20])
    np.testing.assert_allclose(box, predict.whole(image))
    np.testing.assert_allclose(predict.whole(image), [0, -40, 200])
    np.testing.assert_allclose(predict.around([10, 20, 80, 40]), [0, -10, 100])
    a, b = predict.Predictor("any")([(image, predict.whole(image)), (image, box)])
    np.testing.assert_allclose(a[0], b[0], atol=1e-3)
    np.testing.assert_allclose(a[1], b[1], atol=1e-5)


def test_moved_box_leaves_joints_where_they_are(spots):
    image = picture(300, 400, (210, 160), radius=0.02)
    squares = [(x, y, side) for x, y, side in ((100, 60, 200), (150, 100, 120), (190.5, 140.25, 64))]
    for (_, _, side), (joints, _) in zip(
        squares, predict.Predictor("any")((image, s) for s in squares), strict=True
    ):
        assert np.abs(joints[RED] - (210, 160)).max() < 0.75 * side / CELLS


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_change_nothing(spots, batch_size):
    rng = np.random.default_rng(0)
    people = []
    for _ in range(7):
        height, width = rng.integers(40, 200, 2)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        people.append((image, predict.whole(image)))
    expected = [next(predict.Predictor("any", batch_size=8)([person])) for person in people[:2]]
    found = list(predict.Predictor("any", batch_size=batch_size)(iter(people)))
    assert len(found) == 7
    for (joints, scores), (other, others) in zip(expected, found, strict=False):
        np.testing.assert_allclose(joints, other, atol=1e-3)
        np.testing.assert_allclose(scores, others, atol=1e-5)


def test_people_are_read_as_they_are_asked_for(spots):
    read = []

    def people():
        for number in range(6):
            read.append(number)
            image = picture(40, 40, (20, 20))
            yield image, predict.whole(image)

    answers = predict.Predictor("any", batch_size=2)(people())
    next(answers)
    assert read == [0, 1]  # a folder of any size needs no more memory


def test_trained_network_predicts_what_it_evaluates(trained, tmp_path, quick_compiles):
    from hourglass_jax import checkpoint, devices, evaluate
    from hourglass_jax.data import crop, pipeline, sources

    config, workdir, _ = trained
    network, variables, _ = checkpoint.load(workdir, devices.mesh())
    source = sources.open_source(config.data, train=False)
    evaluator = evaluate.Evaluator(network, source, devices.mesh(), batch_size=10, flip=True)
    expected = evaluator.predict(variables)
    # The middle 32 px of the 48 px canvas, without resampling, as a picture of its own.
    people, frames = [], []
    for i in range(10):
        example = pipeline.load(source, i)
        canvas = np.ascontiguousarray(example["image"][8:40, 8:40])
        people.append((canvas, predict.whole(canvas)))
        center, scale = example["center"].astype(float), np.float64(example["scale"])
        frames.append(crop.square(center, scale * 200, 32))
    found = list(predict.Predictor(workdir, batch_size=10)(people))
    for i, (joints, scores) in enumerate(found):
        np.testing.assert_allclose(
            crop.apply(crop.invert(frames[i]), joints), expected.joints[i, -1], atol=1e-3
        )
        np.testing.assert_allclose(scores, expected.scores[i, -1], atol=1e-5)


# Kinds of pictures.


def _exif(orientation):
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation]) + b"\x00\x00\x00"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    return b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_jpeg_is_read_as_it_is_meant(spots, tmp_path, orientation):
    upright = picture(100, 160, (40, 30), (120, 60))
    # How often the camera's pixels have to be turned to the left to get what is stored.
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    jpeg = cv2.imencode(".jpg", stored[..., ::-1])[1].tobytes()
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + _exif(orientation) + jpeg[2:])
    image = predict.read(tmp_path / "turned.jpg")
    assert image.shape == (100, 160, 3)
    assert np.abs(image.astype(int) - upright).mean() < 5
    code, result = run(tmp_path, tmp_path / "turned.jpg")
    (person,) = result["annotations"]
    assert code == 0 and np.abs(keypoints(person)[RED, :2] - (40, 30)).max() < 8
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (160, 100)


def test_grey_alpha_and_16_bit_pictures_are_read_as_colour(tmp_path):
    grey = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    save(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(predict.read(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    rgb = picture(40, 60, (20, 20), (40, 30), (10, 35))
    alpha = np.dstack([rgb[..., ::-1], np.full((40, 60), 7, np.uint8)])
    save(tmp_path / "alpha.png", alpha)
    np.testing.assert_array_equal(predict.read(tmp_path / "alpha.png"), rgb)
    deep = rgb.astype(np.uint16) * 257  # 255 -> 65535
    deep[0, 0] = 0x1234
    save(tmp_path / "deep.png", deep)
    read = predict.read(tmp_path / "deep.png")
    np.testing.assert_array_equal(read.reshape(-1, 3)[1:], rgb.reshape(-1, 3)[1:])
    assert read.dtype == np.uint8 and set(read[0, 0]) == {0x12}


@pytest.mark.parametrize("suffix", sorted(predict.EXTENSIONS))
def test_every_known_kind_of_file_is_read(tmp_path, suffix):
    image = picture(64, 96, (30, 30), (60, 40), (80, 20))
    save(tmp_path / f"a{suffix}", image)
    assert np.abs(predict.read(tmp_path / f"a{suffix}").astype(int) - image).mean() < 8


def damaged(folder):
    """Files that are no pictures, by name."""
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
    return sorted([*files, "folder.jpg", "gone.jpg"])


def test_unreadable_pictures_are_named_and_the_others_written(spots, tmp_path, capfd):
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    save(tmp_path / "in/z.jpg", picture(50, 50, (20, 20)))
    names = damaged(tmp_path / "in")
    code, result = run(tmp_path, tmp_path / "in")
    assert code == 1
    assert [image["file_name"] for image in result["images"]] == ["a.png", "z.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "predictions.json", "z.png"]
    output, errors = capfd.readouterr()
    skipped = [line for line in errors.splitlines() if line.startswith("Skipped")]
    assert skipped == [f"Skipped {tmp_path}/in/{name}: not a picture that can be read." for name in names]
    assert output.splitlines()[-1] == f"2 people in 2 pictures -> {tmp_path / 'out'}"


# Files.


def test_file_is_coco_keypoint_json(spots, tmp_path):
    save(tmp_path / "in/a.png", picture(100, 160, (40, 30), (120, 60), (80, 50), radius=0.02))
    save(tmp_path / "in/b.png", picture(60, 60, (30, 30)))
    (tmp_path / "boxes.json").write_text('{"a.png": [[20, 10, 40, 40], [100, 40, 40, 20]]}')
    code, result = run(tmp_path, tmp_path / "in", boxes=tmp_path / "boxes.json")
    assert code == 0 and result.keys() == {"images", "annotations", "categories"}
    (category,) = result["categories"]
    assert (category["id"], category["name"]) == (1, "person")
    assert category["keypoints"] == list(skeletons.MPII.joints)
    limbs = np.array(category["skeleton"])
    assert limbs.min() == 1 and limbs.max() == 16 and [1, 2] in category["skeleton"]
    assert result["images"] == [
        {"id": 1, "file_name": "a.png", "width": 160, "height": 100},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 60},
    ]
    people = result["annotations"]
    assert [(p["id"], p["image_id"], p["category_id"]) for p in people] == [(1, 1, 1), (2, 1, 1), (3, 2, 1)]
    for person in people:
        points, scores = keypoints(person), np.array(person["keypoint_scores"])
        assert len(person["keypoints"]) == 48 and person["num_keypoints"] == (points[:, 2] == 2).sum()
        np.testing.assert_array_equal(points[:, 2], np.where(scores >= 0.1, 2, 1))
        assert person["score"] == pytest.approx(scores.mean(), abs=1e-4)
    # Two boxes in one picture: each one's crop is 1.25 times the longer side around its middle.
    assert people[0]["bbox"] == [15, 5, 50, 50] and people[1]["bbox"] == [95, 25, 50, 50]
    assert people[2]["bbox"] == [0, 0, 60, 60]
    assert np.abs(keypoints(people[0])[RED, :2] - (40, 30)).max() < 3
    assert np.abs(keypoints(people[1])[GREEN, :2] - (120, 60)).max() < 3
    assert keypoints(people[0])[GREEN, 2] == 1  # the green spot is not in this crop


def test_overlays_show_joints_above_the_threshold(spots, tmp_path):
    image = picture(120, 120, (40, 40), (80, 80))
    save(tmp_path / "a.png", image)
    for threshold, drawn in ((0.1, True), (1.1, False)):
        output = tmp_path / f"out{threshold}"
        run(tmp_path, tmp_path / "a.png", threshold=threshold, output=output)
        overlay = cv2.imread(str(output / "a.png"))[..., ::-1]
        assert overlay.shape == image.shape
        assert (overlay != image).any() == drawn


def test_both_people_of_a_picture_are_drawn_in_one_overlay(spots, tmp_path):
    save(tmp_path / "a.png", picture(100, 300, (50, 50), (250, 50)))
    (tmp_path / "boxes.json").write_text('{"a.png": [[10, 10, 80, 80], [210, 10, 80, 80]]}')
    for batch_size in (1, 8):
        output = tmp_path / f"out{batch_size}"
        run(tmp_path, tmp_path / "a.png", boxes=tmp_path / "boxes.json", batch_size=batch_size, output=output)
        changed = (cv2.imread(str(output / "a.png")) != cv2.imread(str(tmp_path / "a.png"))).any(axis=(0, 2))
        assert changed[:100].any() and changed[200:].any()
    one, two = ((tmp_path / f"out{n}" / "a.png").read_bytes() for n in (1, 8))
    assert one == two


def test_pictures_of_the_same_name_do_not_collide(spots, tmp_path):
    for name, size in (("a/x.png", 40), ("b/x.png", 50), ("b/x.jpg", 60), ("b/x_2.png", 70)):
        save(tmp_path / name, picture(size, size, (20, 20)))
    code, result = run(tmp_path, tmp_path / "a", tmp_path / "b")
    assert code == 0 and len(result["images"]) == 4
    overlays = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert overlays == ["x.png", "x_2.png", "x_2_2.png", "x_3.png"]
    for file, size in (("x.png", 40), ("x_2.png", 60), ("x_3.png", 50), ("x_2_2.png", 70)):
        assert cv2.imread(str(tmp_path / "out" / file)).shape == (size, size, 3), file


def test_a_picture_is_never_overwritten(spots, tmp_path, capsys):
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    before = (tmp_path / "in/a.png").read_bytes()
    code, result = run(tmp_path, tmp_path / "in", output=tmp_path / "in")
    assert code == 1 and result is None and (tmp_path / "in/a.png").read_bytes() == before
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "overwrite" in error and error.count("\n") == 1


# What is refused.


@pytest.mark.parametrize(
    "paths, flags, message",
    [
        (["none"], {}, "none: there is no such file or folder."),
        (["in", "none.jpg"], {}, "none.jpg: there is no such file or folder."),
        (["nothing"], {}, "nothing holds no pictures (.bmp, .jpeg, .jpg,"),
        (["in"], {"boxes": "none.json"}, "none.json"),
        (["in"], {"boxes": "list.json"}, "list.json: expected json like"),
        (["in"], {"boxes": "broken.json"}, "broken.json: expected json like"),
        (["in"], {"boxes": "three.json"}, "three.json: expected json like"),
        (["in"], {"boxes": "flat.json"}, "flat.json: expected json like"),
        (["in"], {"boxes": "negative.json"}, "negative.json: expected json like"),
        (["in"], {"boxes": "infinite.json"}, "infinite.json: expected json like"),
        (["in"], {"batch_size": "0"}, "batch_size=0 must be at least 1."),
        (["in"], {"workdir": "in"}, "in holds no checkpoints; is it the --workdir of a training?"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, paths, flags, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    (tmp_path / "nothing").mkdir()
    boxes = {
        **{"list": "[[1, 2, 3, 4]]", "broken": '{"a.png": [[1, 2', "three": '{"a.png": [[1, 2, 3]]}'},
        **{"flat": '{"a.png": [1, 2, 3, 4]}', "negative": '{"a.png": [[1, 2, -3, 4]]}'},
        "infinite": '{"a.png": [[NaN, 2, 3, Infinity]]}',
    }
    for name, text in boxes.items():
        (tmp_path / f"{name}.json").write_text(text)
    code = predict.main(
        [*paths, *(f"--{k}={v}" for k, v in ({"workdir": "w", "output": "out"} | flags).items())]
    )
    output, errors = capfd.readouterr()
    assert code == 1 and output == "" and not (tmp_path / "out").exists()
    assert errors.startswith("Error: ") and errors.count("\n") == 1 and message in errors


def test_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for flag in ("--workdir", "--output", "--boxes", "--threshold", "--no-flip", "--batch_size"):
        assert flag in text
