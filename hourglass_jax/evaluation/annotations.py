"""Ground truth for scoring, read from the published files without TensorFlow."""

import dataclasses
import os

import numpy as np

from hourglass_jax import copies
from hourglass_jax.data.datasets import coco_annotations, lsp_annotations, mpii_annotations
from hourglass_jax.data.datasets.arrays import named, read_arrays
from hourglass_jax.evaluation import published
from hourglass_jax.pose.skeletons import SKELETONS, Skeleton

_SKELETON = {"lspet": "lsp"}  # datasets that share the joint set of another
DATASETS = tuple(sorted({*SKELETONS, *_SKELETON, "coco"}))


@dataclasses.dataclass(frozen=True)
class Annotations:
    """n annotated people, in the order of their file.

    Attributes:
      skeleton: joint set of k joints.
      joints: (n, k, 2) float64 px; visible: (n, k) uint8: 0 not labelled, 1 occluded, 2 visible.
      head_size: (n,) px, 0 if unknown.
      torso: (n,) px, or None if the file does not give it.
      ids: (n,) str, as in our own predictions.json; pictures: (n,) file names. None if the file has none.
      images: (n,) COCO's ids of the pictures; None if the file has none.
      box_size: (n,) px, longer side of the annotated box, 0 without a box; None if the file has no boxes.
      groups: title -> (n,) str, such as "category" of MPII.
    """

    skeleton: Skeleton
    joints: np.ndarray
    visible: np.ndarray
    head_size: np.ndarray
    torso: np.ndarray | None = None
    ids: np.ndarray | None = None
    pictures: np.ndarray | None = None
    images: np.ndarray | None = None
    box_size: np.ndarray | None = None
    groups: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.joints)

    def rows(self, rows: slice) -> "Annotations":
        """The annotations of a slice of the people."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)}
        groups = {title: of[rows] for title, of in self.groups.items()}
        return dataclasses.replace(self, **arrays, groups=groups)


def read(path: str | os.PathLike, dataset: str) -> Annotations:
    """Reads annotations.

    Args:
      path: for MPII valid.h5 of the hourglass authors, mpii_annotations.json (or .json.gz) or the
        benchmark's own .mat (both read for the validation people of Tompson et al.), or
        detections_our_format.mat; for LSP and LSPet joints.mat; for "coco" any file of COCO keypoints, which
        also defines the joint set; for other datasets an .h5 file like valid.h5.
      dataset: one of `DATASETS`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file cannot be read or has other contents; one line.
    """
    path = copies.fetched(path)
    if dataset == "coco":
        return _of_coco(path)
    skeleton = SKELETONS[_SKELETON.get(dataset, dataset)]
    if dataset in lsp_annotations.DIGITS:
        return _of_lsp(path, dataset, skeleton)
    if dataset == "mpii" and path.name.endswith((".json", ".json.gz")):
        return _of_mpii(path, skeleton)
    if dataset == "mpii" and path.suffix == ".mat":
        arrays = read_arrays(path)
        found = "jnt_missing" in arrays
        return _of_detections(path, arrays, skeleton) if found else _of_mpii(path, skeleton)
    return _of_h5(path, dataset, skeleton)


def _check(path, skeleton: Skeleton, joints, flags, sizes) -> None:
    shape = (sizes.size, len(skeleton))
    if sizes.ndim != 1 or joints.shape != (*shape, 2) or flags.shape != shape:
        raise ValueError(
            f"{path}: joints {joints.shape} and flags {flags.shape} for {shape[0]} people; "
            f"{skeleton.name} needs (people, {shape[1]}, 2) and (people, {shape[1]})."
        )
    if not all(np.isfinite(values).all() for values in (joints, flags, sizes)):
        raise ValueError(f"{path}: annotated joints, flags or sizes are not finite numbers.")


def _of_h5(path, dataset, skeleton) -> Annotations:
    """A missing joint is (0, 0); `normalize` is the head size for MPII, and the torso for others (FLIC)."""
    arrays = read_arrays(path)
    joints, seen, sizes = (named(path, arrays, name) for name in ("part", "visible", "normalize"))
    _check(path, skeleton, joints, seen, sizes)
    visible = np.where((joints == 0).all(axis=-1), 0, np.where(seen > 0, 2, 1)).astype(np.uint8)
    pictures = ids = None
    if "imgname" in arrays and arrays["imgname"].dtype.kind == "S":
        pictures = np.char.decode(arrays["imgname"], "utf-8", errors="replace")
    numbers = named(path, arrays, "person") if "person" in arrays else np.zeros(len(sizes))
    if not (pictures is None or pictures.shape == sizes.shape) or numbers.shape != sizes.shape:
        raise ValueError(f"{path}: `imgname` or `person` does not have {len(sizes)} entries.")
    if not (np.abs(numbers) < 2**31).all():
        raise ValueError(f"{path}: `person` holds numbers that are not positions in a picture.")
    if dataset != "mpii":
        return Annotations(skeleton, joints, visible, np.zeros(len(sizes)), sizes, pictures=pictures)
    if pictures is not None and "person" in arrays:
        people = zip(pictures, numbers.astype(int), strict=True)
        ids = np.array([mpii_annotations.name(*person) for person in people])
    return Annotations(skeleton, joints, visible, sizes, ids=ids, pictures=pictures)


def _of_detections(path, arrays, skeleton) -> Annotations:
    """Ground truth of Tompson et al., which does not mark occluded joints."""
    names = ("pos_gt_src", "jnt_missing", "headboxes_src")
    places, missing, boxes = (named(path, arrays, name) for name in names)
    if places.ndim != 3 or boxes.ndim != 3 or len(boxes) != 2:
        raise ValueError(
            f"{path}: pos_gt_src {places.shape} and headboxes_src {boxes.shape}; expected (joints, 2, n) "
            "and (2, 2, n)."
        )
    joints, sizes = np.moveaxis(places, -1, 0), 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    _check(path, skeleton, joints, missing.T, sizes)
    return Annotations(skeleton, joints, np.where(missing.T == 0, 2, 0).astype(np.uint8), sizes)


def _of_mpii(path, skeleton) -> Annotations:
    everybody = {(a.image, a.person): a for a in mpii_annotations.read(path)}
    places = [(int(i), int(j)) for i, j in mpii_annotations.split()["validation"]]
    people = [everybody[place] for place in places if place in everybody]
    if len(people) < len(places):
        lacking = len(places) - len(people)
        raise ValueError(
            f"{path}: lacks {lacking} of the {len(places)} validation people; download it again."
        )
    columns = {name: np.array([getattr(a, name) for a in people]) for name in ("category", "activity")}
    return Annotations(
        skeleton,
        joints=np.stack([a.joints for a in people]),
        visible=np.stack([a.visible for a in people]),
        head_size=np.array([a.head_size for a in people]),
        ids=np.array([a.id for a in people]),
        pictures=np.array([a.picture for a in people]),
        groups=published.groups({title: of for title, of in columns.items() if (of != "").any()}),
    )


def _of_lsp(path, dataset, skeleton) -> Annotations:
    joints, visible = lsp_annotations.read_joints(path)
    names = np.array(lsp_annotations.pictures(dataset, len(joints)))
    ids = np.char.add(f"{dataset}-", names)
    return Annotations(
        skeleton, joints.astype(np.float64), visible, np.zeros(len(joints)), ids=ids, pictures=names
    )


def _of_coco(path) -> Annotations:
    """Leaves out crowds and people without labelled joints, as the evaluation of a network does."""
    content = coco_annotations.read(path)
    skeleton, people = content.skeleton, content.people
    return Annotations(
        skeleton,
        joints=np.array([one.joints for one in people], np.float64).reshape(-1, len(skeleton), 2),
        visible=np.array([one.visible for one in people], np.uint8).reshape(-1, len(skeleton)),
        head_size=np.zeros(len(people)),
        ids=np.array([f"coco-validation-{one.id}" for one in people]),
        pictures=np.array([one.picture for one in people]),
        images=np.array([str(one.image) for one in people]),
        box_size=np.array([0.0 if one.box is None else one.box[2:].max() for one in people], np.float64),
    )
