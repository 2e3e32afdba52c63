"""Weights as one file: those that the package ships, and those that a training passes on.

    python -m hourglass_jax.weights --workdir=runs/lspet --output=lspet.npz

A NumPy archive without pickles: "metadata" is json (format, step, config, skeleton, and "evaluation", the
scores with the threshold for drawing), "checksum" the SHA-256 of all the rest, and every other array a
variable by its path. `loading.load` takes such a file in the place of a workdir.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hourglass_jax import files
from hourglass_jax.network import Metadata, flatten

FORMAT = "hourglass_jax-weights-1"
COMMAND = "python -m hourglass_jax.weights"
# By name: the full-size network, which is the default, and a small one for films and weak machines. Each has
# a card of that name, *.md.
SHIPPED = {
    "lspet": pathlib.Path(__file__).with_name("lspet.npz"),
    "lspet-small": pathlib.Path(__file__).with_name("lspet_small.npz"),
}
DEFAULT = "lspet"


def shipped(name: str = DEFAULT) -> pathlib.Path:
    """The file of weights that come with the package.

    Args:
      name: one of `SHIPPED`.

    Raises:
      FileNotFoundError: this copy of the package has none.
    """
    path = SHIPPED[name]
    if not path.is_file():
        raise FileNotFoundError(
            f"No weights come with this copy of the package ({path.name}); pass a training's workdir, one "
            f"of its checkpoints, or a file of {COMMAND}: Predictor(PATH), --checkpoint=PATH."
        )
    return path


def write(path, variables: dict, metadata: Metadata | Mapping[str, Any], *, half: bool = True) -> None:
    """Writes a network's variables.

    By default kernels are stored in float16, whose 11 bits keep them eight times as exact as bfloat16's 8;
    vectors (biases, batch norm), of which there are few, in float32.

    Args:
      path: of the file, by custom *.npz.
      variables: {"params", "batch_stats"}.
      metadata: of the network, or their json.
      half: whether kernels are stored in float16; else in float32.

    Raises:
      ValueError: a value is not finite or too large for float16.
    """
    described = metadata.to_dict() if isinstance(metadata, Metadata) else dict(metadata)
    content = {"metadata": np.frombuffer(json.dumps({"format": FORMAT} | described).encode(), np.uint8)}
    for name, value in flatten(jax.device_get(variables)).items():
        with np.errstate(over="ignore"):  # refused below
            content[name] = value.astype(np.float16 if half and value.ndim > 1 else np.float32)
        if not np.isfinite(content[name]).all():
            raise ValueError(f"{name} holds values that are no numbers or beyond 65504; train more stably.")
    with files.replacing(path) as file:  # an open file: savez would change a name's ending
        arrays: dict[str, Any] = content | {"checksum": _checksum(content)}
        np.savez(file, **arrays)


def read(path) -> tuple[Metadata, dict[str, np.ndarray]]:
    """The metadata, and the variables by their path, "params/...", as float32.

    Raises:
      ValueError: the file is damaged or something else.
    """
    try:
        files.check_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        if (content.pop("checksum") != _checksum(content)).any():
            raise ValueError("its checksum is not the one that was stored")
        described = json.loads(content.pop("metadata").tobytes())
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        metadata = Metadata.from_dict(described)
        if strange := [name for name, value in content.items() if value.dtype.kind != "f"]:
            raise ValueError(f"{min(strange)} is {content[min(strange)].dtype}, not floating point")
    except Exception as error:  # zipfile, zlib, NumPy and json each have their own
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: damaged or no file of {COMMAND} ({found})") from error
    return metadata, {name: value.astype(np.float32) for name, value in content.items()}


def _checksum(content: dict[str, np.ndarray]) -> np.ndarray:
    """(32,) uint8: SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
