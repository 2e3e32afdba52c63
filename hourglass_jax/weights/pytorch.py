"""Reads checkpoints of the public PyTorch versions: bearpaw/pytorch-pose with its ports, and the authors'."""

import dataclasses
import os
import re
import zipfile

import numpy as np
from flax import traverse_util

from hourglass_jax import extras, files
from hourglass_jax.network import Metadata, Network, arrange, described, flatten
from hourglass_jax.pose.skeletons import SKELETONS, Skeleton

COMMAND = "python -m hourglass_jax.import_torch"
SUFFIXES = (".pth", ".pt", ".tar")
_STATES = ("state_dict", "model_state_dict", "model", "net")  # keys of the tensors in a training's file
_WRAPPERS = re.compile(r"((module|model|_orig_mod)\.)+")  # DataParallel's, Lightning's, torch.compile's


@dataclasses.dataclass(frozen=True)
class _Format:
    """The names of the tensors in a public version.

    Attributes:
      name: of the version.
      parts: our name of a module -> theirs.
      layers: our name of a layer in a module -> theirs.
      needed: tensors that the version always has: of the heatmaps, of the last layer before them, and one
        whose length is the width in the middle of the stem.
      counts: fields of the model -> a pattern; the field is the number of different values of its first
        group.
      mean: of the channels, which the version subtracts from images in [0, 1].
    """

    name: str
    parts: dict[str, str]
    layers: dict[str, str]
    needed: tuple[str, str, str]
    counts: dict[str, str]
    mean: tuple[float, float, float]


_BEARPAW = _Format(
    "bearpaw/pytorch-pose",
    parts={
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
    },
    layers={f"norm{i}": f".bn{i + 1}" for i in range(3)}
    | {f"conv{i}": f".conv{i + 1}" for i in range(3)}
    | {"skip": ".downsample.0"},
    needed=("score.0.weight", "fc.0.0.weight", "layer2.0.conv3.weight"),
    counts={
        "stacks": r"score\.(\d+)\.weight",
        "depth": r"hg\.0\.hg\.(\d+)\.",
        "units": r"res\.0\.(\d+)\.",
    },
    mean=(0.4404, 0.4440, 0.4327),
)

_PRINCETON = _Format(
    "princeton-vl/pytorch_stacked_hourglass",
    parts={
        r"stem/conv": "pre.0.conv",
        r"stem/norm": "pre.0.bn",
        r"stem/unit(\d)": "pre.{}",
        r"stack(\d+)_hourglass/level(\d+)_(skip|down|up)0": "hgs.{}.0.{}{}",
        r"stack(\d+)_hourglass/bottom0": "hgs.{}.0.{}",
        r"stack(\d+)_unit0": "features.{}.0",
        r"stack(\d+)_lin": "features.{}.1.conv",
        r"stack(\d+)_lin_norm": "features.{}.1.bn",
        r"stack(\d+)_heatmaps": "outs.{}.conv",
        r"stack(\d+)_remap_features": "merge_features.{}.conv.conv",
        r"stack(\d+)_remap_heatmaps": "merge_preds.{}.conv.conv",
    },
    layers={f"norm{i}": f".bn{i + 1}" for i in range(3)}
    | {f"conv{i}": f".conv{i + 1}.conv" for i in range(3)}
    | {"skip": ".skip_layer.conv"},
    needed=("outs.0.conv.weight", "features.0.1.conv.weight", "pre.3.conv3.conv.weight"),
    counts={
        "stacks": r"outs\.(\d+)\.conv\.weight",
        "depth": r"hgs\.0\.0\.((?:low2\.)*)up1\.",
        "units": r"features\.0\.(0)\.",
    },
    mean=(0.0, 0.0, 0.0),
)
_FORMATS = (_BEARPAW, _PRINCETON)
_LEAVES = {
    **{"kernel": "weight", "bias": "bias", "scale": "weight"},
    **{"mean": "running_mean", "var": "running_var"},
}


def load(
    path, *, skeleton: Skeleton | None = None, size: int = 256, sharding=None
) -> tuple[Network, dict, Metadata]:
    """A checkpoint's network, variables and metadata; see `import_torch.load_checkpoint`."""
    tensors = _read(path)
    known = _format(path, tensors)
    metadata = _metadata(path, tensors, known, skeleton or SKELETONS["mpii"], size)
    network, like = described(path, metadata, sharding, len(tensors))
    like = flatten(like)
    names = {name: _foreign_name(name, network.model.depth, known) for name in like}
    found = {name: _ours(tensor) for name, tensor in tensors.items()}
    if known is _PRINCETON:  # it stores a skip layer for each unit, but uses it only if the width changes
        used = set(names.values())
        found = {name: found[name] for name in found if name in used or ".skip_layer." not in name}
    found = arrange(path, found, {names[name]: like[name] for name in like})
    variables = traverse_util.unflatten_dict({name: found[names[name]] for name in like}, sep="/")
    return network, variables, metadata


