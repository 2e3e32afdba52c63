"""Prepared data as sources: the record files of TFDS, or one packed file per split that needs no TFDS.

Both are sources (`examples.Source`) of encoded canvases.
"""

import functools
import json
import os
import struct
import threading
import weakref
import zipfile
from pathlib import Path

import numpy as np

from hourglass_jax import copies, files
from hourglass_jax.data import examples, pipeline
from hourglass_jax.pose.skeletons import Skeleton

FORMAT = "hourglass_jax-packed-1"
EXTRA = "extra_"  # prefix of the arrays that a source has in addition to `pipeline.FIELDS`
ALONE = "alone"  # field: no other person in the picture has labelled joints
COMMAND = "python -m hourglass_jax.data.prepare --pack=FOLDER"


def path(folder, dataset: str, box: str, split: str) -> Path:
    """The file of a split that `data.prepare --pack` writes; `box` as in `people_builder.CropConfig`."""
    return files.expanded(folder) / f"{dataset}-{box}-{split}.npz"


class TfdsSource:
    """A split of a prepared dataset (`preparation.builder`).

    Raises:
      FileNotFoundError: the dataset is not prepared.
      ValueError: there is no such split, or its files are damaged; later, while reading: a record is damaged.
    """

    loader = "tfdata"  # where TFDS is installed, TensorFlow usually is, too

    def __init__(self, builder, split: str):
        import tensorflow_datasets as tfds  # only here: packed files do not need it

        if not builder.is_prepared():
            command = "python -m hourglass_jax.data.prepare --help"
            raise FileNotFoundError(f"{builder.data_dir}: not prepared; see {command}")
        if split not in builder.info.splits:
            splits = ", ".join(builder.info.splits)
            raise ValueError(f"split={split!r}: {builder.name} has {splits}")
        config = builder.builder_config
        self.name, self.skeleton = f"{builder.name}-{split}", builder.skeleton
        if config.allow_missing:
            self.name += "-partial"  # so that logs and packed files distinguish it from the whole split
        self._names = list(builder.extras)
        self.canvas, self.margin = config.canvas, config.margin
        raw = {"image": tfds.decode.SkipDecoding()}
        self._folder = builder.data_dir
        self._noted = (builder.info.metadata or {}).get(f"fingerprint_{split}", "")
        try:
            self._records = builder.as_data_source(split, decoders=raw)
            self._length = len(self._records)
        except Exception as error:  # each of the layers below has its own exceptions
            raise damaged(self._folder, error) from error
        self._lock = threading.Lock()  # array_record does not promise that threads may share a reader

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        index = range(len(self))[index]  # negative positions, and IndexError past the end
        try:
            with self._lock:
                record = self._records[index]
            if "others" in self._names:
                record[ALONE] = not len(record["others"])
            example = {name: dtype(record[name]) for name, dtype in pipeline.FIELDS.items()}
            texts = {name: _text(record[name]) for name in ("id", *self.names)}
            return example | texts | {"image": record["image"]}
        except Exception as error:
            raise damaged(self._folder, error) from error

    @property
    def names(self) -> list[str]:
        """The names of the fields that an example has in addition to the usual ones."""
        return [*self._names, ALONE] if "others" in self._names else self._names

    @functools.cached_property
    def _columns(self) -> dict[str, list]:
        """The ids and further fields of all examples; reading them takes a while."""
        names = ("id", *self.names)
        rows = [[example[name] for name in names] for example in self]
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    @property
    def ids(self) -> list[str]:
        return self._columns["id"]

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        if self._noted:
            return self._noted
        found = examples.Fingerprint()  # an earlier version prepared the data: all records must be read
        for example in self:
            found.add(example["id"], example, len(example["image"]))
        return found.hexdigest()

    @property
    def extras(self) -> dict[str, np.ndarray]:
        return self._extras

    @functools.cached_property
    def _extras(self) -> dict[str, np.ndarray]:
        columns = {name: self._columns[name] for name in self.names}
        return {name: np.array(values) for name, values in columns.items() if not np.ndim(values[0])}


def damaged(folder, error: Exception) -> ValueError:
    """The error for prepared data that cannot be read, from the error of TFDS or its reader."""
    found = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(
        f"{folder}: the prepared data are damaged ({found}); delete that folder and prepare again"
    )


def _text(value):
    """Decodes a record's text; other values are returned as they are."""
    return value.decode() if isinstance(value, bytes) else value


class Ranges:
    """The array "bytes" of a packed file; a slice reads only its own part of the file.

    The checksum of the whole array is not verified; a damaged picture cannot be decoded.
    """

    def __init__(self, path):
        with zipfile.ZipFile(path) as archive, archive.open("bytes.npy") as member:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            self.shape, _, self.dtype = read[np.lib.format.read_magic(member)[0]](member)
            header, entry = member.tell(), archive.getinfo("bytes.npy").header_offset
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        # The zip's local header has 30 bytes; the last four are the lengths of two more fields.
        lengths = struct.unpack("<HH", os.pread(self._file, 4, entry + 26))
        self._start = entry + 30 + sum(lengths) + header

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        data = os.pread(self._file, part.stop - part.start, self._start + part.start)
        return np.frombuffer(data, np.uint8)


