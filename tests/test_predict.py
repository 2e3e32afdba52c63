"""The command predict: drawings, files, skipped and refused input."""

import csv
import fractions
import json
import os
import pathlib

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SPOTS, Spots, picture
from PIL import Image

from hourglass_jax import loading, predict, predictor
from hourglass_jax.media import draw, pictures, videos
from hourglass_jax.network import Metadata, Network
from hourglass_jax.pose import skeletons

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs", "one_look")


@pytest.fixture
def one_look(monkeypatch):
    """One look only: the tests' spots are not a body, so their extent is not a person's size."""
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 99)


RED, GREEN, BLUE = (skeletons.MPII.joints.index(name) for name in SPOTS)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def run(tmp_path, *arguments, **flags):
    """The command's exit code, and predictions.json."""
    flags = {"checkpoint": "any", "output": tmp_path / "out"} | flags
    code = predict.main([*map(str, arguments), *(f"--{name}={value}" for name, value in flags.items())])
    file = pathlib.Path(flags["output"]) / "predictions.json"
    return code, json.loads(file.read_text()) if file.exists() else None


def keypoints(annotation):
    return np.array(annotation["keypoints"]).reshape(-1, 3)


def shown(path):
    return cv2.imread(str(path))[..., ::-1]


# Files.


@pytest.mark.parametrize("form", ["results", "dataset"])
def test_files_are_cocos_results_or_a_data_set(spots, tmp_path, form):
    save(tmp_path / "in/a.png", picture(100, 160, (40, 30), (120, 60), (80, 50), radius=0.02))
    save(tmp_path / "in/b.png", picture(60, 60, (30, 30)))
    (tmp_path / "boxes.json").write_text('{"a.png": [[20, 10, 40, 40], [100, 40, 40, 20]]}')
    code, people = run(tmp_path, tmp_path / "in", boxes=tmp_path / "boxes.json", format=form)
    assert code == 0
    if form == "dataset":
        assert people.keys() == {"images", "annotations", "categories"}
        (category,) = people["categories"]
        assert (category["id"], category["name"]) == (1, "person")
        assert category["keypoints"] == list(skeletons.MPII.joints)
        limbs = np.array(category["skeleton"])
        assert limbs.min() == 1 and limbs.max() == 16 and [1, 2] in category["skeleton"]
        assert people["images"] == [
            {"id": 1, "file_name": "a.png", "width": 160, "height": 100},
            {"id": 2, "file_name": "b.png", "width": 60, "height": 60},
        ]
        people = people["annotations"]
        assert [p["id"] for p in people] == [1, 2, 3]
        for person in people:
            assert person["num_keypoints"] == (keypoints(person)[:, 2] == 2).sum()
    else:
        assert [p["file_name"] for p in people] == ["a.png", "a.png", "b.png"]
    assert isinstance(people, list)  # as `loadRes` needs it
    assert [(p["image_id"], p["category_id"]) for p in people] == [(1, 1), (1, 1), (2, 1)]
    for person in people:
        points, scores = keypoints(person), np.array(person["keypoint_scores"])
        assert len(person["keypoints"]) == 48
        np.testing.assert_array_equal(points[:, 2], np.where(scores >= 0.1, 2, 0))  # 1 would be occluded
        assert person["score"] == pytest.approx(scores.mean(), abs=1e-4)
    # The given boxes, or the picture's, and not the network's squares.
    assert people[0]["bbox"] == [20, 10, 40, 40] and people[1]["bbox"] == [100, 40, 40, 20]
    assert people[2]["bbox"] == [0, 0, 60, 60]
    assert np.abs(keypoints(people[0])[RED, :2] - (40, 30)).max() < 3
    assert np.abs(keypoints(people[1])[GREEN, :2] - (120, 60)).max() < 3
    assert keypoints(people[0])[GREEN, 2] == 0  # the green spot is not in this crop


def test_names_distinguish_files_of_one_name_and_are_cocos_ids(spots, tmp_path):
    for name in ("a/1.png", "b/1.png", "b/\udce9.png"):  # the last one is not UTF-8
        save(tmp_path / name, picture(40, 40, (20, 20)))
    code, people = run(tmp_path, tmp_path / "a", tmp_path / "b", "--csv")
    assert code == 0 and [p["file_name"] for p in people] == ["a/1.png", "b/1.png", "b/\udce9.png"]
    with open(tmp_path / "out/predictions.csv", newline="", encoding="utf-8") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {"a/1.png", "b/1.png", "b/\\udce9.png"}
    save(tmp_path / "c/000000397133.png", picture(40, 40, (20, 20)))
    _, people = run(tmp_path, tmp_path / "c")
    assert [(p["image_id"], p["file_name"]) for p in people] == [(397133, "000000397133.png")]


