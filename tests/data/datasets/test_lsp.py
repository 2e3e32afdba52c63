import pathlib

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from hourglass_jax.data import packed, people_builder, pipeline, preparation
from hourglass_jax.data.datasets import lsp, lsp_annotations
from hourglass_jax.media import pictures
from hourglass_jax.pose import crop

ROOT = pathlib.Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
SMALL = dict(canvas=48, margin=1.5)


def joints_table(count: int, *, extended: bool) -> np.ndarray:
    """A `joints` of LSPet (14, 3, n), joint 13 not labelled, or LSP (3, 14, n), 0 occluded."""
    rng = np.random.default_rng(count)
    table = rng.uniform(10, 50, (14, 3, count))
    table[:, 2] = 1 if extended else 0
    if extended:
        table[13] = np.array([-3.0, 0.5, 0])[:, None]  # meaningless values, which must be ignored
        return table
    table[0, 2] = 1
    return table.transpose(1, 0, 2)


def write_dataset(folder: pathlib.Path, count: int, *, extended: bool = True) -> pathlib.Path:
    """A folder like an unpacked archive, with `count` pictures of 80 x 60 px."""
    images = folder / ("lspet_dataset" if extended else "lsp_dataset") / "images"
    images.mkdir(parents=True)
    table = joints_table(count, extended=extended)
    scipy.io.savemat(images.parent / "joints.mat", {"joints": table})
    for number in range(1, count + 1):
        picture = np.full((60, 80, 3), number, np.uint8)
        cv2.imwrite(str(images / f"im{number:0{5 if extended else 4}d}.jpg"), picture)
    return images


# The annotations.


def test_read_joints_of_lspet(tmp_path):
    table = np.zeros((14, 3, 2))
    table[4, :, 1] = 30.5, 40, 1  # joint 4 of the second picture is labelled
    table[5, :, 1] = -7, -8, 0  # joint 5 is not labelled: its values have no meaning
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": table})
    joints, visible = lsp_annotations.read_joints(tmp_path / "joints.mat")
    assert (joints.shape, joints.dtype, visible.dtype) == ((2, 14, 2), np.float32, np.uint8)
    assert joints[1, 4].tolist() == [30.5, 40] and visible[1, 4] == 2
    assert not joints[1, 5].any() and visible.sum() == 2


def test_read_joints_of_lsp(tmp_path):
    table = np.zeros((3, 14, 2))
    table[:, 4, 1] = 30.5, 40, 1  # here 1 means occluded
    table[:, 5, 1] = 7, 8, 0
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": table})
    joints, visible = lsp_annotations.read_joints(tmp_path / "joints.mat")
    assert joints[1, 4].tolist() == [30.5, 40] and visible[1, 4] == 1
    assert joints[1, 5].tolist() == [7, 8] and visible[1, 5] == 2
    assert visible[0].tolist() == [2] * 14


def test_a_labelled_joint_at_the_origin_stays_labelled(tmp_path):
    table = np.zeros((14, 3, 1))
    table[2, 2] = 1
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": table})
    assert lsp_annotations.read_joints(tmp_path / "joints.mat")[1][0, 2] == 2


def nan_table():
    table = joints_table(3, extended=True)
    table[0, 0, 0] = np.nan
    return table


@pytest.mark.parametrize(
    "content, message",
    [
        ({"other": np.zeros(3)}, r"variables \['other'\]; expected .* 14 x 3 x n"),
        ({"joints": np.zeros((16, 3, 5))}, r"`joints` \(16, 3, 5\) float64; expected"),
        ({"joints": np.zeros((14, 3))}, r"`joints` \(14, 3\)"),
        ({"joints": np.array([["a"]], object)}, "object; expected"),
        ({"joints": nan_table()}, "NaN, infinity or flags"),
        ({"joints": np.full((14, 3, 2), 2.0)}, "flags other than 0 and 1"),
    ],
)
def test_read_joints_refuses(tmp_path, content, message):
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(ValueError, match=message) as error:
        lsp_annotations.read_joints(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_read_joints_refuses_other_files(tmp_path):
    path = tmp_path / "joints.mat"
    with pytest.raises(FileNotFoundError, match="joints.mat: no such file; expected a MATLAB"):
        lsp_annotations.read_joints(path)
    for content in (b"", b"<html>not found</html>" * 20):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="joints.mat: not readable"):
            lsp_annotations.read_joints(path)


