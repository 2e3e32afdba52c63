"""The kinds of wrong joints: where a wrong prediction lies."""

import numpy as np

from hourglass_jax.evaluation import metrics
from hourglass_jax.pose.skeletons import Skeleton

KINDS = ("right", "near", "mirrored", "another joint", "elsewhere")
NEAR = 2.0  # times the threshold


def kinds(
    predicted: np.ndarray,
    truth: np.ndarray,
    labelled: np.ndarray,
    reference: np.ndarray,
    threshold: float,
    skeleton: Skeleton,
) -> np.ndarray:
    """Assigns each predicted joint the first of these kinds that applies.

    - right: at most `threshold`, as a fraction of the reference length, away from the joint;
    - mirrored: at most that far away from the same joint of the other side;
    - near: at most `NEAR` times the threshold away from the joint;
    - another joint: at most the threshold away from any other labelled joint of the person;
    - elsewhere: all others, including predictions that are not finite.

    Args:
      predicted, truth: (n, k, 2) px; labelled: (n, k) bool; reference: (n,) px, 0 if unknown.
      threshold: above 0.
      skeleton: the joint set.

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
    for name, which in (("another joint", another), ("near", near), ("mirrored", mirrored), ("right", right)):
        found[which] = KINDS.index(name)
    return np.where(counted, found, -1)