def test_skipped_and_changed_pictures_are_noted(spots, tmp_path, capfd):
    save(tmp_path / "in/a.png", picture(40, 60, (20, 20))[..., 0].astype(np.uint16) * 16)
    (tmp_path / "in/note.txt").touch()
    (tmp_path / "in/clip.mp4").mkdir()
    code, people = run(tmp_path, tmp_path / "in")
    output, errors = capfd.readouterr()
    assert code == 1 and len(people) == 1
    for line in (
        f"Note: {tmp_path}/in: skipped 1 .txt.",
        f"Note: {tmp_path}/in/a.png: its values use 12 of 16 bits, and were brightened.",
        "Note: without boxes the whole picture is treated as one person; --boxes or --detector says "
        "where the people are.",
        f"Skipped {tmp_path}/in/clip.mp4: a folder, not a picture or video",
    ):
        assert line in errors.splitlines()
    assert output.splitlines()[-1] == f"1 crop in 1 picture, 1 skipped -> {tmp_path / 'out'}"


def test_table_has_a_row_for_each_joint(spots, tmp_path):
    save(tmp_path / "in/a, b.png", picture(60, 60, (30, 40)))
    code, result = run(tmp_path, tmp_path / "in", "--csv")
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert code == 0 and rows[0] == ["file", "frame", "time", "person", "joint", "x", "y", "score"]
    names = skeletons.MPII.joints
    assert [row[:5] for row in rows[1:]] == [["a, b.png", "", "", "1", name] for name in names]
    (person,) = result
    found = np.array([row[5:] for row in rows[1:]], float)
    np.testing.assert_allclose(found[:, :2], keypoints(person)[:, :2])
    np.testing.assert_allclose(found[:, 2], person["keypoint_scores"])


def test_protocol_is_the_predictors(spots, tmp_path, capsys, monkeypatch):
    save(tmp_path / "a.png", picture(60, 60, (30, 40)))
    asked, real = [], predict.Predictor
    monkeypatch.setattr(
        predict, "Predictor", lambda *args, **options: asked.append(options) or real(*args, **options)
    )
    code, result = run(tmp_path, tmp_path / "a.png", scales="0.8,1,1.2", decode="dark")
    assert code == 0 and np.abs(keypoints(result[0])[RED, :2] - (30, 40)).max() < 3
    assert (asked[0]["scales"], asked[0]["decode"]) == ((0.8, 1.0, 1.2), "dark")
    for wrong in ("1,a", "1,,2", "0,1", "nan", "", "0.001"):
        with pytest.raises(SystemExit):
            run(tmp_path, tmp_path / "a.png", scales=wrong)
        assert f"{wrong!r} is not numbers from 0.1 to 10, such as 0.8,1,1.2" in capsys.readouterr().err
    for wrong in ("2", "nan"):
        with pytest.raises(SystemExit):
            run(tmp_path, tmp_path / "a.png", threshold=wrong)
        assert f"--threshold={float(wrong)}: scores reach about 1" in capsys.readouterr().err


def test_videos_come_out_as_videos(spots, tmp_path, capsys):
    pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    with videos.writing(tmp_path / "in/clip.mp4", fractions.Fraction(10)) as write:
        for x in (80, 160, 240):
            write(picture(240, 320, (x, 120)))
    save(tmp_path / "in/a.png", picture(60, 60, (30, 30)))
    (tmp_path / "in/broken.mov").write_bytes(b"no video")
    code, result = run(tmp_path, tmp_path / "in", "--csv", batch_size=2)
    assert code == 1  # because of the broken one
    assert sorted(os.listdir(tmp_path / "out")) == [
        "a.png",
        "clip.mp4",
        "predictions.csv",
        "predictions.json",
    ]
    assert [(p["file_name"], p.get("frame"), p.get("time")) for p in result] == [
        ("a.png", None, None), ("clip.mp4", 0, 0), ("clip.mp4", 1, 0.1), ("clip.mp4", 2, 0.2)
    ]  # fmt: skip
    about = videos.about(tmp_path / "out/clip.mp4")
    assert (about.frames, about.rate) == (3, fractions.Fraction(10))
    for x, before, after, person in zip(
        (80, 160, 240),
        videos.frames(tmp_path / "in/clip.mp4"),
        videos.frames(tmp_path / "out/clip.mp4"),
        result[1:],
        strict=True,
    ):
        assert np.abs(keypoints(person)[RED, :2] - (x, 120)).max() < 15
        assert after.time == before.time and after.image.shape == before.image.shape
        assert np.abs(after.image.astype(int) - before.image).max() > 50
    assert "4 crops in 4 pictures, 1 skipped" in capsys.readouterr().out
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 1 + 4 * 16