# The datasets.


def test_lspet_from_archive_to_source(tmp_path):
    images = write_dataset(tmp_path / "manual", 40)
    builder = preparation.builder("lspet", data_dir=tmp_path / "data", **SMALL)
    with pytest.raises(FileNotFoundError, match="not prepared; see python -m"):
        packed.TfdsSource(builder, "train")
    preparation.prepare(builder, manual_dir=tmp_path / "manual")
    train, validation = (packed.TfdsSource(builder, s) for s in ("train", "validation"))
    # Positions 0, 18 and 36, counted from 0, are im00001, im00019 and im00037.
    assert validation.ids == ["lspet-im00001", "lspet-im00019", "lspet-im00037"]
    assert train.ids == [f"lspet-im{i + 1:05d}" for i in range(40) if i % 18]
    assert (train.canvas, train.margin, train.name) == (48, 1.5, "lspet-train")
    with pytest.raises(ValueError, match="split='test': lspet has train, validation"):
        packed.TfdsSource(builder, "test")

    example = validation[1]
    joints, visible = lsp_annotations.read_joints(images.parent / "joints.mat")
    np.testing.assert_array_equal(example["joints"], joints[18])
    assert example["visible"].tolist() == [2] * 13 + [0]
    # Every example has the fields, types and shapes that the pipeline promises.
    loaded = pipeline.load(validation, 1)
    assert loaded["image"].shape == (48, 48, 3)
    assert abs(int(loaded["image"][24, 24, 0]) - 19) <= 2  # the picture's grey is its number
    for name, dtype in pipeline.FIELDS.items():
        assert example[name].dtype == dtype
    person = people_builder.Person("a", images / "im00019.jpg", joints[18], visible[18])
    center, scale = people_builder.person_box(person, 80, 60, builder.builder_config)
    np.testing.assert_array_equal(example["center"], center)
    assert example["scale"] == scale and example["head_size"] == 0
    assert train[-1]["id"] == train.ids[-1]
    with pytest.raises(IndexError):
        train[len(train)]

    info = preparation.builder("lspet", data_dir=tmp_path / "data", **SMALL).info
    assert "Johnson" in info.citation and "research" in info.redistribution_info.license
    preparation.prepare(builder, manual_dir="nowhere")  # it is prepared, so nothing is read


def test_lsp_halves(tmp_path, monkeypatch):
    write_dataset(tmp_path / "manual", 6, extended=False)
    builder = preparation.builder("lsp", data_dir=tmp_path / "data", **SMALL)
    with pytest.raises(ValueError, match="found 6 entries; LSP has 2000"):
        preparation.prepare(builder, manual_dir=tmp_path / "manual")
    monkeypatch.setattr(lsp.Lsp, "entries", 6)
    # The folder of joints.mat itself is accepted, too.
    preparation.prepare(builder, manual_dir=tmp_path / "manual" / "lsp_dataset")
    train, test = (packed.TfdsSource(builder, split) for split in ("train", "test"))
    assert train.ids == ["lsp-im0001", "lsp-im0002", "lsp-im0003"]
    assert test.ids == ["lsp-im0004", "lsp-im0005", "lsp-im0006"]
    assert test[0]["visible"].tolist() == [1] + [2] * 13


def files_in(folder: pathlib.Path) -> list[str]:
    """All files except the lock, the list of problems and TFDS's files about the config."""
    found = [p for p in folder.rglob("*") if p.is_file() and ".config" not in p.parts]
    return [str(p) for p in found if p.name not in (".lock", "problems.txt")]


def test_damaged_pictures_stop_the_preparation(tmp_path):
    images = write_dataset(tmp_path / "manual", 20)
    whole = (images / "im00003.jpg").read_bytes()
    (images / "im00003.jpg").write_bytes(whole[:-40])
    (images / "im00007.jpg").write_bytes(b"")
    builder = preparation.builder("lspet", data_dir=tmp_path / "data", **SMALL)
    message = r"2 of \d+ people cannot be prepared \(im00003.jpg: \S+: truncated .*; im00007.jpg: .*unpack"
    with pytest.raises(ValueError, match=message):
        preparation.prepare(builder, manual_dir=tmp_path / "manual")
    assert builder.problems.read_text().count("left out: ") == 2
    assert files_in(tmp_path / "data") == [] and not builder.is_prepared()
    for name in ("im00003.jpg", "im00007.jpg"):
        (images / name).write_bytes(whole)
    preparation.prepare(builder, manual_dir=tmp_path / "manual")
    assert len(packed.TfdsSource(builder, "train")) == 18


