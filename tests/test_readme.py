"""Every command of the README runs, with small sizes, or is listed with the reason why not."""

import contextlib
import fractions
import importlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import conftest
import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from absl import flags

from hourglass_jax import main, models
from hourglass_jax.data.datasets import coco_annotations
from hourglass_jax.media import videos

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

ELSEWHERE = {
    "bash launch/check.sh": "CI runs it, and this test with it",
    "bash launch/gpu.sh": "needs a GPU; test_launch_scripts looks at it",
    "bash launch/tpu_vm.sh": "needs a TPU; test_launch_scripts looks at it",
}
DISTRIBUTED = {"--distributed", "--coordinator", "--processes", "--process"}  # see training/test_step.py

# A few steps of a network of the same kind; what is stored and where stays as the README says.
SMALL = {
    **{"model.stacks": 1, "model.width": 8, "model.depth": 1, "data.size": 32, "data.examples": "(24,6)"},
    **{"train.steps": 2, "train.batch_size": 4, "train.evaluate_every": 2, "train.save_every": 2},
    **{"train.pictures": 1, "train.tensorboard": False, "evaluate.batch_size": 4},
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(text):
    """One command per line, continued ones joined, comments and empty lines left out."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


COMMANDS = [command for block in blocks("bash") for command in commands(block)]


(EXAMPLE,) = map(json.loads, blocks("json"))  # of one's own people


def run_main(arguments):
    """main.py in this process: its exit code, or its last word."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["main.py", *arguments])
        main.run()
    return ended.value.code or 0


def main_of(name):
    """The function that `python -m NAME` runs; a package has it in its `command` or `__main__`."""
    for inner in (".command", ".__main__", ""):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name + inner).main
    raise AssertionError(f"{name} is no module")


class Sandbox:
    """A checkout's root to be in, with what the README supposes: photos, downloads, earlier commands."""

    def __init__(self, folder, own_data):
        self.folder, self._done = folder, {}
        own_data(folder / "mine", EXAMPLE["categories"][0])
        for name in ("configs", "launch"):
            (folder / name).symlink_to(ROOT / name)
        downloads = folder / "DOWNLOADS" / "lspet_dataset" / "images"
        downloads.mkdir(parents=True)
        rng = np.random.default_rng(0)
        joints = rng.uniform(10, 50, (14, 3, 24))
        joints[:, 2] = 1
        scipy.io.savemat(downloads.parent / "joints.mat", {"joints": joints})
        for number in range(1, 25):
            cv2.imwrite(str(downloads / f"im{number:05d}.jpg"), rng.integers(0, 256, (60, 60, 3), np.uint8))
        with h5py.File(folder / "valid.h5", "w") as file, h5py.File(folder / "preds.h5", "w") as predictions:
            file["part"] = predictions["preds"] = rng.uniform(10, 50, (3, 16, 2))
            file["visible"], file["normalize"] = np.ones((3, 16)), np.full(3, 10.0)
        (folder / "photos").mkdir()
        for name in ("photos/a.jpg", "photos/b.png", "photo.jpg"):
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (50, 70, 3), np.uint8))
        with videos.writing(folder / "clip.mp4", fractions.Fraction(25)) as write:
            write(rng.integers(0, 256, (50, 70, 3), np.uint8))

    def run(self, command):
        """Runs a command once; what it printed."""
        if command not in self._done:
            text = io.StringIO()
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(text):
                code = self._run_small(shlex.split(command))
            assert code == 0, f"{command}: {code}"
            self._done[command] = text.getvalue()
        return self._done[command]

    def _run_small(self, words):
        with pytest.MonkeyPatch.context() as patch:
            # The commands are tested here, not the models. The package's weights are of a real one.
            if any("workdir" in word for word in words):
                patch.setattr(models, "build", conftest.create_small)
            return self._run(words)

    def _run(self, words):
        if words[:2] == ["bash", "launch/quickstart.sh"]:
            return self.quickstart()
        if words[:2] == ["python", "main.py"]:
            return self._main(words[2:])
        if words[:2] == ["python", "-m"] and words[2].startswith("hourglass_jax."):
            arguments = words[3:]
            if words[2] == "hourglass_jax.data.prepare":
                arguments.append("--data_dir=prepared")  # not into the home folder
            return main_of(words[2])(arguments)
        raise AssertionError(f"README has a command that this test does not know: {shlex.join(words)}")

    def _main(self, arguments):
        given = {word.partition("=")[0] for word in arguments}
        small = SMALL | {"data.data_dir": "prepared"}
        if "--mode=evaluate" in arguments:  # of a training with the same sizes
            self.run(shlex.join(["python", "main.py", *(a for a in arguments if a != "--mode=evaluate")]))
        if "--config.data.source=packed" in arguments:  # on another machine, where nothing is trained yet
            (workdir,) = (a.partition("=")[2] for a in arguments if a.startswith("--workdir="))
            shutil.rmtree(workdir, ignore_errors=True)
        return run_main(
            [*arguments, *(f"--config.{k}={v}" for k, v in small.items() if f"--config.{k}" not in given)]
        )

    def quickstart(self):
        """The script's own commands, without its virtual environment."""
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        (scripts / "quickstart.sh").write_text((ROOT / "launch" / "quickstart.sh").read_text())
        # In the place of the real one: python tells how it is called.
        tell = 'python() { printf "%q " python "$@"; echo; }'
        (scripts / "setup.sh").write_text(f"set -euo pipefail\n{tell}\n")
        told = subprocess.run(["bash", scripts / "quickstart.sh"], capture_output=True, text=True, check=True)
        ran = [line.strip() for line in told.stdout.splitlines() if line.startswith("python ")]
        assert len(ran) >= 4
        for command in ran:
            self.run(command)
        print(told.stdout.splitlines()[-1])
        return 0


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, own_data):
    return Sandbox(tmp_path_factory.mktemp("checkout"), own_data)


