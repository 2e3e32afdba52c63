"""Compares the tables of runs with each other and with the papers' published rows.

python -m hourglass_jax.compare runs/a runs/b --output=compared

Scores of different data or different metrics are never in the same table.
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
    """An evaluated run: the name of its data, its scores, and the source of the people's crops ("" if
    unknown)."""

    data: str
    scores: Scores
    crop: str = ""

    @property
    def title(self) -> str:
        """Runs with equal titles share a table. Crops from the joints score far better than others."""
        return f"{self.data}, crop: {self.crop}" if self.crop else self.data


def read(path: str | os.PathLike) -> Run:
    """Reads the scores that `evaluate` wrote into a workdir (evaluation.json), or `score --json` into a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has other content, or an old version wrote it without curves.
    """
    path = files.path(path)
    file = path / "evaluation.json" if files.is_dir(path) else path
    if not files.is_file(file):
        raise FileNotFoundError(f"{file}: no such file; evaluate the run first, hourglass evaluate.")
    content = files.read_json(file)
    try:
        run = Run(content["data"], Scores.from_dict(content), content.get("crop", ""))
        markdown(titled_tables({"": run}))
        zip(run.scores.curve["thresholds"], run.scores.curve["Mean"], strict=True)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:  # the last one: 10^400
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"is not readable ({error})"
        raise ValueError(
            f"{file}: {lacks}; evaluate the run again, or give a file of hourglass_jax.score --json."
        ) from None
    return run


def titled_tables(runs: dict[str, Run]) -> dict[str, dict[str, scores.Table]]:
    """Tables by title, {title: {row: {column: per cent}}}: a table for each data and metric of the runs, then
    the papers' published rows for these metrics.

    Args:
      runs: the results of `read` by name.
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
    """The tables of one run, by metric."""
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
    """The tables of `titled_tables` in Markdown, with aligned columns, so that it reads well as text, too."""
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
      paths: evaluated workdirs, or files of `score --json`.
      output: folder for compared.md and, for each data and metric, the curves of the runs' Mean.

    Returns:
      the tables as text.
    """
    names = [str(files.path(path)) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"A run is given twice: {', '.join(names)}.")
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
        description="Compares the tables of runs with each other and with the papers' published rows.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="evaluated workdir, or file of score --json")
    parser.add_argument("--output", metavar="FOLDER", help="folder for compared.md and plots of the curves")
    args = parser.parse_args(arguments)
    return console.run(lambda: print(compare(args.runs, args.output), end=""))


if __name__ == "__main__":
    sys.exit(main())
