"""Weights as one file: round trips, refused files, and the command."""

import json
import runpy
import sys

import jax
import numpy as np
import optax
import pytest

from hourglass_jax import checkpoint, evaluate, loading, weights
from hourglass_jax.network import Metadata, network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.training import step
from hourglass_jax.weights import command, published

pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture
def workdir(tiny, tmp_path):
    """A workdir with one checkpoint, of step 7, with distinct numbers."""
    config = tiny({"data.manual_dir": "/home/somebody/downloads", "train.init_from": "/home/somebody/a.npz"})
    metadata = Metadata(config.to_dict(), skeletons.MPII.to_dict())
    network = network_of(metadata)
    rng = np.random.default_rng(0)
    state = jax.eval_shape(
        lambda: step.init(network.model, optax.adam(1e-3), seed=0, size=network.size, average=True)
    )
    state = jax.tree.map(lambda x: jax.numpy.asarray(rng.standard_normal(x.shape), x.dtype), state)
    with checkpoint.Checkpoints(tmp_path / "run") as saved:
        saved.save(state.replace(step=jax.numpy.int32(7)), metadata, None)
    return tmp_path / "run"


@pytest.fixture
def file(workdir, tmp_path):
    """The workdir's weights as a file."""
    assert command.main([f"--workdir={workdir}", f"--output={tmp_path / 'w.npz'}"]) == 0
    return tmp_path / "w.npz"


def test_file_gives_the_network_of_its_workdir(workdir, file):
    network, variables, metadata = loading.load(workdir)
    other, found, described = loading.load(file)
    assert other == network and described.step == 7
    assert described.skeleton == metadata.skeleton
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(variables), strict=True):
        assert a.dtype == np.float32 and a.sharding == b.sharding
        if a.ndim > 1:  # half a unit of the last of 11 bits
            np.testing.assert_allclose(a, b, rtol=2**-11, atol=2**-25, err_msg=jax.tree_util.keystr(path))
        else:
            np.testing.assert_array_equal(a, b)


def test_a_file_does_not_contain_the_paths_of_the_data(file):
    _, _, metadata = loading.load(file)
    assert metadata.config["data"]["manual_dir"] == "" and metadata.config["data"]["size"] == 32
    assert metadata.config["train"]["init_from"] == "a.npz"
    assert b"somebody" not in file.read_bytes()


def test_kernels_take_two_bytes(tmp_path):
    kernel, bias = np.full((3, 3, 2, 4), 1 / 3, np.float32), np.full(4, 1 / 3, np.float32)
    weights.write(tmp_path / "w.npz", {"params": {"conv": {"kernel": kernel, "bias": bias}}}, {})
    with np.load(tmp_path / "w.npz", allow_pickle=False) as arrays:
        assert arrays["params/conv/kernel"].nbytes == 2 * 3 * 3 * 2 * 4
    _, found = weights.read(tmp_path / "w.npz")
    # 1/3 = 1.0101010101 01... * 2^-2 in binary: ten bits after the point, 1365 / 4096.
    assert np.unique(found["params/conv/kernel"]) == [np.float32(1365 / 4096)]
    np.testing.assert_array_equal(found["params/conv/bias"], bias)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_values_that_float16_does_not_hold_are_refused(tmp_path, value):
    variables = {"params": {"conv": {"kernel": np.full((1, 2), value, np.float32)}}}
    with pytest.raises(ValueError, match="params/conv/kernel has values that are not numbers or above"):
        weights.write(tmp_path / "w.npz", variables, {})
    assert not list(tmp_path.iterdir())


def test_every_flipped_byte_is_noticed(file):
    data, rng = file.read_bytes(), np.random.default_rng(0)
    expected = weights.read(file)
    refused = 0
    for position in rng.integers(0, len(data), 60):
        file.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            metadata, arrays = weights.read(file)
        except ValueError as error:
            assert str(error).startswith(f"{file}: damaged, or not a file of") and "\n" not in str(error)
            refused += 1
        else:  # a byte without use in the archive
            assert metadata == expected[0]
            jax.tree.map(np.testing.assert_array_equal, arrays, expected[1])
    assert refused > 30


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_other_files_are_refused_in_one_line(file, content):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if content is None else content)
    with pytest.raises(ValueError) as error:
        loading.load(file)
    assert f"{file}: damaged, or not a file of python -m hourglass_jax.weights" in str(error.value)
    assert "\n" not in str(error.value)