def test_the_commands_are_found():
    assert len(COMMANDS) >= 8 and len(set(COMMANDS)) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_works(sandbox, command):
    words = shlex.split(command)
    if any(command.startswith(known) for known in ELSEWHERE):
        assert (ROOT / words[1]).exists()
        return
    if "--distributed" in words:
        # Its processes are test_two_processes_give_the_run_of_one's; here only that the flags are these.
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used == DISTRIBUTED | {"--config", "--workdir"}
        assert all(name.removeprefix("--") in flags.FLAGS for name in used)
        return
    if "hourglass_jax.compare" in words:
        for needed in (c for c in COMMANDS if "hourglass_jax.score" in c):
            sandbox.run(needed)
    if {"hourglass_jax.predict", "hourglass_jax.compare"} & set(words):
        sandbox.run("bash launch/quickstart.sh")
    if "dataset=lspet" in command:
        for prepare in (c for c in COMMANDS if "data.prepare" in c and "lspet" in c):
            sandbox.run(prepare)
    output = sandbox.run(command)
    given = dict(
        word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word
    )
    made = {
        "bash": ["runs/quickstart/pictures", "runs/quickstart/predicted/predictions.json"],
        "main.py": [f"{given.get('workdir')}/config.json", f"{given.get('workdir')}/metrics.jsonl"],
    }
    expected = made.get(words[0], []) + made.get(words[1], [])
    if "output" in given:
        written = "compared.md" if "hourglass_jax.compare" in words else "predictions.json"
        expected.append(f"{given['output']}/{written}")
    expected += [given[name] for name in ("sheet", "pack", "curves", "json") if name in given]
    if given.get("mode") == "evaluate":
        expected += [f"{given['workdir']}/{name}.json" for name in ("evaluation", "predictions")]
    assert expected and all((sandbox.folder / path).exists() for path in expected)
    assert output


def test_python_of_the_readme_works(sandbox, capsys):
    sandbox.run("bash launch/quickstart.sh")
    (snippet,) = blocks("python")
    found = {}
    with contextlib.chdir(sandbox.folder):
        exec(compile(snippet, "README.md", "exec"), found)
    assert found["joints"].shape == (14, 2) and found["scores"].shape == (14,)
    assert found["overlay"].shape == (250, 350, 3)  # enlarged
    assert capsys.readouterr().out.splitlines()[-2:] == [f"photos/{n} (1, 14, 2)" for n in ("a.jpg", "b.png")]
    assert ((found["scores"] >= 0) & (found["scores"] <= 1)).all()
    # The crop is the whole picture: a square of 70 px around its middle, (35, 25).
    assert (np.abs(found["joints"] - (35, 25)) <= 35).all()


def test_example_of_the_readme_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(EXAMPLE))
    content = coco_annotations.read(tmp_path / "a.json")
    skeleton, (person,), left_out = content.skeleton, content.people, content.left_out
    assert skeleton.joints[1:3] == ("left_hand", "right_hand") and skeleton.flip_pairs == ((1, 2), (3, 4))
    assert person.visible.tolist() == [2, 2, 1, 2, 0] and not left_out


def test_commands_within_the_text_exist(capsys):
    inline = re.findall(r"`(python -m [^`]+)`", README)
    for command in inline:
        words = shlex.split(command)
        with pytest.raises(SystemExit) as ended:
            main_of(words[2])(["--help"])
        explained = capsys.readouterr().out
        assert ended.value.code == 0
        for word in words[3:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in explained, command


def test_files_that_the_readme_names_exist():
    names = re.findall(r"`((?:launch|configs|hourglass_jax)/[\w/]+\.(?:sh|py))`", README)
    names += re.findall(r"bash (launch/\w+\.sh)", README) + re.findall(
        r"-r (requirements[\w-]*\.txt)", README
    )
    assert len(names) > 5
    assert not [name for name in names if not (ROOT / name).exists()]


@pytest.mark.parametrize("name", ["check", "gpu", "quickstart", "setup", "tpu_vm"])
def test_launch_scripts(name):
    path = ROOT / "launch" / f"{name}.sh"
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    text = path.read_text()
    # Each goes to the project's root and has the environment first; no error passes silently.
    assert "set -euo pipefail" in text if name == "setup" else "setup.sh" in text
    for program in re.findall(r"python (\w+\.py)", text):
        assert (ROOT / program).exists()
    for module in re.findall(r"python -m (hourglass_jax[\w.]*)", text):
        assert importlib.util.find_spec(module)
    # The examples in their comments load.
    for config in re.findall(r"--config=(configs/\S+)", text):
        file, _, arguments = config.partition(":")
        importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(arguments or None)
    assert os.access(path, os.R_OK)
