"""Prepared data as sources: TFDS' record files, or one packed file per split that needs no TFDS.

Both are sources as `pipeline` wants them: random access to encoded canvases.
"""

import json
import os
import threading
import zipfile
from pathlib import Path

import numpy as np

from hourglass_jax.data import pipeline
from hourglass_jax.data.skeletons import Skeleton

FORMAT = "hourglass_jax-packed-1"
WRITE_AGAIN = "write it again (python -m hourglass_jax.data.prepare --pack=...)"


class TfdsSource:
    """A split of a TFDS dataset with a `skeleton` and a `CropConfig`, as `lsp.builder` makes it."""

    def __init__(self, builder, split: str):
        import tensorflow_datasets as tfds  # only here: training from packed files does without

        if not builder.is_prepared():
            raise FileNotFoundError(
                f"{builder.data_dir}: not prepared; see python -m hourglass_jax.data.prepare --help"
            )
        if split not in builder.info.splits:
            raise ValueError(f"{builder.name} has no split {split!r}, but {list(builder.info.splits)}")
        self.name = f"{builder.name}-{split}"
        self.skeleton = builder.skeleton
        self.canvas = builder.builder_config.canvas
        self.margin = builder.builder_config.margin
        raw = {"image": tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split, decoders=raw)
        self._lock = threading.Lock()  # array_record's reader is not meant for several threads

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        with self._lock:
            record = self._records[range(len(self))[index]]
        example = {k: t(record[k]) for k, t in pipeline.FIELDS.items()}
        return example | {"image": record["image"], "id": record["id"].decode()}

    @property
    def ids(self) -> list[str]:
        return [self[index]["id"] for index in range(len(self))]


class PackedSource:
    """A split in one file, held in memory as it is stored (encoded)."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in arrays.files}
            meta = _validate(content)
        except FileNotFoundError:
            raise
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            message = str(error).splitlines()[0]
            raise ValueError(f"{path}: not a packed dataset ({message}); {WRITE_AGAIN}") from error
        self.name, self.canvas, self.margin = meta["name"], meta["canvas"], meta["margin"]
        self.skeleton = Skeleton.from_dict(meta["skeleton"])
        self.ids = content["ids"].tolist()
        self._bytes, self._offsets = content["bytes"], content["offsets"]
        self._fields = {name: content[name] for name in pipeline.FIELDS}
        for array in self._fields.values():
            array.flags.writeable = False  # examples are views

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        index = range(len(self))[index]  # negative positions, and IndexError past the end
        start, stop = self._offsets[index : index + 2]
        example = {name: values[index] for name, values in self._fields.items()}
        return example | {"image": self._bytes[start:stop].tobytes(), "id": self.ids[index]}


def write(source, path) -> None:
    """Writes all examples of a source into one file, at once or not at all.

    Args:
      source: a source of encoded canvases (see `pipeline`).
      path: of the file, by custom `<dataset>-<split>.npz`.
    """
    examples = list(source)
    if not all(isinstance(example["image"], bytes) for example in examples):
        raise ValueError(f"{source.name} draws its pictures; there is nothing to pack")
    meta = {
        **{"format": FORMAT, "name": source.name, "skeleton": source.skeleton.to_dict()},
        **{"canvas": source.canvas, "margin": source.margin},
    }
    sizes = [len(example["image"]) for example in examples]
    content = {
        "meta": np.array(json.dumps(meta)),
        "ids": np.array([example["id"] for example in examples]),
        "bytes": np.frombuffer(b"".join(example["image"] for example in examples), np.uint8),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    }
    for name, dtype in pipeline.FIELDS.items():
        content[name] = np.stack([example[name] for example in examples]).astype(dtype)
    _validate(content)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:  # a file, since savez would change a name's ending
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _validate(content) -> dict:
    """The meta data of a packed file's arrays; ValueError or KeyError for what does not fit."""
    meta = json.loads(content["meta"].item())
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']!r}, this code reads {FORMAT!r}")
    ids, encoded, offsets = content["ids"], content["bytes"], content["offsets"]
    n, k = len(ids), len(meta["skeleton"]["joints"])
    shapes = {
        **{"joints": (n, k, 2), "visible": (n, k), "center": (n, 2)},
        **{"scale": (n,), "head_size": (n,)},
    }
    for name, shape in shapes.items():
        if content[name].shape != shape or content[name].dtype != pipeline.FIELDS[name]:
            raise ValueError(f"{name} is {content[name].shape} {content[name].dtype}, not {shape}")
    if ids.ndim != 1 or ids.dtype.kind != "U" or encoded.ndim != 1 or encoded.dtype != np.uint8:
        raise ValueError("ids or bytes are of a wrong type")
    if offsets.shape != (n + 1,) or offsets.dtype != np.int64:
        raise ValueError(f"offsets are {offsets.shape} {offsets.dtype}, not {(n + 1,)} int64")
    if offsets[0] != 0 or offsets[-1] != len(encoded) or (np.diff(offsets) <= 0).any():
        raise ValueError("the offsets do not fit the bytes")
    return meta
