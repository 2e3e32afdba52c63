"""The kinds of wrong joints: where a wrong prediction lies."""

from collections.abc import Sequence

import numpy as np

from hourglass_jax.evaluation import metrics
from hourglass_jax.pose.skeletons import Skeleton

KINDS = ("right", "near", "mirrored", "another joint", "another person", "missed", "elsewhere")
NEAR = 2.0  # times the threshold


def kinds(
    predicted: np.ndarray,
    truth: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    threshold: float,
    skeleton: Skeleton,
    *,
    pictures: Sequence[str] | None = None,
    shown: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns each predicted joint the first of these kinds that applies.

    - right: at most `threshold`, as a fraction of the reference length, away from the joint;
    - mirrored: at most that far away from the same joint of the other side;
    - near: at most `NEAR` times the threshold away from the joint;
    - another joint: at most the threshold away from any other labelled joint of the person;
    - another person: at most the threshold away from any labelled joint of another person in the picture;
    - missed: its score is too low for it to be drawn;
    - elsewhere: all others, including predictions that are not finite.

    Args:
      predicted, truth: (n, k, 2) px; labelled: (n, k) bool; reference: (n,) px, 0 if unknown.
      threshold: above 0.
      skeleton: the joint set.
      pictures: (n,) the name of each person's picture; None if unknown.
      shown: (n, k) bool, joints whose score is high enough to be drawn; None if unknown.

    Returns:
      (n, k) int, indices of `KINDS`; -1 for joints that do not count.
    """
    right, counted = metrics.judged(metrics.distances(predicted, truth), labelled, reference, threshold)
    mirrored = metrics.mirrored(predicted, truth, labelled, reference, threshold, skeleton)
    near, _ = metrics.judged(metrics.distances(predicted, truth), labelled, reference, NEAR * threshold)
    apart = np.linalg.norm(predicted[:, :, None] - truth[:, None], axis=-1)  # (n, predicted, annotated)
    limit = (threshold * reference)[:, None, None]
    another = ((apart <= limit) & labelled[:, None]).any(axis=2)
    found = np.full(right.shape, KINDS.index("elsewhere"))
    person = (
        np.zeros_like(right) if pictures is None else _at_others(predicted, truth, labelled, limit, pictures)
    )
    missed = np.zeros_like(right) if shown is None else ~shown
    for name, which in (
        ("missed", missed),
        ("another person", person),
        ("another joint", another),
        ("near", near),
        ("mirrored", mirrored),
        ("right", right),
    ):
        found[which] = KINDS.index(name)
    return np.where(counted, found, -1)


def _at_others(predicted, truth, labelled, limit, pictures) -> np.ndarray:
    """(n, k) bool: predicted joints at most `limit` (n, 1, 1) px from another person's labelled joint."""
    found = np.zeros(labelled.shape, bool)
    people_of: dict[str, list[int]] = {}
    for i, name in enumerate(pictures):
        people_of.setdefault(name, []).append(i)
    for people in people_of.values():
        for i in people if len(people) > 1 else ():
            others = [j for j in people if j != i]
            joints = truth[others][labelled[others]]
            apart = np.linalg.norm(predicted[i][:, None] - joints, axis=-1)
            found[i] = (apart <= limit[i]).any(axis=1)
    return found
