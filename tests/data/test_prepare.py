import os
import pathlib
import pwd
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.io

from hourglass_jax.data import packed, pipeline, preparation, prepare
from hourglass_jax.pose import skeletons

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with an unpacked archive like LSPet's: 20 pictures, joint 13 not labelled."""
    folder = tmp_path_factory.mktemp("manual")
    (folder / "lspet_dataset" / "images").mkdir(parents=True)
    table = np.random.default_rng(0).uniform(10, 50, (14, 3, 20))
    table[:, 2] = (np.arange(14) < 13)[:, None]
    scipy.io.savemat(folder / "lspet_dataset" / "joints.mat", {"joints": table})
    for number in range(1, 21):
        picture = np.full((60, 80, 3), 5 * number, np.uint8)
        cv2.imwrite(str(folder / f"lspet_dataset/images/im{number:05d}.jpg"), picture)
    return folder


@pytest.fixture(scope="module")
def prepared(archive, tmp_path_factory):
    """A data_dir in which it is prepared, with canvases of 48 px."""
    data_dir = tmp_path_factory.mktemp("data")
    preparation.prepare(preparation.builder("lspet", data_dir=data_dir, canvas=48), manual_dir=archive)
    return data_dir


@pytest.fixture
def source(prepared):
    return packed.TfdsSource(preparation.builder("lspet", data_dir=prepared, canvas=48), "train")


# The command.


