"""Weights as one file: the packaged ones, and those written from a training.

    python -m hourglass_jax.weights --workdir=runs/lspet --output=lspet.npz

There are two formats with the same content, by the ending of the file's name. `loading.load` reads both.

*.npz (or any other ending): a NumPy archive without pickles. "metadata" is json (format, step, config,
  skeleton, and "evaluation", the scores with the threshold for drawing), "checksum" the SHA-256 of all the
  rest, and every other array is a variable by its path.
*.safetensors: the variables are tensors by their path. The header's metadata have the same json and, in
  hexadecimal digits, the same checksum.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hourglass_jax import copies, extras, files
from hourglass_jax.network import Metadata, flatten

FORMAT = "hourglass_jax-weights-1"
COMMAND = "python -m hourglass_jax.weights"
SAFETENSORS = ".safetensors"
# By name: the full-size network, which is the default, and a small one for videos and slow machines. Each has
# a card of that name, *.md.
SHIPPED = {
    "lspet": pathlib.Path(__file__).with_name("lspet.npz"),
    "lspet-small": pathlib.Path(__file__).with_name("lspet_small.npz"),
}
DEFAULT = "lspet"


def packaged(name: str = DEFAULT) -> pathlib.Path:
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


shipped = packaged  # its first name, which users' programs may have


def write(path, variables: dict, metadata: Metadata | Mapping[str, Any], *, half: bool = True) -> None:
    """Writes a network's variables.

    By default kernels are stored in float16, whose 11 bits are eight times as precise as bfloat16's 8.
    Vectors (biases, batch norm) are small and stored in float32.

    Args:
      path: of the file. The ending .safetensors chooses that format; any other name, usually *.npz, is a
        NumPy archive.
      variables: {"params", "batch_stats"}.
      metadata: of the network, or their json.
      half: store kernels in float16; otherwise in float32.

    Raises:
      ValueError: a value is not finite or too large for float16.
      ImportError: the package safetensors is not installed, and the format needs it.
    """
    described = metadata.to_dict() if isinstance(metadata, Metadata) else dict(metadata)
    text = json.dumps({"format": FORMAT} | described).encode()
    content = {"metadata": np.frombuffer(text, np.uint8)}
    for name, value in flatten(jax.device_get(variables)).items():
        with np.errstate(over="ignore"):  # refused below
            kind = np.float16 if half and value.ndim > 1 else np.float32
            content[name] = value.astype(kind, order="C")
        if not np.isfinite(content[name]).all():
            raise ValueError(
                f"{name} has values that are not numbers or above 65504; the training is unstable."
            )
    checksum = _checksum(content)
    if files.path(path).suffix == SAFETENSORS:
        with extras.needed("safetensors", f"{path}: writing it"):
            from safetensors import numpy as safetensors
        del content["metadata"]
        header = {"metadata": text.decode(), "checksum": checksum.tobytes().hex()}
        files.write(path, safetensors.save(content, header))
        return
    with files.replacing(path) as file:  # savez would change a name's ending, but not an open file
        arrays: dict[str, Any] = content | {"checksum": checksum}
        np.savez(file, **arrays)


def read(path) -> tuple[Metadata, dict[str, np.ndarray]]:
    """The metadata, and the variables by their path, "params/...", as float32.

    Raises:
      ValueError: the file is damaged or something else.
      ImportError: the package safetensors is not installed, and the file needs it.
    """
    local = copies.fetched(path)
    safe = local.suffix == SAFETENSORS and not _is_archive(local)
    if safe:
        with extras.needed("safetensors", f"{path}: reading it"):
            import safetensors  # noqa: F401
    try:
        content = _read_safetensors(local) if safe else _read_archive(local)
        if (content.pop("checksum") != _checksum(content)).any():
            raise ValueError("its checksum is not the one that was stored")
        described = json.loads(content.pop("metadata").tobytes())
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        metadata = Metadata.from_dict(described)
        if strange := [name for name, value in content.items() if value.dtype.kind != "f"]:
            raise ValueError(f"{min(strange)} is {content[min(strange)].dtype}, not floating point")
    except Exception as error:  # zipfile, zlib, NumPy, safetensors and json have errors of their own
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: damaged, or not a file of {COMMAND} ({found})") from error
    return metadata, {name: value.astype(np.float32) for name, value in content.items()}


def _is_archive(path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_archive(path) -> dict[str, np.ndarray]:
    """The arrays of a NumPy archive, with "metadata" and "checksum" as uint8."""
    files.check_archive(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_safetensors(path) -> dict[str, np.ndarray]:
    """The same content; the library checks that the tensors lie within the file and do not overlap."""
    import safetensors

    with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
        header = file.metadata() or {}
        if missing := {"metadata", "checksum"} - header.keys():
            raise ValueError(f"its header has no {' and no '.join(sorted(missing))}")
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content["metadata"] = np.frombuffer(header["metadata"].encode(), np.uint8)
    return content | {"checksum": np.frombuffer(bytes.fromhex(header["checksum"]), np.uint8)}


def _checksum(content: dict[str, np.ndarray]) -> np.ndarray:
    """(32,) uint8: SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
