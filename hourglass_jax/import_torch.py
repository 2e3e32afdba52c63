"""Imports checkpoints of the public PyTorch stacked hourglass.

    python -m hourglass_jax.import_torch hg_s2_b1.pth.tar --workdir=runs/imported

reads checkpoints of bearpaw/pytorch-pose and anibali/pytorch-stacked-hourglass, and writes an ordinary
workdir. Its network is used for prediction and evaluation like one of our own.
"""

import argparse
import sys

import jax.numpy as jnp
import numpy as np

from hourglass_jax import checkpoint, console, copies, devices, files
from hourglass_jax.network import Network
from hourglass_jax.pose.skeletons import SKELETONS, Skeleton
from hourglass_jax.training.step import State
from hourglass_jax.training.workdir import Workdir
from hourglass_jax.weights import pytorch
from hourglass_jax.weights.pytorch import COMMAND


def load_checkpoint(path, *, skeleton: Skeleton | None = None, size: int = 256) -> tuple[Network, dict]:
    """Loads a network of the port, with any number of stacks, units, levels and joints, and any width.

    Args:
      path: a file of `torch.save`: a state_dict, or a dictionary with one at "state_dict" or "model"; plain
        or of a DataParallel. Reading it runs no code that it may contain.
      skeleton: its joints; None: MPII's 16, on which the public checkpoints were trained.
      size: side of its input, px.

    Returns:
      the network, whose input is an image in [0, 1] minus the port's mean, and its variables.

    Raises:
      ImportError: PyTorch is not installed.
      ValueError: there is no such checkpoint, or it does not fit; the message lists all names that are
        missing, unexpected or of another shape.
    """
    network, variables, _ = pytorch.load(path, skeleton=skeleton, size=size, sharding=_everywhere())
    return network, variables


def write(path, workdir, *, skeleton: Skeleton | None = None, size: int = 256) -> dict:
    """Writes config.json and a checkpoint of step 0; for the arguments see `load_checkpoint`.

    Returns:
      the config.

    Raises:
      ValueError: as in `load_checkpoint`, or the workdir already holds a run.
    """
    workdir, path = Workdir(workdir), copies.fetched(path)
    workdir.check_writable()
    _, variables, metadata = pytorch.load(path, skeleton=skeleton, size=size, sharding=_everywhere())
    if workdir.used:
        raise ValueError(f"--workdir={workdir} already holds a run; choose another folder.")
    with checkpoint.Checkpoints(workdir) as saved:
        state = State(step=jnp.int32(0), optimizer={"none": np.zeros(())}, averaged=None, **variables)
        saved.save(state, metadata, None)
    files.write_json(workdir.config, metadata.config)
    return metadata.config


def _everywhere():
    return devices.replicated(devices.mesh())


def _skeleton(name: str | None) -> Skeleton | None:
    if name is None:
        return None
    if name in SKELETONS:
        return SKELETONS[name]
    try:
        return Skeleton.from_dict(files.read_json(name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--skeleton={name}: choose {', '.join(SKELETONS)}, or a json file like Skeleton.to_dict() "
            f"({type(error).__name__}: {error})."
        ) from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Imports a checkpoint of the public PyTorch stacked hourglass."
    )
    parser.add_argument("checkpoint", help="file of torch.save, usually *.pth or *.pth.tar")
    parser.add_argument("--workdir", required=True, help="new folder, as of a training")
    parser.add_argument(
        "--skeleton", help=f"its joints: {', '.join(SKELETONS)}, or a json file (default: mpii)"
    )
    parser.add_argument("--size", type=int, default=256, help="side of its input, px (default: 256)")
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    config = write(args.checkpoint, args.workdir, skeleton=_skeleton(args.skeleton), size=args.size)
    model = config["model"]
    print(f"{args.workdir}: {model['stacks']} stacks of width {model['width']}, input {args.size} px.")
    fields = " ".join(f"--config.model.{name}={model[name]}" for name in ("stem", "depth", "units"))
    dataset = args.skeleton if args.skeleton in SKELETONS else "coco" if args.skeleton else "mpii"
    network = (
        f"--config=newell:stacks={model['stacks']},width={model['width']},"
        f"size={args.size},dataset={dataset} {fields}"
    )
    print(f"To evaluate: hourglass evaluate {network} --workdir={args.workdir}")
    print(
        f"To train further: hourglass train {network} --config.train.init_from={args.workdir} --workdir=NEW"
    )


if __name__ == "__main__":
    sys.exit(main())
