"""LSP and LSPet (Johnson and Everingham, BMVC 2010 and CVPR 2011) as TFDS datasets."""

import numpy as np

from hourglass_jax.data import people_builder
from hourglass_jax.data.datasets import lsp_annotations
from hourglass_jax.pose import skeletons


class _LeedsSports(people_builder.PeopleBuilder, skip_registration=True):
    """The common parts of LSP and LSPet."""

    skeleton = skeletons.LSP
    layouts = (("joints.mat",),)
    license = "No licence text. Its authors published it for research and ask to be cited."

    def _splits(self, annotations, length: int) -> dict[str, np.ndarray]:
        """The positions of each split's people."""
        raise NotImplementedError

    def people(self, annotations):
        joints, visible = lsp_annotations.read_joints(annotations)
        splits = self._splits(annotations, len(joints))
        names = lsp_annotations.pictures(self.name, len(joints))
        images = annotations.parent / "images"
        found = len(list(images.glob("*.jpg")))
        if found > len(names):
            raise ValueError(
                f"{annotations}: annotates {len(names)} pictures, images/ holds {found}; "
                "unpack the archive again"
            )

        def person(i):
            picture = images / f"{names[i]}.jpg"
            return people_builder.Person(f"{self.name}-{names[i]}", picture, joints[i], visible[i])

        return {split: [person(i) for i in indices] for split, indices in splits.items()}


class Lsp(_LeedsSports):
    """Leeds Sports Pose: 2,000 people in sports with 14 joints, half of them for testing."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lsp_dataset_original.zip (or lsp_dataset.zip, the same people 150 px tall) by Johnson and
Everingham, University of Leeds: https://sam.johnson.io/research/lsp.html, for research, to be
cited. Unpack it so that MANUAL_DIR/lsp_dataset/joints.mat and
MANUAL_DIR/lsp_dataset/images/im0001.jpg ... im2000.jpg exist.
"""
    BUILDER_CONFIGS = [people_builder.CropConfig(box=box) for box in ("joints", "image")]
    homepage = "https://sam.johnson.io/research/lsp.html"
    folder = "lsp_dataset"
    entries = 2000
    citation = """\
@inproceedings{johnson2010clustered,
  title={Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation},
  author={Johnson, Sam and Everingham, Mark},
  booktitle={Proceedings of the British Machine Vision Conference},
  year={2010}
}"""

    def _splits(self, annotations, length):
        if length != self.entries:  # the halves of an incomplete copy would not be the official splits
            found = f"{annotations}: found {length} entries"
            raise ValueError(f"{found}; LSP has {self.entries} (and LSPet is another dataset)")
        train, test = np.split(np.arange(length), 2)
        return {"train": train, "test": test}


class Lspet(_LeedsSports):
    """Leeds Sports Pose Extended: 10,000 people labelled by crowd workers, with 14 joints.

    Every 18th person is set aside for validation. Occluded joints are not marked.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download lspet_dataset.zip by Johnson and Everingham, University of Leeds:
https://sam.johnson.io/research/lspet.html, for research, to be cited. Unpack it so that
MANUAL_DIR/lspet_dataset/joints.mat and MANUAL_DIR/lspet_dataset/images/im00001.jpg ... im10000.jpg exist.
"""
    BUILDER_CONFIGS = [people_builder.CropConfig(box=box) for box in ("joints", "image")]
    homepage = "https://sam.johnson.io/research/lspet.html"
    folder = "lspet_dataset"
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
