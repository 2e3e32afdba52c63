"""Writes a training's weights with their scores into one small file: python -m hourglass_jax.weights"""

import argparse
import pathlib

from hourglass_jax import console, files, loading, weights


def export(workdir, output, *, evaluation=None, card=None) -> dict:
    """Writes a training's averaged variables with their scores; see `main` for the arguments.

    Returns:
      the metadata.
    """
    workdir = pathlib.Path(workdir)
    _, variables, metadata = loading.load(workdir)
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
    weights.write(output, variables, metadata)
    return metadata


def _read_json(path) -> dict:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a json object, found {type(value).__name__}.")
    return value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=weights.COMMAND, description="Writes a training's weights with their scores into one small file."
    )
    parser.add_argument("--workdir", required=True, help="a training's workdir, or one of its checkpoints")
    parser.add_argument("--output", required=True, help="the file, by custom *.npz")
    parser.add_argument(
        "--evaluation", help="scores to store (default: WORKDIR/evaluation.json if it is there)"
    )
    parser.add_argument("--card", help="json to store beside: data, command, device, time, ...")
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    metadata = export(**vars(args))
    size = pathlib.Path(args.output).stat().st_size / 2**20
    known = "with its scores" if "evaluation" in metadata else "without scores: evaluate first to store them"
    print(f"{args.output}: step {metadata['step']}, {size:.1f} MiB, {known}")
