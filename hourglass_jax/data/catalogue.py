"""The datasets that there are. Reading this list imports none of them."""

import dataclasses
import importlib


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as the rest of the project sees it.

    Attributes:
      name: as in configs and commands; its builder is the class of that name, with a capital letter, in
        `data/datasets/<module>.py`. (TFDS, too, calls a dataset by its class.)
      boxes: where a person's place and size may come from, see `people_builder.CropConfig`; "auto" is the
        first.
      module: the builder's file where it has another name.
      validation: the split that "auto" stands for.
      tests: splits by which papers report: no checkpoint is chosen on them.
      test_box: the box that "auto" stands for on these, where it is another one.
      unions: splits that are others together, "split" or "dataset/split".
      own: the user's own people; they lie where `data.annotations` and `data.images` say.
      drawn: made when asked; there is nothing to prepare.
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
        """The box that "auto" stands for on a split; any other box as it is.

        Raises:
          ValueError: the dataset has no such box.
        """
        if box not in ("auto", *self.boxes):
            raise ValueError(f"box={box!r}: {self.name} has {', '.join(self.boxes)}, or auto for the first.")
        if box != "auto":
            return box
        return self.test_box if self.test_box and split in self.tests else self.boxes[0]

    def parts(self, split: str) -> list[tuple[str, str]]:
        """The (dataset, split) that a split's name stands for."""
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
    # The joints of LSP's test people are not to be looked at (Chu, section 7): crops from them score 17
    # points better than whole pictures.
    Dataset("lsp", ("joints", "image"), validation="test", test_box="image"),
    # All people of LSP extended, with LSP's for training: 11,000, as the papers train for LSP.
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
