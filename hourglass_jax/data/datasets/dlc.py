"""Animals and people labelled with DeepLabCut, as a TFDS dataset."""

import dataclasses

from hourglass_jax.data.datasets import dlc_annotations, own


@dataclasses.dataclass(eq=False)
class DlcConfig(own.OwnConfig):
    """As `own.OwnConfig`; annotations is a CollectedData_*.csv, or a project's folder."""

    def content(self):
        return [
            table
            for file in self.files
            for table in (
                sorted(file.rglob("CollectedData*.csv"))
                if file.is_dir()
                else [dlc_annotations.table_of(file)]
            )
        ]


class Dlc(own.OwnPeople, skip_registration=True):
    """Frames labelled with DeepLabCut: CollectedData_*.csv, or a project with several.

    Every tenth picture is set aside for validation.
    """

    config_class = DlcConfig
    homepage = "https://deeplabcut.github.io/DeepLabCut/"

    def read(self, path):
        return [dlc_annotations.read(path)]
