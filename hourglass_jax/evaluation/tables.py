"""The papers' tables of predicted and annotated joints, as `evaluate` and `score` print and write them."""

import csv
import io
import pathlib

import numpy as np

from hourglass_jax import files
from hourglass_jax.evaluation import metrics
from hourglass_jax.pose.skeletons import Skeleton

# Title and the papers' threshold; that of pckbox is Yang and Ramanan's (2013).
METRICS = {"pckh": ("PCKh", 0.5), "pck": ("PCK", 0.2), "pckbox": ("PCKbox", 0.1)}
SHARES = np.arange(51) / 50  # of the threshold at which curves are computed: for PCKh@0.5 0, 0.01, ..., 0.5


def choose(
    metric: str, truth: np.ndarray, visible: np.ndarray, head_size: np.ndarray, skeleton: Skeleton
) -> tuple[str, np.ndarray]:
    """The metric that is meant, and the lengths that scale it.

    Args:
      metric: "pckh" (of the head size), "pck" (of the torso, `Skeleton.torso`: for LSP left hip to right
        shoulder), "pckbox" (of the longer side of the box around the labelled joints), or "auto": pckh where
        head sizes are known, else pck, but pckbox where the joint set has no torso.
      truth, visible, head_size: as in `score`; (n,) px, 0 where unknown.

    Returns:
      the metric, and (n,) px, 0 where unknown.
    """
    if metric not in ("auto", *METRICS):
        raise ValueError(f"evaluate.metric={metric!r} is unknown; choose {', '.join(['auto', *METRICS])}.")
    if metric == "auto":
        metric = "pckh" if head_size.any() else "pck" if skeleton.torso else "pckbox"
    if metric == "pckh":
        return metric, head_size
    if metric == "pckbox":
        return metric, metrics.longer_side(truth, visible > 0)
    return metric, metrics.torso(truth, visible > 0, skeleton)


def score(
    joints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    reference: np.ndarray,
    skeleton: Skeleton,
    *,
    metric: str,
    threshold: float | None = None,
    strictly: bool = False,
    groups: dict[str, np.ndarray] | None = None,
) -> dict:
    """The tables of a split of n people, all rates in per cent.

    Args:
      joints: (n, s, k, 2) px of each of s stacks; the last one is the network's answer.
      truth: (n, k, 2) px; visible: (n, k): at most 0 not labelled, 1 occluded, 2 visible.
      reference: (n,) px, 0 where unknown; see `choose`.
      skeleton: the joint set.
      metric: a name in `METRICS`; threshold: of it, default the papers'.
      strictly: see `metrics.correct`.
      groups: (n,) str by title, such as {"category": ...}: people to have tables of their own.

    Returns:
      {"metric", "table" (last stack), "stacks" (a table each), "joints", "macro", "auc" (of the curve's
      Mean), "visible", "occluded" (Mean of such joints, None without any), "curve" ({"thresholds", then the
      table's rows}), "by" ({title: {group: table}}), "examples", "left_out" (people without a reference),
      "not_a_number" (joints that count and have no finite prediction; they are wrong)}. Where the joint set
      states limbs (LSP) also "pcp" and "pcp_average" (the older rule), {"metric", "table", "stacks"}.
    """
    title, usual = METRICS[metric]
    threshold = usual if threshold is None else threshold
    if not 0 < threshold < np.inf:
        raise ValueError(f"threshold={threshold}: give a positive share of the head size or the torso.")
    of_stacks, labelled = np.moveaxis(np.asarray(joints), 1, 0), visible > 0
    rule = {"strictly": strictly}
    counts = [
        metrics.correct(metrics.distances(stack, truth), labelled, reference, threshold, **rule)
        for stack in of_stacks
    ]
    distance = metrics.distances(of_stacks[-1], truth)
    right, counted = metrics.judged(distance, labelled, reference, threshold, **rule)
    curve = metrics.curve(distance, labelled, reference, threshold * SHARES, skeleton, **rule)
    tables = [metrics.table(*count, skeleton) for count in counts]
    scores = {
        "metric": f"{title}@{threshold:g}",
        "table": tables[-1],
        "stacks": tables,
        "joints": metrics.per_joint(*counts[-1], skeleton),
        "macro": metrics.macro(*counts[-1], skeleton),
        "auc": metrics.auc(SHARES, curve["Mean"]),
        "visible": _pool(right, counted & (visible == 2), skeleton),
        "occluded": _pool(right, counted & (visible == 1), skeleton),
        "curve": {"thresholds": np.round(threshold * SHARES, 6).tolist()} | curve,
        "by": {name: metrics.by_group(right, counted, of, skeleton) for name, of in (groups or {}).items()},
        "examples": len(truth),
        "left_out": int((~(reference > 0)).sum()),
        "not_a_number": int((counted & ~np.isfinite(of_stacks[-1]).all(axis=-1)).sum()),
    }
    if skeleton.sticks:
        for name, how, strict in (("pcp", "PCP@0.5", True), ("pcp_average", "PCP mean", False)):
            limbs = [
                metrics.table_of_parts(stack, truth, labelled, skeleton, strict=strict) for stack in of_stacks
            ]
            scores[name] = {"metric": how, "table": limbs[-1], "stacks": limbs}
    return scores


