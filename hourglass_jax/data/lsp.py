"""LSP and LSPet (Johnson and Everingham, BMVC 2010 and CVPR 2011) as TFDS datasets."""

from pathlib import Path

import numpy as np
import scipy.io

from hourglass_jax.data import builders, skeletons, sources


def read_joints(path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a joints.mat of LSP (3 x 14 x n, flag 1: occluded) or LSPet (14 x 3 x n, 1: labelled).

    Returns:
      joints (n, 14, 2) float32 px, (0, 0) where not labelled, and visible (n, 14) uint8: 0 not
      labelled, 1 occluded, 2 visible. LSPet does not tell occluded joints: its labelled ones are 2.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else.
    """
    expected = "expected a MATLAB file with `joints`, 14 x 3 x n (LSPet) or 3 x 14 x n (LSP)"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {expected}")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # SciPy has a dozen different ones for what is not MATLAB's
        raise ValueError(f"{path}: not readable ({type(error).__name__}); {expected}") from error
    if "joints" not in content:
        names = [name for name in content if not name.startswith("__")]
        raise ValueError(f"{path}: found the variables {names}; {expected}")
    table = content["joints"]
    known = table.ndim == 3 and table.shape[:2] in ((14, 3), (3, 14))
    if not known or table.dtype.kind not in "fiu":
        raise ValueError(f"{path}: found `joints` {table.shape} {table.dtype}; {expected}")
    extended = table.shape[0] == 14
    rows = table.transpose(2, 0, 1) if extended else table.transpose(2, 1, 0)
    points, flags = rows[..., :2], rows[..., 2]
    if not np.isfinite(points).all() or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"{path}: found NaN, infinity or flags other than 0 and 1; {expected}")
    visible = (2 * flags if extended else 2 - flags).astype(np.uint8)
    # LSPet's unlabelled joints hold leftovers of a shift; nothing may read them.
    return np.where(visible[..., None] > 0, points, 0).astype(np.float32), visible


class _LeedsSports(builders.PeopleBuilder, skip_registration=True):
    """What LSP and LSPet share."""

    skeleton = skeletons.LSP
    layouts = (("joints.mat",),)
    license = "No licence text. Published for research by its authors, who ask to be cited."
    digits: int  # of the pictures' numbers

    def people(self, annotations):
        joints, visible = read_joints(annotations)
        splits = self._splits(annotations, len(joints))
        names = [f"im{number:0{self.digits}d}" for number in range(1, len(joints) + 1)]
        images = annotations.parent / "images"
        found = len(list(images.glob("*.jpg")))
        if found > len(names):
            raise ValueError(
                f"{annotations}: annotates {len(names)} pictures, images/ holds {found}; "
                "unpack the archive again"
            )

        def person(i):
            picture = images / f"{names[i]}.jpg"
            return builders.Person(f"{self.name}-{names[i]}", picture, joints[i], visible[i])

        return {split: [person(i) for i in indices] for split, indices in splits.items()}


class Lsp(_LeedsSports):
    """Leeds Sports Pose: 2,000 people in sports with 14 joints, half of them for testing."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lsp_dataset_original.zip (or lsp_dataset.zip, the same people 150 px tall) by Johnson and
Everingham, University of Leeds: https://sam.johnson.io/research/lsp.html, for research, to be
cited. Unpack it so that there are MANUAL_DIR/lsp_dataset/joints.mat and
MANUAL_DIR/lsp_dataset/images/im0001.jpg ... im2000.jpg.
"""
    BUILDER_CONFIGS = [builders.CropConfig(box=box) for box in sources.DATASETS["lsp"]]
    homepage = "https://sam.johnson.io/research/lsp.html"
    folder = "lsp_dataset"
    digits = 4
    entries = 2000
    citation = """\
@inproceedings{johnson2010clustered,
  title={Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation},
  author={Johnson, Sam and Everingham, Mark},
  booktitle={Proceedings of the British Machine Vision Conference},
  year={2010}
}"""

    def _splits(self, annotations, length):
        if length != self.entries:  # the halves of an incomplete copy are not the official ones
            found = f"{annotations}: found {length} entries"
            raise ValueError(f"{found}; LSP has {self.entries} (and LSPet is another dataset)")
        train, test = np.split(np.arange(length), 2)
        return {"train": train, "test": test}


class Lspet(_LeedsSports):
    """Leeds Sports Pose Extended: 10,000 people labelled by crowd workers, with 14 joints.

    Every 18th of them is set aside for validation. Occluded joints are not told from visible ones.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lspet_dataset.zip by Johnson and Everingham, University of Leeds:
https://sam.johnson.io/research/lspet.html, for research, to be cited. Unpack it so that there are
MANUAL_DIR/lspet_dataset/joints.mat and MANUAL_DIR/lspet_dataset/images/im00001.jpg ... im10000.jpg.
"""
    BUILDER_CONFIGS = [builders.CropConfig(box=box) for box in sources.DATASETS["lspet"]]
    homepage = "https://sam.johnson.io/research/lspet.html"
    folder = "lspet_dataset"
    digits = 5
    citation = """\
@inproceedings{johnson2011learning,
  title={Learning Effective Human Pose Estimation from Inaccurate Annotation},
  author={Johnson, Sam and Everingham, Mark},
  booktitle={Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year={2011}
}"""

    def _splits(self, annotations, length):
        index = np.arange(length)
        return {"train": index[index % 18 != 0], "validation": index[index % 18 == 0]}
