"""A user's own people, in the folders of YOLO pose, as a TFDS dataset."""

import dataclasses
import typing
from pathlib import Path

from hourglass_jax.data.datasets import own, yolo_annotations


@dataclasses.dataclass(eq=False)
class YoloConfig(own.OwnConfig):
    """As `own.OwnConfig`; annotations is a data.yaml, images the folder that contains its folders."""

    def content(self):
        """data.yaml and the files of labels."""
        folder = self.images_folder
        return [found for file in self.files for found in (file, *yolo_annotations.labels(file, folder))]

    @property
    def images_folder(self) -> Path | None:
        return own.paths(self.images)[0] if self.images else None


class Yolo(own.OwnPeople, skip_registration=True):
    """People in YOLO pose's folders: data.yaml with train and val, a .txt of labels for each picture.

    Without val, every tenth picture is set aside for validation.
    """

    config_class = YoloConfig
    homepage = "https://docs.ultralytics.com/datasets/pose/"

    def read(self, path):
        config = typing.cast(YoloConfig, self.builder_config)
        return yolo_annotations.read(path, config.images_folder, config.category)
