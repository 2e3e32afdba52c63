"""A user's own people, labelled with labelme, as a TFDS dataset."""

import dataclasses

from hourglass_jax.data.datasets import labelme_annotations, own


@dataclasses.dataclass(eq=False)
class LabelmeConfig(own.OwnConfig):
    """As `own.OwnConfig`; annotations is a folder with a .json for each picture, or one folder per split."""

    def content(self):
        return [found for folder in self.files for found in labelme_annotations.labels(folder)]


class Labelme(own.OwnPeople, skip_registration=True):
    """People labelled with labelme: a point for each joint, and optionally a rectangle for each person.

    If there is one folder, every tenth picture is set aside for validation.
    """

    config_class = LabelmeConfig
    homepage = "https://github.com/wkentaro/labelme"

    def read(self, path):
        return [labelme_annotations.read(path)]
