import contextlib
import io
import json
import sys

import pytest
from absl import flags

from hourglass_jax import main

pytestmark = pytest.mark.usefixtures("small_model", "shared_programs")

QUICK, W = "--config=configs/quickstart.py:width=4", "--workdir=TMP/w"


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs main.py in this process: (exit code, its last line on stderr)."""

    def run(*arguments):
        arguments = [a.replace("TMP", str(tmp_path)) for a in arguments]
        # The flags of a new process: none is set, and none is for a config's values.
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        errors = io.StringIO()
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(errors):
            main.run()
        return ended.value.code or 0, errors.getvalue().removesuffix("\n")

    return run


@pytest.fixture
def config_file(tiny, tmp_path):
    """The tiny config as a file, to be given as --config."""
    path = tmp_path / "tiny_config.py"
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({tiny().to_json()!r}))\n"
    )
    return f"--config={path}"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([W], "--config"),
        ([QUICK], "--workdir"),
        (["--config=configs/nothing.py", W], "there is no such file; the package has chu, mssh, newell,"),
        (["--config=configs/quickstart.py:stack=2", W], "no argument 'stack'; it has"),
        (["--config=configs/quickstart.py:stacks=two", W], "stacks='two' must be of type int."),
        (["--config=configs/chu.py:variant=all", W], "variant='all' is unknown; choose from base"),
        ([QUICK, W, "--config.train.step=3"], "has no key 'step' Did you mean \"steps\""),
        ([QUICK, W, "--config.trains.steps=3"], "has no key 'trains' Did you mean"),
        ([QUICK, W, "--config.train.steps=many"], "many"),
        ([QUICK, W, "--config.train.steps=1.5"], "1.5"),
        ([QUICK, W, "--config.evaluate.flip=perhaps"], "perhaps"),
        ([QUICK, W, "--mode=test"], "test"),
        ([QUICK, W, "--works=1"], "works"),
        ([QUICK, W, "train"], "Unknown argument 'train'; flags look like --workdir=DIR."),
        ([QUICK, W, "--processes=two"], "processes"),
        ([QUICK, W, "--config.data.dataset=mpi"], "data.dataset='mpi' is unknown; choose from"),
        (
            [QUICK, W, "--config.data.dataset=lspet", "--config.data.source=zip"],
            "data.source='zip' is unknown; choose tfds, packed or device.",
        ),
        (
            [
                QUICK,
                W,
                "--config.data.dataset=lspet",
                "--config.data.source=packed",
                "--config.data.packed_dir=TMP/none",
            ],
            "none/lspet-joints-train.npz: no such file; write it with",
        ),
        ([QUICK, W, "--config.train.batch_size=0"], "train.batch_size=0 must be a positive multiple"),
        ([QUICK, W, "--config.evaluate.batch_size=0"], "evaluate.batch_size=0 must be"),
        ([QUICK, W, "--config.optimizer.name=sgd"], "optimizer.name='sgd' is unknown; choose"),
        ([QUICK, W, "--config.optimizer.schedule=no"], "optimizer.schedule='no' is unknown"),
        ([QUICK, W, "--config.loss.kind=l1"], "loss.kind='l1' is unknown; choose from"),
        ([QUICK, W, "--mode=evaluate"], "w holds no checkpoints; is it the --workdir"),
        ([QUICK, W, "--mode=evaluate", "--checkpoint=TMP/other"], "other holds no checkpoints"),
        ([QUICK, "--workdir=TMP/file"], "file"),
    ],
)
def test_a_wrong_flag_is_a_one_line_error(command, tmp_path, capfd, arguments, message):
    (tmp_path / "file").write_text("not a folder")
    code, said = command(*arguments)
    assert code == 1
    assert said.startswith("Error: ") and "\n" not in said and message in said
    output, errors = capfd.readouterr()
    assert "Traceback" not in output + errors
    assert not [line for line in errors.splitlines() if line.strip()]


@pytest.mark.parametrize("field", [["model.name=foo"], ["model.dtype=float16"], ["model.stem=other"]])
def test_a_wrong_value_of_the_model_is_a_one_line_error(command, monkeypatch, field):
    monkeypatch.undo()  # restores the real models
    values = [f"--config.{value}" for value in field]
    code, said = command("--config=configs/newell.py:dataset=synthetic,width=4", W, *values)
    assert code == 1 and said.startswith("Error: ") and "\n" not in said
    assert field[0].partition("=")[2] in said


def test_failure_and_help_of_the_real_process(run_python, tmp_path):
    result = run_python("main.py", QUICK, f"--workdir={tmp_path}", "--config.train.steps=many")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    explained = run_python("main.py", "--help")
    for flag in ("config", "workdir", "mode", "checkpoint", "allow_changed_config", "coordinator"):
        assert f"--{flag}" in explained.stdout.replace("--[no]", "--")
    assert "Trains or evaluates a network" in explained.stdout and "Traceback" not in explained.stderr


def test_training_and_evaluation_from_the_command(
    command, config_file, metrics_of, capsys, tmp_path, quick_compiles
):
    assert command(config_file, W, "--config.train.steps=2") == (0, "")
    assert "step 2/2 (100%)" in capsys.readouterr().out
    assert [line["step"] for line in metrics_of(tmp_path / "w") if "loss" in line] == [1, 2]
    # Another config needs the flag that allows it.
    more = [config_file, W, "--config.train.steps=3", "--config.optimizer.learning_rate=1e-4"]
    code, said = command(*more)
    assert code == 1 and "learning_rate: 0.001 -> 0.0001" in said and "--allow_changed_config" in said
    assert command(*more, "--allow_changed_config") == (0, "")
    assert "Continues after step 2 of 3." in capsys.readouterr().out

    # A checkpoint by its path, with another workdir and any config with this model.
    checkpoint = "--checkpoint=TMP/w/checkpoints/2"
    assert command(config_file, "--workdir=TMP/e", "--mode=evaluate", checkpoint) == (0, "")
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["step"] == 2
    assert "synthetic-validation, step 2, 10 people" in capsys.readouterr().out
    code, said = command(config_file, W, "--mode=evaluate", "--config.model.width=8")
    assert code == 1 and said.endswith("w is of another model than the config: model.width: 4 -> 8.")


def test_divergence_is_a_one_line_error(command, config_file, quick_compiles):
    code, said = command(config_file, W, "--config.optimizer.learning_rate=1e30")
    assert code == 1 and said.startswith("Error: The loss is ") and "\n" not in said
