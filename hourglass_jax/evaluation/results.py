"""Scores and files from the predictions of a split; uses no devices."""

import dataclasses

import numpy as np

from hourglass_jax import files
from hourglass_jax.console import say
from hourglass_jax.evaluation import attention, metrics, plots, scores
from hourglass_jax.evaluation.scores import Scores
from hourglass_jax.pose.skeletons import Skeleton

_ENLARGEMENT = (
    1.25  # side of the nominal crop / longer side of the person's box, as for data in COCO's format
)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The network's joints for a split of n people, and their annotations. All in image pixels.

    Attributes:
      joints: (n, s, k, 2) float64 for each of s stacks; scores (n, s, k) float32.
      truth: (n, k, 2); visible (n, k) flags, see `pipeline`; head_size (n,), 0 if unknown.
      pictures: the data that `sheets` draws, for the first few examples.
      crop_size: (n,) px, the side of the nominal crop; None if unknown.
      means: (n, k) float32, means of the last stack's heatmaps over all cells; None if all joints share one
        map.
      attention: (n,) by map, see `attention.shares`; None for a network without attention.
    """

    joints: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    head_size: np.ndarray
    pictures: list[dict]
    means: np.ndarray | None = None
    crop_size: np.ndarray | None = None
    attention: dict[str, np.ndarray] | None = None


def score_predictions(
    predictions: Predictions,
    skeleton: Skeleton,
    *,
    metric: str = "auto",
    groups: dict[str, np.ndarray] | None = None,
) -> Scores:
    """The tables of a split.

    Args:
      predictions: the result of `Evaluator.predict`.
      skeleton: the joint set.
      metric: "auto", "pckh" (0.5 of the head size) or "pck" (0.2 of the torso), ..., see `scores.choose`.
      groups: see `scores.score_joints`.

    Returns:
      the scores of `scores.score_joints`, together with `confidence`: how well the last stack's scores
      separate correct joints from wrong ones, see `metrics.confidence`; `presence`: how well its heatmaps
      separate labelled joints from others, see `presence`, without the curves; and `attention`: the share of
      the attention on the people, see `attention.summary`.
    """
    truth, visible = predictions.truth, predictions.visible
    box_size = None if predictions.crop_size is None else predictions.crop_size / _ENLARGEMENT
    metric, reference = scores.choose(
        metric, truth, visible, predictions.head_size, skeleton, box_size=box_size
    )
    found = scores.score_joints(
        predictions.joints, truth, visible, reference, skeleton, metric=metric, groups=groups
    )
    distance = metrics.distances(predictions.joints[:, -1], truth)
    right, counted = metrics.judged(distance, visible > 0, reference, scores.METRICS[metric][1])
    confidence = metrics.confidence(predictions.scores[:, -1][counted], right[counted])
    summary = {
        part: {name: {k: curve[name][k] for k in ("average_precision", "accuracy")} for name in curve}
        for part, curve in presence(predictions, skeleton).items()
    }
    attended = attention.summary(predictions.attention) if predictions.attention else None
    return dataclasses.replace(found, confidence=confidence, presence=summary, attention=attended)


def presence(predictions: Predictions, skeleton: Skeleton) -> dict[str, dict[str, dict]]:
    """Whether a joint is labelled at all, from its heatmap's maximum and mean (Newell 5.3, Figure 11).

    MPII does not label joints that are severely occluded or outside the picture, and Newell's targets are
    empty there. After a spatial cross-entropy every map has the same mean, which is then not informative.

    Returns:
      {row of the table: {"max" and "mean": see `metrics.presence`}}, without rows whose joints are all
      labelled.
    """
    values = {"max": predictions.scores[:, -1]}
    if predictions.means is not None:
        values["mean"] = predictions.means
    found = {}
    for part, joints in skeleton.parts:
        flags = predictions.visible[:, list(joints)]
        labelled, known = flags > 0, flags >= 0  # -1: the dataset does not have this joint
        if labelled.any() and not labelled[known].all():
            found[part] = {
                name: metrics.presence(value[:, list(joints)][known], labelled[known])
                for name, value in values.items()
            }
    return found


def write(workdir, predictions: Predictions, found: Scores | None, ids: list[str], about: dict) -> None:
    """Writes evaluation.json, predictions.json and curves.csv, and curves.png if Matplotlib is installed.

    Without scores (None) only predictions.json is written. The files of an earlier evaluation then stay; they
    name their data. For each person predictions.json has the last stack's joints in image pixels and their
    scores, and under "stacks" the same for every stack.
    """
    workdir, entries = files.path(workdir), []
    for id_, joints, values in zip(ids, predictions.joints, predictions.scores, strict=True):
        stacks = [
            {"joints": np.round(places, 3), "scores": np.round(value.astype(float), 4)}
            for places, value in zip(joints, values, strict=True)
        ]
        entries.append({"id": id_} | stacks[-1] | {"stacks": stacks})
    files.write_json(workdir / "predictions.json", entries)
    if found is None:
        return
    files.write_json(workdir / "evaluation.json", about | found.to_dict())
    plots.write_curve(workdir / "curves.csv", found.curve)
    try:
        plots.plot_scores(workdir / "curves.png", found)
    except ModuleNotFoundError:
        say("curves.png is not drawn: Matplotlib is not installed.")