class Webcam:
    """Replaces `cv2.VideoCapture`; the user stops after five frames."""

    read_ = 0

    def __init__(self, number, *options):
        assert number == 7

    def isOpened(self):
        return True

    def get(self, what):
        return -1.0

    def read(self):
        Webcam.read_ += 1
        return True, picture(48, 64, (10 + Webcam.read_, 20))

    def release(self):
        pass


def test_a_cameras_video_is_complete_after_an_interruption(spots, tmp_path, capsys, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(predict.live.cv2, "VideoCapture", Webcam)
    monkeypatch.chdir(tmp_path)
    skeleton, drawn = draw.skeleton, []

    def interrupted(*arguments, **options):
        drawn.append(1)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return skeleton(*arguments, **options)

    monkeypatch.setattr(draw, "skeleton", interrupted)
    code, people = run(tmp_path, "7", "--smooth", colours="person")
    assert code == 0 and sorted(os.listdir("out")) == ["camera7.mp4", "predictions.json"]
    assert [(p["file_name"], p["frame"], p["track_id"]) for p in people] == [
        ("camera7.mp4", t, 1) for t in range(4)
    ]
    assert people[3]["time"] > people[1]["time"] >= 0
    times = [frame.time for frame in videos.frames("out/camera7.mp4")]
    assert len(times) == 4 and float(times[3] - times[1]) == pytest.approx(
        people[3]["time"] - people[1]["time"]
    )
    assert "4 crops in 4 pictures -> " in capsys.readouterr().out
    code, _ = run(tmp_path, "a.png", min_cutoff=0)
    assert code == 1 and "Error: min_cutoff=0.0: give a number above 0." in capsys.readouterr().err


class Attending(nn.Module):
    """`Spots`, with attention on red pixels."""

    @nn.compact
    def __call__(self, image, train=False):
        red = image.reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4))[..., :1]
        attention = {"stack1_refined": red / 100, "stack1_parts": red * jnp.ones(16)}
        return Spots()(image)._replace(attention=attention)


