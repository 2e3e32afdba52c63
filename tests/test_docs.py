"""Every command of the README and of docs/ runs, with small sizes, or is listed with the reason why not."""

import contextlib
import fractions
import importlib
import inspect
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import conftest
import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from absl import flags

from hourglass_jax import cli, config_base, kept, models, weights
from hourglass_jax.benchmarks import command as benchmarks
from hourglass_jax.data.datasets import coco_annotations
from hourglass_jax.media import videos

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md")
}
ALL = "\n".join(PAGES.values())

ELSEWHERE = {
    "bash launch/check.sh": "CI runs it, and this test with it",
    "bash launch/gpu.sh": "needs a GPU; test_launch_scripts looks at it",
    "bash launch/tpu_vm.sh": "needs a TPU; test_launch_scripts looks at it",
    "pip install": "test_named_extras_exist looks at it",
    "git clone": "needs a server",
    "pre-commit install": "needs a package of its own",
    "source .venv/bin/activate": "a shell's",
    "source launch/setup.sh": "test_requirements.py",
    "pytest": "would run this test, and all others",
}
DISTRIBUTED = {"--distributed", "--coordinator", "--processes", "--process"}  # see training/test_processes.py

# A few steps of a small network of the same kind; files and folders are those of the page.
SMALL = {
    "model.stacks": 1,
    "model.width": 8,
    "model.depth": 1,
    "data.size": 32,
    "data.examples": "(24,6)",
    "data.data_dir": "prepared",
    "train.steps": 2,
    "train.batch_size": 4,
    "train.evaluate_every": 2,
    "train.save_every": 2,
    "train.pictures": 1,
    "train.tensorboard": False,
    "evaluate.batch_size": 4,
}


def blocks(language, text=ALL):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """One command per line, with continued lines joined, without comments and empty lines."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    lines = [line.partition("  # ")[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith("#")]


def words_of(command):
    """The words; `python main.py` as `hourglass train` or `evaluate`, a packaged config by its name."""
    words = shlex.split(command)
    if words[:2] == ["python", "main.py"]:
        word = "evaluate" if "--mode=evaluate" in words else "train"
        words = ["hourglass", word, *(w for w in words[2:] if w != "--mode=evaluate")]
    return [re.sub(r"^--config=configs/(\w+)\.py", r"--config=\1", word) for word in words]


COMMANDS = list(dict.fromkeys(shlex.join(words_of(c)) for block in blocks("bash") for c in commands(block)))
(EXAMPLE,) = map(json.loads, blocks("json"))  # a user's own annotations


class Sandbox:
    """A working folder with the things that pages need: photos, downloads, results of earlier commands."""

    def __init__(self, folder, own_data):
        self.folder, self._done = folder, {}
        own_data(folder / "mine", EXAMPLE["categories"][0])
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
        """Runs a command once, after the commands that it depends on; returns its output."""
        command = shlex.join(words_of(command))
        if command not in self._done:
            text = io.StringIO()
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(text):
                code = self._run_small(shlex.split(command))
            assert code == 0, f"{command}: {code}"
            self._done[command] = text.getvalue()
        return self._done[command]

    def _run_small(self, words):
        with pytest.MonkeyPatch.context() as patch:
            # This tests commands, not models. The package's weights belong to a real model.
            if any("workdir" in word for word in words):
                patch.setattr(models, "build", conftest.create_small)
            return self._run(words)

    def _run(self, words):
        if words[:2] == ["bash", "launch/quickstart.sh"]:
            return self.quickstart()
        if words[:3] == ["python", "-m", "hourglass_jax.data.synthetic"]:
            return importlib.import_module(f"{words[2]}.__main__").main(words[3:])
        if words[:2] == ["python", "-m"]:
            words = ["hourglass", words[2].removeprefix("hourglass_jax."), *words[3:]]
        assert words[0] == "hourglass", f"A page has a command that this test does not know: {words}"
        _, word, *arguments = words
        if word in ("train", "evaluate"):
            return self._train_or_evaluate(word, arguments)
        if word == "prepare":
            arguments.append("--data_dir=prepared")  # not into the home folder
        return cli.main([word, *arguments])

    def _train_or_evaluate(self, word, arguments):
        if word == "evaluate":  # a training with the same sizes
            self.run(shlex.join(["hourglass", "train", *arguments]))
        if "--config.data.source=packed" in arguments:  # on another machine, without a training
            (workdir,) = (a.partition("=")[2] for a in arguments if a.startswith("--workdir="))
            shutil.rmtree(workdir, ignore_errors=True)
        given = {argument.partition("=")[0] for argument in arguments}
        small = [f"--config.{k}={v}" for k, v in SMALL.items() if f"--config.{k}" not in given]
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", sys.argv)  # restored at the end
            cli.main([word, *arguments, *small])
        return ended.value.code or 0

    def quickstart(self):
        """The script's own commands, without its virtual environment."""
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        (scripts / "quickstart.sh").write_text((ROOT / "launch" / "quickstart.sh").read_text())
        # Replaces the real Python: prints its arguments.
        printing = 'python() { printf "%q " python "$@"; echo; }'
        (scripts / "setup.sh").write_text(f"set -euo pipefail\n{printing}\n")
        done = subprocess.run(["bash", scripts / "quickstart.sh"], capture_output=True, text=True, check=True)
        ran = [line.strip() for line in done.stdout.splitlines() if line.startswith("python ")]
        assert len(ran) >= 4
        for command in ran:
            self.run(command)
        print(done.stdout.splitlines()[-1])
        return 0


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, own_data):
    with pytest.MonkeyPatch.context() as patch:
        # The smaller weights take half the time to compile, and a third for each picture.
        patch.setitem(weights.SHIPPED, weights.DEFAULT, weights.SHIPPED["lspet-small"])
        kept.keep(tmp_path_factory.mktemp("facts"))  # as the command does, which tests let keep nothing
        yield Sandbox(tmp_path_factory.mktemp("checkout"), own_data)
        kept.keep(None)


