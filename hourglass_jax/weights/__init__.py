"""Weights as one file: what the package ships, and what a training hands on.

    python -m hourglass_jax.weights --workdir=runs/lspet --output=lspet.npz

A NumPy archive without pickles: "metadata" is json (format, step, config, skeleton, and "evaluation", the
scores with the threshold for drawing), "checksum" the SHA-256 of all the rest, and every other array a
variable by its path. `checkpoint.load` takes such a file in the place of a workdir.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np
from flax import traverse_util

from hourglass_jax import files

FORMAT = "hourglass_jax-weights-1"
COMMAND = "python -m hourglass_jax.weights"
SHIPPED = pathlib.Path(__file__).with_name("lspet.npz")


def shipped() -> pathlib.Path:
    """The weights that come with the package.

    Raises:
      FileNotFoundError: this copy of the package has none.
    """
    if not SHIPPED.is_file():
        raise FileNotFoundError(
            f"No weights come with this copy of the package ({SHIPPED.name}); pass a training's workdir, one "
            f"of its checkpoints, or a file of {COMMAND}: Predictor(PATH), --checkpoint=PATH."
        )
    return SHIPPED


def write(path, variables: dict, metadata: dict) -> None:
    """Writes a network's variables.

    Kernels are stored in float16, whose 11 bits keep them eight times as exact as bfloat16's 8; vectors
    (biases, batch norm), of which there are few, in float32.

    Args:
      path: of the file, by custom *.npz.
      variables: {"params", "batch_stats"}.
      metadata: for json; `checkpoint.network_of` needs config and skeleton.

    Raises:
      ValueError: a value that is no number or too large for float16.
    """
    content = {"metadata": np.frombuffer(json.dumps({"format": FORMAT} | metadata).encode(), np.uint8)}
    for name, value in traverse_util.flatten_dict(jax.device_get(variables), sep="/").items():
        with np.errstate(over="ignore"):  # told below
            content[name] = value.astype(np.float16 if value.ndim > 1 else np.float32)
        if not np.isfinite(content[name]).all():
            raise ValueError(f"{name} holds values that are no numbers or beyond 65504; train more stably.")
    with files.replacing(path) as file:  # an open file: savez would change a name's ending
        np.savez(file, **content, checksum=_checksum(content))


def read(path) -> tuple[dict, dict[str, np.ndarray]]:
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
        metadata = json.loads(content.pop("metadata").tobytes())
        if metadata.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        if strange := [name for name, value in content.items() if value.dtype.kind != "f"]:
            raise ValueError(f"{min(strange)} is {content[min(strange)].dtype}, not floating point")
    except Exception as error:  # zipfile, zlib, NumPy and json each have their own
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: damaged or no file of {COMMAND} ({found})") from error
    return metadata, {name: value.astype(np.float32) for name, value in content.items()}


def arrange(path, arrays: dict[str, np.ndarray], like: dict) -> dict:
    """Variables by their path -> the tree of a network, on its devices.

    Args:
      path: of the file, for the message.
      arrays: see `read`.
      like: the network's variables as `jax.ShapeDtypeStruct` with shardings, see `checkpoint.abstract`.

    Raises:
      ValueError: they are another network's; all names that are missing, too much or of another shape are
        listed.
    """
    wanted = traverse_util.flatten_dict(like, sep="/", keep_empty_nodes=True)
    shapes = {name: value.shape for name, value in wanted.items() if hasattr(value, "shape")}
    differ = [f"{name} is missing" for name in sorted(shapes.keys() - arrays.keys())]
    differ += [f"{name} is too much" for name in sorted(arrays.keys() - shapes.keys())]
    differ += [
        f"{name} is {arrays[name].shape} instead of {shapes[name]}"
        for name in sorted(shapes.keys() & arrays.keys())
        if arrays[name].shape != shapes[name]
    ]
    if differ:
        raise ValueError(f"{path}: the weights are of another network: {'; '.join(differ)}.")
    placed = {name: jax.device_put(arrays[name], wanted[name].sharding) for name in shapes}
    return traverse_util.unflatten_dict(wanted | placed, sep="/")


def _checksum(content: dict[str, np.ndarray]) -> np.ndarray:
    """(32,) uint8: SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def export(workdir, output, *, evaluation=None, card=None) -> dict:
    """Writes a training's averaged variables with their scores; see `main` for the arguments.

    Returns:
      the metadata.
    """
    from hourglass_jax import checkpoint  # which itself reads such files

    workdir = pathlib.Path(workdir)
    _, variables, metadata = checkpoint.load(workdir)
    config = metadata["config"]
    # Where the data lay is nobody else's business.
    places = ("_dir", "annotations", "images")
    data = {name: "" if name.endswith(places) else value for name, value in config["data"].items()}
    began = pathlib.Path(config["train"].get("init_from", "")).name
    config = config | {"data": data, "train": config["train"] | {"init_from": began}}
    metadata = {"step": metadata["step"], "config": config, "skeleton": metadata["skeleton"]}
    root = workdir.parent.parent if workdir.parent.name == "checkpoints" else workdir
    scores = pathlib.Path(evaluation) if evaluation else root / "evaluation.json"
    if evaluation or scores.exists():
        metadata["evaluation"] = _read_json(scores)
        if metadata["evaluation"].get("step") != metadata["step"]:
            raise ValueError(
                f"{scores}: of step {metadata['evaluation'].get('step')}, but the weights are of step "
                f"{metadata['step']}; evaluate these first (main.py --mode=evaluate)."
            )
    if card:
        metadata["card"] = _read_json(pathlib.Path(card))
    write(output, variables, metadata)
    return metadata


def _read_json(path) -> dict:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a json object, found {type(value).__name__}.")
    return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Writes a training's weights with their scores into one small file."
    )
    parser.add_argument("--workdir", required=True, help="a training's workdir, or one of its checkpoints")
    parser.add_argument("--output", required=True, help="the file, by custom *.npz")
    parser.add_argument(
        "--evaluation", help="scores to store (default: WORKDIR/evaluation.json if it is there)"
    )
    parser.add_argument("--card", help="json to store beside: data, command, device, time, ...")
    args = parser.parse_args(arguments)
    try:
        metadata = export(**vars(args))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    size = pathlib.Path(args.output).stat().st_size / 2**20
    known = "with its scores" if "evaluation" in metadata else "without scores: evaluate first to store them"
    print(f"{args.output}: step {metadata['step']}, {size:.1f} MiB, {known}")
    return 0
