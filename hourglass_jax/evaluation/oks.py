"""People matched by place, and COCO's average precision by OKS (object keypoint similarity)."""

import contextlib
import io
import reprlib
from typing import Any

import numpy as np

from hourglass_jax import files
from hourglass_jax.data.datasets import coco_annotations
from hourglass_jax.evaluation import metrics

# The sigmas of COCO's 17 joints, in its order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees,
# ankles. From cocodataset.org, "keypoints-eval": the spread of annotators, as a fraction of the person's
# size.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107),
    *(0.087, 0.087, 0.089, 0.089),
)
# pycocotools' ten figures for keypoints: the first five are of precision, the others of recall.
_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def match(predicted: np.ndarray, truth: np.ndarray, labelled: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Matches each annotated person of a picture with the predicted person at the same place.

    The assignment minimises the sum of distances. A joint's distance is a fraction of the person's size, at
    most 1.

    Args:
      predicted: (p, k, 2) px, in any order; nan counts as a distance of 1.
      truth: (m, k, 2) px; labelled: (m, k) bool.
      size: (m,) px, such as the longer side of the person's box.

    Returns:
      (m,) int: the index of the predicted person, -1 for none (if p is smaller than m).
    """
    from scipy.optimize import linear_sum_assignment  # not in requirements-minimal.txt

    found = np.full(len(truth), -1)
    if len(predicted) and len(truth):
        distance = metrics.distances(predicted[None], truth[:, None]) / np.maximum(size, 1)[:, None, None]
        share = np.where(np.isfinite(distance), np.minimum(distance, 1), 1)  # m p k
        weight = labelled[:, None] / np.maximum(labelled.sum(axis=1), 1)[:, None, None]
        cost = (share * weight).sum(axis=-1)
        # Break ties in favour of the given order.
        cost += 1e-9 * np.abs(np.subtract.outer(np.arange(len(truth)), np.arange(len(predicted))))
        rows, columns = linear_sum_assignment(cost)
        found[rows] = columns
    return found


def average_precision(path, people: list[tuple[int | str, np.ndarray, float]]) -> dict[str, float | None]:
    """COCO's figures, computed by pycocotools, with at most 20 people per picture.

    Args:
      path: annotations in COCO's format. A person without "area" gets the area of the box, and without a box
        that of the joints' box. The category's "sigmas", one for each joint, scale OKS; the default is COCO's
        for its 17 joints, and their mean, for every joint, for other joint sets.
      people: (picture's id or file name, joints (k, 2) px, score) of each predicted person.

    Returns:
      in per cent {"AP", "AP50", "AP75", "APm", "APl", "AR", ...}; None if no person counts, as in APm without
      a person of medium size.

    Raises:
      ModuleNotFoundError: pycocotools is not installed.
      ValueError: the annotations do not have a picture, or the sigmas are not one positive number for each
        joint; one line.
    """
    from pycocotools.coco import COCO  # an optional extra
    from pycocotools.cocoeval import COCOeval

    content = files.read_json(path)
    skeleton = coco_annotations.read(path).skeleton
    categories = [one for one in content["categories"] if one.get("keypoints")]
    ids = {one.get("id") for one in categories}
    sigmas = _sigmas(path, categories[0], len(skeleton))
    images = {str(image["id"]): number for number, image in enumerate(content["images"], 1)}
    names = {image["file_name"]: images[str(image["id"])] for image in content["images"]} | images
    if unknown := [str(image) for image, *_ in people if str(image) not in names]:
        raise ValueError(f"{path}: has no picture {unknown[0]!r}, in which people are predicted.")
    annotated = [
        _record(number, record, images, len(skeleton))
        for number, record in enumerate(content["annotations"], 1)
        if ("category_id" not in record or record["category_id"] in ids) and record.get("keypoints")
    ]
    known = {
        "images": [{"id": number} for number in images.values()],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotated,
        "info": {},
    }
    detections = [
        {
            "image_id": names[str(image)],
            "category_id": 1,
            "keypoints": np.insert(_finite(joints), 2, 1, axis=1).ravel().tolist(),
            "score": float(score),
        }
        for image, joints, score in people
    ]
    if not detections:
        return dict.fromkeys(_NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
        truth: Any = COCO()
        truth.dataset = known
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(_NAMES, evaluation.stats, strict=True)
    return {name: None if value < 0 else 100 * float(value) for name, value in values}


def _sigmas(path, category: dict, k: int) -> np.ndarray:
    given = category.get("sigmas")
    if given is None:
        return np.array(COCO_SIGMAS if k == len(COCO_SIGMAS) else [np.mean(COCO_SIGMAS)] * k)
    try:
        sigmas = np.array(given, np.float64)
    except (TypeError, ValueError):
        sigmas = np.zeros(0)
    if sigmas.shape != (k,) or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        found = f"{path}: category {reprlib.repr(category.get('name'))}: sigmas={reprlib.repr(given)}"
        raise ValueError(f"{found}; expected {k} positive numbers, one for each joint.")
    return sigmas


def _finite(joints: np.ndarray) -> np.ndarray:
    """Moves joints that are not finite far away."""
    return np.where(np.isfinite(joints), joints, -1e6)


def _record(number: int, record: dict, images: dict[str, int], k: int) -> dict:
    """An annotation with the fields that pycocotools needs; ids count from 1, because there 0 means none."""
    triples = np.array(record["keypoints"], np.float64).reshape(k, 3)
    labelled = triples[triples[:, 2] > 0, :2]
    low, high = (labelled.min(axis=0), labelled.max(axis=0)) if len(labelled) else (np.zeros(2), np.zeros(2))
    box = record.get("bbox") or [*low.tolist(), *(high - low).tolist()]
    return {
        "id": number,
        "image_id": images[str(record["image_id"])],
        "category_id": 1,
        "keypoints": triples.ravel().tolist(),
        "num_keypoints": len(labelled),
        "iscrowd": int(bool(record.get("iscrowd"))),
        "bbox": box,
        "area": float(record.get("area") or max(box[2] * box[3], 1.0)),
    }
