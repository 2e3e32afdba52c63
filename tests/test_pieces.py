"""Training in pieces: each piece continues from the files of the previous one."""

import hashlib
import io
import json
import pathlib
import sys
import tarfile

import pytest

from launch import pieces

PROGRAM = pathlib.Path(__file__).with_name("programs") / "trains_until_sigterm.py"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(workdir, blocks): a piece with state/ in a workdir; its exit code and what it printed."""
    monkeypatch.setattr(pieces, "COMMAND", [sys.executable, str(PROGRAM)])
    monkeypatch.setattr(pieces, "SAVING", 0.0)
    monkeypatch.setattr(pieces, "PART", 1000)

    def run(workdir, blocks):
        options = ["--minutes=0.02", f"--state={tmp_path / 'state'}", f"--workdir={tmp_path / workdir}"]
        code = pieces.main([*options, "--", str(blocks)])
        return code, "".join(capsys.readouterr())

    return run


def test_the_next_machine_continues_from_the_parts(call, tmp_path):
    pieces.PART = 10_000  # the fixture's patch is undone at the end
    assert call("first", 100)[0] == 0
    (step,) = pieces.steps(tmp_path / "first")
    parts = {path.name for path in (tmp_path / "state").glob("part-*")}
    assert len(parts) == 5 and step > 0  # 25.6 kB of a model in a tar, which is padded to 40.96 kB
    code, text = call("second", 101)
    assert code == 0 and f"Step {step} -> " in text
    assert pieces.steps(tmp_path / "second")[0] == step < pieces.steps(tmp_path / "second")[1]
    assert (tmp_path / "second/checkpoints" / str(step) / "model").read_bytes() == bytes(range(256)) * 100
    log = (tmp_path / "second/metrics.jsonl").read_text().split()
    assert log == list(map(str, pieces.steps(tmp_path / "second")))
    # The same machine again: its workdir is as new as the state.
    newest = pieces.steps(tmp_path / "second")[-1]
    assert pieces.unpack(tmp_path / "state", tmp_path / "second") == newest
    assert len(list((tmp_path / "state").iterdir())) == 6  # parts of the previous state are removed


def test_damaged_missing_and_large_states_are_refused(call, tmp_path):
    code, text = call("first", 100)
    assert code == 1 and "more than 7 files" in text and not (tmp_path / "state").exists()
    pieces.PART = 10_000
    assert call("other", 100)[0] == 0
    part = next((tmp_path / "state").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1])
    code, text = call("third", 1)
    assert code == 1 and f"{part}: missing or damaged" in text and not (tmp_path / "third").exists()
    part.unlink()
    assert call("third", 1)[0] == 1 and not (tmp_path / "third").exists()


def test_a_training_that_fails_leaves_the_state(call, tmp_path):
    code, text = call("first", "many")  # int("many") fails when it saves
    assert code == 1 and "the state is as it was" in text and not (tmp_path / "state").exists()


def test_a_bucket_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pieces.main(["--state=gs://bucket/state", "--", "many"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "Error: gs://bucket/state: this needs a folder on a disk, not in a bucket."
    ]
    assert not list(tmp_path.iterdir())


def test_a_state_with_paths_outside_of_the_workdir_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("checkpoints/../../outside"))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    (state := tmp_path / "state").mkdir()
    (state / f"part-{digest[:16]}").write_bytes(buffer.getvalue())
    (state / "state.json").write_text(json.dumps({"step": 1, "bytes": 0, "parts": [digest]}))
    with pytest.raises(ValueError, match="state: the state holds paths outside"):
        pieces.unpack(state, tmp_path / "new" / "workdir")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
