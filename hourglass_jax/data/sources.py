"""Opens the data that a config names. See `pipeline` for what a source is."""

import re

from hourglass_jax.data import mixture, packed, synthetic
from hourglass_jax.pose import skeletons

# The boxes that a person's place and size may come from, see `builders.CropConfig`; "auto" is the first.
DATASETS = {
    "synthetic": ("image",),
    "lsp": ("joints", "image"),
    "lspet": ("joints", "image"),
    "mpii": ("annotated", "joints", "image"),
    "flic": ("annotated", "joints", "image"),
    "coco": ("annotated", "joints", "image"),
}
UNIONS = {("mpii", "train_all"): ("train", "validation")}  # splits that are others together
VALIDATION = {"lsp": "test"}  # the split that "auto" stands for, where it is not "validation"


def open_source(data, *, train: bool, skeleton: skeletons.Skeleton | None = None):
    """The training or the validation source of `config.data`.

    `data.dataset`, its box and its split may each name several, with commas or plus signs: a
    `mixture.Mixture`. Validation is on `data.validation_dataset`, by default the first of `data.dataset`.

    Args:
      data: `config.data`.
      train: which of the two.
      skeleton: the joint set to give, that of the network or of the training. None for the one that
        `data.joints` names, by default the first dataset's.

    Raises:
      ValueError: an unknown dataset, source or joint set, or none of its joints are there.
      FileNotFoundError: data that is not there; the message says where to put it.
    """
    split = data.train_split if train else data.validation_split
    box = data.box if train else data.validation_box
    datasets = data.dataset if train else data.validation_dataset or names(data.dataset)[0]
    found = [
        _open(data, dataset, box, part, train)
        for dataset, box, split in _together(dataset=datasets, box=box, split=split)
        for part in _parts(dataset, split)
    ]
    skeleton = skeleton or (_skeleton(data.joints) if data.joints else found[0].skeleton)
    if len(found) == 1 and found[0].skeleton == skeleton:
        return found[0]
    return mixture.Mixture(found, skeleton)


def names(several: str) -> list[str]:
    """Those of a value that may name several: "lsp,mpii", or, inside of a config's arguments, "lsp+mpii"."""
    return [name.strip() for name in re.split("[,+]", several)]


def _skeleton(name: str) -> skeletons.Skeleton:
    if name not in skeletons.SKELETONS:
        known = ", ".join(skeletons.SKELETONS)
        raise ValueError(f"data.joints={name!r} is unknown; choose from {known}, or leave it empty.")
    return skeletons.SKELETONS[name]


def _together(**values: str) -> list[tuple[str, ...]]:
    """Lists side by side; a single name goes with all the others."""
    lists = {field: names(value) for field, value in values.items()}
    count = max(map(len, lists.values()))
    for field, found in lists.items():
        if len(found) not in (1, count):
            raise ValueError(f"data.{field} names {len(found)} ({values[field]}), but others {count}.")
    return list(zip(*(found * (count // len(found)) for found in lists.values()), strict=True))


def _parts(dataset, split) -> tuple[str, ...]:
    """The splits of a dataset that a split's name stands for."""
    if split == "auto":
        split = VALIDATION.get(dataset, "validation")
    return UNIONS.get((dataset, split), (split,))


def _open(data, dataset, box, split, train):
    if dataset not in DATASETS:
        raise ValueError(f"data.dataset={dataset!r} is unknown; choose from {', '.join(DATASETS)}.")
    if dataset == "synthetic":
        return synthetic.SyntheticPeople(
            split=split,
            examples=data.examples[not train],
            canvas=data.canvas,
            margin=data.margin,
            variety=data.variety,
        )
    if data.source in ("packed", "device"):  # where its canvases go, see `feed`
        return _open_packed(data, dataset, box_of(dataset, box), split)
    if data.source != "tfds":
        raise ValueError(f"data.source={data.source!r} is unknown; choose tfds, packed or device.")
    return _open_tfds(data, dataset, box, split)


def box_of(dataset: str, box: str) -> str:
    """What "auto" stands for; any other box as it is.

    Raises:
      ValueError: the dataset has no such box.
    """
    known = DATASETS[dataset]
    if box not in ("auto", *known):
        raise ValueError(f"box={box!r}: {dataset} has {', '.join(known)}, or auto for the first.")
    return known[0] if box == "auto" else box


def loader(source) -> str:
    """The loader that suits a source: tf.data for TFDS, threads for those that need no TensorFlow."""
    parts = source.sources if isinstance(source, mixture.Mixture) else [source]
    light = all(isinstance(part, packed.PackedSource | synthetic.SyntheticPeople) for part in parts)
    return "threads" if light else "tfdata"


def _open_packed(data, dataset, box, split):
    path = packed.path(data.packed_dir, dataset, box, split)
    source = packed.PackedSource(path)
    if (source.canvas, source.margin) != (data.canvas, data.margin):
        raise ValueError(
            f"{path} has canvases of {source.canvas} px with margin {source.margin}, the config wants "
            f"{data.canvas} px with {data.margin}: add --config.data.canvas={source.canvas} "
            f"--config.data.margin={source.margin}, or prepare with --canvas={data.canvas}."
        )
    return source


def _open_tfds(data, dataset, box, split):
    from hourglass_jax.data import people_builder  # imports TFDS

    own = {"annotations": data.annotations, "images": data.images} if dataset == "coco" else {}
    builder = people_builder.builder(
        dataset,
        data_dir=data.data_dir or None,
        box=box,
        canvas=data.canvas,
        margin=data.margin,
        quality=data.quality,
        allow_missing=data.allow_missing,
        **own,
    )
    people_builder.prepare(builder, manual_dir=data.manual_dir or None)
    return packed.TfdsSource(builder, split)
