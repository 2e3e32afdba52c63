"""Paths on Amazon's store, s3://, on moto's server: what is read and written, and what is refused."""

# ruff: noqa: F811  fixtures of other modules

import logging
import os

import numpy as np
import pytest

from hourglass_jax import buckets, copies, files, loading
from hourglass_jax.data import packed
from tests.data.test_sources import OnePerson
from tests.test_bucket_commands import call, inputs, names  # noqa: F401

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("flask")  # of moto[server]
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture(scope="module")
def server():
    """The address of a store with the bucket `bucket`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def folder(server, request, monkeypatch, tmp_path):
    """s3://bucket/TEST, and an empty current folder."""
    from fsspec import config

    for name, value in (
        ("ACCESS_KEY_ID", "any"),
        ("SECRET_ACCESS_KEY", "any"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(config.conf, "s3", {"endpoint_url": server})
    monkeypatch.chdir(tmp_path)
    store = buckets.filesystem("s3://bucket")
    if not store.exists("s3://bucket"):
        store.mkdir("s3://bucket")
    yield f"s3://bucket/{request.node.originalname}"
    assert set(os.listdir(tmp_path)) <= {"cache", "in"}  # no folder called s3:


def test_files_are_written_read_copied_and_found(folder):
    content = np.random.default_rng(0).bytes(100_000)
    files.write(f"{folder}/in/a.bin", content)
    files.write(f"{folder}/empty", b"")
    assert files.read(f"{folder}/in/a.bin") == content and files.size(f"{folder}/in/a.bin") == 100_000
    assert sorted(buckets.listing(folder)) == ["empty", "in/a.bin"]
    assert sorted(files.names_in(folder)) == ["empty", "in"]
    assert files.is_file(f"{folder}/in/a.bin") and files.is_dir(f"{folder}/in")
    assert not files.exists(f"{folder}/none") and not files.is_dir(f"{folder}/in/a.bin")
    whole = copies.fetched(folder)
    assert (whole / "in" / "a.bin").read_bytes() == content and (whole / "empty").read_bytes() == b""
    files.write(f"{folder}/in/a.bin", content[::-1])
    assert (copies.fetched(folder) / "in" / "a.bin").read_bytes() == content[::-1]
    files.check_writable(folder)
    for absent in (f"{folder}/none", "s3://nobucket/none"):
        with pytest.raises(FileNotFoundError, match=f"^{absent}: "):
            files.read_json(absent)
    with pytest.raises(OSError, match="^s3://nobucket/x: "):
        files.check_writable("s3://nobucket/x")


def test_inputs_are_read_and_outputs_written(folder, inputs, capsys):
    for name in ("w.npz", "photos/a.png"):
        files.write(f"{folder}/{name}", (inputs / name).read_bytes())
    assert loading.load(f"{folder}/w.npz")[2].step == 1
    assert call(f"predict {folder}/photos --checkpoint={folder}/w.npz --output={folder}/out --csv") == 0
    assert call(f"predict {inputs}/photos --checkpoint={inputs}/w.npz --output={inputs}/out --csv") == 0
    for name in ("a.png", "predictions.csv", "predictions.json"):
        assert files.read(f"{folder}/out/{name}") == (inputs / "out" / name).read_bytes()
    config = f"--config={inputs}/config.py"
    assert call(f"evaluate {config} --checkpoint={folder}/w.npz --workdir={folder}/run") == 0
    assert call(f"evaluate {config} --checkpoint={inputs}/w.npz --workdir={inputs}/run") == 0
    assert call(f"report {folder}/run") == 0
    assert call(f"weights --workdir={folder}/w.npz --output={folder}/again.npz") == 0
    assert files.read(f"{folder}/run/evaluation.json") == (inputs / "run" / "evaluation.json").read_bytes()
    assert loading.load(f"{folder}/again.npz")[2].evaluation == {}
    packed.write(OnePerson(), f"{folder}/packed.npz")
    (example,) = packed.PackedSource(f"{folder}/packed.npz")
    assert example["id"] == OnePerson()[0]["id"] and example["image"] == OnePerson()[0]["image"]


def test_checkpoints_are_refused_in_one_line_and_nothing_is_written(folder, inputs, capsys):
    files.write(f"{folder}/checkpoints/7/metadata/metadata", b"{}")  # copied from elsewhere
    refused = f"Error: {folder}: checkpoints can be in gs:// or a local folder, not in s3://.\n"
    for command in (
        f"train --config={inputs}/config.py --workdir={folder}",
        f"train --config={inputs}/config.py --workdir={folder} --mode=compile",
        f"evaluate --config={inputs}/config.py --workdir={folder}",
        f"weights --workdir={folder} --output={inputs}/x.npz",
    ):
        assert call(command) == 1
        assert capsys.readouterr().err == refused
    assert names(folder) == ["checkpoints/7/metadata/metadata"]
