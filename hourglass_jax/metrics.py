"""Scores: numpy, per joint, in the papers' definitions.

A rate is counted as (hits, counts) per joint, so that parts can be pooled exactly.
"""

import numpy as np

from hourglass_jax.data.skeletons import Skeleton


def distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Euclidean distances in pixels: (n, k, 2) and (n, k, 2) -> (n, k) float64."""
    difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return np.sqrt((difference**2).sum(axis=-1))


def correct(
    distance: np.ndarray, labelled: np.ndarray, reference: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """PCK: a joint is right when its distance is at most `threshold` times the person's reference.

    MPII's own evaluation compares with <=. A prediction that is not a number is wrong.

    Args:
      distance: (n, k) px.
      labelled: (n, k) bool (or the flags, not 0), which joints count.
      reference: (n,) px: head size (PCKh) or torso (PCK); a person whose reference is 0 or not a number
        does not count at all.
      threshold: for instance 0.5.

    Returns:
      hits (k,) and counts (k,) int.
    """
    counted = labelled.astype(bool) & (reference > 0)[:, None]
    right = counted & (distance <= threshold * reference[:, None])
    return right.sum(axis=0), counted.sum(axis=0)


def torso(joints: np.ndarray, labelled: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) px: the length of the torso (LSP: left hip to right shoulder), 0 where it is not labelled."""
    if skeleton.torso is None:
        raise ValueError(f"The joint set {skeleton.name!r} states no torso for PCK.")
    a, b = skeleton.torso
    length = distances(joints[:, a], joints[:, b])
    return np.where(labelled[:, a] & labelled[:, b], length, 0.0)


def table(hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """Per cent right by the table's parts, and "Mean".

    As in MPII's own evaluation, a part is the plain mean of its joints' rates (right and left), and "Mean"
    (its "Total") pools the joints of all parts. What has no labelled joint is nan.
    """
    rates = {}
    for title, joints in skeleton.parts:
        known = [_percent(hits[joint], counts[joint]) for joint in joints if counts[joint]]
        rates[title] = float(np.mean(known)) if known else float("nan")
    pooled = [joint for _, joints in skeleton.parts for joint in joints]
    return rates | {"Mean": _percent(hits[pooled].sum(), counts[pooled].sum())}


def per_joint(hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """Per cent right by joint."""
    pairs = zip(hits, counts, strict=True)
    return {name: _percent(*pair) for name, pair in zip(skeleton.joints, pairs, strict=True)}


def _percent(hits, count) -> float:
    return 100.0 * float(hits) / float(count) if count else float("nan")