class PackedSource:
    """A split in one file (`write`). Memory holds it as it is stored: encoded.

    Args:
      path: path of the file.
      whole: True: read all pictures now; False: read each picture when it is asked for. One of several hosts
        needs only its share.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or not a packed file.
    """

    loader = "threads"  # needs no TensorFlow

    def __init__(self, path, *, whole: bool = True):
        try:
            local = copies.fetched(path)
            files.check_archive(local)
            with np.load(local, allow_pickle=False) as arrays:
                content: dict = {name: arrays[name] for name in arrays.files if whole or name != "bytes"}
            if not whole:
                content["bytes"] = Ranges(local)
            meta = _validate(content)
            self.skeleton = Skeleton.from_dict(meta["skeleton"])
            self.name, self.canvas, self.margin = meta["name"], meta["canvas"], meta["margin"]
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file; write it with {COMMAND}") from None
        except Exception as error:  # zipfile, zlib, NumPy and json each have their own exceptions
            found = " ".join(str(error).split())[:200] or type(error).__name__
            message = f"{path}: damaged or not a packed dataset ({found})"
            raise ValueError(f"{message}; write it again with {COMMAND}") from error
        self.ids = content["ids"].tolist()
        self._bytes, self._offsets = content["bytes"], content["offsets"]
        self._fields = {name: content[name].astype(dtype) for name, dtype in pipeline.FIELDS.items()}
        self.extras = {name[len(EXTRA) :]: content[name] for name in content if name.startswith(EXTRA)}
        for array in (*self._fields.values(), *self.extras.values()):
            array.flags.writeable = False  # examples are views

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        found = examples.Fingerprint()
        for index, size in enumerate(np.diff(self._offsets)):
            found.add(self.ids[index], {name: of[index] for name, of in self._fields.items()}, int(size))
        return found.hexdigest()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        index = range(len(self))[index]
        start, stop = self._offsets[index : index + 2]
        return self.about(index) | {"image": self._bytes[start:stop].tobytes()}

    def about(self, index: int) -> dict:
        """An example without its picture."""
        example = {name: values[index] for name, values in (self._fields | self.extras).items()}
        return example | {"id": self.ids[index]}


def write(source, path) -> None:
    """Writes all examples of a source into one file, atomically.

    The file also has the further fields of `source.extras`.

    Args:
      source: a source of encoded canvases (see `examples`).
      path: path of the file (see `path`).
    """
    content = _pack(source)
    with files.replacing(path) as file:  # an open file, because savez would change the ending of a name
        np.savez(file, allow_pickle=False, **content)


def _pack(source) -> dict[str, np.ndarray]:
    """The arrays of a packed file: all examples stacked, their JPEGs concatenated."""
    examples = list(source)
    images = [example["image"] for example in examples]
    if not all(isinstance(image, bytes) for image in images):
        raise ValueError(f"{source.name} draws its pictures on demand; there is nothing to pack")
    meta = {
        **{"format": FORMAT, "name": source.name, "skeleton": source.skeleton.to_dict()},
        **{"canvas": source.canvas, "margin": source.margin},
    }
    content = {
        "meta": np.array(json.dumps(meta)),
        "ids": np.array([example["id"] for example in examples]),
        "bytes": np.frombuffer(b"".join(images), np.uint8),
        "offsets": np.cumsum([0, *map(len, images)], dtype=np.int64),
    }
    for name, dtype in pipeline.FIELDS.items():
        content[name] = np.stack([example[name] for example in examples]).astype(dtype)
    return content | {EXTRA + name: values for name, values in source.extras.items()}


def _validate(content) -> dict:
    """Checks that a packed file's arrays fit together; returns its metadata."""
    meta = json.loads(content["meta"].item())
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']!r}, not {FORMAT!r}")
    n, k, size = len(content["ids"]), len(meta["skeleton"]["joints"]), len(content["bytes"])
    layout = {
        **{"joints": (n, k, 2), "visible": (n, k), "center": (n, 2), "scale": (n,)},
        **{"head_size": (n,), "ids": (n,), "bytes": (size,), "offsets": (n + 1,)},
    }
    types = pipeline.FIELDS | {"bytes": np.uint8, "offsets": np.int64, "ids": content["ids"].dtype}
    if content["visible"].dtype == np.uint8:  # older files, written before mixtures had -1
        types["visible"] = np.uint8
    extras = [name for name in content if name.startswith(EXTRA)]
    layout |= {name: (n,) for name in extras}
    types |= {name: content[name].dtype for name in extras}
    for name, shape in layout.items():
        found = content[name]
        if found.shape != shape or found.dtype != types[name]:
            raise ValueError(f"{name} is {found.shape} {found.dtype}, not {shape}")
    _check_values(meta, content)
    if content["ids"].dtype.kind != "U":
        raise ValueError(f"ids are {content['ids'].dtype}, not strings")
    offsets = content["offsets"]
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) <= 0).any():
        raise ValueError("the offsets do not fit the bytes")
    return meta


def _check_values(meta: dict, content) -> None:
    """Raises ValueError for values that no preparation writes, before a training with them ends in nan."""
    if not (isinstance(meta["canvas"], int) and 0 < meta["canvas"] <= 4096 and 1 <= meta["margin"] <= 4):
        raise ValueError(f"canvases of {meta['canvas']!r} px with a margin of {meta['margin']!r}")
    sound = {
        "joints": np.isfinite(content["joints"]).all(axis=(1, 2)),
        "visible": np.isin(content["visible"], (-1, 0, 1, 2)).all(axis=1),
        "center": np.isfinite(content["center"]).all(axis=1),
        "scale": np.isfinite(content["scale"]) & (content["scale"] > 0),
        "head_size": np.isfinite(content["head_size"]) & (content["head_size"] >= 0),
    }
    for name, rows in sound.items():
        if not rows.all():
            first = int(np.flatnonzero(~rows)[0])
            found = np.array2string(content[name][first], threshold=6, separator=", ").replace("\n", "")
            raise ValueError(f"{name} of example {first} ({str(content['ids'][first])[:50]!r}) is {found}")