def test_the_pages_have_commands():
    assert len(COMMANDS) >= 15 and len(PAGES) >= 11
    assert len((ROOT / "README.md").read_bytes()) <= 7168


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_page_works(sandbox, command):
    words = shlex.split(command)
    if any(command.startswith(known) for known in ELSEWHERE):
        assert words[0] != "bash" or (ROOT / words[1]).exists()
        return
    if "--distributed" in words:
        # test_two_processes_give_the_run_of_one runs such processes; this checks only the flags.
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used == DISTRIBUTED | {"--config", "--workdir"}
        assert all(name.removeprefix("--") in flags.FLAGS for name in used)
        return
    if "compare" in words:
        for needed in (c for c in COMMANDS if c.startswith("hourglass score")):
            sandbox.run(needed)
    if "runs/quickstart" in command and words[0] == "hourglass":
        sandbox.run("bash launch/quickstart.sh")
    if "dataset=lspet" in command:
        for prepare in (c for c in COMMANDS if "hourglass prepare" in c and "lspet" in c):
            sandbox.run(prepare)
    output = sandbox.run(command)
    given = dict(
        word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word
    )
    shard = f"-{given['shard'].replace('/', '-of-')}" if "shard" in given else ""
    predictions = f"predictions{shard}.jsonl" if "--jsonl" in words else "predictions.json"
    made = {
        "launch/quickstart.sh": ["runs/quickstart/pictures", "runs/quickstart/predicted/predictions.json"],
        "train": [f"{given.get('workdir')}/{name}" for name in ("config.json", "metrics.jsonl")],
        "evaluate": [f"{given.get('workdir')}/{name}.json" for name in ("evaluation", "predictions")],
        "predict": [f"{given.get('output')}/{predictions}"],
        "report": ["runs/quickstart/report.html"],
        "compare": [f"{given.get('output')}/compared.md"],
    }
    expected = made.get(words[1], [])
    expected += [given[name] for name in ("output", "sheet", "pack", "curves", "json") if name in given]
    assert expected and all((sandbox.folder / path).exists() for path in expected)
    assert output


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks("python", text)])
def test_python_of_a_page_works(sandbox, page):
    (snippet,) = blocks("python", PAGES[page])
    found, printed = {}, io.StringIO()
    with contextlib.chdir(sandbox.folder), contextlib.redirect_stdout(printed):
        exec(compile(snippet, page, "exec"), found)
    if page == "README.md":
        assert printed.getvalue().count("\n") == 14
        assert found["overlay"].dtype == np.uint8 and found["overlay"].ndim == 3
    if page == "docs/predict.md":
        assert found["joints"].shape == (14, 2) and found["scores"].shape == (14,)
        assert printed.getvalue().splitlines()[-2:] == [f"photos/{n} (1, 14, 2)" for n in ("a.jpg", "b.png")]
        assert ((found["scores"] >= 0) & (found["scores"] <= 1)).all()
        # The crop is the whole picture: a square of 70 px around its centre, (35, 25).
        assert (np.abs(found["joints"] - (35, 25)) <= 35).all()