def test_attention_is_drawn_for_each_person_and_joint(spots, monkeypatch, tmp_path):
    network = Network(Attending(), skeletons.MPII, 64, (0.0, 0.0, 0.0), 1.0, logits=False)
    monkeypatch.setattr(loading, "load", lambda path, mesh: (network, {}, Metadata({}, {}, 1)))
    save(tmp_path / "in/a.png", picture(100, 160, (40, 30)))
    (tmp_path / "boxes.json").write_text('{"a.png": [[20, 10, 40, 40], [100, 40, 40, 20]]}')
    code, _ = run(tmp_path, tmp_path / "in", "--attention", boxes=tmp_path / "boxes.json")
    assert code == 0 and sorted(os.listdir(tmp_path / "out")) == [
        "a.png",
        "a_attention.png",
        "predictions.json",
    ]
    sheet = shown(tmp_path / "out/a_attention.png")
    # 2 people with one stack: the crop, a map for each of 16 joints and the refined one.
    assert sheet.shape[0] % 2 == 0 and sheet.shape[1] == 18 * 164
    last = sheet[: sheet.shape[0] // 2, 17 * 164 :].sum(-1)[-162:]  # without its title
    y, x = np.unravel_index(cv2.blur(last[:160, 2:162].astype(np.float32), (9, 9)).argmax(), (160, 160))
    # The crop is 50 px from (15, 5) on, in 160 px, and the spot at (40, 30) is its centre; 0.01 at most, it
    # is drawn as bright as any other.
    np.testing.assert_allclose([x, y], 80, atol=12)
    assert last[y, x + 2] > 500  # of 0.01 it would be 102 of the red spot and little else


def test_attention_of_a_network_without_it_is_refused_before_anything_is_written(spots, tmp_path, capsys):
    save(tmp_path / "a.png", picture(60, 60, (40, 30)))
    code, _ = run(tmp_path, tmp_path / "a.png", "--attention")
    assert code == 1 and not (tmp_path / "out").exists()
    message = "--attention: this network has no attention maps; give a --checkpoint of chu or selvam."
    assert message in capsys.readouterr().err


def test_heatmaps_are_drawn_for_each_person_and_joint(spots, tmp_path):
    save(tmp_path / "in/a.png", picture(100, 160, (40, 30)))
    save(tmp_path / "in/a_heatmaps.png", picture(60, 60, (40, 30)))  # its overlay would be of the same name
    (tmp_path / "boxes.json").write_text(
        '{"a.png": [[20, 10, 40, 40], [100, 40, 40, 20]], "a_heatmaps.png": []}'
    )
    code, _ = run(tmp_path, tmp_path / "in", "--heatmaps", boxes=tmp_path / "boxes.json")
    assert code == 0 and sorted(os.listdir(tmp_path / "out")) == [
        "a.png", "a_heatmaps.png", "a_heatmaps_2.png", "predictions.json"
    ]  # fmt: skip
    sheet = shown(tmp_path / "out/a_heatmaps.png")
    tile = draw.titled(np.zeros((predict._TILE, predict._TILE, 3), np.uint8), "pelvis")
    height, width = (size + 4 for size in tile.shape[:2])
    assert sheet.shape == (4 * height, 8 * width, 3)  # 2 people of 16 joints in rows of 8

    def brightest(joint):
        row, column = divmod(joint, 8)
        cell = sheet[row * height + 2 : (row + 1) * height, column * width + 2 : (column + 1) * width].astype(
            int
        )
        cell = cell[tile.shape[0] - predict._TILE :]
        y, x = np.unravel_index(cv2.blur(cell.sum(-1).astype(np.float32), (9, 9)).argmax(), cell.shape[:2])
        return x, y

    # The first person's crop is 50 px from (15, 5) on: (40, 30) is its centre.
    np.testing.assert_allclose(brightest(RED), [predict._TILE / 2] * 2, atol=15)


@pytest.mark.parametrize("form", ["results", "dataset", "names"])
def test_boxes_may_be_cocos_detections(spots, tmp_path, capfd, form):
    for name in ("12.png", "b.png", "c.png"):
        save(tmp_path / "in" / name, picture(100, 160, (40, 30)))
    boxes = [[20, 10, 40, 40], [20, 10, 40, 41], [100, 40, 40, 20], [0, 0, 9, 9], [1, 1, 9, 9]]
    scores, categories = [0.9, 0.8, 0.7, 0.3, 0.99], [1, 1, 1, 1, 18]
    records = [
        {"image_id": 12, "category_id": category, "bbox": box, "score": score}
        for box, score, category in zip(boxes, scores, categories, strict=True)
    ] + [{"image_id": "b.png", "bbox": [3, 4, 50, 60]}]
    if form == "dataset":
        records[-1]["image_id"] = 5
        names = {12: "12.png", 5: "b.png", 6: "c.png"}
        images = [{"id": id_, "file_name": name} for id_, name in names.items()]
        records = {"images": images, "annotations": records}
    elif form == "names":
        records = [record | {"image_id": 1, "file_name": "12.png"} for record in records[:-1]] + [
            records[-1] | {"image_id": 2, "file_name": "b.png"}
        ]
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    code, people = run(tmp_path, tmp_path / "in", boxes=tmp_path / "boxes.json")
    assert code == 0
    # One of two boxes of the same person, no box below 0.5, no dog.
    assert [(p["file_name"], p["bbox"]) for p in people] == [
        ("12.png", boxes[0]), ("12.png", boxes[2]), ("b.png", [3, 4, 50, 60])
    ]  # fmt: skip
    output, errors = capfd.readouterr()
    assert f"Note: {tmp_path}/boxes.json has no boxes for c.png: no person is searched for there." in errors
    assert "3 people in 3 pictures" in output
    _, people = run(
        tmp_path,
        tmp_path / "in",
        boxes=tmp_path / "boxes.json",
        detector_threshold=0.2,
        detector_overlap=1,
        people=3,
    )
    assert [p["bbox"] for p in people[:3]] == boxes[:3] and len(people) == 4


def test_a_detector_is_chosen_by_its_name(spots, tmp_path, capsys, monkeypatch):
    asked = []

    def named(name):
        asked.append(name)
        return lambda image: ([[20, 10, 40, 40], [80, 10, 40, 40]], [0.9, 0.4], ["person", "child"])

    monkeypatch.setattr(predict.detectors, "named", named)
    save(tmp_path / "a.png", picture(100, 160, (40, 30)))
    _, people = run(tmp_path, tmp_path / "a.png", detector="torchvision")
    assert asked == ["torchvision"] and [p["bbox"] for p in people] == [[20, 10, 40, 40]]
    flags = {"detector_classes": "person,child", "detector_threshold": 0.3}
    _, people = run(tmp_path, tmp_path / "a.png", detector="any", **flags)
    assert len(people) == 2 and "2 people in 1 picture ->" in capsys.readouterr().out
    code, _ = run(tmp_path, tmp_path / "a.png", detector="any", detector_threshold=2)
    assert code == 1 and "Error: threshold=2.0: give a number from 0 to 1." in capsys.readouterr().err
    (tmp_path / "boxes.json").write_text('{"a.png": [[0, 0, 160, 100]]}')
    run(tmp_path, tmp_path / "a.png", boxes=tmp_path / "boxes.json")
    assert "1 crop in 1 picture ->" in capsys.readouterr().out  # the crop is the whole picture


def test_both_people_of_a_picture_are_drawn_in_one_overlay(spots, tmp_path):
    save(tmp_path / "a.png", picture(100, 400, (50, 50), (350, 50)))
    (tmp_path / "boxes.json").write_text('{"a.png": [[10, 10, 80, 80], [310, 10, 80, 80]]}')
    for batch_size in (1, 8):
        output = tmp_path / f"out{batch_size}"
        run(tmp_path, tmp_path / "a.png", boxes=tmp_path / "boxes.json", batch_size=batch_size, output=output)
        changed = (shown(output / "a.png") != shown(tmp_path / "a.png")).any(axis=(0, 2))
        assert changed[:100].any() and changed[300:].any()
    one, two = ((tmp_path / f"out{n}" / "a.png").read_bytes() for n in (1, 8))
    assert one == two


def test_overlays_show_joints_above_the_threshold(spots, tmp_path):
    image = picture(400, 400, (140, 140), (280, 280))
    save(tmp_path / "a.png", image)
    for threshold, drawn in ((0.1, True), (1.0, False)):
        output = tmp_path / f"out{threshold}"
        code, result = run(tmp_path, tmp_path / "a.png", threshold=threshold, output=output)
        overlay = shown(output / "a.png")
        assert overlay.shape == image.shape and (overlay != image).any() == drawn
        assert (keypoints(result[0])[:, 2] > 0).any() == drawn


def test_pictures_of_the_same_name_do_not_collide(spots, tmp_path):
    for name, size in (("a/x.png", 340), ("b/x.png", 350), ("b/x.jpg", 360), ("b/x_2.png", 370)):
        save(tmp_path / name, picture(size, size, (20, 20)))
    code, result = run(tmp_path, tmp_path / "a", tmp_path / "b", tmp_path / "a/x.png")
    assert code == 0 and len(result) == 4  # given twice, used once
    overlays = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert overlays == ["x.png", "x_2.png", "x_2_2.png", "x_3.png"]
    for file, size in (("x.png", 340), ("x_2.png", 360), ("x_3.png", 350), ("x_2_2.png", 370)):
        assert shown(tmp_path / "out" / file).shape == (size, size, 3), file


def test_unreadable_pictures_are_named_and_the_others_written(spots, tmp_path, capfd):
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    save(tmp_path / "in/z.jpg", picture(50, 50, (20, 20)))
    names = ["cut.jpg", "text.png"]
    (tmp_path / "in/cut.jpg").write_bytes((tmp_path / "in/z.jpg").read_bytes()[:400])
    (tmp_path / "in/text.png").write_bytes(b"no picture")
    code, result = run(tmp_path, tmp_path / "in")
    assert code == 1
    assert [person["file_name"] for person in result] == ["a.png", "z.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "predictions.json", "z.png"]
    output, errors = capfd.readouterr()
    skipped = [line.partition(" (")[0] for line in errors.splitlines() if line.startswith("Skipped")]
    assert skipped == [f"Skipped {tmp_path}/in/{name}: not a picture that can be read" for name in names]
    assert output.splitlines()[-1] == f"2 crops in 2 pictures, 2 skipped -> {tmp_path / 'out'}"


@pytest.mark.parametrize("what", ["picture", "boxes"])
def test_input_files_are_never_overwritten(spots, tmp_path, capsys, what):
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    boxes = tmp_path / "in/predictions.json"
    boxes.write_text('{"a.png": [[1, 2, 30, 40]]}')
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    if what == "boxes":
        code, _ = run(tmp_path, tmp_path / "in/a.png", boxes=boxes, output=tmp_path / "in")
    else:
        code, _ = run(tmp_path, tmp_path / "in", output=tmp_path / "link")
    assert code == 1 and before == {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "overwrite" in error and error.count("\n") == 1


def test_an_interruption_leaves_complete_files_and_is_reported(spots, tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        save(tmp_path / f"in/{name}.png", picture(50, 50, (20, 20)))
    skeleton, calls = draw.skeleton, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return skeleton(*arguments, **options)

    monkeypatch.setattr(draw, "skeleton", interrupted)
    code, result = run(tmp_path, tmp_path / "in")
    assert code == 130 and os.listdir(tmp_path / "out") == ["a.png"]
    assert shown(tmp_path / "out/a.png").shape == (50, 50, 3)
    assert capsys.readouterr().err.splitlines()[-1] == "Interrupted; the files written so far are complete."


# Refused input.


@pytest.mark.parametrize(
    "paths, flags, message",
    [
        (["none"], {}, "none: there is no such file or folder."),
        (["in", "none.jpg"], {}, "none.jpg: there is no such file or folder."),
        (["nothing"], {}, "nothing holds no pictures or videos (.3g2, .3gp,"),
        (["in"], {"boxes": "none.json"}, "none.json"),
        (["in"], {"boxes": "list.json"}, "list.json: expected json like {"),
        (
            ["in"],
            {"boxes": "coco.json"},
            "its boxes belongs to a person (category_id 1) in these pictures; image_id [7]",
        ),
        (["in"], {"detector": "yolo"}, "detector='yolo' is unknown; choose from torchvision"),
        (["in"], {"boxes": "broken.json"}, "broken.json: not readable as json"),
        (["in"], {"boxes": "three.json"}, "boxes of 'a.png': expected [[x, y, width, height], ...]"),
        (["in"], {"boxes": "name.json"}, "boxes: there is no picture 'b.png'; did you mean a.png?"),
        (["in"], {"batch_size": "0"}, "batch_size=0 must be in 1 ... 4096."),
        (["in"], {"output": "list.json"}, "--output=list.json: list.json is a file; choose another folder."),
        (["in"], {"output": "list.json/a/b"}, "--output=list.json/a/b: list.json is a file; choose"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    spots, tmp_path, monkeypatch, capfd, paths, flags, message
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in/a.png", picture(50, 50, (20, 20)))
    (tmp_path / "nothing").mkdir()
    boxes = {
        **{"list": "[[1, 2, 3, 4]]", "broken": '{"a.png": [[1, 2'},
        "coco": '[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
        **{"three": '{"a.png": [[1, 2, 3]]}', "name": '{"b.png": [[1, 2, 3, 4]]}'},
    }
    for name, text in boxes.items():
        (tmp_path / f"{name}.json").write_text(text)
    code, _ = run(tmp_path, *paths, **{"checkpoint": "w", "output": "out"} | flags)
    output, errors = capfd.readouterr()
    assert code == 1 and output == "" and not (tmp_path / "out").exists()
    assert errors.startswith("Error: ") and errors.count("\n") == 1 and message in errors


@pytest.mark.parametrize("flag", ["checkpoint", "workdir"])
def test_a_folder_without_a_network_is_refused(tmp_path, capsys, flag):
    save(tmp_path / "a.png", picture(50, 50, (20, 20)))
    code = predict.main([str(tmp_path / "a.png"), f"--{flag}={tmp_path}", f"--output={tmp_path / 'out'}"])
    assert code == 1
    message = f"Error: {tmp_path} holds no checkpoints; is it the --workdir of a training?"
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    flags = "--checkpoint --workdir --output --boxes --threshold --no-flip --csv --heatmaps --attention"
    for flag in (*flags.split(), "--device", "--batch_size"):
        assert flag in text


def test_progress_knows_the_total(tmp_path):
    pytest.importorskip("av")
    save(tmp_path / "a.png", picture(50, 50, (20, 20)))
    with videos.writing(tmp_path / "b.mp4", fractions.Fraction(10)) as write:
        for _ in range(5):
            write(picture(64, 64, (20, 20)))
    assert predict._count(pictures.find([tmp_path])) == 6
    (tmp_path / "c.mp4").write_bytes(b"no video")
    assert predict._count(pictures.find([tmp_path])) is None