def test_command_prepares_packs_and_draws(archive, tmp_path, capsys):
    flags = ["--dataset=lspet", f"--manual_dir={archive}", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--canvas=48", f"--pack={tmp_path / 'packed'}", f"--sheet={tmp_path / 'sheet.png'}"]
    assert prepare.main(flags) == 0
    output = capsys.readouterr().out
    # 18 of 20 are for training; 13 of 14 joints are labelled: 18 * 13 = 234.
    assert "train: 18 examples; joints: 234 visible, 0 occluded, 18 not labelled" in output
    assert "validation: 2 examples; joints: 26 visible, 0 occluded, 2 not labelled" in output
    assert "next: hourglass train --config=newell" in output and f"packed_dir={tmp_path / 'packed'}" in output
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] >= 6 * 48 and sheet.shape[0] >= 3 * 48 and sheet.std() > 10
    train = packed.PackedSource(packed.path(tmp_path / "packed", "lspet", "joints", "train"))
    assert len(train) == 18 and train.canvas == 48

    assert prepare.main(flags) == 0  # again: nothing is lost, and it says so
    assert "prepared already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--manual_dir=nowhere"], "nowhere: found no lspet_dataset/joints.mat. Download"),
        (["--box=annotated"], "box='annotated': lspet has joints, image"),
        (["--quality=0"], "quality=0: must be in 1 ... 100"),
        (["--sheet=sheet.docx"], "--sheet=sheet.docx: the ending .docx is not possible; choose .png, "),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, flags, message):
    flags = ["--dataset=lspet", f"--data_dir={tmp_path}", *flags]
    assert prepare.main(flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and message in error


def test_without_a_home_a_folder_must_be_given(tmp_path, monkeypatch, capsys):
    for name in ("HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["--dataset=lspet", "--manual_dir=nowhere"]) == 1
    error = capsys.readouterr().err
    assert "no home folder is known" in error and "--data_dir=FOLDER" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_interruption_is_one_line(monkeypatch, tmp_path, capsys):
    def interrupted(builder, manual_dir):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "prepare", interrupted)
    assert prepare.main(["--dataset=lspet", f"--data_dir={tmp_path}"]) == 130
    assert "start again" in capsys.readouterr().err


def test_a_killed_preparation_starts_again(archive, tmp_path):
    command = [sys.executable, ROOT / "tests" / "programs" / "prepare_and_wait.py", tmp_path, archive]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert any("begun" in line for line in process.stdout)  # lines of several threads may be joined
        process.kill()
    builder = preparation.builder("lspet", data_dir=tmp_path, canvas=48)
    assert list(builder.home.glob("incomplete.*"))
    preparation.prepare(builder, manual_dir=archive)
    assert not list(builder.home.glob("incomplete.*"))
    assert len(packed.TfdsSource(builder, "train")) == 18


def test_command_leaves_out_missing_people_only_if_allowed(archive, tmp_path, capsys):
    manual = shutil.copytree(archive, tmp_path / "manual")
    (manual / "lspet_dataset" / "images" / "im00003.jpg").unlink()
    flags = ["--dataset=lspet", f"--manual_dir={manual}", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main(flags) == 1
    assert "1 of 20 people cannot be prepared (im00003.jpg: lspet-im00003" in capsys.readouterr().err
    assert prepare.main([*flags, "--allow_missing"]) == 0
    output = capsys.readouterr().out
    assert "train: 17 examples" in output and "1 people left out, 0 remarks: see" in output
    assert "--config.data.allow_missing=True" in output


def test_contact_sheet_draws_joints_where_they_are(source):
    sheet = prepare.contact_sheet(source, count=2, columns=2)
    plain = np.concatenate([pipeline.load(source, index)["image"] for index in (0, 17)], axis=1)
    # The pictures have one grey value, so that colour shows the drawing: inside the joints' box, which has
    # 1 / 1.35 / 1.5 of the canvas' side, and a joint's radius around it.
    coloured = np.ptp(sheet.astype(int), axis=-1) > 40
    assert np.ptp(plain.astype(int), axis=-1).max() <= 2 and coloured.sum() > 50
    rows = np.flatnonzero(coloured.any(axis=1))
    assert np.ptp(rows) <= 48 / 1.35 / 1.5 + 6


# The packed file.


def test_packed_file_gives_the_same_examples(source, tmp_path):
    packed.write(source, tmp_path / "a.data")  # the name is not changed
    copy = packed.PackedSource(tmp_path / "a.data")
    assert [p.name for p in tmp_path.iterdir()] == ["a.data"]
    assert (len(copy), copy.name, copy.canvas, copy.margin) == (18, "lspet-train", 48, 1.5)
    assert copy.skeleton == skeletons.LSP and copy.ids == source.ids
    for index in (0, 7, 17, -1):
        old, new = source[index], copy[index]
        assert old.keys() == new.keys() and old["image"] == new["image"] and old["id"] == new["id"]
        for name, dtype in pipeline.FIELDS.items():
            np.testing.assert_array_equal(old[name], new[name])
            assert new[name].dtype == dtype
    with pytest.raises(IndexError):
        copy[18]
    with pytest.raises(ValueError, match="read-only"):
        copy[0]["joints"][0] = 0  # examples are views of the source's arrays
    packed.write(copy, tmp_path / "b.data")
    assert (tmp_path / "b.data").read_bytes() == (tmp_path / "a.data").read_bytes()


def test_drawn_sources_are_not_packed(source, tmp_path):
    drawn = [{**source[0], "image": np.zeros((48, 48, 3), np.uint8)}]

    class Drawn(list):
        name, skeleton, canvas, margin = "drawn", skeletons.LSP, 48, 1.5

    with pytest.raises(ValueError, match="drawn draws its pictures"):
        packed.write(Drawn(drawn), tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_failed_writing_keeps_the_old_file(source, tmp_path, monkeypatch):
    packed.write(source, tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        packed.write(source, tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before


def change(arrays, name, value):
    return arrays | {name: value(arrays[name])}


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("joints", lambda a: a[:-1], r"joints is \(17, 14, 2\) float32, not \(18, 14, 2\)"),
        ("joints", lambda a: a.astype(np.float64), "joints is .* float64"),
        ("visible", lambda a: a[:, :13], r"visible is \(18, 13\)"),
        ("offsets", lambda a: a[::-1].copy(), "offsets do not fit"),
        ("offsets", lambda a: a + 1, "offsets do not fit"),
        ("bytes", lambda a: a[:-1], "offsets do not fit"),
        ("ids", lambda a: a[:-1], "not"),
        ("ids", lambda a: np.arange(len(a)), "ids"),
        ("meta", lambda a: np.array(str(a).replace("packed-1", "packed-9")), "packed-9"),
        ("meta", lambda a: np.array("{}"), "format"),
        ("scale", lambda a: a * (np.arange(len(a)) != 3), r"scale of example 3 \('lspet-im\d+'\) is 0"),
        ("scale", lambda a: a / np.float32(0), "scale of example 0 .* is inf"),
        ("visible", lambda a: a + 77, r"visible of example 0 .* is \[79, 79, 79"),
        ("center", lambda a: a * np.float32("nan"), r"center of example 0 .* is \[nan, nan\]"),
        ("joints", lambda a: a - np.float32("inf"), "joints of example 0"),
        ("head_size", lambda a: a - 1, "head_size of example 0 .* is -1"),
        ("meta", lambda a: np.array("no json"), "Expecting value"),
    ],
)
def test_inconsistent_packed_file_is_refused(source, tmp_path, name, value, message):
    packed.write(source, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        content = {key: arrays[key] for key in arrays.files}
    with np.errstate(all="ignore"):
        np.savez(tmp_path / "a.npz", **change(content, name, value))
    with pytest.raises(ValueError, match=message) as error:
        packed.PackedSource(tmp_path / "a.npz")
    assert "a.npz" in str(error.value) and "write it again" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_packed_file_is_refused(source, tmp_path):
    path = tmp_path / "a.npz"
    packed.write(source, path)
    whole = path.read_bytes()
    damaged = [b"", b"text\n" * 50, whole[:100], whole[:-1], whole[: len(whole) // 2]]
    for position in np.linspace(0, len(whole) - 1, 40).astype(int):
        flipped = bytearray(whole)
        flipped[position] ^= 0x55
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            packed.PackedSource(path)
        except ValueError as error:
            assert "a.npz: damaged" in str(error) and "write it again" in str(error)
            refused += 1
    # A flip may change bytes that are not read, such as a date; the pictures have checksums.
    assert refused >= len(damaged) - 4


def test_missing_packed_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.npz: no such file; write it with python -m"):
        packed.PackedSource(tmp_path / "a.npz")


def test_pickles_are_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return sys.exit, (3,)

    np.savez(tmp_path / "a.npz", meta=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        packed.PackedSource(tmp_path / "a.npz")
