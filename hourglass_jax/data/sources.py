"""Opens the data that a config names. See `pipeline` for what a source is."""

from hourglass_jax.data import packed, synthetic

DATASETS = ("synthetic", "lsp", "lspet")


def open_source(data, *, train: bool):
    """The training or the validation source of `config.data`.

    Raises:
      ValueError: an unknown dataset or source.
      FileNotFoundError: data that is not there; the message says where to put it.
    """
    split = data.train_split if train else data.validation_split
    box = data.box if train else data.validation_box
    if data.dataset not in DATASETS:
        raise ValueError(f"data.dataset={data.dataset!r} is unknown; choose from {DATASETS}.")
    if data.dataset == "synthetic":
        return synthetic.SyntheticPeople(
            split=split,
            examples=data.examples[not train],
            canvas=data.canvas,
            margin=data.margin,
            variety=data.variety,
        )
    if data.source == "packed":
        return _open_packed(data, box, split)
    if data.source != "tfds":
        raise ValueError(f"data.source={data.source!r} is unknown; choose tfds or packed.")
    return _open_tfds(data, box, split)


def loader(source) -> str:
    """The loader that suits a source: tf.data for TFDS, threads for those that need no TensorFlow."""
    return "threads" if isinstance(source, packed.PackedSource | synthetic.SyntheticPeople) else "tfdata"


def _open_packed(data, box, split):
    path = packed.path(data.packed_dir, data.dataset, box, split)
    source = packed.PackedSource(path)
    if (source.canvas, source.margin) != (data.canvas, data.margin):
        raise ValueError(
            f"{path} has canvases of {source.canvas} px with margin {source.margin}, the config wants "
            f"{data.canvas} px with {data.margin}: add --config.data.canvas={source.canvas} "
            f"--config.data.margin={source.margin}, or prepare with --canvas={data.canvas}."
        )
    return source


def _open_tfds(data, box, split):
    from hourglass_jax.data import lsp  # imports TFDS

    builder = lsp.builder(
        data.dataset,
        data_dir=data.data_dir or None,
        box=box,
        canvas=data.canvas,
        margin=data.margin,
        quality=data.quality,
    )
    if not builder.is_prepared():
        lsp.prepare(builder, manual_dir=data.manual_dir or None)
    return packed.TfdsSource(builder, split)
