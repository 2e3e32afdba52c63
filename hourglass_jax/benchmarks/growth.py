"""Time and memory of a training step of the stacked hourglass by stacks, width and input size.

One of the three changes at a time; the other two keep the options' values. --output also gets a plot.
"""

import pathlib

from hourglass_jax.benchmarks.common import Step, interleaved
from hourglass_jax.benchmarks.memory import add_sizes, config_of

VALUES = {"stacks": [1, 2, 4, 8], "width": [64, 128, 256], "size": [128, 256, 384]}
MEASURED = ("processor ms", "temporary MB", "compile s")


def add(command) -> None:
    parser = command("growth", help="time, memory and compilation of a step by stacks, width and input size")
    add_sizes(parser, stacks=2, width=128, size=128, batch_size=4)
    parser.add_argument("--depth", type=int, default=4, help="depth of hourglasses (default: %(default)s)")
    for name, values in VALUES.items():
        text = f"none or several (default: {' '.join(map(str, values))})"
        parser.add_argument(f"--{name}_values", type=int, nargs="*", default=values, help=text)
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each value of each dimension."""
    base = {name: getattr(args, name) for name in ("stacks", "width", "size", "batch_size")}
    rows = []
    for name in VALUES:
        steps = {}
        for value in getattr(args, f"{name}_values"):
            config = config_of("newell", **(base | {name: value}))
            config.model.depth = args.depth
            steps[value] = Step(config)
        seconds = interleaved(steps, args.rounds, clock="process_time")
        for value, step in steps.items():
            numbers = (1000 * seconds[value][1], step.temporary / 1e6, step.compile_seconds)
            measured = {key: round(number, 1) for key, number in zip(MEASURED, numbers, strict=True)}
            rows.append({"what": name, "value": value} | measured)
    if args.output:
        plot(rows, pathlib.Path(args.output) / "growth.png")
    text = ", ".join(f"{name} {value}" for name, value in base.items())
    return {"title": f"Training step, from {text} on", "rows": rows}


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Plots each dimension: all measurements relative to those at the smallest value, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    names = list(dict.fromkeys(row["what"] for row in rows))
    row_of_axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(row_of_axes, names, strict=True):
        of_name = [row for row in rows if row["what"] == name]
        values = [row["value"] for row in of_name]
        for key in MEASURED:
            axes.plot(values, [row[key] / of_name[0][key] for row in of_name], "o-", label=key)
        axes.plot(values, [value / values[0] for value in values], "k:", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(values, map(str, values))
        axes.set_yticks(times := [2**i for i in range(5)], map(str, times))
        axes.minorticks_off()
    figure.supylabel("times the smallest")
    row_of_axes[-1].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
