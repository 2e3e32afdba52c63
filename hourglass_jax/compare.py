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
from hourglass_jax.evaluation import plots, published, scores
from hourglass_jax.evaluation.scores import Scores


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
    path = files.path(path)
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; evaluate the run first, hourglass evaluate.")
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
        for metric, table in _tables(run.scores).items():
            found.setdefault(f"{run.title}: {metric}", {})[name] = table
            seen.add(metric)
            if metric.startswith("Mean "):  # Selvam and Mishra do not define their accuracy
                seen |= {"average accuracy", f"average accuracy, {published.SELVAM}"}
    for table in published.PUBLISHED:
        if table.metric in seen:
            title = f"Published by the papers, their own results on {table.data}: {table.metric}"
            found[title] = table.table()
    return found


def _tables(of: Scores) -> dict[str, scores.Table]:
    """The tables of one run by their metric."""
    found = {of.metric: of.table | {"AUC": of.auc}}
    found |= {limbs.metric: limbs.table for limbs in (of.pcp, of.pcp_average) if limbs}
    if occluded := of.by_visibility.get("occluded"):
        found[f"{of.metric}, {published.OCCLUDED}"] = occluded["table"]
    if means := of.subsets.get(scores.HARD):
        by = of.by_visibility.items()
        row = {flag: table["subsets"][scores.HARD]["plain"] for flag, table in by if table["subsets"]}
        found[f"{of.metric}, {published.HARD}"] = row | {"all": means["plain"]}
    for title in ("category", published.SELVAM):
        if groups := of.by.get(title):
            found[f"Mean {of.metric} by {title}"] = {
                group: of_group["Mean"] for group, of_group in groups.items()
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
    names = [str(files.path(path)) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"A run is named twice: {', '.join(names)}.")
    runs = {name: read(path) for name, path in zip(names, paths, strict=True)}
    text = markdown(titled_tables(runs))
    if output:
        files.write(files.path(output) / "compared.md", text.encode())
        _draw(runs, files.path(output))
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
