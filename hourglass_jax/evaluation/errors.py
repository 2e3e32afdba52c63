"""The kinds of wrong joints: what a network confuses a joint with."""

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
    """Sorts predicted joints into the first of these that applies.

    - right: within `threshold` of the joint, as a share of the reference length;
    - mirrored: within it of the same joint of the other side;
    - near: within `NEAR` times the threshold of the joint;
    - another joint: within the threshold of any other labelled joint of the person;
    - elsewhere: the rest, also predictions without a number.

    Args:
      predicted, truth: (n, k, 2) px; labelled: (n, k) bool; reference: (n,) px, 0 where unknown.
      threshold: above 0.
      skeleton: the joint set.

    Returns:
      (n, k) int, positions in `KINDS`; -1 for joints that do not count.
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
