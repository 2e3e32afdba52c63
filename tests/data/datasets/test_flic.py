"""FLIC in both of its forms."""

import pathlib

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from hourglass_jax import train
from hourglass_jax.data import packed, preparation
from hourglass_jax.data.datasets import flic
from hourglass_jax.evaluation import results
from hourglass_jax.pose import skeletons

pytestmark = pytest.mark.usefixtures("quick_compiles")
SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data" / "flic"
FIELDS = ("poselet_hit_idx", "moviename", "coords", "filepath", "imgdims", "currframe", "torsobox")
FIELDS += ("istrain", "istest")


def write_mat(path, tests=(0, 0, 1), **changes):
    """A file like examples.mat: column c of the i-th person's coords is (100 i + c, 2 c)."""
    examples = np.empty((1, len(tests)), [(name, object) for name in FIELDS])
    for i, test in enumerate(tests):
        coords = np.stack([100.0 * i + np.arange(29), 2.0 * np.arange(29)])
        coords[:, [7, 8, 10, 11, *range(17, 29)]] = np.nan
        values = (np.array([[1, 2]], np.uint16), "a-film", coords, f"{i}.jpg", np.array([[480, 720, 3]]), 7)
        values += (np.array([[100.0, 50, 300, 200]]), np.uint8(not test), np.uint8(test))
        for name, value in (dict(zip(FIELDS, values, strict=True)) | changes).items():
            examples[name][0, i] = value
    scipy.io.savemat(path, {"examples": examples})
    return path


def test_examples_mat(tmp_path):
    rows = flic.read_mat(write_mat(tmp_path / "examples.mat"))
    assert {split: [name for name, *_ in found] for split, found in rows.items()} == {
        "train": ["0.jpg", "1.jpg"],
        "validation": ["2.jpg"],
    }
    _, joints, center = rows["train"][1]
    # MATLAB's columns 1 to 6 are the arms, 7 and 10 the hips, 13 and 14 the eyes, 17 the nose.
    assert joints[:, 0].tolist() == [100, 101, 102, 103, 104, 105, 106, 109, 112, 113, 116]
    assert (joints[:, 1] == 2 * (joints[:, 0] - 100)).all()
    assert center.tolist() == [200, 240]  # (100 + 300) / 2, 480 / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": np.zeros((2, 14))}, r"examples\(1\) is not a person of FLIC; expected"),
        ({"istest": np.uint8(1)}, r"examples\(1\) is for training and testing"),
    ],
)
def test_other_mat_files_are_refused(tmp_path, changes, message):
    path = write_mat(tmp_path / "examples.mat", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        flic.read_mat(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="examples.mat: not readable"):
        flic.read_mat(path)


@pytest.fixture
def builder(tmp_path):
    """A prepared archive of three frames; people have only the joints of columns 0 to 9."""
    (tmp_path / "FLIC" / "images").mkdir(parents=True)
    coords = np.full((2, 29), np.nan)
    coords[:, :10] = np.linspace(60, 240, 10)
    write_mat(tmp_path / "FLIC" / "examples.mat", coords=coords)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"FLIC/images/{i}.jpg"), np.full((480, 720, 3), 99, np.uint8))
    builder = preparation.builder("flic", data_dir=tmp_path / "data", canvas=48)
    preparation.prepare(builder, manual_dir=tmp_path)
    return builder


def test_from_archive_to_source(builder):
    train, validation = (packed.TfdsSource(builder, split) for split in flic.SPLITS)
    assert train.ids == ["flic-train-0", "flic-train-1"] and validation.ids == ["flic-validation-0"]
    assert train.skeleton == skeletons.FLIC
    example = train[0]
    assert example["visible"].tolist() == [2] * 8 + [0] * 3 and not example["joints"][8:].any()
    assert example["joints"][[0, 6, 7], 0].tolist() == [60, 180, 240]  # columns 0, 6 and 9, 20 px apart
    assert example["center"].tolist() == [200, 240] and example["scale"] == np.float32(2.2)


def test_training_and_evaluation(builder, tmp_path, tiny, small_model):
    for split in flic.SPLITS:  # packed, which needs no TensorFlow
        packed.write(packed.TfdsSource(builder, split), packed.path(tmp_path, "flic", "annotated", split))
    config = tiny({"data.dataset": "flic", "data.source": "packed", "data.packed_dir": str(tmp_path)})
    config.train.update(steps=1, batch_size=2)
    scores = train.train(config, tmp_path / "run")
    assert scores["metric"] == "PCK@0.2" and list(scores["table"]) == ["Shoulder", "Elbow", "Wrist", "Mean"]
    assert scores["examples"] == 1 and scores["left_out"] == 0


def test_h5_and_names_that_do_not_match(tmp_path):
    (tmp_path / "a.txt").write_text("a.jpg\nb.jpg\n")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["part"], file["center"] = np.zeros((3, 11, 2)), np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"part \(3, 11, 2\) and center \(3, 2\) for 2 pictures"):
        flic.read_h5(tmp_path / "a.h5", tmp_path / "a.txt")
    with pytest.raises(ValueError, match="a.txt: not readable"):
        flic.read_h5(tmp_path / "a.txt", tmp_path / "a.txt")


def test_pck_over_shoulder_elbow_and_wrist():
    # Left hip (6) to right shoulder (3): 30, 40, so the torso is 50 px and a fifth of it 10 px.
    truth = np.zeros((1, 11, 2))
    truth[0, 3] = 30, 40
    joints = truth[:, None].copy()  # 1 1 k 2
    joints[0, 0, [1, 4, 2, 5], 0] = 10, 11, 3, 4  # elbows: one of two right; wrists: both
    joints[0, 0, 10] = 99  # the nose does not count
    joints[0, 0, 0, 1] = 10.01  # one of two shoulders
    found = results.Predictions(
        joints, np.ones((1, 1, 11)), truth, np.full((1, 11), 2, np.int8), np.zeros(1), []
    )
    scores = results.score_predictions(found, skeletons.FLIC)
    assert scores["metric"] == "PCK@0.2"
    assert scores["table"] == {"Shoulder": 50, "Elbow": 50, "Wrist": 100, "Mean": pytest.approx(400 / 6)}


@pytest.mark.skipif(not SHARED.is_dir(), reason="FLIC's annotations are not here")
def test_real_h5():
    for name, count in (("train", 3987), ("valid", 1016)):
        rows = flic.read_h5(SHARED / f"{name}.h5", SHARED / f"{name}_images.txt")
        joints = np.array([joints for _, joints, _ in rows])
        assert len(rows) == count and (joints[:, 0, 0] > joints[:, 3, 0]).mean() > 0.99  # observer-centric
        assert all(center[1] == 240 for *_, center in rows)
        with h5py.File(SHARED / f"{name}.h5") as file:
            assert [name.decode() for name in file["imgname"]] == [name for name, *_ in rows]
            assert (file["scale"][()] == flic.SCALE).all()
