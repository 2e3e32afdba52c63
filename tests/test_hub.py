"""Weights to and from repositories of the Hugging Face Hub: the real client and a server on localhost."""

import dataclasses
import importlib
import json
import shlex
import sys

import conftest
import hub_server
import jax
import numpy as np
import pytest
from absl import flags

from hourglass_jax import archive, config_base, loading, main, weights
from hourglass_jax.config import completed
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.network import Metadata, abstract, network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.predictor import Predictor
from hourglass_jax.weights import command, hub, model_card

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")
# The client's own, of the HTTP library below it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME, FIRST, LATER = "hf://owner/small", "0" * 40, "1" * 40
EVALUATION = {
    "data": "synthetic-validation",
    "step": 4,
    "metric": "PCKh@0.5",
    "table": {"Head": 81.25, "Sho": None, "Mean": 61.6667},
    "examples": 10,
    "left_out": 1,
    "confidence": {"auroc": 0.75, "threshold": 0.25},
    **json.loads(json.dumps(Protocol(flip=False, crop="image").to_dict())),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny network's weights as a file, with scores."""
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    config = json.loads(json.dumps(conftest.tiny().to_dict()))
    metadata = Metadata(config, skeletons.MPII.to_dict(), step=4, evaluation=EVALUATION)
    rng = np.random.default_rng(0)
    like = abstract(network_of(metadata), None)
    weights.write(path, jax.tree.map(lambda x: rng.uniform(0.1, 0.3, x.shape), like), metadata)
    return path


@pytest.fixture(scope="module")
def safe(small, tmp_path_factory):
    """The same weights in the other format."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    assert command.main([f"--workdir={small}", f"--output={path}"]) == 0
    return path


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The server, the token of "owner", and a cache of its own."""
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose protocol is its own
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's tries
    with hub_server.serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture
def pushed(server, safe):
    """The server with a repository owner/small, whose only commit holds these weights."""
    server.add("owner/small", FIRST, {hub.FILE: safe.read_bytes()})
    return server


def pull(*arguments):
    return command.main(["pull", *arguments])


def last_error(capsys):
    """The only error line of a command."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


# The format.


def test_both_formats_have_the_same_content_and_checksum(small, safe, same):
    import safetensors

    metadata, arrays = weights.read(safe)
    assert metadata == weights.read(small)[0] and metadata.evaluation == EVALUATION
    same(arrays, weights.read(small)[1])
    with safetensors.safe_open(safe, "numpy") as file, np.load(small) as archived:
        assert file.metadata()["checksum"] == archived["checksum"].tobytes().hex()
        assert {name: file.get_tensor(name).dtype for name in file.keys()} == {  # noqa: SIM118
            name: archived[name].dtype for name in archived.files if name not in ("metadata", "checksum")
        }


@pytest.mark.parametrize("place", [4, 200, -1])
def test_a_damaged_safetensors_file_is_one_line(safe, tmp_path, place):
    data, path = bytearray(safe.read_bytes()), tmp_path / "small.safetensors"
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}: damaged, or not a file of python -m") as error:
        loading.load(path)
    assert "\n" not in str(error.value)


def test_safetensors_of_other_programs_are_refused(tmp_path):
    from safetensors import numpy as safetensors

    path = tmp_path / "bert.safetensors"
    safetensors.save_file({"a": np.zeros(3, np.float32)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="bert.safetensors: .*its header has no checksum and no metadata"):
        loading.load(path)


# Repositories.


def test_pushed_weights_come_back_unchanged_and_predict_the_same(server, small, same, tmp_path, capsys):
    assert command.main(["push", str(small), "owner/small", "--license=apache-2.0", "--private"]) == 0
    one, said = server.repositories["owner/small"], capsys.readouterr().out
    commit = one["refs"]["main"]
    assert said == f"{NAME}: step 4, with its scores -> {server.address}/owner/small/commit/{commit}\n"
    assert one["private"] and len(one["commits"]) == 2  # the first one of any repository is empty
    metadata, arrays = weights.read(loading.located(NAME))
    same(arrays, weights.read(small)[1])
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    found, wanted = (Predictor(source, second_look=False)(image) for source in (NAME, small))
    np.testing.assert_array_equal(found.joints, wanted.joints)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    for output in (tmp_path / "a.npz", tmp_path / "a.safetensors"):
        assert pull("owner/small", f"--output={output}") == 0
        same(weights.read(output)[1], arrays)
    # One download in all: later calls compare the ETag.
    assert sum(path.startswith("/cdn/") for _, path, _ in server.asked) == 1
    files = one["commits"][commit]
    assert json.loads(files["config.json"]) == metadata.to_dict()
    assert metadata.card == {"license": "apache-2.0"} and metadata.evaluation == EVALUATION
    parameters = sum(x.size for name, x in arrays.items() if name.startswith("params/"))
    assert files["README.md"].decode() == model_card.text("owner/small", metadata, parameters)


def test_revisions_have_names_and_an_archive_uses_only_one(pushed, small, tmp_path):
    metadata, arrays = weights.read(small)
    changed = {name: value + 1 for name, value in arrays.items()}
    weights.write(tmp_path / "later.safetensors", changed, metadata)
    lines = tmp_path / "predictions.jsonl"
    archive._check_same(lines, NAME, {}, fresh=True)
    archive._check_same(lines, NAME, {}, fresh=False)
    pushed.add("owner/small", LATER, {hub.FILE: (tmp_path / "later.safetensors").read_bytes()})
    pushed.repositories["owner/small"]["refs"]["v1"] = FIRST
    name = min(arrays)
    for revision, added in (("", 1), ("@main", 1), ("@v1", 0), (f"@{FIRST}", 0)):
        found = weights.read(loading.located(NAME + revision))[1]
        np.testing.assert_allclose(found[name], arrays[name] + added, atol=2e-3)
    with pytest.raises(ValueError, match="its lines were made with another crc32"):
        archive._check_same(lines, NAME, {}, fresh=False)


# What goes wrong.


@pytest.mark.parametrize("mode, tries", [("cut once", 2), ("", 1)])
def test_an_interrupted_download_continues_where_it_stopped(pushed, safe, monkeypatch, mode, tries):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # which is kept
    pushed.mode = mode
    assert pull("owner/small") == 0
    asked = [begin for _, path, begin in pushed.asked if path.startswith("/cdn/")]
    half = safe.stat().st_size // 2
    assert asked == [None, f"bytes={half - half % 1024}-"][:tries]
    assert loading.located(NAME).read_bytes() == safe.read_bytes()


@pytest.mark.parametrize(
    "mode, message",
    [
        ("cut", "cannot be reached (peer closed connection"),
        ("damaged", "the download of model.safetensors was damaged, and is removed; try again."),
        ("busy", "the server responds with 500 (Internal Server Error), and there is no earlier download."),
    ],
)
def test_a_broken_download_gives_one_line_and_the_next_call_succeeds(pushed, capsys, mode, message):
    pushed.mode = mode
    assert pull("owner/small") == 1
    error = last_error(capsys)
    assert error.startswith(f"{NAME}: ") and message in error
    pushed.mode = ""
    assert pull("owner/small") == 0


def test_offline_an_earlier_download_is_used_with_a_note(pushed, capsys, monkeypatch):
    assert pull("owner/small") == 0
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")  # no server listens there
    capsys.readouterr()
    assert pull("owner/small") == 0
    note = f"Note: {NAME}: http://localhost:9 cannot be reached ([Errno 111] Connection refused); "
    assert capsys.readouterr().err == f"{note}using an earlier download.\n"
    assert pull(f"owner/small@{FIRST}") == 0 and not capsys.readouterr().err  # it cannot have changed
    assert pull("owner/large") == 1
    error = last_error(capsys)
    assert error.startswith("hf://owner/large: http://localhost:9 cannot be reached (")
    assert error.endswith(", and there is no earlier download.")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert pull("owner/small") == 0
    assert capsys.readouterr().err == f"Note: {NAME}: HF_HUB_OFFLINE is set; using an earlier download.\n"
    assert pull("owner/large") == 1
    assert last_error(capsys) == "hf://owner/large: HF_HUB_OFFLINE is set, and there is no earlier download."


@pytest.mark.parametrize(
    "token, arguments, message",
    [
        ("hf_owner", ["pull", "owner/none"], "there is no such repository, or it is private: log in by"),
        ("hf_other", ["pull", "owner/small"], "there is no such repository, or it is private: log in by"),
        ("", ["pull", "owner/small"], "there is no such repository, or it is private: log in by"),
        ("hf_owner", ["pull", "owner/small@v9"], "there is no such revision."),
        ("hf_owner", ["pull", "owner/empty"], "holds no model.safetensors, which `hourglass weights push` "),
        ("hf_owner", ["pull", "small"], "small: expected owner/name or owner/name@revision"),
        ("", ["push", "FILE", "owner/small"], "uploading needs a token; log in by `hf auth login`, or set"),
        ("hf_unknown", ["push", "FILE", "owner/small"], "the server does not accept the token (Invalid cred"),
        ("hf_other", ["push", "FILE", "owner/small"], "no permission (You don't have the rights to write"),
        ("hf_owner", ["push", "FILE", "owner/small@v1"], "weights go to the main branch; leave @v1 out."),
        ("hf_owner", ["push", "none.npz", "owner/small"], "none.npz holds no checkpoints"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(
    pushed, small, monkeypatch, capsys, token, arguments, message
):
    pushed.add("owner/empty", FIRST, {"README.md": b"hello"})
    pushed.repositories["owner/small"]["private"] = True
    monkeypatch.setenv("HF_TOKEN", token)
    assert command.main([str(small) if word == "FILE" else word for word in arguments]) == 1
    assert message in last_error(capsys)
    assert list(pushed.repositories["owner/small"]["commits"]) == [FIRST]  # nothing was written


def test_without_the_client_the_error_names_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert pull("owner/small") == 1
    assert last_error(capsys) == (
        f"{NAME}: downloading it needs huggingface_hub, which is not installed: pip install "
        "'hourglass_jax[hub]'."
    )


# The model card.


def test_the_card_contains_the_facts_of_the_metadata(small):
    metadata = dataclasses.replace(weights.read(small)[0], card={"license": "apache-2.0", "device": "a TPU"})
    card = huggingface_hub.ModelCard(model_card.text("owner/small", metadata, 1345))
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "hourglass_jax")
    assert card.data.pipeline_tag == "keypoint-detection" and "newell" in card.data.tags
    (result,) = card.data.eval_results
    assert (result.metric_value, result.metric_type) == (61.67, "pckh")
    assert (result.dataset_type, result.dataset_name) == ("synthetic", "synthetic-validation")
    for line in (
        "System: newell, stacks 2, width 4, depth 1; 1,345 parameters.",
        "Paper: Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng, ECCV 2016).",
        'result = Predictor("hf://owner/small")("photo.jpg")',
        "40 figures for training, 10 for validation.",
        "4 steps of 8 people (32 samples).",
        "- device: a TPU",
        "PCKh@0.5 on 10 people (1 of them lack the reference length and do not count) of "
        "synthetic-validation, per cent. Protocol: crop: image, no flip, scales 1, quarter.",
        "| Head | Sho | Mean |",
        "| 81.2 |  | 61.7 |",
        "Joints' scores separate correct joints from wrong ones with an AUROC of 0.750. Joints with a score "
        "below 0.250, where F1 is best, are not drawn.",
        "Of the weights: apache-2.0. The code of hourglass_jax is under Apache-2.0.",
    ):
        assert line in card.text.splitlines(), line


def test_the_cards_command_makes_the_same_config(small, monkeypatch):
    config = weights.read(small)[0].config
    words = shlex.split(model_card.command(config).replace("\\\n", ""))
    assert words[:2] == ["hourglass", "train"] and "--config.train.steps=4" in words
    monkeypatch.setattr(sys, "argv", ["main", *words[2:]])
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    main.parse(sys.argv)
    made = flags.FLAGS.config.to_dict()
    assert json.loads(json.dumps(made)) == json.loads(json.dumps(completed(config, made)))


def test_no_command_is_given_for_a_config_that_flags_cannot_make():
    config = config_base.named("newell").get_config().to_dict()
    assert model_card.command(config) == "hourglass train --config=newell --workdir=runs/newell"
    assert not model_card.command(config | {"model": config["model"] | {"own": 1}})
    assert not model_card.command(config | {"model": {"name": "own"}})
