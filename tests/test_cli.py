"""`hourglass`: the commands, their help, and configs by name."""

import gc
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import hourglass_jax
from hourglass_jax import cli, config_base

WORDS = (
    "train evaluate predict demo prepare score compare report submission export import weights groups "
    "benchmark"
)


def test_help_lists_every_command_with_an_example_and_imports_nothing_slow():
    code = "import sys\nfrom hourglass_jax import cli\ncli.main(['--help'])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = re.findall(r"^  (\w+) +\w", done.stdout, re.MULTILINE)
    assert listed == WORDS.split()
    assert [f"hourglass {word} " in done.stdout for word in listed] == [True] * len(listed)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not {"jax", "numpy", "cv2", "tensorflow", "absl"} & loaded


def test_the_collector_of_garbage_is_on_again_after_an_import(tmp_path, monkeypatch):
    (tmp_path / "seen.py").write_text("import gc\non = gc.isenabled()")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli._imported("seen").on is False and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        cli._imported("broken")
    assert gc.isenabled()


def test_the_version_is_the_projects(capsys):
    text = (pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hourglass_jax {hourglass_jax.__version__}\n"
    assert "[tool.hatch.version]" in text and hourglass_jax.__version__ == "0.2.0"


def test_for_a_wrong_command_the_error_lists_the_right_ones(capsys):
    assert cli.main(["predikt"]) == 2
    error = capsys.readouterr().err
    assert ", ".join(WORDS.split()) in error and error.endswith("Did you mean predict?\n")
    assert error.count("\n") == 1
    assert cli.main([]) == 2 and capsys.readouterr().out.startswith("usage: hourglass COMMAND")


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.word)
def test_each_command_has_the_options_of_its_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command.word, "--help"])
    assert not ended.value.code
    explained = capsys.readouterr().out
    options = re.findall(r"--\w+", command.example)
    if command.word == "benchmark":
        assert command.example.split()[0] in explained
        options = []
    assert all(option in explained for option in options)
    assert importlib.import_module(f"hourglass_jax.{command.module}")


# Configs by name.


def test_an_interruption_of_the_imports_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert cli.main(["predict", "a.jpg"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_config_is_found_by_its_name_or_is_a_users_file(tmp_path, monkeypatch):
    newell = str(config_base.folder() / "newell.py")
    monkeypatch.chdir(tmp_path)
    for name in ("newell", "newell.py", "configs/newell.py"):
        assert config_base.find(f"{name}:stacks=2,dataset=lspet") == f"{newell}:stacks=2,dataset=lspet"
    (tmp_path / "newell.py").write_text("")
    assert config_base.find("newell.py:a=1") == "newell.py:a=1"  # the file exists
    for wrong in ("hourglass", "other/newell.py", "configs/common.py", ""):
        with pytest.raises(ValueError, match="the package has chu, mssh, newell, quickstart, selvam, tang,"):
            config_base.find(wrong)
    assert config_base.named("tang").get_config("stacks=3").model.stacks == 3
    with pytest.raises(ValueError, match="No config is named 'common'; there are chu, "):
        config_base.named("common")
