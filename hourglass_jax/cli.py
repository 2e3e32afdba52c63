"""The command `hourglass`: one word for each of the package's commands.

A command's module is imported only when the word is known, so that help appears immediately.
"""

import difflib
import gc
import importlib
import sys
import types
from typing import NamedTuple


class Command(NamedTuple):
    """A command of `hourglass`."""

    word: str
    what: str  # description
    example: str  # example of its arguments
    module: str  # module of hourglass_jax, whose `main` gets the arguments


COMMANDS = (
    Command(
        "train",
        "train a network",
        "--config=quickstart --workdir=runs/quickstart",
        "main",
    ),
    Command(
        "evaluate",
        "the papers' tables of a training",
        "--config=quickstart --workdir=runs/quickstart",
        "main",
    ),
    Command(
        "predict",
        "joints in your own pictures and videos",
        "photos/ --output=out",
        "predict",
    ),
    Command(
        "demo",
        "a local page to drop pictures and videos on",
        "--browser",
        "demo.command",
    ),
    Command(
        "prepare",
        "prepare a dataset",
        "--dataset=lspet --manual_dir=DOWNLOADS --sheet=a.png",
        "data.prepare",
    ),
    Command(
        "score",
        "score predictions from elsewhere",
        "--dataset=mpii --annotations=valid.h5 --predictions=preds.h5",
        "score",
    ),
    Command(
        "compare",
        "compare tables with each other and the papers'",
        "runs/a runs/b --output=compared",
        "compare",
    ),
    Command(
        "report",
        "an evaluated workdir as one HTML page",
        "runs/quickstart",
        "report",
    ),
    Command(
        "submission",
        "a file for MPII's test server",
        "--predictions=predictions.json --annotations=FILE.mat --output=pred.mat",
        "submission",
    ),
    Command(
        "export",
        "a network for other runtimes",
        "--workdir=runs/quickstart --format=stablehlo --output=quickstart.stablehlo",
        "export",
    ),
    Command(
        "import",
        "a checkpoint of the PyTorch port",
        "hg.pth.tar --workdir=runs/imported",
        "import_torch",
    ),
    Command(
        "weights",
        "a training's weights as one file",
        "--workdir=runs/quickstart --output=quickstart.npz",
        "weights.command",
    ),
    Command(
        "groups",
        "Tang's groups of related parts",
        "--annotations=mpii_annotations.json.gz --groups=5",
        "part_groups",
    ),
    Command(
        "benchmark",
        "measure speed",
        "inference --rounds=9 --output=measured",
        "benchmarks.command",
    ),
)


def usage() -> str:
    """The help: each command with an example."""
    lines = ["usage: hourglass COMMAND ...", "", "Human pose estimation by stacked hourglasses, in JAX.", ""]
    for command in COMMANDS:
        lines.append(f"  {command.word:<11} {command.what}")
        lines.append(f"  {'':<11}   hourglass {command.word} {command.example}")
    lines += [
        "",
        "hourglass COMMAND --help lists a command's options; --version names the version.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code of the process, 2 for an unknown word."""
    word, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if word in ("", "-h", "--help", "help"):
        print(usage())
        return 0 if word else 2
    if word == "--version":
        from hourglass_jax import __version__

        print(f"hourglass_jax {__version__}")
        return 0
    modules = {command.word: command.module for command in COMMANDS}
    if word not in modules:
        near = difflib.get_close_matches(word, modules, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        print(f"Error: no command {word!r}; choose from {', '.join(modules)}.{guess}", file=sys.stderr)
        return 2
    try:
        return _run(word, modules[word], rest)
    except KeyboardInterrupt:  # during the import of the command, which takes a second or two
        print("Interrupted.", file=sys.stderr)
        return 130


def _run(word: str, module: str, arguments: list[str]) -> int:
    command = _imported(f"hourglass_jax.{module}")
    if module == "main":  # it uses absl's flags
        command.run([f"hourglass {word}", f"--mode={word}", *arguments])
    if word in ("predict", "demo"):
        from hourglass_jax import devices

        devices.keep_memory()
    return command.main(arguments)


def _imported(module: str) -> types.ModuleType:
    """Imports a module without garbage collection.

    The collector would repeatedly search everything imported so far, and find nothing: a sixth of the time.
    """
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()  # modules stay: later collections need not search them
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
