"""Scores of predicted joints: the papers' tables as one object, and as text."""

import dataclasses
from typing import Any

import numpy as np

from hourglass_jax.evaluation import metrics
from hourglass_jax.pose.skeletons import Skeleton

Table = dict[str, float]  # row of the papers' tables -> per cent; nan without a labelled joint

# Title and the papers' threshold; pckbox has that of Yang and Ramanan (2013).
METRICS = {"pckh": ("PCKh", 0.5), "pck": ("PCK", 0.2), "pckbox": ("PCKbox", 0.1)}
SHARES = np.arange(51) / 50  # the points of a curve / the threshold: for PCKh@0.5 0, 0.01, ..., 0.5
# Fields of `Scores` that are not in evaluation.json if they are None.
OPTIONAL = {
    *("pcp", "pcp_average", "confidence", "presence", "attention", "mirrored", "people"),
    "average_precision",
}
# Rows whose mean some papers report instead of the mean of all rows.
HARD = "ten hard joints (Tang 4.3)"
SUBSETS = {
    HARD: ("Elb", "Wri", "Hip", "Knee", "Ank"),
    "limbs' ends and middles (Newell, Figure 8)": ("Elb", "Wri", "Knee", "Ank"),
}


@dataclasses.dataclass(frozen=True)
class Limbs:
    """PCP by the rows of `Skeleton.sticks`, per cent.

    Attributes:
      metric: "PCP@0.5" (strict) or "PCP mean" (the older rule).
      table: the table of the last stack; stacks: a table for each stack.
    """

    metric: str
    table: Table
    stacks: list[Table]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a split; all rates in per cent.

    The fields can also be read by name, `scores["table"]`; `to_dict` gives the content of evaluation.json.

    Attributes:
      metric: such as "PCKh@0.5".
      table: the table of the last stack: the rows of the skeleton's parts and "Mean", which pools their
        joints.
      auc: area under the curve of "Mean".
      curve: {"thresholds": (t,), and for each row of the table (t,) rates}.
      stacks: a table for each stack.
      joints: the rate of each joint.
      macro: plain mean of the rates of the table's joints.
      parts_mean: plain mean of the table's rows.
      visible, occluded: "Mean" of such joints; None if there are none.
      by_visibility: "visible" and "occluded": the `table` of such joints, and the means of `subsets`.
      subsets: {title of `SUBSETS`: {"pooled": over the joints, "plain": mean of the rows}}.
      mirrored: the wrong joints that lie on the other side, see `metrics.mirrored`: {"share": per cent of the
        wrong joints that are correct for the joint of the other side, "wrong": the number of wrong joints,
        "either": "Mean" if these counted as correct, "parts": the share by row}; None for a joint set without
        sides.
      by: {title: {group: table}}, such as {"category": ...}.
      examples: number of people; left_out: number of those whose reference length is not annotated.
      not_a_number: number of joints that count and have no finite prediction; they are wrong.
      pcp, pcp_average: if the joint set defines limbs (LSP).
      people: {"missing": number of annotated people without a prediction, whose joints are wrong, "extra":
        number of predicted people who match no annotated person}; None if people were not detected.
      average_precision: COCO's figures, see `oks.average_precision`.
      confidence, presence: see `results.score_predictions`; None without scores of joints.
      attention: see there; None for a network without attention.
    """

    metric: str
    table: Table
    auc: float
    curve: dict[str, list[float]]
    stacks: list[Table] = dataclasses.field(default_factory=list)
    joints: Table = dataclasses.field(default_factory=dict)
    macro: float = float("nan")
    parts_mean: float = float("nan")
    visible: float | None = None
    occluded: float | None = None
    by_visibility: dict[str, dict] = dataclasses.field(default_factory=dict)
    subsets: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    mirrored: dict | None = None
    by: dict[str, dict[str, Table]] = dataclasses.field(default_factory=dict)
    examples: int = 0
    left_out: int = 0
    not_a_number: int = 0
    pcp: Limbs | None = None
    pcp_average: Limbs | None = None
    confidence: dict | None = None
    presence: dict[str, dict] | None = None
    attention: dict | None = None
    people: dict[str, int] | None = None
    average_precision: dict[str, float | None] | None = None

    def __getitem__(self, name: str):
        """A field by name, because scores were dictionaries in earlier versions."""
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def __eq__(self, other) -> bool:
        # Without a labelled joint a rate is nan, which does not equal itself.
        return isinstance(other, Scores) and repr(self) == repr(other)

    @property
    def mean(self) -> float:
        """Per cent of all joints of the table that are correct."""
        return self.table["Mean"]

    def to_dict(self) -> dict:
        """A plain dictionary for json; fields that do not apply (limbs, confidence, ...) are left out."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value is not None or name not in OPTIONAL}

    @classmethod
    def from_dict(cls, fields: dict) -> "Scores":
        """Reads the result of `to_dict`, evaluation.json or a file of `score --json`; ignores other keys.

        Fields that did not exist when the file was written get their defaults.

        Raises:
          KeyError: "metric", "table", "auc" or "curve" is missing.
          TypeError, ValueError, AttributeError: a field has another type.
        """
        for name in ("metric", "table", "auc", "curve"):
            fields[name]
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in fields.items() if name in known}
        values["table"], values["curve"] = _numbers(fields["table"]), _numbers(fields["curve"])
        for name in ("stacks", "joints", "by", "by_visibility", "subsets"):
            values[name] = _numbers(fields.get(name) or {"stacks": [fields["table"]]}.get(name, {}))
        for name in ("pcp", "pcp_average"):
            if name in fields:
                limbs = fields[name]
                values[name] = Limbs(limbs["metric"], _numbers(limbs["table"]), _numbers(limbs["stacks"]))
        return cls(**values)

    def scalars(self) -> dict[str, float]:
        """The values that a training logs: the rows of the tables."""
        limbs = self.pcp.table if self.pcp else {}
        pcp = {f"PCP/{title}": rate for title, rate in limbs.items()}
        subsets = {title: means["pooled"] for title, means in self.subsets.items()}
        return self.table | {"AUC": self.auc} | pcp | subsets


