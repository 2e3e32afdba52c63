"""Drawn people: the properties that the rest of the project relies on."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hourglass_jax.data.synthetic import SyntheticPeople, __main__, painting, scene
from hourglass_jax.data.synthetic import figure as figures


@pytest.fixture(scope="module")
def examples():
    people = SyntheticPeople(split="train", examples=600, canvas=96)
    return [people[index] for index in range(600)]


def standing_figure(turn: float, **angles) -> figures.Figure:
    """An average adult with hanging limbs; `angles` are degrees by the name of the frame."""
    degrees = np.zeros((14, 3))
    degrees[1, 2] = turn
    # The arms are slightly away from the trunk.
    degrees[4, 1], degrees[6, 1] = -25, 25
    for name, value in angles.items():
        degrees[int(name.removeprefix("frame"))] = value
    return figures.build_figure(degrees, np.ones(20), 1.0)


def bare_picture(figure, scale=150.0, size=400):
    """A picture of part number 0 with only the figure, and its joints."""
    look = painting.random_look(np.random.default_rng(0))
    view = painting.View(np.array((size / 2, size / 2)), scale, True)
    picture = np.zeros((size, size, 4), np.uint8)
    painting.paint_person(picture, figure, look, view)
    return picture, view.flat(figure.nodes[:16])


def test_examples_do_not_depend_on_instance_order_or_thread():
    first = SyntheticPeople(split="train", examples=40, seed=3, canvas=64)
    second = SyntheticPeople(split="train", examples=80, seed=3, canvas=64)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(second.__getitem__, reversed(range(40))))[::-1]
    for index, other in enumerate(drawn):
        for name, value in first[index].items():
            np.testing.assert_array_equal(value, other[name])


def test_an_example_never_changes():
    """Configs and published scores refer to pictures by seeds, so no change of the code may move a joint."""
    example = SyntheticPeople(split="train", examples=3, canvas=96)[2]
    first = [[69.284, 68.623], [60.287, 64.329], [54.965, 54.438], [58.875, 54.781]]
    np.testing.assert_allclose(example["joints"][:4], first, atol=2e-3)
    np.testing.assert_allclose(example["joints"][15], [68.256, 41.894], atol=2e-3)
    assert example["head_size"] == pytest.approx(8.18473, abs=1e-4)
    np.testing.assert_allclose(example["image"].mean((0, 1)), [68.94, 130.12, 112.87], atol=0.05)


def test_splits_seeds_and_indices_differ():
    sources = [("train", 0), ("validation", 0), ("train", 1)]
    poses = [
        SyntheticPeople(split=split, examples=100, seed=seed, canvas=32)[index]["joints"].tobytes()
        for split, seed in sources
        for index in range(100)
    ]
    assert len(set(poses)) == 300


def test_canvas_only_changes_the_resolution():
    small = SyntheticPeople(split="train", examples=60, canvas=128)
    large = SyntheticPeople(split="train", examples=60, canvas=256)
    same_flags = []
    for index in range(60):
        a, b = small[index], large[index]
        both = (a["visible"] > 0) & (b["visible"] > 0)
        np.testing.assert_allclose(2 * a["joints"][both], b["joints"][both], atol=1e-3)
        np.testing.assert_allclose(2 * a["head_size"], b["head_size"], rtol=1e-5)
        np.testing.assert_array_equal(2 * a["center"], b["center"])
        assert 2 * a["scale"] == b["scale"]
        same_flags.append((a["visible"] == b["visible"]).mean())
    assert np.mean(same_flags) > 0.97


def test_fields(examples):
    for index, example in enumerate(examples):
        assert example["image"].shape == (96, 96, 3) and example["image"].dtype == np.uint8
        assert example["joints"].shape == (16, 2) and example["joints"].dtype == np.float32
        assert example["visible"].dtype == np.uint8
        assert example["center"].tolist() == [48, 48]
        np.testing.assert_allclose(example["scale"] * 200, 64, rtol=1e-6)
        assert example["id"] == f"synthetic-train-{index:06d}"
        labelled = example["visible"] > 0
        assert (example["joints"][~labelled] == 0).all()
        assert (0 <= example["joints"]).all() and (example["joints"] < 96).all()


def test_flags_have_the_stated_shares(examples):
    flags = np.stack([example["visible"] for example in examples])
    assert 0.05 < (flags == 0).any(1).mean() < 0.10
    occluded = (flags == 1).sum() / (flags > 0).sum()
    assert 0.10 < occluded < 0.18


def test_a_person_fills_four_fifths_of_the_nominal_crop(examples):
    whole = [e for e in examples if (e["visible"] > 0).all()]
    spans = np.array([np.ptp(e["joints"], axis=0).max() / 64 for e in whole])
    middles = np.array([(e["joints"].min(0) + e["joints"].max(0)) / 2 - 48 for e in whole]) / 64
    assert 0.6 < np.median(spans) < 0.8 and spans.max() < 0.9
    assert np.abs(middles.mean(0)).max() < 0.05 and np.abs(middles).max() < 0.2


def test_people_face_all_directions_equally_often(examples):
    joints = np.stack([e["joints"] for e in examples if (e["visible"] > 0).all()])
    for right, left in ((12, 13), (2, 3)):
        share = (joints[:, left, 0] > joints[:, right, 0]).mean()
        assert 0.43 < share < 0.57


def test_elbows_and_knees_bend_one_way_only():
    rng = np.random.default_rng(0)
    for _ in range(200):
        figure = figures.random_figure(rng)
        for upper, lower, sign in ((4, 5, 1), (6, 7, 1), (8, 9, -1), (10, 11, -1)):
            ahead = figure.frames[upper, :, 2] @ -figure.frames[lower, :, 1]
            assert sign * ahead > -1e-6


def test_bones_have_the_lengths_of_a_body():
    for seed in range(200):
        figure = figures.random_figure(np.random.default_rng(seed))
        length = {
            (a, b): np.linalg.norm(figure.nodes[a] - figure.nodes[b])
            for a, b in ((0, 1), (5, 4), (1, 2), (4, 3), (11, 12), (14, 13), (8, 9))
        }
        for right, left in (((0, 1), (5, 4)), ((1, 2), (4, 3)), ((11, 12), (14, 13))):
            assert length[right] == pytest.approx(length[left])
        assert 0.8 < length[0, 1] / length[8, 9] < 2.2
        assert 4.0 < figure.standing / length[8, 9] < 8.0


def test_head_size_is_that_of_mpii(examples):
    upright = [
        (e["head_size"], np.linalg.norm(e["joints"][8] - e["joints"][9]))
        for e in examples
        if (e["visible"][[8, 9]] > 0).all()
        and e["joints"][9, 1] < e["joints"][8, 1]
        and abs(e["joints"][8, 0] - e["joints"][9, 0]) < 2
    ]
    ratios = np.array([size / (0.75 * length) for size, length in upright])
    assert 0.98 < np.median(ratios) < 1.08


@pytest.mark.parametrize("turn", [0, 40, 180])
def test_joints_lie_where_the_limbs_are_drawn(turn):
    picture, joints = bare_picture(standing_figure(turn, frame4=(0, -60, 0), frame6=(0, 60, 0)))
    # A limb's pixels lie symmetrically about the line from joint to joint. At its edges part
    # numbers are blended, which explains the bound on the distance from that line.
    for part, start, end in ((5, 12, 11), (6, 13, 14), (13, 1, 0), (14, 4, 5)):
        row, column = np.nonzero(picture[..., 3] == part)
        points = np.stack([column, row], 1) + 0.5 - joints[start]
        axis = joints[end] - joints[start]
        across = points @ np.array((-axis[1], axis[0])) / np.linalg.norm(axis)
        along = points @ axis / (axis @ axis)
        middle = (along > 0.5) & (along < 0.9) & (np.abs(across) < 16)
        assert middle.sum() > 150
        assert abs(across[middle].mean()) < 0.3


def test_a_stroke_ends_exactly_at_its_joint():
    start, end, radius = np.array([[20.25, 30.5]]), np.array([[70.75, 30.5]]), np.array([6.0])
    picture = np.zeros((60, 100, 4), np.uint8)
    painting.fill(picture, painting.capsules(start, end, radius, radius)[1][0], (255,) * 4)
    weights = picture[..., 0] / 255
    columns, rows = np.arange(100) + 0.5, np.arange(60) + 0.5
    assert weights.sum(0) @ columns / weights.sum() == pytest.approx(45.5, abs=0.1)
    assert weights.sum(1) @ rows / weights.sum() == pytest.approx(30.5, abs=0.1)
    # From one joint to the other, plus the radius on both sides.
    assert weights[30].sum() == pytest.approx(50.5 + 2 * 6, abs=1.5)


def test_an_arm_behind_the_back_is_occluded_from_the_front_only():
    # Right arm back and across: upper arm 30 degrees back, forearm turned inwards behind the trunk.
    angles = {"frame4": (35, -5, 60), "frame5": (-80, 0, 0)}
    flags = {}
    for turn in (0, 180):
        figure = standing_figure(turn, **angles)
        picture, joints = bare_picture(figure)
        flags[turn] = scene.visibility(picture, figure, joints)
    assert flags[0][10] == 1 and flags[180][10] == 2
    # The other arm is visible from both sides.
    assert flags[0][[14, 15]].tolist() == flags[180][[14, 15]].tolist() == [2, 2]


def test_the_far_side_is_occluded_and_an_obstacle_hides():
    # Seen from the person's right, arms stretched forward.
    figure = standing_figure(90, frame4=(-80, -5, 0), frame6=(-80, 5, 0))
    picture, joints = bare_picture(figure)
    flags = scene.visibility(picture, figure, joints)
    assert flags[[2, 12]].tolist() == [2, 2] and flags[[3, 13]].tolist() == [1, 1]
    picture[..., 3] = 17
    assert (scene.visibility(picture, figure, joints) == 1).all()


def test_faces_are_seen_from_the_front_and_hair_from_behind():
    skin_pixels = {}
    look = painting.random_look(np.random.default_rng(1))
    for turn in (0, 90, 180):
        figure = standing_figure(turn)
        picture = np.zeros((400, 400, 4), np.uint8)
        view = painting.View(np.array((200.0, 200.0)), 150.0, True)
        painting.paint_person(picture, figure, look, view)
        head = picture[picture[..., 3] == 3][:, :3].astype(int)
        skin_pixels[turn] = (np.abs(head - look.skin).max(1) < 12).mean()
    assert skin_pixels[0] > 0.3 and skin_pixels[180] < 0.1
    assert skin_pixels[180] < skin_pixels[90] < skin_pixels[0]


def test_bad_arguments_and_indices_are_named():
    with pytest.raises(ValueError, match="examples"):
        SyntheticPeople(split="train", examples=0)
    with pytest.raises(ValueError, match="split"):
        SyntheticPeople(split="", examples=1)
    with pytest.raises(ValueError, match="seed"):
        SyntheticPeople(split="train", examples=1, seed=-1)
    with pytest.raises(ValueError, match="canvas"):
        SyntheticPeople(split="train", examples=1, canvas=8)
    with pytest.raises(ValueError, match="margin"):
        SyntheticPeople(split="train", examples=1, margin=0.5)
    people = SyntheticPeople(split="train", examples=2)
    for index in (2, -1):
        with pytest.raises(IndexError, match="of 2"):
            people[index]


def test_command_writes_pictures_and_boxes(tmp_path, capsys):
    assert __main__.main([f"--output={tmp_path / 'people'}", "--count=2", "--size=96"]) == 0
    boxes = json.loads((tmp_path / "people" / "boxes.json").read_text())
    assert sorted(boxes) == ["synthetic-demo-000000.png", "synthetic-demo-000001.png"]
    # The nominal crop of a canvas of 96 px is 96 / 1.5 = 64 px; the person's box 0.8 * 64 = 51.2 px.
    assert boxes["synthetic-demo-000000.png"] == [[22.4, 22.4, 51.2, 51.2]]
    assert all((tmp_path / "people" / name).stat().st_size > 1000 for name in boxes)
    (tmp_path / "file").write_text("")
    assert __main__.main([f"--output={tmp_path / 'file' / 'people'}"]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
