"""Reads checkpoints of the public PyTorch stacked hourglass: bearpaw/pytorch-pose and its ports."""

import os
import re
import zipfile

import numpy as np
from flax import traverse_util

from hourglass_jax import extras, files
from hourglass_jax.network import Network, arrange, described
from hourglass_jax.pose.skeletons import SKELETONS, Skeleton

COMMAND = "python -m hourglass_jax.import_torch"
SUFFIXES = (".pth", ".pt", ".tar")
_STATES = ("state_dict", "model_state_dict", "model", "net")  # where trainings put it beside other things
_WRAPPERS = re.compile(r"((module|model|_orig_mod)\.)+")  # DataParallel's, Lightning's, torch.compile's

_PARTS = {  # a module of ours -> the port's
    r"stem/conv": "conv1",
    r"stem/norm": "bn1",
    r"stem/unit(\d)": "layer{}.0",
    r"stack(\d+)_hourglass/level(\d+)_(skip|down|up)(\d+)": "hg.{}.hg.{}.{}.{}",
    r"stack(\d+)_hourglass/bottom(\d+)": "hg.{}.hg.0.3.{}",
    r"stack(\d+)_unit(\d+)": "res.{}.{}",
    r"stack(\d+)_lin": "fc.{}.0",
    r"stack(\d+)_lin_norm": "fc.{}.1",
    r"stack(\d+)_heatmaps": "score.{}",
    r"stack(\d+)_remap_features": "fc_.{}",
    r"stack(\d+)_remap_heatmaps": "score_.{}",
}
_LAYERS = {f"norm{i}": f".bn{i + 1}" for i in range(3)} | {f"conv{i}": f".conv{i + 1}" for i in range(3)}
_LAYERS |= {"skip": ".downsample.0"}  # of a unit
_LEAVES = {
    **{"kernel": "weight", "bias": "bias", "scale": "weight"},
    **{"mean": "running_mean", "var": "running_var"},
}


def load(
    path, *, skeleton: Skeleton | None = None, size: int = 256, sharding=None
) -> tuple[Network, dict, dict]:
    """A checkpoint's network, variables and metadata; see `import_torch.load_checkpoint`."""
    tensors = _read(path)
    metadata = _metadata(path, tensors, skeleton or SKELETONS["mpii"], size)
    network, like = described(path, metadata, sharding, len(tensors))
    like = traverse_util.flatten_dict(like, sep="/")
    names = {name: foreign_name(name, network.model.depth) for name in like}
    found = {name: _ours(tensor) for name, tensor in tensors.items()}
    found = arrange(path, found, {names[name]: like[name] for name in like})
    variables = traverse_util.unflatten_dict({name: found[names[name]] for name in like}, sep="/")
    return network, variables, metadata


def _read(path) -> dict[str, np.ndarray]:
    """The state_dict as float32, without what wrappers put before the names, without the norms' counters."""
    with extras.needed("torch", f"{path}: reading it"):
        import torch
    try:
        if zipfile.is_zipfile(path):  # else PyTorch's older format
            files.check_archive(path)
        # Anything but tensors and plain values is refused: a pickle can run any program.
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = next((content[name] for name in _STATES if name in content), content)
        tensors = {_WRAPPERS.sub("", name): tensor.detach() for name, tensor in tensors.items()}
        # Tensors may share a storage, or repeat a number along an axis: copies could take any memory.
        if sum(tensor.nbytes for tensor in tensors.values()) > os.path.getsize(path):
            raise ValueError("tensors that are larger than the file")
        return {
            name: tensor.float().numpy()
            for name, tensor in tensors.items()
            if not name.endswith("num_batches_tracked")
        }
    except Exception as error:  # pickle, zipfile and torch each have their own
        if isinstance(error, OSError) and error.filename:  # that the file is missing; not what is in it
            raise
        # torch's own message advises to read it with weights_only=False, which would run the program.
        raise ValueError(
            f"{path}: no state_dict of tensors alone ({type(error).__name__}); a file with other objects is "
            "refused, as it could run any program: save its state_dict again where you trust it."
        ) from None


def _metadata(path, tensors, skeleton, size) -> dict:
    """What a checkpoint's metadata say of a network, from the shapes of the port's tensors."""

    def count(pattern):
        return len({m[1] for name in tensors if (m := re.match(pattern, name))})

    counts = {
        "stacks": count(r"score\.(\d+)\.weight"),
        "depth": count(r"hg\.0\.hg\.(\d+)\."),
        "units": count(r"res\.0\.(\d+)\."),
    }
    needed = ("score.0.weight", "fc.0.0.weight", "layer2.0.conv3.weight")
    if not all(counts.values()) or not all(name in tensors for name in needed):
        raise ValueError(
            f"{path}: not a checkpoint of the public PyTorch stacked hourglass, which has names such as "
            f"{', '.join(needed)}; found {', '.join(sorted(tensors)[:4]) or 'none'} ..."
        )
    joints, width, middle = (len(np.atleast_1d(tensors[name])) for name in needed)
    if joints != len(skeleton):
        raise ValueError(
            f"{path} has {joints} joints, {skeleton.name} has {len(skeleton)}; say which they are: "
            f"{COMMAND} --skeleton={'|'.join(SKELETONS)}|FILE.json, in Python skeleton=."
        )
    model = {"name": "newell", "dtype": "float32", "width": width, "stem": "port"} | counts
    if middle != width:
        model["stem"] = "newell"
    return {
        "config": {
            "model": model,
            # Theirs, as are the squared error and the Gaussians of one cell.
            "data": {"size": size, "mean": [0.4404, 0.4440, 0.4327]},
            "loss": {"kind": "mean_squared_error", "sigma": 1.0},
            "train": {"average_decay": 0.0},
        },
        "skeleton": skeleton.to_dict(),
    }


def foreign_name(name: str, depth: int) -> str:
    """The port's name of a variable: "params/stem/conv/kernel" -> "conv1.weight".

    Args:
      name: its path in the variables of `models.newell.Model`.
      depth: of the model's hourglasses.
    """
    _, *modules, leaf = name.split("/")
    layer = _LAYERS[modules.pop()] if modules[-1] in _LAYERS else ""
    module = "/".join(modules)
    pattern, match = next((p, m) for p in _PARTS if (m := re.fullmatch(p, module)))
    numbers = list(match.groups())
    if pattern.startswith("stem/unit"):
        numbers = [int(numbers[0]) + 1]
    elif "level" in pattern:  # the port counts from the lowest resolution on
        stack, level, place, unit = numbers
        numbers = [stack, depth - 1 - int(level), ("skip", "down", "up").index(place), unit]
    return f"{_PARTS[pattern].format(*numbers)}{layer}.{_LEAVES[leaf]}"


def _ours(tensor):
    """A kernel's axes: out, in, height, width -> height, width, in, out."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
