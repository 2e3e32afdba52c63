"""Files: atomic writes, and json for every reader."""

import json
import os
import pwd
import socket
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import cli, files


def test_write_makes_folders_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "data.bin"
    files.write(path, b"\x00\xff\n")
    assert path.read_bytes() == b"\x00\xff\n"
    assert os.listdir(path.parent) == ["data.bin"]


def test_write_takes_a_string_and_replaces_what_is_there(tmp_path):
    path = str(tmp_path / "data")
    files.write(path, b"a longer first text")
    files.write(path, b"second")
    with open(path, "rb") as file:
        assert file.read() == b"second"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        files.write(tmp_path / "data", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == mode


def test_a_replaced_file_keeps_its_mode(tmp_path):
    (tmp_path / "data").write_bytes(b"old")
    (tmp_path / "data").chmod(0o600)
    files.write(tmp_path / "data", b"new")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o600


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("old", "absent"):
        (tmp_path / name).symlink_to(f"there/{name}")
    (tmp_path / "there" / "old").write_bytes(b"old")
    for name in ("old", "absent"):
        files.write(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink() and (tmp_path / "there" / name).read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path / "there")) == ["absent", "old"]


def test_only_a_regular_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        before = {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)}
        kinds = {"pipe": "a pipe", "folder": "a folder", "null": "a device", "socket": "a socket"}
        for name, kind in kinds.items():
            with pytest.raises(OSError, match=f"{name} is {kind}, not a file; choose another name.$"):
                files.write(tmp_path / name, b"new")
        assert {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)} == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    kept = [".data.0a1b2c3d.partial", ".settings.12345678", "data.partial"]  # a recent one, and users' own
    for name in [*kept, ".gone.01234567.partial"]:
        (tmp_path / name).write_bytes(b"")
        if name != kept[0]:
            os.utime(tmp_path / name, (0, 0))
    files.write(tmp_path / "data", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "data"])


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path):
    files.write(tmp_path / ("ü" * 127), b"new")
    assert (tmp_path / ("ü" * 127)).read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_only_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "data"
    files.write(path, b"old")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="no space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_an_interruption_leaves_the_old_file_too(tmp_path, monkeypatch):
    path = tmp_path / "data"
    files.write(path, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_without_a_home_there_is_no_cache_and_no_folder_called_tilde(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # A user id that the system does not know, as in containers.
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.chdir(tmp_path)
    assert files.user_cache() is None and files.expanded("a/b") == Path("a/b")
    with pytest.raises(ValueError, match="^~/data: no home folder is known; set HOME, or name another"):
        files.expanded("~/data")
    monkeypatch.setenv("HOME", "/home/x")
    assert files.user_cache() == Path("/home/x/.cache/hourglass_jax")
    assert files.expanded("~/data") == Path("/home/x/data")


def test_json_of_numpy_and_jax_values_is_read_as_python_values(tmp_path):
    value = {
        "array": np.arange(4, dtype=np.float32).reshape(2, 2) / 2,
        "scalar": np.int64(7),
        "jax": jnp.array([1.5, 2.0]),
        "flag": np.bool_(True),
        "nested": [{"pair": (np.uint8(1), "text")}, None],
        3: "a key that is a number",
    }
    files.write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == {
        "array": [[0.0, 0.5], [1.0, 1.5]],
        "scalar": 7,
        "jax": [1.5, 2.0],
        "flag": True,
        "nested": [{"pair": [1, "text"]}, None],
        "3": "a key that is a number",
    }


def test_json_has_null_for_what_is_not_a_number(tmp_path):
    value = {"score": float("nan"), "row": np.array([1.0, np.nan]), "one": np.float32("nan")}
    files.write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    assert "NaN" not in text  # Python writes and reads it, other readers of json do not
    assert json.loads(text) == {"score": None, "row": [1.0, None], "one": None}


def test_a_duplicate_name_is_refused_on_demand(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [{"b": 1, "c": 2, "b": 3}]}')
    assert files.read_json(tmp_path / "a.json") == {"a": [{"b": 3, "c": 2}]}
    with pytest.raises(ValueError, match=r"a.json: not readable as json, .*\('b' appears twice\)"):
        files.read_json(tmp_path / "a.json", unique=True)


def test_lock_files_are_neither_emptied_nor_followed(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "lock").write_text("held")
    with files.open_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == "held"
    with pytest.raises(ValueError, match="link: there is a link instead of the lock file; remove it."):
        files.open_lock(tmp_path / "link")
    assert (tmp_path / "target").read_text() == "mine"


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, [1])
    for value in (object(), float("inf")):
        with pytest.raises((TypeError, ValueError)):
            files.write_json(path, {"value": value})
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["value.json"]


def test_an_output_that_cannot_be_written_is_refused(tmp_path):
    endings = (".png", ".jpg")
    for name in ("a.png", "new/b.JPG"):
        files.check_output("curves", tmp_path / name, endings)
    for nothing in (None, ""):
        files.check_output("curves", nothing, endings)
    files.check_output("json", "any.thing")
    for name, found in (("c.docx", "the ending .docx"), ("c", "a name without an ending")):
        message = f"^--curves={tmp_path}/{name}: {found} is not possible; choose .png, .jpg[.]$"
        with pytest.raises(ValueError, match=message):
            files.check_output("curves", tmp_path / name, endings)
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OSError, match="d.png is a folder, not a file; choose another name[.]$"):
        files.check_output("curves", tmp_path / "d.png", endings)


@pytest.mark.parametrize(
    "command",
    [
        "score --dataset=mpii --annotations=a.h5 --predictions=p.h5 --curves=o.docx",
        "report run --output=o.docx",
        "prepare --dataset=lspet --data_dir=d --sheet=o.docx",
        "score --dataset=mpii --annotations=a.h5 --predictions=p.h5 --json=folder",
        "submission --predictions=p.json --annotations=a.mat --output=folder",
        "weights --workdir=run --output=folder",
        "export --workdir=run --format=onnx --output=folder",
    ],
)
def test_commands_check_their_outputs_before_their_inputs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert cli.main(command.split()) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("the ending .docx is not possible" in said or "folder" in said)
    assert "no such file" not in said and set(os.listdir(tmp_path)) == {"folder"}
