"""Compares the five systems in a small form on the quickstart's drawn figures: score, size and speed.

All see the same people in the same order. Each training is an ordinary one in its own workdir, with the
command that the table prints. So an interrupted benchmark resumes, and finished trainings are only evaluated.
Each score is also appended to --results, one json line for each training.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

from hourglass_jax import checkpoint, config_base, evaluate, models, train
from hourglass_jax.benchmarks import learning
from hourglass_jax.benchmarks.common import Step, interleaved
from hourglass_jax.evaluation.scores import Scores
from hourglass_jax.transforms import flops

SYSTEMS = tuple(models.names())
STACKS, WIDTH, SIZE = 2, 64, 96  # one stack has neither the scales nor the weights of MSSH


def add(command) -> None:
    parser = command("systems", help="the five systems in a small form, compared")
    parser.add_argument("--workdir", default="runs/systems", help="folder of the trainings' workdirs")
    parser.add_argument("--steps", type=int, default=1800, help="steps per training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings per system (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="width of features (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="px of the input (default: %(default)s)")
    parser.add_argument("--results", help="file to append scores to (default: results.jsonl in --workdir)")
    parser.set_defaults(run=run)


def system_config(name: str, steps: int, seed: int = 0, *, width: int = WIDTH, size: int = SIZE) -> Any:
    """The small form of a system, as `system_command` trains it."""
    config = config_base.named("quickstart").get_config(f"model={name},stacks={STACKS},width={width}")
    config.data.update(size=size, canvas=size * 3 // 2)
    config.train.steps = steps
    config.seed = seed
    return config


def system_workdir(name: str, workdir: str | pathlib.Path, seed: int = 0) -> pathlib.Path:
    """The first seed has the folder of the system's name."""
    return pathlib.Path(workdir) / (f"{name}-seed{seed}" if seed else name)


def system_command(
    name: str,
    workdir: str | pathlib.Path,
    steps: int,
    seed: int = 0,
    *,
    width: int = WIDTH,
    size: int = SIZE,
) -> str:
    """The command of the training that `system_config` describes."""
    wide = f",width={width}" if width != WIDTH else ""
    sizes = f" --config.data.size={size} --config.data.canvas={size * 3 // 2}" if size != SIZE else ""
    return (
        f"hourglass train --config=quickstart:model={name},stacks={STACKS}{wide} "
        f"--workdir={system_workdir(name, workdir, seed)} --config.train.steps={steps}{sizes}"
        + (f" --config.seed={seed}" if seed else "")
    )


def run(args: argparse.Namespace) -> dict:
    """Trains, evaluates and times the small form of every system; a row for each.

    Raises:
      ValueError: fewer than one seed, or a training stopped before its last step.
    """
    if args.seeds < 1:
        raise ValueError(f"--seeds={args.seeds} must be at least 1.")
    form = {"width": args.width, "size": args.size}
    configs = {name: system_config(name, args.steps, **form) for name in SYSTEMS}
    steps = {name: Step(config) for name, config in configs.items()}
    seconds = interleaved(steps, args.rounds)
    results = args.results or pathlib.Path(args.workdir) / "results.jsonl"
    found, commands = {name: [] for name in configs}, []
    for seed in range(args.seeds):  # train all systems with one seed before the next seed
        for name in configs:
            scores = trained_scores(
                system_config(name, args.steps, seed, **form), system_workdir(name, args.workdir, seed)
            )
            found[name].append(scores)
            commands.append(system_command(name, args.workdir, args.steps, seed, **form))
            about = {"system": name, "seed": seed, "steps": args.steps, **form}
            learning.append(results, about | {scores.metric: round(scores.mean, 2)})
    rows = []
    for name, config in configs.items():
        metric, means = found[name][0].metric, [scores.mean for scores in found[name]]
        model = models.build(joints=16, **config.model)
        operations, parameters = flops.of_model(model, config.data.size)
        low, median, high = (config.train.batch_size / value for value in reversed(seconds[name]))
        rows.append(
            {
                "system": name,
                metric: round(float(np.mean(means)), 1),
                "seeds": f"{min(means):.1f} to {max(means):.1f}" if args.seeds > 1 else "one",
                "parameters": parameters,
                "GFLOP an image": round(operations / 1e9, 3),
                "train images/s": round(median, 1),
                "quartiles": f"{low:.1f} to {high:.1f}",
                "compile s": round(steps[name].compile_seconds, 1),
                "temporary MB": round(steps[name].temporary / 1e6),
            }
        )
    print("One command for each training:", *commands, sep="\n")
    batch = next(iter(configs.values())).train.batch_size
    seeds = "1 seed" if args.seeds == 1 else f"{args.seeds} seeds"
    title = f"Width {args.width}, {args.size} px, {args.steps} steps of {batch}, {seeds}"
    return {"title": title, "rows": rows, "commands": commands}


def trained_scores(config: Any, workdir: pathlib.Path) -> Scores:
    """Trains to the end, unless this is done already, and evaluates the best checkpoint."""
    train.train(config, workdir)
    with checkpoint.Checkpoints(workdir, read_only=True) as saved:
        if saved.latest < config.train.steps:
            raise ValueError(f"{workdir}: stopped before its last step; the same command resumes it.")
    scores = evaluate.evaluate(config, workdir, workdir)
    if scores is None:
        raise ValueError(f"{workdir}: no joint of the validation split is labelled.")
    return scores
