import subprocess
import sys

import conftest
import pytest

from hourglass_jax import console


def raising(error):
    def command():
        raise error

    return command


def no_module(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ValueError("a.json: no number\nat 3"), 1, "Error: a.json: no number at 3"),
        (FileNotFoundError("a.json: no such file."), 1, "Error: a.json: no such file."),
        (FloatingPointError("The loss is nan."), 1, "Error: The loss is nan."),
        (OSError(), 1, "Error: OSError"),
        (
            no_module("sklearn.cluster"),
            1,
            "Error: this needs scikit-learn, which is not installed: pip install 'hourglass_jax[data]'",
        ),
        (ImportError("needs PyTorch: pip install torch."), 1, "Error: needs PyTorch: pip install torch."),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_an_error_of_a_command_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert console.run(raising(error)) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_a_command_gets_its_arguments_and_returns_its_exit_code():
    assert console.run(lambda a, *, b: a + b, 1, b=2) == 3
    assert console.run(lambda: None) == 0
    with pytest.raises(KeyError):  # a bug keeps its traceback
        console.run(raising(KeyError("x")))


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_command_ends_well_without_streams(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    assert console.run(lambda: getattr(sys, name).write("a line") and 0) == 0


def test_a_path_that_the_terminal_cannot_show_is_escaped(capsys):
    assert console.run(lambda: print("a\udcff.jpg")) == 0
    assert capsys.readouterr().out == "a\\udcff.jpg\n"


def test_a_reader_that_stops_early_causes_no_traceback():
    code = "from hourglass_jax import console; console.run(lambda: [print(i) for i in range(10**5)] and 0)"
    command = ["bash", "-c", f'{sys.executable} -c "{code}" | head -1']
    result = subprocess.run(command, cwd=conftest.ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("0\n", "")