def _numbers(tree) -> Any:
    """A table from json; null is the rate of a row without a labelled joint, which becomes nan."""
    if isinstance(tree, dict):
        return {name: _numbers(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    return float("nan") if tree is None else tree


def choose(
    metric: str,
    truth: np.ndarray,
    visible: np.ndarray,
    head_size: np.ndarray,
    skeleton: Skeleton,
    box_size: np.ndarray | None = None,
) -> tuple[str, np.ndarray]:
    """The metric, with "auto" resolved, and its reference lengths.

    Args:
      metric: "pckh" (relative to the head size), "pck" (to the torso, `Skeleton.torso`: for LSP left hip to
        right shoulder), "pckbox" (to the longer side of the box around the labelled joints), or "auto": pckh
        if head sizes are known, else pck, but pckbox if the joint set has no torso.
      truth, visible: as in `score_joints`; head_size: (n,) px, 0 if unknown.
      box_size: (n,) px, the longer side of the annotated box; pckbox uses it if the labelled joints do not
        span a box, because there is only one, or all are in one place.

    Returns:
      the metric, and (n,) px, 0 if unknown.
    """
    if metric not in ("auto", *METRICS):
        raise ValueError(f"evaluate.metric={metric!r} is unknown; choose {', '.join(['auto', *METRICS])}.")
    if metric == "auto":
        metric = "pckh" if head_size.any() else "pck" if skeleton.torso else "pckbox"
    if metric == "pckh":
        return metric, head_size
    if metric == "pckbox":
        side = metrics.longer_side(truth, visible > 0)
        if box_size is not None:
            side = np.where((side > 0) | ~(visible > 0).any(axis=1), side, box_size)
        return metric, side
    return metric, metrics.torso(truth, visible > 0, skeleton)


def score_joints(
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
) -> Scores:
    """The tables of a split of n people.

    Args:
      joints: (n, s, k, 2) px of each of s stacks; the last one is the network's prediction.
      truth: (n, k, 2) px; visible: (n, k): at most 0 not labelled, 1 occluded, 2 visible.
      reference: (n,) px, 0 if unknown; see `choose`.
      skeleton: the joint set.
      metric: a name in `METRICS`; threshold: its threshold, by default the papers'.
      strictly: see `metrics.correct`.
      groups: (n,) str by title, such as {"category": ...}: groups of people with tables of their own.
    """
    title, usual = METRICS[metric]
    threshold = usual if threshold is None else threshold
    if not 0 < threshold < np.inf:
        raise ValueError(f"threshold={threshold}: give a positive fraction of the head size or the torso.")
    of_stacks, labelled = np.moveaxis(np.asarray(joints), 1, 0), visible > 0
    counts = [
        metrics.correct(metrics.distances(stack, truth), labelled, reference, threshold, strictly=strictly)
        for stack in of_stacks
    ]
    last = of_stacks[-1]
    distance = metrics.distances(last, truth)
    right, counted = metrics.judged(distance, labelled, reference, threshold, strictly=strictly)
    curve = metrics.curve(distance, labelled, reference, threshold * SHARES, skeleton, strictly=strictly)
    tables = [metrics.table(*count, skeleton) for count in counts]
    pools = {name: counted & (visible == flag) for name, flag in (("visible", 2), ("occluded", 1))}
    means = {name: metrics.table(*_count(right, chosen), skeleton)["Mean"] for name, chosen in pools.items()}
    limbs = {}
    if skeleton.sticks:
        for name, how, strict in (("pcp", "PCP@0.5", True), ("pcp_average", "PCP mean", False)):
            rows = [
                metrics.table_of_parts(stack, truth, labelled, skeleton, strict=strict) for stack in of_stacks
            ]
            limbs[name] = Limbs(how, rows[-1], rows)
    return Scores(
        metric=f"{title}@{threshold:g}",
        table=tables[-1],
        auc=metrics.auc(SHARES, curve["Mean"]),
        curve={"thresholds": np.round(threshold * SHARES, 6).tolist()} | curve,
        stacks=tables,
        joints=metrics.per_joint(*counts[-1], skeleton),
        macro=metrics.macro(*counts[-1], skeleton),
        parts_mean=_plain(tables[-1], [title for title, _ in skeleton.parts]),
        visible=None if np.isnan(means["visible"]) else means["visible"],
        occluded=None if np.isnan(means["occluded"]) else means["occluded"],
        by_visibility={
            name: {
                "table": metrics.table(*_count(right, chosen), skeleton),
                "subsets": _subsets(*_count(right, chosen), skeleton),
            }
            for name, chosen in pools.items()
            if chosen.any()
        },
        subsets=_subsets(*counts[-1], skeleton),
        mirrored=_mirrored(last, truth, labelled, reference, right, counted, threshold, strictly, skeleton),
        by={name: metrics.by_group(right, counted, of, skeleton) for name, of in (groups or {}).items()},
        examples=len(truth),
        left_out=int((~(reference > 0)).sum()),
        not_a_number=int((counted & ~np.isfinite(last).all(axis=-1)).sum()),
        pcp=limbs.get("pcp"),
        pcp_average=limbs.get("pcp_average"),
    )


def _count(right, chosen) -> tuple[np.ndarray, np.ndarray]:
    """Hits and counts (k,) of the chosen joints, as `metrics.table` takes them."""
    return (right & chosen).sum(axis=0), chosen.sum(axis=0)


def _plain(table: Table, titles) -> float:
    known = [table[title] for title in titles if not np.isnan(table[title])]
    return float(np.mean(known)) if known else float("nan")


def _subsets(hits, counts, skeleton) -> dict[str, dict[str, float]]:
    """The means of those `SUBSETS` that the joint set has and in which a joint is labelled."""
    rows, found = dict(skeleton.parts), {}
    for title, titles in SUBSETS.items():
        if not all(name in rows for name in titles):
            continue
        places = [joint for name in titles for joint in rows[name]]
        if counts[places].sum():
            plain = _plain(metrics.table(hits, counts, skeleton), titles)
            pooled = 100.0 * float(hits[places].sum() / counts[places].sum())
            found[title] = {"pooled": pooled, "plain": plain}
    return found


def _mirrored(
    joints, truth, labelled, reference, right, counted, threshold, strictly, skeleton
) -> dict | None:
    if not skeleton.flip_pairs:
        return None
    swapped = metrics.mirrored(joints, truth, labelled, reference, threshold, skeleton, strictly=strictly)
    swapped &= counted & ~right
    wrong = counted & ~right
    rows = {}
    for title, places in skeleton.parts:
        errors = wrong[:, list(places)].sum()
        rows[title] = 100.0 * float(swapped[:, list(places)].sum() / errors) if errors else float("nan")
    pooled = [joint for _, places in skeleton.parts for joint in places]
    errors = int(wrong[:, pooled].sum())
    return {
        "share": 100.0 * float(swapped[:, pooled].sum() / errors) if errors else float("nan"),
        "wrong": errors,
        "either": metrics.table(*_count(right | swapped, counted), skeleton)["Mean"],
        "parts": rows,
    }


def report(scores: Scores, *, digits: int = 2, details: bool = False, joints: bool = False) -> str:
    """The tables as text, with a row for each stack; the last one is the network's prediction.

    Args:
      digits: digits of the rates after the decimal point.
      details: add tables by visibility, means of subsets, and the wrong joints on the other side.
      joints: add a line for each joint.
    """
    lines = _lines(scores.metric, scores.stacks, digits)
    pools = {
        "Macro mean": scores.macro,
        "AUC": scores.auc,
        "visible": scores.visible,
        "occluded": scores.occluded,
    }
    lines.append(", ".join(f"{k} {v:.{digits}f}" for k, v in pools.items() if v is not None))
    if scores.left_out:
        lines.append(
            f"{scores.left_out} of {scores.examples} people are left out: the reference length of "
            f"{scores.metric} is not annotated."
        )
    if scores.not_a_number:
        lines.append(f"{scores.not_a_number} joints have no finite prediction and count as wrong.")
    if scores.people and any(scores.people.values()):
        lines.append(
            f"{scores.people['missing']} annotated people have no prediction (their joints count as wrong), "
            f"{scores.people['extra']} predicted people match no annotated person."
        )
    if scores.average_precision:
        known = {name: value for name, value in scores.average_precision.items() if value is not None}
        lines.append("OKS: " + ", ".join(f"{name} {value:.{digits}f}" for name, value in known.items()))
    for limbs in (scores.pcp, scores.pcp_average):
        if limbs:
            lines += _lines(limbs.metric, limbs.stacks, digits)
    if details:
        lines += _details(scores, digits)
    for title, groups in scores.by.items():
        if title != "activity" and groups:  # there are hundreds of activities
            lines += _lines(title, list(groups.values()), digits, list(groups))
    if scores.confidence and scores.confidence["auroc"] is not None:
        lines.append(
            "Scores separate correct joints from wrong ones with an AUROC of "
            f"{scores.confidence['auroc']:.3f}; best F1 at {scores.confidence['threshold']:.3f}."
        )
    if scores.attention:
        maps = sorted(scores.attention["maps"].items(), key=lambda of: of[1])
        (least, low), (most, high) = maps[0], maps[-1]
        lines.append(
            f"Attention within the box of the labelled joints: {scores.attention['mean']:.1f}% "
            f"({least} {low:.1f}, {most} {high:.1f}); a uniform map has {scores.attention['chance']:.1f}%."
        )
    rows = scores.presence or {}
    for name in ("max", "mean") if rows else ():
        known = ", ".join(f"{part} {row[name]['accuracy']:.1f}" for part, row in rows.items() if name in row)
        lines.append(
            f"Is a joint labelled? Accuracy from the heatmap's {name} (Newell 5.3): {known or 'unknown'}."
        )
    if joints:
        width = max(map(len, scores.joints))
        lines += [f"{name:<{width}}{rate:{digits + 6}.{digits}f}" for name, rate in scores.joints.items()]
    return "\n".join(lines)


def _details(scores: Scores, digits: int) -> list[str]:
    lines = []
    if len(scores.by_visibility) > 1:
        tables = [of["table"] for of in scores.by_visibility.values()]
        lines += _lines("visibility", tables, digits, list(scores.by_visibility))
    for title, means in scores.subsets.items():
        parts = {"all": means} | {n: of["subsets"].get(title) for n, of in scores.by_visibility.items()}
        if len(parts) == 2:  # all joints are visible, or all are occluded
            del parts[next(iter(scores.by_visibility))]
        cells = [f"{n} {m['pooled']:.{digits}f} ({m['plain']:.{digits}f})" for n, m in parts.items() if m]
        lines.append(f"{title}, pooled (mean of parts): {', '.join(cells)}")
    if scores.mirrored and scores.mirrored["wrong"]:
        lines.append(
            f"Of {scores.mirrored['wrong']} wrong joints, {scores.mirrored['share']:.1f}% lie on the same "
            f"joint of the other side; Mean {scores.mirrored['either']:.{digits}f} if these counted."
        )
    return lines


def _lines(metric: str, rows: list[Table], digits: int, titles: list[str] | None = None) -> list[str]:
    titles = titles or [f"stack {s + 1}" for s in range(len(rows))]
    first, width = max(len(title) + 2 for title in ("PCKh@0.5", metric, *titles)), digits + 6
    widths = [max(width, len(part) + 1) for part in rows[0]]
    head = "".join(f"{part:>{wide}}" for part, wide in zip(rows[0], widths, strict=True))
    lines = [f"{metric:<{first}}{head}"]
    for title, rates in zip(titles, rows, strict=True):
        cells = zip(rates.values(), widths, strict=True)
        lines.append(f"{title:<{first}}" + "".join(f"{rate:{wide}.{digits}f}" for rate, wide in cells))
    return lines
