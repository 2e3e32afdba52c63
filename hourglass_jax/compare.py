"""Puts the tables of runs side by side, and the papers' published rows beside them.

python -m hourglass_jax.compare runs/a runs/b --output=compared

Scores of different data or by different metrics never share a table.
"""

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path

from hourglass_jax import console, files
from hourglass_jax.evaluation import plots, scores
from hourglass_jax.evaluation.scores import Scores

# What the papers print, each on the data and by the metric of its table. MSSH and Chu et al. print the row of
# Newell et al., who show a figure; per cent. Selvam and Mishra do not define their accuracy.
_PARTS = "Head Sho Elb Wri Hip Knee Ank Mean"
_LIMBS = "Torso U.Leg L.Leg U.Arm Forearm Head Mean"
_ACTIVITIES = "Standing Walking Dancing Skiing Exercising Bicycling Mountain_biking Volleyball Basketball"
PUBLISHED = {
    ("PCKh@0.5", "MPII test"): {
        "": _PARTS,
        "Newell et al. 2016": "98.2 96.3 91.2 87.1 90.1 87.4 83.6 90.9",
        "Chu et al. 2017": "98.5 96.3 91.9 88.1 90.6 88.0 85.0 91.5",
        "MSSH 2019": "98.0 96.4 91.8 87.5 90.4 87.8 84.2 91.2",
        "Tang and Wu 2019": "98.7 97.1 93.1 89.4 91.9 90.1 86.7 92.7",
    },
    ("PCKh@0.5", "MPII validation"): {
        "": _PARTS,
        "Tang and Wu 2019": "97.5 96.5 91.7 87.7 91.1 87.7 85.2 91.8",
    },
    ("PCK@0.2", "LSP test"): {
        "": _PARTS,
        "Chu et al. 2017": "98.1 93.7 89.3 86.9 93.4 94.0 92.5 92.6",
        "MSSH 2019": "96.9 92.5 87.7 85.2 92.7 93.3 91.7 91.4",
        "Tang and Wu 2019": "98.6 95.4 93.3 89.8 94.3 95.7 94.4 94.5",
    },
    ("PCP@0.5", "LSP test"): {"": _LIMBS, "MSSH 2019": "97.9 94.3 91.4 86.6 78.5 95.7 89.5"},
    ("average accuracy", "MPII, by activity"): {
        "": _ACTIVITIES,
        "Selvam and Mishra 2019, baseline": "81.93 93.62 76.67 84.29 82.82 83.12 80.00 60.2 78.42",
        "global attention": "83.86 92.98 76.67 81.43 87.00 82.69 82.38 62.46 80.18",
        "heatmap attention": "81.93 89.36 76.67 80.00 79.90 79.89 73.31 60.82 78.42",
        "multi-resolution attention": "85.44 89.36 76.67 84.29 87.00 83.12 80.00 67.38 81.93",
    },
}


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated run: the name of its data, its scores, and where the people's crops came from ("" where
    unknown)."""

    data: str
    scores: Scores
    crop: str = ""

    @property
    def title(self) -> str:
        """Runs share a table where this is the same: crops from the joints score far better than others."""
        return f"{self.data}, crop: {self.crop}" if self.crop else self.data


def read(path: str | os.PathLike) -> Run:
    """Reads the scores that `evaluate` wrote into a workdir (evaluation.json), or `score --json` into a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else, or was written before there were curves.
    """
    path = Path(path)
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; evaluate the run first, main.py --mode=evaluate.")
    content = files.read_json(file)
    try:
        run = Run(content["data"], Scores.from_dict(content), content.get("crop", ""))
        markdown(titled_tables({"": run}))
        zip(run.scores.curve["thresholds"], run.scores.curve["Mean"], strict=True)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:  # the last: 10^400
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"is not readable ({error})"
        raise ValueError(
            f"{file}: {lacks}; evaluate the run again, or give a file of hourglass_jax.score --json."
        ) from None
    return run


def titled_tables(runs: dict[str, Run]) -> dict[str, dict[str, scores.Table]]:
    """Tables by title, {title: {row: {column: per cent}}}: a table for each data and metric of the runs, and
    after them the papers' published rows by these metrics.

    Args:
      runs: by name, of `read`.
    """
    found, seen = {}, set()
    for name, run in runs.items():
        of = run.scores
        parts = {of.metric: of.table | {"AUC": of.auc}}
        parts |= {limbs.metric: limbs.table for limbs in (of.pcp, of.pcp_average) if limbs}
        for metric, table in parts.items():
            found.setdefault(f"{run.title}: {metric}", {})[name] = table
            seen.add(metric)
        for group, rates in of.by.get("category", {}).items():
            title = f"{run.title}: Mean {of.metric} by category"
            found.setdefault(title, {}).setdefault(name, {})[group] = rates["Mean"]
            seen.add("average accuracy")
    for (metric, data), rows in PUBLISHED.items():
        if metric in seen:
            columns = [column.replace("_", " ") for column in rows[""].split()]
            found[f"Published by the papers, their own results on {data}: {metric}"] = {
                name: dict(zip(columns, map(float, text.split()), strict=True))
                for name, text in rows.items()
                if name
            }
    return found


def markdown(found: dict) -> str:
    """The tables of `titled_tables` in Markdown; its columns are aligned, to be read as text, too."""
    return "\n\n".join(f"**{title}**\n\n{_aligned(table)}" for title, table in found.items()) + "\n"


def _aligned(table) -> str:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    cells = [["", *columns]]
    for name, row in table.items():
        rates = [row.get(column, float("nan")) for column in columns]
        cells.append([name.replace("|", "/"), *("-" if math.isnan(r) else f"{r:.2f}" for r in rates)])
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(cells[0]))]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
        for line in cells
    )


def compare(paths: list[str], output: str | None = None) -> str:
    """Compares runs.

    Args:
      paths: workdirs that have been evaluated, or files of `score --json`.
      output: folder that gets compared.md and, for each data and metric, the curves of the runs' Mean.

    Returns:
      the tables as text.
    """
    names = [str(Path(path)) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"A run is named twice: {', '.join(names)}.")
    runs = {name: read(path) for name, path in zip(names, paths, strict=True)}
    text = markdown(titled_tables(runs))
    if output:
        files.write(Path(output) / "compared.md", text.encode())
        _draw(runs, Path(output))
    return text


def _draw(runs: dict[str, Run], folder: Path) -> None:
    groups = {}
    for name, run in runs.items():
        key = run.title, run.scores.metric, tuple(run.scores.curve["thresholds"])
        groups.setdefault(key, {})[name] = run.scores.curve["Mean"]
    for number, ((data, metric, thresholds), curves) in enumerate(groups.items(), 1):
        plots.plot_curves(folder / f"curves_{number}.png", curves, thresholds, f"{data}: Mean {metric}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.compare",
        description="Puts the tables of runs and the papers' published rows side by side.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="an evaluated workdir, or a score's json")
    parser.add_argument("--output", metavar="FOLDER", help="gets compared.md and pictures of the curves")
    args = parser.parse_args(arguments)
    return console.run(lambda: print(compare(args.runs, args.output), end=""))


if __name__ == "__main__":
    sys.exit(main())
