"""Curves of scores as csv files and as pictures; pictures need Matplotlib."""

import csv
import io
import os

from hourglass_jax import files
from hourglass_jax.evaluation.scores import Scores

# Of pictures, as Matplotlib writes them.
ENDINGS = (".png", ".pdf", ".svg", ".eps", ".ps", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def write_curve(path: str | os.PathLike, curve: dict[str, list[float]]) -> None:
    """Writes a curve (`Scores.curve`) as PATH.csv, with a row for each threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(curve)
    for row in zip(*curve.values(), strict=True):
        writer.writerow("" if value != value else f"{value:.6g}" for value in row)
    files.write(files.path(path).with_suffix(".csv"), text.getvalue().encode())


def plot_scores(path: str | os.PathLike, scores: Scores) -> None:
    """Draws the curves of all rows of the table."""
    rows = {title: rates for title, rates in scores.curve.items() if title != "thresholds"}
    plot_curves(path, rows, scores.curve["thresholds"], scores.metric)


def plot_curves(
    path: str | os.PathLike, curves: dict[str, list[float]], thresholds: list[float], title: str
) -> None:
    """Draws curves of rates in per cent, with their labels.

    Args:
      path: path of the picture, in a format that Matplotlib knows.
      thresholds: (t,), in units of the reference length.
      title: title of the picture, the name of the metric.
    """
    from matplotlib.figure import Figure  # not in requirements-minimal.txt

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, rates in curves.items():
        axes.plot(thresholds, rates, label=label, linewidth=2.5 if label == "Mean" else 1.2)
    axes.set(title=title, xlabel="threshold", ylabel="right (%)", ylim=(0, 100), xlim=(0, thresholds[-1]))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)


def plot_presence(path: str | os.PathLike, curves: dict[str, dict[str, dict]]) -> None:
    """Draws precision over recall as in Newell's Figure 11, from `results.presence`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (part, found) in enumerate(curves.items()):
        for name, style in {"max": "-", "mean": "--"}.items():
            if name in found:
                values, label = found[name], f"{part}, {name}: {found[name]['average_precision']:.1f}"
                recall, precision = values["recall"], values["precision"]
                axes.plot(recall, precision, color=f"C{number}", linestyle=style, label=label)
    axes.set(title="Is the joint labelled?", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title="average precision (%)")
    _save(figure, path)


def _save(figure, path):
    data = io.BytesIO()
    figure.savefig(data, format=files.path(path).suffix.lstrip(".") or "png", dpi=120)
    files.write(path, data.getvalue())