def _read(path) -> dict[str, np.ndarray]:
    """The state_dict as float32, without the wrappers' prefixes of names and the norms' counters."""
    with extras.needed("torch", f"{path}: reading it"):
        import torch
    try:
        if zipfile.is_zipfile(path):  # else PyTorch's older format
            files.check_archive(path)
        # Refuse everything except tensors and plain values: a pickle can run any program.
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = next((content[name] for name in _STATES if name in content), content)
        tensors = {_WRAPPERS.sub("", name): tensor.detach() for name, tensor in tensors.items()}
        # Tensors may share a storage, or repeat a number along an axis: copies could need any amount of
        # memory.
        if sum(tensor.nbytes for tensor in tensors.values()) > os.path.getsize(path):
            raise ValueError("tensors that are larger than the file")
        return {
            name: tensor.float().numpy()
            for name, tensor in tensors.items()
            if not name.endswith("num_batches_tracked")
        }
    except Exception as error:  # pickle, zipfile and torch each have their own
        if isinstance(error, OSError) and error.filename:  # about the file itself, such as a missing one
            raise
        # torch's own message suggests weights_only=False, which would run the program.
        raise ValueError(
            f"{path}: not a state_dict of tensors only ({type(error).__name__}); a file with other objects "
            "could run any program and is refused: if you trust it, load it and save only its state_dict."
        ) from None


def _format(path, tensors) -> _Format:
    """The public version that wrote a state_dict."""
    for known in _FORMATS:
        counted = all(any(re.match(pattern, n) for n in tensors) for pattern in known.counts.values())
        if counted and all(name in tensors for name in known.needed):
            return known
    raise ValueError(
        f"{path}: not a checkpoint of the public PyTorch stacked hourglass, which has names such as "
        f"{', '.join(_BEARPAW.needed)} ({_BEARPAW.name}) or {_PRINCETON.needed[0]} "
        f"({_PRINCETON.name}); found {', '.join(sorted(tensors)[:4]) or 'none'} ..."
    )


def _metadata(path, tensors, known: _Format, skeleton, size) -> Metadata:
    """The metadata of a network, from the shapes of its tensors."""
    counts = {
        field: len({m[1] for name in tensors if (m := re.match(pattern, name))})
        for field, pattern in known.counts.items()
    }
    joints, width, middle = (len(np.atleast_1d(tensors[name])) for name in known.needed)
    if joints != len(skeleton):
        raise ValueError(
            f"{path} has {joints} joints, {skeleton.name} has {len(skeleton)}; say which they are: "
            f"{COMMAND} --skeleton={'|'.join(SKELETONS)}|FILE.json, in Python skeleton=."
        )
    model = {"name": "newell", "dtype": "float32", "width": width, "stem": "port"} | counts
    if known is _PRINCETON:
        model["stem"] = "newell" if width == 256 else "princeton"  # the same at 256
    elif middle != width:
        model["stem"] = "newell"
    config = {
        "model": model,
        # These are the version's own values, like the squared error and the Gaussians of one cell.
        "data": {"size": size, "mean": list(known.mean)},
        "loss": {"kind": "mean_squared_error", "sigma": 1.0},
        "train": {"average_decay": 0.0},
    }
    return Metadata(config, skeleton.to_dict())


def foreign_name(name: str, depth: int) -> str:
    """The name of a variable in bearpaw/pytorch-pose: "params/stem/conv/kernel" -> "conv1.weight".

    Args:
      name: its path in the variables of `models.newell.Model`.
      depth: of the model's hourglasses.
    """
    return _foreign_name(name, depth, _BEARPAW)


def _foreign_name(name: str, depth: int, known: _Format) -> str:
    _, *modules, leaf = name.split("/")
    layer = known.layers[modules.pop()] if modules[-1] in known.layers else ""
    module = "/".join(modules)
    pattern, match = next((p, m) for p in known.parts if (m := re.fullmatch(p, module)))
    numbers = list(match.groups())
    if pattern.startswith("stem/unit"):
        unit = int(numbers[0])
        numbers = [unit + 1 if known is _BEARPAW else (1, 3, 4)[unit]]  # pre.2 is the pooling
    elif known is _PRINCETON and "hourglass" in pattern:  # an hourglass contains the next lower one
        if "level" in pattern:
            stack, level, place = numbers
            names = {"skip": "up1", "down": "low1", "up": "low3"}
            numbers = [stack, "low2." * int(level), names[place]]
        else:
            numbers = [*numbers, ".".join(["low2"] * depth)]
    elif "level" in pattern:  # bearpaw's version counts levels from the lowest resolution
        stack, level, place, unit = numbers
        numbers = [stack, depth - 1 - int(level), ("skip", "down", "up").index(place), unit]
    return f"{known.parts[pattern].format(*numbers)}{layer}.{_LEAVES[leaf]}"


def _ours(tensor):
    """A kernel's axes: out, in, height, width -> height, width, in, out."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
