"""FLIC (Sapp and Taskar, CVPR 2013) as a TFDS dataset, from its examples.mat or Newell's h5 files."""

from pathlib import Path

import numpy as np

from hourglass_jax import files
from hourglass_jax.data import people_builder
from hourglass_jax.data.datasets import arrays, matlab
from hourglass_jax.pose import skeletons

SCALE = 2.2  # for all people, as in Newell's files: a crop of 440 px in frames of 720 x 480
# The columns of examples.mat's `coords` that are labelled, in the order of `skeletons.FLIC`: shoulders,
# elbows and wrists, hips, eyes, nose. The others (knees, ears, ...) are nan.
COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)
SPLITS = ("train", "validation")


class Flic(people_builder.PeopleBuilder, skip_registration=True):
    """Frames Labeled in Cinema: 5,003 people in films with 11 upper-body joints, 1,016 of them for testing.

    Observer-centric: the left shoulder is always on the picture's right. The test people, whose scores the
    papers report, are the split "validation". Occluded joints are not marked.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download FLIC.zip by Sapp and Taskar: https://bensapp.github.io/flic-dataset.html, for research, to be cited.
Unpack it so that MANUAL_DIR/FLIC/examples.mat and MANUAL_DIR/FLIC/images exist. Instead of examples.mat, you
can use Newell's train.h5 and valid.h5 with train_images.txt and valid_images.txt.
"""
    BUILDER_CONFIGS = [people_builder.CropConfig(box=box) for box in ("annotated", "joints", "image")]
    homepage = "https://bensapp.github.io/flic-dataset.html"
    license = "No licence text. Frames of films, for research; their authors ask to be cited."
    citation = """\
@inproceedings{sapp2013modec,
  title={MODEC: Multimodal Decomposable Models for Human Pose Estimation},
  author={Sapp, Ben and Taskar, Ben},
  booktitle={Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year={2013}
}"""
    skeleton = skeletons.FLIC
    folder = "FLIC"
    layouts = (("examples.mat",), ("train.h5", "valid.h5", "train_images.txt", "valid_images.txt"))

    def people(self, *annotations):
        if len(annotations) == 1:
            rows = read_mat(*annotations)
        else:
            rows = {name: read_h5(*annotations[i::2]) for i, name in enumerate(SPLITS)}
        images = annotations[0].parent / "images"
        return {
            # Some pictures occur twice: the row number distinguishes their people.
            split: [_person(f"flic-{split}-{i}", images, *row) for i, row in enumerate(found)]
            for split, found in rows.items()
        }


def _person(id_, images, name, joints, center):
    known = np.isfinite(joints).all(axis=-1)
    joints = np.where(known[:, None], joints, 0).astype(np.float32)
    visible = 2 * known.astype(np.uint8)
    return people_builder.Person(id_, images / name, joints, visible, center, SCALE)


def read_mat(path) -> dict[str, list[tuple[str, np.ndarray, np.ndarray]]]:
    """The people of examples.mat, by split.

    Returns:
      for "train" and "validation" a list of (picture's name, joints (11, 2) px, nan where not labelled,
      centre (2,) px). As in Newell's files the centre is that of the torso box in x and that of the picture
      in y.

    Raises:
      ValueError: the file is not readable, or not FLIC's; the message names the file or the person.
    """
    expected = (
        "expected FLIC's examples.mat, with examples(i).coords (2 x 29), filepath, imgdims, torsobox, ..."
    )
    content = matlab.read(path, expected, squeeze_me=True, struct_as_record=False)
    splits = {split: [] for split in SPLITS}
    for i, one in enumerate(np.atleast_1d(content.get("examples", [])), start=1):
        try:
            train, test = bool(one.istrain), bool(one.istest)
            coords, (x1, _, x2, _) = np.asarray(one.coords, np.float64), one.torsobox
            joints, center = coords.reshape(2, 29).T[list(COLUMNS)], ((x1 + x2) / 2, one.imgdims[0] / 2)
            row = str(one.filepath), joints, np.array(center, np.float64).reshape(2)
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ValueError(f"{path}: examples({i}) is not a person of FLIC; {expected}") from None
        if train == test:
            raise ValueError(f"{path}: examples({i}) is for training and testing, or for neither; {expected}")
        splits[SPLITS[test]].append(row)
    _check(path, [row for rows in splits.values() for row in rows], expected)
    return splits


def read_h5(path, names) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The people of one of Newell's files; `names` lists the pictures of its rows; see `read_mat`.

    Raises:
      ValueError: a file is not readable, or the two files do not belong together.
    """
    pictures = Path(names).read_bytes().decode(errors="replace").split()
    content = arrays.read_arrays(path)
    joints, center = (arrays.named(path, content, name) for name in ("part", "center"))
    if joints.shape != (len(pictures), 11, 2) or center.shape != (len(pictures), 2):
        found = f"part {joints.shape} and center {center.shape} for {len(pictures)} pictures of {names}"
        raise ValueError(f"{path}: found {found}; expected (n, 11, 2) and (n, 2) for n pictures")
    rows = list(zip(pictures, joints, center, strict=True))
    _check(path, rows, "expected Newell's h5 and the pictures' names")
    return rows


def _check(path, rows, expected) -> None:
    if not rows:
        raise ValueError(f"{path}: has no people; {expected}")
    if not all(np.isfinite(center).all() for *_, center in rows):
        raise ValueError(f"{path}: a person's place is not finite; {expected}")
    files.check_names(path, (name for name, *_ in rows))
