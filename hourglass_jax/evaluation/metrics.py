"""Scores as the papers define them, per joint, in NumPy.

Functions return (hits, counts) per joint instead of rates, so that joints can be pooled exactly.
"""

from collections.abc import Sequence

import numpy as np

from hourglass_jax.pose.skeletons import Skeleton, Stick


def distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Euclidean distances in pixels: (n, k, 2) and (n, k, 2) -> (n, k) float64."""
    difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return np.sqrt((difference**2).sum(axis=-1))


def correct(
    distance: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    threshold: float,
    *,
    strictly: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """PCK: a joint is correct if its distance is at most `threshold` times the person's reference length.

    MPII's own evaluation compares with <=. NaN predictions are wrong. With the torso as the reference this is
    also PDJ (percentage of detected joints).

    Args:
      distance: (n, k) px.
      labelled: (n, k) bool, or flags that are above 0 for labelled joints; other joints do not count.
      reference: (n,) px: head size (PCKh) or torso (PCK). People whose reference is 0 or NaN do not count.
      threshold: for instance 0.5.
      strictly: compare with <, as pytorch-pose does.

    Returns:
      hits (k,) and counts (k,) int.
    """
    right, counted = judged(distance, labelled, reference, threshold, strictly=strictly)
    return right.sum(axis=0), counted.sum(axis=0)


def judged(
    distance: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    threshold: float,
    *,
    strictly: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The joints that are correct, and those that count: (n, k) bool each. Has the arguments of `correct`."""
    counted = (labelled > 0) & (reference > 0)[:, None]
    limit = threshold * reference[:, None]
    return counted & (distance < limit if strictly else distance <= limit), counted


def curve(
    distance: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    thresholds: np.ndarray,
    skeleton: Skeleton,
    *,
    strictly: bool = False,
) -> dict[str, list[float]]:
    """The rows of `table` at each of the (t,) thresholds. Takes the other arguments of `correct`."""
    tables = [
        table(*correct(distance, labelled, reference, t, strictly=strictly), skeleton) for t in thresholds
    ]
    return {title: [rates[title] for rates in tables] for title in tables[0]}


def auc(thresholds: np.ndarray, rates: Sequence[float]) -> float:
    """Area under a curve of rates (t,) in per cent, by the trapezoid rule, scaled to 0..100."""
    return float(np.trapezoid(rates, thresholds) / (thresholds[-1] - thresholds[0]))


def mirrored(
    predicted: np.ndarray,
    truth: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    threshold: float,
    skeleton: Skeleton,
    *,
    strictly: bool = False,
) -> np.ndarray:
    """The predicted joints that lie on the same joint of the person's other side (left and right swapped).

    Args:
      predicted, truth: (n, k, 2) px; labelled, reference, threshold, strictly: see `correct`.

    Returns:
      (n, k) bool; False for joints without a side, and if the joint on the other side is not labelled.
    """
    order = skeleton.flip
    distance = distances(predicted, np.asarray(truth)[:, order])
    near, _ = judged(distance, np.asarray(labelled)[:, order], reference, threshold, strictly=strictly)
    return near & (order != np.arange(len(order)))


def by_group(
    right: np.ndarray, counted: np.ndarray, groups: np.ndarray, skeleton: Skeleton
) -> dict[str, dict[str, float]]:
    """A `table` for each group of people, such as MPII's activity categories, sorted by name.

    Args:
      right, counted: (n, k) bool from `judged`.
      groups: (n,) str; people with "" belong to no group.
    """
    people = {str(name): groups == name for name in np.unique(groups) if name}
    return {
        name: table(right[at].sum(axis=0), counted[at].sum(axis=0), skeleton) for name, at in people.items()
    }


def confidence(scores: np.ndarray, right: np.ndarray) -> dict[str, float | None]:
    """How well scores separate correct joints from wrong ones.

    Args:
      scores: (m,) of any range, one for each joint that counts.
      right: (m,) bool, True for correct joints.

    Returns:
      "auroc": the probability that a correct joint scores higher than a wrong one; ties count half.
      "threshold": accepting joints that score at least this gives the best F1; the highest such threshold.
      Both are None without a correct joint; "auroc" is also None without a wrong one.
    """
    values, places = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    rights = np.bincount(places[right], minlength=len(values))  # by score, rising
    wrongs = np.bincount(places[~right], minlength=len(values))
    if not rights.sum():
        return {"auroc": None, "threshold": None}
    below = np.cumsum(wrongs) - wrongs
    pairs = rights.sum() * wrongs.sum()
    auroc = float((rights * (below + wrongs / 2)).sum() / pairs) if pairs else None
    taken, hits = (np.cumsum(counts[::-1])[::-1] for counts in (rights + wrongs, rights))
    f1 = 2 * hits / (taken + rights.sum())
    return {"auroc": auroc, "threshold": float(values[f1 == f1.max()][-1])}