def test_example_of_annotations_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(EXAMPLE))
    read = coco_annotations.read(tmp_path / "a.json")
    (person,) = read.people
    assert read.skeleton.joints[1:3] == ("left_hand", "right_hand")
    assert read.skeleton.flip_pairs == ((1, 2), (3, 4))
    assert person.visible.tolist() == [2, 2, 1, 2, 0]


INLINE = [" ".join(text.split()) for text in re.findall(r"(?<!`)`((?:hourglass|python)\s[^`]+)`", ALL)]


def test_commands_within_the_text_have_these_options(capsys):
    assert len(INLINE) >= 15
    for command in INLINE:
        words = words_of(command)
        if words[:2] == ["python", "launch/benchmark.py"] or words[:2] == ["hourglass", "benchmark"]:
            if words[2:] and words[2] != "WHAT":  # a command with its options
                benchmarks.parser().parse_args(words[2:])
            continue
        if words[0] == "python" and words[1].startswith("launch/"):
            assert (ROOT / words[1]).exists()
            continue
        if words[:3] == ["python", "-m", "hourglass_jax"]:
            words = ["hourglass", *words[3:]]
        if words[:2] == ["python", "-m"]:
            words = ["hourglass", *words[2:]]
        word = words[1]
        if word in ("COMMAND", "--help") or word in ("train", "evaluate"):
            continue  # test_named_configs_and_fields_exist
        assert word in {command.word for command in cli.COMMANDS}, command
        with pytest.raises(SystemExit) as ended:
            cli.main([word, "--help"])
        explained = capsys.readouterr().out
        assert not ended.value.code
        for option in (w for w in words[2:] if w.startswith("--")):
            assert option.partition("=")[0] in explained, command


def test_named_configs_and_fields_exist():
    named = re.findall(r"--config=([\w/.]+)(?::([\w=,+.]*))?", ALL)
    assert len(named) >= 15
    for name, arguments in named:
        if pathlib.Path(name).stem.isupper():  # "any"
            continue
        config_base.named(pathlib.Path(name).stem).get_config(arguments.rstrip(".,") or None)
    fields = {".".join(field) for field in re.findall(r"--config\.(\w+)\.(\w+)", ALL)}
    there = set(config_base.base().to_dict())
    base = config_base.base()
    for field in fields:
        section, name = field.split(".")
        assert section in there and (section == "model" or name in base[section]), field
    for section, name in re.findall(r"`(data|train|optimizer|evaluate|augment|loss)\.(\w+)", ALL):
        module = importlib.util.find_spec(f"hourglass_jax.{section}.{name}") if section == "data" else None
        known = name in base[section] or module or hasattr(_module(section), name)
        assert known, f"{section}.{name}"


