"""The list of all datasets. Reading it imports none of them."""

import dataclasses
import importlib


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The facts about a dataset that the rest of the project needs.

    Attributes:
      name: as in configs and commands. The builder is the class of that name, with a capital letter, in
        `data/datasets/<module>.py`. (TFDS, too, names a dataset after its class.)
      boxes: possible sources of a person's place and size, see `people_builder.CropConfig`; "auto" is the
        first.
      module: the builder's file; "": the file has the dataset's name.
      validation: the split that "auto" means.
      tests: splits whose scores papers report; no checkpoint is chosen on them.
      test_box: the box that "auto" means on these splits; "": the first of `boxes`.
      unions: splits that join others, which are "split" or "dataset/split".
      own: the user's own people; `data.annotations` and `data.images` say where they lie.
      drawn: drawn on demand; there is nothing to prepare.
    """

    name: str
    boxes: tuple[str, ...]
    module: str = ""
    validation: str = "validation"
    tests: tuple[str, ...] = ("test",)
    test_box: str = ""
    unions: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    own: bool = False
    drawn: bool = False

    def box_of(self, box: str, split: str = "") -> str:
        """The box that "auto" means on a split; any other box is returned as it is.

        Raises:
          ValueError: the dataset has no such box.
        """
        if box not in ("auto", *self.boxes):
            raise ValueError(f"box={box!r}: {self.name} has {', '.join(self.boxes)}, or auto for the first.")
        if box != "auto":
            return box
        return self.test_box if self.test_box and split in self.tests else self.boxes[0]

    def parts(self, split: str) -> list[tuple[str, str]]:
        """The pairs (dataset, split) that a split's name stands for."""
        split = self.validation if split == "auto" else split
        found = [part.rpartition("/") for part in self.unions.get(split, (split,))]
        return [(dataset or self.name, part) for dataset, _, part in found]

    def builder_class(self):
        """Its `PeopleBuilder`; imports TFDS."""
        module = importlib.import_module(f"hourglass_jax.data.datasets.{self.module or self.name}")
        return getattr(module, self.name.capitalize())


ANY = ("annotated", "joints", "image")
ALL = (
    Dataset("synthetic", ("image",), drawn=True),
    # Crops must not use the joints of LSP's test people (Chu, section 7): such crops score 17 points higher
    # than whole pictures.
    Dataset("lsp", ("joints", "image"), validation="test", test_box="image"),
    # All people of LSP extended and LSP's training people: 11,000, on which the papers train for LSP.
    Dataset(
        "lspet",
        ("joints", "image"),
        module="lsp",
        unions={"train_all": ("train", "validation", "lsp/train")},
    ),
    Dataset("mpii", ANY, unions={"train_all": ("train", "validation")}),
    Dataset("flic", ANY, tests=("validation",)),
    Dataset("coco", ANY, own=True),
    Dataset("yolo", ANY, own=True),
    Dataset("dlc", ("joints", "image"), own=True),
    Dataset("labelme", ANY, own=True),
)
DATASETS = {dataset.name: dataset for dataset in ALL}


def find(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
      ValueError: there is none; the message lists them.
    """
    if name not in DATASETS:
        raise ValueError(f"data.dataset={name!r} is unknown; choose from {', '.join(DATASETS)}.")
    return DATASETS[name]