def presence(values: np.ndarray, labelled: np.ndarray) -> dict:
    """How well values separate labelled joints from absent ones (Newell 5.3, Figure 11).

    Args:
      values: (m,) of any range, such as the maxima of heatmaps; a joint is found if its value is at least
        a threshold.
      labelled: (m,) bool, at least one True.

    Returns:
      "precision" and "recall": (t,) in [0, 1], with each distinct value as the threshold, in falling order;
      "average_precision": in per cent, the sum of precision times the step in recall;
      "accuracy": in per cent, at the best threshold, which may lie above all values.
    """
    distinct, places = np.unique(np.asarray(values, np.float64), return_inverse=True)
    hits, all_ = (
        np.cumsum(np.bincount(places[chosen], minlength=len(distinct))[::-1])
        for chosen in (labelled, np.ones_like(labelled))
    )
    precision, recall = hits / all_, hits / hits[-1]
    absent = len(labelled) - hits[-1]
    right = np.concatenate([[absent], hits + absent - (all_ - hits)])  # found and labelled, or neither
    return {
        **{"precision": precision, "recall": recall},
        "average_precision": 100 * float((np.diff(recall, prepend=0) * precision).sum()),
        "accuracy": 100 * float(right.max() / len(labelled)),
    }


def torso(joints: np.ndarray, labelled: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) px: length of the torso (LSP: left hip to right shoulder), 0 if an end is not labelled."""
    if skeleton.torso is None:
        raise ValueError(f"The joint set {skeleton.name!r} defines no torso for PCK.")
    a, b = skeleton.torso
    length = distances(joints[:, a], joints[:, b])
    return np.where((labelled[:, a] > 0) & (labelled[:, b] > 0), length, 0.0)


def longer_side(joints: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """(n,) px: longer side of the box around the labelled joints, 0 without labelled joints."""
    shown = (labelled > 0)[..., None]
    low = np.where(shown, joints, np.inf).min(axis=1)
    high = np.where(shown, joints, -np.inf).max(axis=1)
    return np.maximum(high - low, 0.0).max(axis=-1)


def correct_parts(
    predicted: np.ndarray,
    truth: np.ndarray,
    labelled: np.ndarray,
    sticks: Sequence[Stick],
    *,
    threshold: float = 0.5,
    strict: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """PCP: a limb is correct if its ends lie within `threshold` times its true length of the true ends.

    Args:
      predicted, truth: (n, k, 2) px.
      labelled: (n, k) bool, or flags that are above 0 for labelled joints. A limb counts if all joints of
        its ends are labelled and its length is not 0.
      sticks: L limbs, see `Skeleton.sticks`.
      threshold: for instance 0.5.
      strict: each end must be within the limit; otherwise the mean of both distances, the older rule.

    Returns:
      hits (L,) and counts (L,) int.
    """
    hits, counts = np.zeros((2, len(sticks)), int)
    for i, ends in enumerate(sticks):
        start, end = (np.asarray(truth, np.float64)[:, list(joints)].mean(axis=1) for joints in ends)
        found = (np.asarray(predicted, np.float64)[:, list(joints)].mean(axis=1) for joints in ends)
        error = np.stack([distances(*pair) for pair in zip(found, (start, end), strict=True)])  # 2 n
        length = distances(start, end)
        counted = (labelled[:, [*ends[0], *ends[1]]] > 0).all(axis=1) & (length > 0)
        error = error.max(axis=0) if strict else error.mean(axis=0)
        hits[i], counts[i] = (counted & (error <= threshold * length)).sum(), counted.sum()
    return hits, counts


def table(hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """Per cent correct for each part of the papers' tables, and "Mean".

    As in MPII's own evaluation, a part's rate is the unweighted mean of its joints' rates (right and left),
    and "Mean" (MPII's "Total") pools the joints of all parts. Parts without a labelled joint are NaN.
    """
    return _rows(hits, counts, skeleton.parts)


def table_of_parts(
    predicted: np.ndarray, truth: np.ndarray, labelled: np.ndarray, skeleton: Skeleton, **options
) -> dict[str, float]:
    """Per cent of correct limbs for each row of `skeleton.sticks`, and "Mean", as in `table`.

    Takes the arguments and options of `correct_parts`.
    """
    rows, sticks = [], []
    for title, row in skeleton.sticks:
        rows.append((title, range(len(sticks), len(sticks) + len(row))))
        sticks += row
    return _rows(*correct_parts(predicted, truth, labelled, sticks, **options), rows)


def per_joint(hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """Per cent correct for each joint, by name."""
    pairs = zip(hits, counts, strict=True)
    return {name: _percent(*pair) for name, pair in zip(skeleton.joints, pairs, strict=True)}


def macro(hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton) -> float:
    """Unweighted mean of the rates of the table's joints, in per cent, as pytorch-pose computes it."""
    places = [i for _, joints in skeleton.parts for i in joints if counts[i]]
    return float(np.mean([_percent(hits[i], counts[i]) for i in places])) if places else float("nan")


def _rows(hits, counts, rows) -> dict[str, float]:
    rates = {}
    for title, places in rows:
        known = [_percent(hits[i], counts[i]) for i in places if counts[i]]
        rates[title] = float(np.mean(known)) if known else float("nan")
    pooled = [i for _, places in rows for i in places]
    return rates | {"Mean": _percent(hits[pooled].sum(), counts[pooled].sum())}


def _percent(hits, count) -> float:
    return 100.0 * float(hits) / float(count) if count else float("nan")
