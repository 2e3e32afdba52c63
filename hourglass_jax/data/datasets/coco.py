"""A user's own people, labelled in COCO's keypoint format, as a TFDS dataset.

The joint set is that of the files. Names, limbs and sides come from their category, see `coco_annotations`.
"""

from hourglass_jax.data.datasets import coco_annotations, own


class Coco(own.OwnPeople, skip_registration=True):
    """People in COCO's keypoint format: two files, for training and for validation, or one.

    If there is one file, every tenth picture is set aside for validation. Crowds, people without a labelled
    joint, and other categories are left out, and the remarks count them.
    """

    homepage = "https://cocodataset.org/#format-data"

    def read(self, path):
        return [coco_annotations.read(path, self.own.category)]
