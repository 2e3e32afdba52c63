"""Opens the data that a config names. See `pipeline` for what a source is."""

from hourglass_jax.data import mixture, packed, synthetic

# The boxes that a person's place and size may come from, see `builders.CropConfig`; "auto" is the first.
DATASETS = {
    "synthetic": ("image",),
    "lsp": ("joints", "image"),
    "lspet": ("joints", "image"),
    "mpii": ("annotated", "joints", "image"),
}
UNIONS = {("mpii", "train_all"): ("train", "validation")}  # splits that are others together


def open_source(data, *, train: bool):
    """The training or the validation source of `config.data`.

    `data.dataset`, its box and its split may each name several, with commas: a `mixture.Mixture` in the
    joints of the first dataset.

    Raises:
      ValueError: an unknown dataset or source.
      FileNotFoundError: data that is not there; the message says where to put it.
    """
    split = data.train_split if train else data.validation_split
    box = data.box if train else data.validation_box
    found = [
        _open(data, dataset, box, part, train)
        for dataset, box, split in _together(dataset=data.dataset, box=box, split=split)
        for part in UNIONS.get((dataset, split), (split,))
    ]
    return found[0] if len(found) == 1 else mixture.Mixture(found, found[0].skeleton)


def _together(**names: str) -> list[tuple[str, ...]]:
    """Lists with commas, side by side; a single name goes with all the others."""
    lists = {field: [name.strip() for name in value.split(",")] for field, value in names.items()}
    count = max(map(len, lists.values()))
    for field, found in lists.items():
        if len(found) not in (1, count):
            raise ValueError(f"data.{field} names {len(found)} ({names[field]}), but others {count}.")
    return list(zip(*(found * (count // len(found)) for found in lists.values()), strict=True))


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
    if data.source == "packed":
        return _open_packed(data, dataset, box_of(dataset, box), split)
    if data.source != "tfds":
        raise ValueError(f"data.source={data.source!r} is unknown; choose tfds or packed.")
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
    from hourglass_jax.data import builders  # imports TFDS

    builder = builders.builder(
        dataset,
        data_dir=data.data_dir or None,
        box=box,
        canvas=data.canvas,
        margin=data.margin,
        quality=data.quality,
        allow_missing=data.allow_missing,
    )
    builders.prepare(builder, manual_dir=data.manual_dir or None)
    return packed.TfdsSource(builder, split)
