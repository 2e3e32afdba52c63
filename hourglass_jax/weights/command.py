"""Writes a training's weights with their scores into one small file, or to the Hugging Face Hub and back.

python -m hourglass_jax.weights --workdir=runs/lspet --output=lspet.npz
hourglass weights push runs/lspet owner/name --license=apache-2.0
hourglass weights pull owner/name
"""

import argparse
import dataclasses
import pathlib
import sys

from flax import traverse_util

from hourglass_jax import console, files, loading, weights
from hourglass_jax.network import Metadata, flatten
from hourglass_jax.training.workdir import Workdir
from hourglass_jax.weights import hub, model_card, published


def export(workdir, output, *, evaluation=None, card=None) -> Metadata:
    """Writes a training's averaged variables with their scores; see `main` for the arguments.

    Returns:
      the metadata.
    """
    files.check_output("output", output)
    variables, metadata = collect(workdir, evaluation=evaluation, card=card)
    weights.write(output, variables, metadata)
    return metadata


def collect(source, *, evaluation=None, card=None) -> tuple[dict, Metadata]:
    """A training's averaged variables, and the metadata to pass on with them.

    The metadata say float32, so that readers compute in float32; the card states the training's dtype if it
    was another.

    Args:
      source: a path or name for `loading.load`.
      evaluation: a file of scores; None for the source's own.
      card: a file with further entries of the card.

    Raises:
      ValueError: the scores belong to another step, or a file is not a json object.
    """
    _, variables, metadata = loading.load(source)
    config = metadata.config
    # Users of the weights need not know where the data were.
    places = ("_dir", "annotations", "images")
    data = {name: "" if name.endswith(places) else value for name, value in config["data"].items()}
    began = pathlib.PurePath(config["train"].get("init_from", "")).name
    config = config | {"data": data, "train": config["train"] | {"init_from": began}}
    trained_in = config["model"]["dtype"]
    config["model"] = config["model"] | {"dtype": "float32"}  # bfloat16 is slow on CPUs, and less precise
    scores = files.path(evaluation) if evaluation else _evaluation(source)
    found = _read_json(scores) if scores else metadata.evaluation
    if scores and found.get("step") != metadata.step:
        raise ValueError(
            f"{scores}: belongs to step {found.get('step')}, but the weights to step {metadata.step}; "
            "evaluate the weights first (hourglass evaluate)."
        )
    written = metadata.card | (_read_json(files.path(card)) if card else {})
    if trained_in != "float32":
        written = {"trained in": trained_in} | written
    return variables, Metadata(config, metadata.skeleton, metadata.step, evaluation=found, card=written)


def _evaluation(source) -> pathlib.Path | None:
    """The file of scores in the workdir of a training or of its checkpoint; None if there is none."""
    if hub.is_name(source):
        return None
    workdir = files.path(source)
    scores = Workdir(workdir.parent.parent if workdir.parent.name == "checkpoints" else workdir).evaluation
    return scores if files.is_file(scores) else None


def _read_json(path) -> dict:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a json object, found {type(value).__name__}.")
    return value


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["list"]:
        return console.run(lambda: print(published.table()))
    if arguments[:1] == ["push"]:
        return console.run(_push, _push_parser().parse_args(arguments[1:]))
    if arguments[:1] == ["pull"]:
        return console.run(_pull, _pull_parser().parse_args(arguments[1:]))
    return console.run(_main, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=weights.COMMAND,
        description="Writes a training's weights with their scores into one small file.",
        epilog="hourglass weights list shows the published weights that can be used by name. hourglass "
        "weights push and pull copy weights to and from repositories of the Hugging Face Hub; each has a "
        "--help.",
    )
    parser.add_argument(
        "--workdir", required=True, help="a training's workdir, one of its checkpoints, or weights"
    )
    parser.add_argument(
        "--output", required=True, help="the file, usually *.npz; *.safetensors chooses that format"
    )
    _add_content(parser)
    return parser


def _push_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hourglass weights push",
        description="Uploads weights to a repository of the Hugging Face Hub, which is created if it does "
        "not exist: model.safetensors, config.json and a model card, README.md, made from their metadata. "
        "This needs pip install 'hourglass_jax[hub]'.",
    )
    parser.add_argument("source", help="a training's workdir, one of its checkpoints, or weights")
    parser.add_argument("repository", metavar="owner/name")
    parser.add_argument("--license", help="licence of the weights, by its id on the Hub, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="make a newly created repository private")
    parser.add_argument("--message", default="", help="message of the commit")
    _add_content(parser)
    return parser


def _pull_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hourglass weights pull",
        description="Downloads weights from a repository of the Hugging Face Hub to its cache. Every command "
        "also accepts the name hf://owner/name, and then downloads them itself.",
    )
    parser.add_argument("repository", metavar="owner/name[@revision]")
    parser.add_argument("--output", help="also write them as a file, *.npz or *.safetensors")
    return parser


def _add_content(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluation", help="scores to store (default: WORKDIR/evaluation.json if it is there)"
    )
    parser.add_argument("--card", help="json of further facts to store: data, command, device, time, ...")


def _main(args) -> None:
    metadata = export(**vars(args))
    size = files.size(args.output) / 2**20
    print(f"{args.output}: step {metadata.step}, {size:.1f} MiB, {_scored(metadata)}")


def _push(args) -> None:
    repository = hub.Repository.parse(args.repository)
    hub.check_can_push(repository)
    variables, metadata = collect(args.source, evaluation=args.evaluation, card=args.card)
    if args.license:
        metadata = dataclasses.replace(metadata, card=metadata.card | {"license": args.license})
    parameters = sum(value.size for value in flatten(variables["params"]).values())
    card = model_card.text(repository.name, metadata, parameters)
    address = hub.push(repository, variables, metadata, card, private=args.private, message=args.message)
    print(f"{repository}: step {metadata.step}, {_scored(metadata)} -> {address}")
    if not metadata.card.get("license"):
        print("Note: no licence is stated; add one with --license=ID.", file=sys.stderr)


def _pull(args) -> None:
    repository = hub.Repository.parse(args.repository)
    if args.output:
        files.check_output("output", args.output)
    path = hub.fetch(repository)
    metadata, arrays = weights.read(path)
    if args.output and files.path(args.output).suffix == weights.SAFETENSORS:
        files.write(args.output, path.read_bytes())
    elif args.output:
        weights.write(args.output, traverse_util.unflatten_dict(arrays, sep="/"), metadata)
    where = args.output or path
    print(f"{repository}: step {metadata.step}, {_scored(metadata)} -> {where}")


def _scored(metadata: Metadata) -> str:
    return "with its scores" if metadata.evaluation else "without scores: evaluate first to store them"
