"""The score that a recipe reaches in a fixed budget of processor minutes, on packed LSP extended.

    python launch/benchmark.py learning --packed_dir=packed --minutes=60 \\
        --recipe= --recipe=optimizer.learning_rate=3e-3

A recipe is a list of changes `key=value` to the config that made the package's weights. A short timing turns
the budget into a number of steps, which is the length of the learning-rate schedule. This number is kept in
the workdir, so that an interrupted run continues to the same step. Time is summed over all threads, so that
other work on the machine has little effect. Rows are appended to --results, one json line each.
"""

import ast
import json
import pathlib
import subprocess
import time

import numpy as np

from hourglass_jax import config_base, files, train
from hourglass_jax.benchmarks.common import Step, interleaved

BASE = "stacks=2,width=128,dataset=lspet,size=96,quick=true"
POINTS = 6  # points of the learning curve


def add(command) -> None:
    parser = command("learning", help="PCK after a fixed budget of processor minutes, by recipe")
    argument = parser.add_argument
    argument("--packed_dir", required=True, help="folder written by data.prepare --pack")
    argument("--minutes", type=float, default=60, help="minutes of one processor (default: %(default)s)")
    argument(
        "--recipe", action="append", metavar="KEY=VALUE,...",
        help="changes of the config, such as optimizer.learning_rate=3e-3,train.batch_size=32; may be "
        "repeated (default: only the recipe of the package's weights)",
    )  # fmt: skip
    argument("--seeds", type=int, default=1, help="trainings of each recipe (default: %(default)s)")
    argument("--config", default=BASE, help="arguments of configs/newell.py (default: %(default)s)")
    argument("--workdir", default="runs/learning", help="folder of the trainings' workdirs")
    argument("--results", default="runs/learning/results.jsonl", help="file to append rows to")
    parser.set_defaults(run=run)


def recipe_config(arguments: str, packed_dir, recipe: str, seed: int):
    """The config of a training: the shipped recipe with the changes of `recipe`.

    Raises:
      ValueError: a change that is not KEY=VALUE, or a key that the config does not have.
    """
    config = config_base.named("newell").get_config(arguments).lock()
    config.seed = seed
    config.model.depth = 3
    config.data.update(source="packed", packed_dir=str(packed_dir), canvas=192, box="joints,image")
    config.train.update(batch_size=16, average_decay=0.999, pictures=0, tensorboard=False, save_every=200)
    for change in _split(recipe):
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--recipe: {change!r} is not KEY=VALUE.")
        try:
            config.update_from_flattened_dict({key: _value(text)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"--recipe: {change}: {' '.join(str(error).split())[:200]}") from None
    return config


def _split(recipe: str) -> list[str]:
    """The changes of a recipe; commas inside brackets belong to a value."""
    parts, depth = [""], 0
    for letter in recipe:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def budget(config, workdir: pathlib.Path, minutes: float, rounds: int) -> dict:
    """The number of steps that fit in `minutes` of one processor, measured once for each workdir."""
    path = workdir / "budget.json"
    if not path.exists():
        seconds = interleaved({"step": Step(config)}, rounds, clock="process_time")["step"][1]
        steps = max(int(60 * minutes / seconds), 1)
        files.write_json(path, {"minutes": minutes, "seconds_a_step": seconds, "steps": steps})
    found = files.read_json(path)
    if found["minutes"] != minutes:
        raise ValueError(f"{path}: started with {found['minutes']} minutes; choose another --workdir.")
    return found


def run(args) -> dict:
    """Trains every recipe with every seed; a row for each training."""
    rows, curves = [], {}
    for recipe in args.recipe or [""]:
        for seed in range(args.seeds):
            config = recipe_config(args.config, args.packed_dir, recipe, seed)
            label = recipe or "as shipped"
            name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in label)
            workdir = pathlib.Path(args.workdir) / f"{name}-seed{seed}"
            found = budget(config, workdir, args.minutes, args.rounds)
            config.train.steps = found["steps"]
            config.train.evaluate_every = -(-found["steps"] // POINTS)
            start = time.process_time()
            train.train(config, workdir)
            spent = time.process_time() - start
            curve = validation_curve(workdir)
            if not curve or curve[-1][0] < found["steps"]:
                raise ValueError(f"{workdir}: stopped before its last step; the same command resumes it.")
            curves[f"{label}, seed {seed}"] = [(s * found["seconds_a_step"] / 60, v) for s, v in curve]
            row = {
                "recipe": label, "seed": seed, "steps": found["steps"],
                "samples": found["steps"] * config.train.batch_size,
                "last": round(curve[-1][1], 1), "curve": " ".join(f"{value:.1f}" for _, value in curve),
            }  # fmt: skip
            rows.append(row)
            append(args.results, row | {"minutes": args.minutes, "spent_now": round(spent / 60, 1)})
    if args.output:
        plot(curves, pathlib.Path(args.output) / "learning.png")
    return {"title": f"{args.minutes:g} processor minutes each, {args.config}", "rows": rows}


def validation_curve(workdir) -> list[tuple[int, float]]:
    """(step, mean score in per cent) of a training's evaluations."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    entries = map(json.loads, lines)
    return [(e["step"], e["validation/Mean"]) for e in entries if "validation/Mean" in e]


def append(path, row: dict) -> None:
    """Appends a json line with the row and the commit at which it was measured."""
    path = pathlib.Path(path)
    command = ["git", "rev-parse", "--short", "HEAD"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent)
    row = {"date": time.strftime("%Y-%m-%d"), "commit": ran.stdout.strip() or None} | row
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.read_text() if path.exists() else ""
    files.write(path, (known + json.dumps(row) + "\n").encode())


def plot(
    curves: dict[str, list[tuple[float, float]]], path: pathlib.Path, *, along: str = "processor minutes"
) -> None:
    """Draws the mean score over processor minutes, or another axis `along`, with a line for each training."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["tab20"]
    for i, (label, points) in enumerate(curves.items()):
        axes.plot(*np.transpose(points), "o-", label=label, color=colours(i % colours.N))
    axes.set(xlabel=along, ylabel="mean PCK@0.2 on validation (%)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
