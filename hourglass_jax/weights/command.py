"""Writes a training's weights with their scores into one small file: python -m hourglass_jax.weights"""

import argparse
import pathlib
import sys

from hourglass_jax import console, files, loading, weights
from hourglass_jax.network import Metadata
from hourglass_jax.training.workdir import Workdir
from hourglass_jax.weights import published


def export(workdir, output, *, evaluation=None, card=None) -> Metadata:
    """Writes a training's averaged variables with their scores; see `main` for the arguments.

    Whoever reads the file computes in float32; the card has the dtype of a training that used another.

    Returns:
      the metadata.
    """
    workdir = files.path(workdir)
    files.check_writable(files.path(output).parent)
    _, variables, metadata = loading.load(workdir)
    config = metadata.config
    # Users of the weights need not know where the data lay.
    places = ("_dir", "annotations", "images")
    data = {name: "" if name.endswith(places) else value for name, value in config["data"].items()}
    began = pathlib.Path(config["train"].get("init_from", "")).name
    config = config | {"data": data, "train": config["train"] | {"init_from": began}}
    trained_in = config["model"]["dtype"]
    config["model"] = config["model"] | {"dtype": "float32"}  # bfloat16 is slow on CPUs, and less exact
    root = workdir.parent.parent if workdir.parent.name == "checkpoints" else workdir
    scores, found = files.path(evaluation) if evaluation else Workdir(root).evaluation, {}
    if evaluation or scores.exists():
        found = _read_json(scores)
        if found.get("step") != metadata.step:
            raise ValueError(
                f"{scores}: of step {found.get('step')}, but the weights are of step {metadata.step}; "
                "evaluate these first (hourglass evaluate)."
            )
    written = _read_json(files.path(card)) if card else {}
    if trained_in != "float32":
        written = {"trained in": trained_in} | written
    metadata = Metadata(config, metadata.skeleton, metadata.step, evaluation=found, card=written)
    weights.write(output, variables, metadata)
    return metadata


def _read_json(path) -> dict:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a json object, found {type(value).__name__}.")
    return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=weights.COMMAND,
        description="Writes a training's weights with their scores into one small file.",
        epilog=f"{weights.COMMAND} list: published weights that are fetched by their name.",
    )
    parser.add_argument("--workdir", required=True, help="a training's workdir, or one of its checkpoints")
    parser.add_argument("--output", required=True, help="the file, by custom *.npz")
    parser.add_argument(
        "--evaluation", help="scores to store (default: WORKDIR/evaluation.json if it is there)"
    )
    parser.add_argument("--card", help="json to store beside: data, command, device, time, ...")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["list"]:
        return console.run(lambda: print(published.table()))
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    metadata = export(**vars(args))
    size = files.size(args.output) / 2**20
    known = "with its scores" if metadata.evaluation else "without scores: evaluate first to store them"
    print(f"{args.output}: step {metadata.step}, {size:.1f} MiB, {known}")