def test_missing_and_surplus_pictures(tmp_path):
    images = write_dataset(tmp_path / "manual", 4)
    builder = preparation.builder("lspet", data_dir=tmp_path / "data", **SMALL)
    (images / "im00005.jpg").write_bytes((images / "im00004.jpg").read_bytes())
    with pytest.raises(ValueError, match="annotates 4 pictures, images/ holds 5; unpack"):
        preparation.prepare(builder, manual_dir=tmp_path / "manual")
    for name in ("im00002.jpg", "im00005.jpg"):
        (images / name).unlink()
    with pytest.raises(
        ValueError, match=r"1 of \d+ people .*\(im00002.jpg: \S+: the picture is missing in .*images\)"
    ):
        preparation.prepare(builder, manual_dir=tmp_path / "manual")


@pytest.mark.parametrize("dataset", ["lsp", "lspet"])
def test_no_archive(tmp_path, dataset):
    builder = preparation.builder(dataset, data_dir=tmp_path / "data", **SMALL)
    for manual_dir in (tmp_path / "nowhere", tmp_path, None):
        message = rf"found no {dataset}_dataset/joints.mat. Download {dataset}_dataset.*\.zip"
        with pytest.raises(FileNotFoundError, match=message) as error:
            preparation.prepare(builder, manual_dir=manual_dir)
        assert "\n" not in str(error.value)
    assert str(tmp_path / "data" / "downloads" / "manual") in str(error.value)


def test_tfds_users_can_name_the_default_configs(tmp_path):
    name = "lspet/joints_c384_m1.5_q95_e1.35"
    assert tfds.builder(name, data_dir=tmp_path).builder_config.canvas == 384
    assert preparation.builder("lspet", data_dir=tmp_path).info.full_name == f"{name}/1.0.0"


def test_tensorflow_is_not_needed(run_python, tmp_path):
    write_dataset(tmp_path / "manual", 20)
    result = run_python("prepare_without_tensorflow.py", tmp_path / "data", tmp_path / "manual")
    assert result.returncode == 0, result.stderr


# The real data, if available.


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real annotations are not here")
def test_real_annotations():
    joints, visible = lsp_annotations.read_joints(SHARED / "lspet_dataset" / "joints.mat")
    assert joints.shape == (9000, 14, 2) and (visible > 0).sum() == 110_819
    assert (visible > 0).all(axis=1).sum() == 3559
    joints, visible = lsp_annotations.read_joints(SHARED / "lsp" / "joints.mat")
    assert joints.shape == (2000, 14, 2) and visible.min() == 1
    assert round(100 * (visible == 1).mean(), 1) == 7.3


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real pictures are not here")
def test_real_pictures():
    folder = SHARED / "lspet_dataset"
    joints, visible = lsp_annotations.read_joints(folder / "joints.mat")
    for index in (0, 4500, 8999):
        path = folder / "images" / f"im{index + 1:05d}.jpg"
        config = people_builder.CropConfig(canvas=96)
        person = people_builder.Person("id", path, joints[index], visible[index])
        image = pipeline.decode(path.read_bytes())
        picture = pictures.Picture(image, image.shape[1::-1], path)
        example = people_builder.make_example(person, picture, config)
        share = dict(canvas=96, margin=1.5)
        frame = crop.canvas_from_image(example["center"], example["scale"], **share)
        known = crop.apply(frame, joints[index][visible[index] > 0])
        # The joints' box is centred and spans 96 / 1.5 / 1.35 px.
        np.testing.assert_allclose(known.min(axis=0) + known.max(axis=0), [96, 96], atol=1e-3)
        np.testing.assert_allclose(np.ptp(known, axis=0).max(), 96 / 1.5 / 1.35, rtol=1e-5)
        assert pipeline.decode(example["image"]).shape == (96, 96, 3)