def _module(name):
    return importlib.import_module(f"hourglass_jax.{name}") if name in ("train", "evaluate") else None


def test_files_and_links_of_the_pages_exist():
    for page, text in PAGES.items():
        folder = (ROOT / page).parent
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        assert not [link for link in links if not (folder / link).exists()], page
        names = re.findall(r"`((?:launch|configs|hourglass_jax|tests|docs)/[\w/]+\.(?:sh|py|md))`", text)
        names += re.findall(r"bash (launch/\w+\.sh)", text)
        names += re.findall(r"-r (requirements[\w-]*\.txt)", text)
        names = [name for name in names if "mine.py" not in name]  # mine.py is in recipes
        assert not [name for name in names if not (ROOT / name).exists()], page
    shown = re.findall(r"docs/images/\w+\.\w+|\(images/(\w+\.\w+)\)", ALL)
    assert shown and set(os.listdir(ROOT / "docs" / "images")) == {
        "figures.jpg",
        "recipes.png",
        "tpu_cycles.png",
    }


def test_named_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        name for group in re.findall(r"pip\s+install\s+[^\n`]*\[([\w,]+)\]", ALL) for name in group.split(",")
    }
    assert {"train", "video"} <= named <= {*project["optional-dependencies"]}


API = re.findall(r"^\| `([\w.]+)(?:\(([^`]*)\))?` \|", PAGES["docs/api.md"], re.MULTILINE)


def test_the_page_of_public_functions_agrees_with_the_code():
    assert len(API) >= 40
    for name, arguments in API:
        parts = name.split(".")
        found = None
        for i in range(len(parts) - 1, 0, -1):  # the longest module
            with contextlib.suppress(ModuleNotFoundError):
                found = importlib.import_module(".".join(["hourglass_jax", *parts[:i]]))
                rest = parts[i:]
                break
        else:
            found, rest = importlib.import_module("hourglass_jax"), parts
        for part in rest:
            found = getattr(found, part)
        assert inspect.getdoc(found), name
        wanted = [word.strip(" *").partition("=")[0] for word in arguments.split(",")]
        wanted = [word for word in wanted if word and word != "..."]
        assert wanted == [p for p in wanted if p in inspect.signature(found).parameters], name


@pytest.mark.parametrize("name", ["check", "gpu", "quickstart", "setup", "slurm", "tpu_vm", "tpu_worker"])
def test_launch_scripts(name):
    path = ROOT / "launch" / f"{name}.sh"
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    text = path.read_text()
    # Each goes to the project's root and has the environment first; no error passes silently.
    assert ("set -euo pipefail" if name in ("setup", "slurm", "tpu_vm") else "setup.sh") in text
    for program in re.findall(r"python (\w+\.py)", text):
        assert (ROOT / program).exists()
    for module in re.findall(r"python -m (hourglass_jax[\w.]*)", text):
        assert importlib.util.find_spec(module)
    # The examples in their comments load.
    for config in re.findall(r"--config=(configs/\S+)", text):
        file, _, arguments = config.partition(":")
        importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(arguments or None)
    assert os.access(path, os.R_OK)


def test_the_notebook_runs(cache, tmp_path):
    """Runs the code cells of docs/tour.ipynb one after the other in their own process."""
    notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text())
    assert notebook["nbformat"] == 4 and not any(cell.get("outputs") for cell in notebook["cells"])
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    small = code
    for now, then in (
        ("STEPS = 300 ", "STEPS = 2 "),
        ("FIGURES = 2000 ", "FIGURES = 8 "),
        ("(FIGURES, 50)", "(FIGURES, 4)"),
        ('("width=32")', '("width=8")\nconfig.model.depth = 1'),
        ("update(steps=", "update(batch_size=4, steps="),
    ):
        assert small.count(now) == 1
        small = small.replace(now, then)
    done = subprocess.run(
        [sys.executable, "-c", small],
        cwd=tmp_path,
        env=conftest.environment(cache) | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "PCKh@0.5" in done.stdout