def _pool(right, chosen, skeleton) -> float | None:
    """Mean of the chosen joints; None, which unlike nan equals itself, where there is none."""
    hits, counts = (right & chosen).sum(axis=0), chosen.sum(axis=0)
    mean = metrics.table(hits, counts, skeleton)["Mean"]
    return None if np.isnan(mean) else mean


def report(scores: dict, *, digits: int = 2) -> str:
    """The tables as text: a row for each stack, the last one being the network's answer."""
    lines = _lines(scores, digits)
    pools = {"Macro mean": "macro", "AUC": "auc", "visible": "visible", "occluded": "occluded"}
    known = {title: scores[name] for title, name in pools.items() if scores[name] is not None}
    lines.append(", ".join(f"{title} {value:.{digits}f}" for title, value in known.items()))
    if scores["left_out"]:
        lines.append(
            f"{scores['left_out']} of {scores['examples']} people are left out: the length that scales "
            f"{scores['metric']} is not annotated."
        )
    if scores["not_a_number"]:
        lines.append(f"{scores['not_a_number']} joints that count have no number as prediction: wrong.")
    for name in ("pcp", "pcp_average"):
        if name in scores:
            lines += _lines(scores[name], digits)
    if categories := scores["by"].get("category"):
        tables = {"metric": "category", "table": scores["table"], "stacks": list(categories.values())}
        lines += _lines(tables, digits, list(categories))
    return "\n".join(lines)


def _lines(scores, digits, titles=()):
    titles = titles or [f"stack {s + 1}" for s in range(len(scores["stacks"]))]
    first, width = max(len(title) + 2 for title in ("PCKh@0.5", scores["metric"], *titles)), digits + 6
    widths = [max(width, len(part) + 1) for part in scores["table"]]
    head = "".join(f"{part:>{wide}}" for part, wide in zip(scores["table"], widths, strict=True))
    lines = [f"{scores['metric']:<{first}}{head}"]
    for title, rates in zip(titles, scores["stacks"], strict=True):
        cells = zip(rates.values(), widths, strict=True)
        lines.append(f"{title:<{first}}" + "".join(f"{rate:{wide}.{digits}f}" for rate, wide in cells))
    return lines


def write_curve(path, scores: dict) -> None:
    """Writes the curve as PATH.csv, a row for each threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(scores["curve"])
    for row in zip(*scores["curve"].values(), strict=True):
        writer.writerow("" if value != value else f"{value:.6g}" for value in row)
    files.write(pathlib.Path(path).with_suffix(".csv"), text.getvalue().encode())


def plot_curves(path, curves: dict[str, list[float]], thresholds: list[float], title: str) -> None:
    """Draws curves of rates in per cent by their label; needs Matplotlib.

    Args:
      path: of the picture, in a format that Matplotlib knows.
      thresholds: (t,), what the curves are over; title: of the picture, the metric's.
    """
    from matplotlib.figure import Figure  # requirements-minimal.txt does without

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, rates in curves.items():
        axes.plot(thresholds, rates, label=label, linewidth=2.5 if label == "Mean" else 1.2)
    axes.set(title=title, xlabel="threshold", ylabel="right (%)", ylim=(0, 100), xlim=(0, thresholds[-1]))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)


def plot_presence(path, curves: dict[str, dict[str, dict]]) -> None:
    """Draws precision over recall as in Newell's Figure 11, from `evaluate.presence`; needs Matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (part, found) in enumerate(curves.items()):
        for name, style in {"max": "-", "mean": "--"}.items():
            if name in found:
                values, label = found[name], f"{part}, {name}: {found[name]['average_precision']:.1f}"
                line = {"color": f"C{number}", "linestyle": style, "label": label}
                axes.plot(values["recall"], values["precision"], **line)
    axes.set(title="Is the joint labelled?", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title="average precision (%)")
    _save(figure, path)


def _save(figure, path):
    data = io.BytesIO()
    figure.savefig(data, format=pathlib.Path(path).suffix.lstrip(".") or "png", dpi=120)
    files.write(path, data.getvalue())
