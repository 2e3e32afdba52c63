"""Opens the data that a config names. See `examples` for sources and examples."""

import re

from hourglass_jax.data import catalogue, mixture, packed, selection, synthetic
from hourglass_jax.data.catalogue import Dataset
from hourglass_jax.data.examples import Source
from hourglass_jax.pose import skeletons


def open_source(
    data, *, train: bool, skeleton: skeletons.Skeleton | None = None, whole: bool = True
) -> Source:
    """The training or the validation source of `config.data`.

    `data.dataset`, its box and its split may each name several, joined by commas or plus signs. They become a
    `mixture.Mixture`. Validation uses `data.validation_dataset`, by default the first of `data.dataset`.

    Args:
      data: `config.data`.
      train: True: the training source; False: the validation source.
      skeleton: the joint set of the source, as of the network or of the training. None: the joint set that
        `data.joints` names, by default the first dataset's.
      whole: whether this process reads all of the split, or only a share, as one of several hosts.

    Raises:
      ValueError: an unknown dataset, source or joint set, or a dataset has none of its joints.
      FileNotFoundError: the data are missing; the message says where to put them.
    """
    found = [_open(data, dataset, box, split, train, whole) for dataset, box, split in _chosen(data, train)]
    if (people := data.get("people", "all") if train else data.get("validation_people", "all")) != "all":
        found = [selection.Selection(source, people) for source in found]
    skeleton = skeleton or (_skeleton(data.joints) if data.joints else found[0].skeleton)
    if len(found) == 1 and found[0].skeleton == skeleton:
        return found[0]
    return mixture.Mixture(found, skeleton)


def crops(data) -> str:
    """The sources of the places and sizes of the validation people: "joints", "image", "annotated", or
    several of these joined by "+"."""
    return "+".join(dict.fromkeys(box for _, box, _ in _chosen(data, train=False)))


def validates_on_test(data) -> bool:
    """Whether the validation people include a test split, whose scores papers report."""
    return any(split in dataset.tests for dataset, _, split in _chosen(data, train=False))


def _chosen(data, train: bool) -> list[tuple[Dataset, str, str]]:
    """The (dataset, box, split) that `open_source` opens."""
    split = data.train_split if train else data.validation_split
    box = data.box if train else data.validation_box
    datasets = data.dataset if train else data.validation_dataset or names(data.dataset)[0]
    return [
        (catalogue.find(part), catalogue.find(part).box_of(box, "" if train else part_split), part_split)
        for dataset, box, split in _together(dataset=datasets, box=box, split=split)
        for part, part_split in catalogue.find(dataset).parts(split)
    ]


def names(several: str) -> list[str]:
    """The names in a value that may have several: "lsp,mpii" or, within a config's arguments, "lsp+mpii"."""
    return [name.strip() for name in re.split("[,+]", several)]


def _skeleton(name: str) -> skeletons.Skeleton:
    if name not in skeletons.SKELETONS:
        known = ", ".join(skeletons.SKELETONS)
        raise ValueError(f"data.joints={name!r} is unknown; choose from {known}, or leave it empty.")
    return skeletons.SKELETONS[name]


def _together(**values: str) -> list[tuple[str, ...]]:
    """The values' lists of names, zipped; a single name is combined with every name of the others."""
    lists = {field: names(value) for field, value in values.items()}
    count = max(map(len, lists.values()))
    for field, found in lists.items():
        if len(found) not in (1, count):
            raise ValueError(f"data.{field} names {len(found)} ({values[field]}), but others {count}.")
    return list(zip(*(found * (count // len(found)) for found in lists.values()), strict=True))


def _open(data, dataset: Dataset, box: str, split: str, train: bool, whole: bool) -> Source:
    if dataset.drawn:
        return synthetic.SyntheticPeople(
            split=split,
            examples=data.examples[not train],
            canvas=data.canvas,
            margin=data.margin,
            variety=data.variety,
        )
    if data.source in ("packed", "device"):  # `feed` decides where the canvases are stored
        return _open_packed(data, dataset, box, split, whole)
    if data.source != "tfds":
        raise ValueError(f"data.source={data.source!r} is unknown; choose tfds, packed or device.")
    return _open_tfds(data, dataset, box, split)


def _open_packed(data, dataset: Dataset, box: str, split: str, whole: bool) -> packed.PackedSource:
    path = packed.path(data.packed_dir, dataset.name, box, split)
    source = packed.PackedSource(path, whole=whole)
    if (source.canvas, source.margin) != (data.canvas, data.margin):
        raise ValueError(
            f"{path} has canvases of {source.canvas} px with margin {source.margin}, but the config has "
            f"{data.canvas} px with {data.margin}: add --config.data.canvas={source.canvas} "
            f"--config.data.margin={source.margin}, or prepare with --canvas={data.canvas}."
        )
    return source


def _open_tfds(data, dataset: Dataset, box: str, split: str) -> packed.TfdsSource:
    from hourglass_jax.data import preparation  # imports TFDS

    own = {name: data[name] for name in ("annotations", "images", "category")} if dataset.own else {}
    builder = preparation.builder(
        dataset.name,
        data_dir=data.data_dir or None,
        box=box,
        canvas=data.canvas,
        margin=data.margin,
        quality=data.quality,
        allow_missing=data.allow_missing,
        **own,
    )
    preparation.prepare(builder, manual_dir=data.manual_dir or None)
    return packed.TfdsSource(builder, split)
