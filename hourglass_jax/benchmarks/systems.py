"""The five systems in a small form on the quickstart's drawn figures: score, size and speed side by side.

The same people in the same order for all. Each training is an ordinary one in a workdir of its own, with the
command that the table prints, so that an interrupted benchmark goes on.
"""

import pathlib
import sys

from hourglass_jax import checkpoint, config_base, evaluate, models, train
from hourglass_jax.benchmarks.common import Step, interleaved
from hourglass_jax.transforms import flops

SYSTEMS = tuple(models.names())
STACKS = 2  # one has neither the scales nor the weights of MSSH


def add(command) -> None:
    parser = command("systems", help="the five systems in a small form, side by side")
    parser.add_argument("--workdir", default="runs/systems", help="folder of the five trainings' workdirs")
    parser.add_argument("--steps", type=int, default=1800, help="of each training (default: %(default)s)")
    parser.set_defaults(run=run)


def system_config(name: str, steps: int):
    """The small form of a system, as `system_command` trains it."""
    config = config_base.named("quickstart").get_config(f"model={name},stacks={STACKS}")
    config.train.steps = steps
    return config


def system_command(name: str, workdir, steps: int) -> str:
    """The command that trains what `system_config` describes."""
    return (
        f"python main.py --config=configs/quickstart.py:model={name},stacks={STACKS} "
        f"--workdir={pathlib.Path(workdir) / name} --config.train.steps={steps}"
    )


def run(args) -> dict:
    """Trains, evaluates and times the small form of every system; a row for each."""
    configs = {name: system_config(name, args.steps) for name in SYSTEMS}
    steps = {name: Step(config) for name, config in configs.items()}
    seconds = interleaved(steps, args.rounds)
    rows = []
    for name, config in configs.items():
        scores = trained_scores(config, pathlib.Path(args.workdir) / name)
        model = models.create(joints=16, **config.model)
        operations, parameters = flops.of_model(model, config.data.size)
        low, median, high = (config.train.batch_size / value for value in reversed(seconds[name]))
        rows.append(
            {
                "system": name,
                scores["metric"]: round(scores["table"]["Mean"], 1),
                "parameters": parameters,
                "GFLOP an image": round(operations / 1e9, 3),
                "train images/s": round(median, 1),
                "quartiles": f"{low:.1f} to {high:.1f}",
                "compile s": round(steps[name].compile_seconds, 1),
                "temporary MB": round(steps[name].temporary / 1e6),
            }
        )
    commands = [system_command(name, args.workdir, args.steps) for name in SYSTEMS]
    print("One command for each row:", *commands, sep="\n")
    return {"title": f"{args.steps} steps of {config.train.batch_size}", "rows": rows, "commands": commands}


def trained_scores(config, workdir) -> dict:
    """Trains to the end, where that has not been done yet, and evaluates the best checkpoint."""
    train.train(config, workdir)
    with checkpoint.Checkpoints(workdir, read_only=True) as saved:
        if saved.latest < config.train.steps:
            sys.exit("Stopped; the same command goes on.")
    return evaluate.evaluate(config, workdir, workdir)
