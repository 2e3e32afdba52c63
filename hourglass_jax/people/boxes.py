"""Boxes of people, (x, y, width, height) in px of the picture: overlap, and the selection of detections."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class Detections(NamedTuple):
    """The boxes that a detector finds in one picture.

    Attributes:
      boxes: (n, 4) float64, x, y, width, height in px of the picture.
      scores: (n,) float64, 0 to 1.
      labels: (n,) names of classes, or numbers if names are unknown; () if all are people.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str | int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """Selects those of a detector's boxes that are people.

    Attributes:
      threshold: lowest score, 0 to 1.
      classes: names or numbers of the classes that are people; boxes without a class are kept.
      overlap: the largest intersection / union of two boxes; beyond it, the box with the lower score is left
        out. 1 keeps all.
      limit: the largest number of people in a picture; those with the best scores are kept.
    """

    threshold: float = 0.5
    classes: tuple[str | int, ...] = ("person",)
    overlap: float = 0.7
    limit: int = 50

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a number from 0 to 1.")
        if self.limit < 1:
            raise ValueError(f"limit={self.limit}: give at least 1.")

    def of(self, found: Detections, size: tuple[int, int]) -> tuple[Detections, int]:
        """The people among the detections, best first, with their boxes clipped to the picture.

        Args:
          found: the detections in a picture of `size`, (width, height) px.

        Returns:
          the people, and the number of those left out because of `limit`.
        """
        corners = np.clip(_corners(found.boxes), 0, [*size, *size])
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        taken = (found.scores >= self.threshold) & (boxes[:, 2:] > 0).all(axis=1)
        if found.labels:
            taken &= [label in self.classes for label in found.labels]
        rows = np.flatnonzero(taken)
        rows = rows[suppress(boxes[rows], found.scores[rows], self.overlap)]
        kept = rows[: self.limit]
        labels = tuple(found.labels[i] for i in kept) if found.labels else ()
        return Detections(boxes[kept], found.scores[kept], labels), len(rows) - len(kept)


def detections(found: Any) -> Detections:
    """Converts the result of a detector to `Detections`.

    Args:
      found: `Detections`; boxes (n, 4), which get the score 1; boxes and scores (n, 5); or (boxes, scores) or
        (boxes, scores, labels).

    Raises:
      ValueError: anything else; one line.
    """
    labels = ()
    try:
        if isinstance(found, tuple) and len(found) in (2, 3):
            boxes, scores = _rows(found[0], 4), np.asarray(found[1], np.float64).reshape(-1)
            labels = tuple(np.asarray(found[2]).tolist()) if len(found) == 3 and len(found[2]) else ()
        else:
            rows = np.asarray(found, np.float64)
            rows = rows if rows.size else np.empty((0, 4))
            boxes, scores = rows[:, :4], rows[:, 4] if rows.shape[1:] == (5,) else np.ones(len(rows))
            if rows.shape[1:] not in ((4,), (5,)):
                raise ValueError
        if len(scores) != len(boxes) or len(labels) not in (0, len(boxes)):
            raise ValueError
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError
    except (ValueError, TypeError, IndexError, OverflowError):
        shown = " ".join(repr(found).split())[:200]
        raise ValueError(
            "The detector must return boxes (n, 4), x, y, width, height in pixels, or (boxes, scores) or "
            f"(boxes, scores, labels) of equal length, all finite; it returned {shown}"
        ) from None
    return Detections(boxes, scores, labels)


def _rows(values, columns: int) -> np.ndarray:
    rows = np.asarray(values, np.float64)
    return (
        rows.reshape(-1, columns)
        if rows.size == 0 or rows.shape[1:] == (columns,)
        else rows[:, :, None, None]
    )


def from_corners(corners) -> np.ndarray:
    """(n, 4) boxes from (n, 4) corners x1, y1, x2, y2."""
    corners = np.asarray(corners, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection / union, (n, m), of boxes (n, 4) and (m, 4); 0 if both are empty."""
    first, second = _corners(a)[:, None], _corners(b)[None]
    extent = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.prod(np.maximum(extent, 0), axis=-1)
    union = np.prod(a[:, None, 2:], axis=-1) + np.prod(b[None, :, 2:], axis=-1) - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-12), 0.0)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices of the boxes that are kept, best first.

    Args:
      boxes: (n, 4); scores: (n,).
      overlap: the largest intersection / union of two boxes that are kept.
    """
    order = np.argsort(-scores, kind="stable")
    overlaps, kept = iou(boxes, boxes), []
    for i in order:
        if not kept or overlaps[i, kept].max() <= overlap:
            kept.append(i)
    return np.array(kept, int)