def test_archives_of_others_are_refused(tmp_path, file):
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    with pytest.raises(ValueError, match="other.npz: damaged, or not a file of"):
        weights.read(tmp_path / "other.npz")
    weights.write(tmp_path / "later.npz", {"params": {}}, {"format": "hourglass_jax-weights-2"})
    with pytest.raises(ValueError, match="its format is not hourglass_jax-weights-1"):
        weights.read(tmp_path / "later.npz")


def test_another_network_is_refused_with_every_name(file, tmp_path):
    metadata, arrays = weights.read(file)
    del arrays["params/conv/kernel"]
    arrays["params/norm/scale"] = np.ones(9, np.float32)
    arrays["params/more"] = np.ones(1, np.float32)
    weights.write(tmp_path / "other.npz", arrays, metadata)
    with pytest.raises(ValueError) as error:
        loading.load(tmp_path / "other.npz")
    assert str(error.value) == (
        f"{tmp_path / 'other.npz'}: the weights are of another network: params/conv/kernel is missing; "
        "params/more is unexpected; params/norm/scale is (9,) instead of (8,)."
    )


def test_config_of_another_model_is_refused_when_a_file_is_evaluated(tiny, file, tmp_path):
    with pytest.raises(ValueError, match="w.npz is of another model than the config: model.width: 4 -> 8"):
        evaluate.evaluate(tiny({"model.width": 8}), tmp_path / "out", file)


# The command.


def test_scores_go_with_the_weights(workdir, tmp_path, capsys):
    evaluation = {"step": 7, "table": {"Mean": 61.5}, "confidence": {"auroc": 0.8, "threshold": 0.25}}
    (workdir / "evaluation.json").write_text(json.dumps(evaluation))
    (tmp_path / "card.json").write_text('{"device": "two cores"}')
    flags = [f"--workdir={workdir}/checkpoints/7", f"--output={tmp_path / 'w.npz'}"]
    assert command.main([*flags, f"--card={tmp_path / 'card.json'}"]) == 0
    metadata, _ = weights.read(tmp_path / "w.npz")
    assert metadata.evaluation == evaluation and metadata.card == {"device": "two cores"}
    assert capsys.readouterr().out == f"{tmp_path / 'w.npz'}: step 7, 0.0 MiB, with its scores\n"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--workdir=none"], "none holds no checkpoints"),
        (
            ["--workdir=run", "--evaluation=old.json"],
            "old.json: belongs to step 5, but the weights to step 7; eval",
        ),
        (["--workdir=run", "--evaluation=none.json"], "none.json"),
        (["--workdir=run", "--card=broken.json"], "broken.json: not readable as json"),
        (["--workdir=run", "--card=list.json"], "list.json: expected a json object, found list."),
    ],
)
def test_errors_of_the_command_are_one_line(workdir, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    for name, text in (("old", '{"step": 5}'), ("broken", "{"), ("list", "[1]")):
        (tmp_path / f"{name}.json").write_text(text)
    assert command.main([*flags, "--output=w.npz"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "w.npz").exists()


def test_command_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["weights", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("hourglass_jax.weights", run_name="__main__")
    assert ended.value.code == 0 and "python -m hourglass_jax.weights" in capsys.readouterr().out


# Weights in the package.


def test_without_packaged_weights_the_error_says_what_to_pass(monkeypatch, tmp_path):
    monkeypatch.setitem(weights.SHIPPED, weights.DEFAULT, tmp_path / "lspet.npz")
    with pytest.raises(FileNotFoundError) as error:
        weights.packaged()
    assert "Predictor(PATH), --checkpoint=PATH" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_packaged_weights_load_by_their_name(name, monkeypatch):
    if not (path := weights.SHIPPED[name]).is_file():
        pytest.skip("none in this checkout")
    monkeypatch.undo()  # restores the real models
    network, variables, metadata = loading.load(name)
    assert path.stat().st_size <= 16 * 2**20
    assert path.with_suffix(".md").is_file()
    assert metadata.config["model"]["dtype"] == "float32"  # for every type of the training
    assert 0 <= metadata.evaluation["confidence"]["threshold"] <= 1
    assert f"{metadata.evaluation['table']['Mean']:.1f}" in published.table()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))
