"""The stacked hourglass in PyTorch for comparisons, with the same layers as `hourglass_jax/models/newell.py`.

Its modules have the names of the Flax modules, so that both have the same names of weights. PyTorch is
optional: pip install torch
"""

import numpy as np
import torch
from flax import traverse_util
from torch import nn
from torch.nn import functional as F


class Unit(nn.Module):
    """`layers.Unit`."""

    def __init__(self, before: int, width: int):
        super().__init__()
        half = width // 2
        for i, (a, b, window) in enumerate([(before, half, 1), (half, half, 3), (half, width, 1)]):
            self.add_module(f"norm{i}", nn.BatchNorm2d(a))
            self.add_module(f"conv{i}", nn.Conv2d(a, b, window, padding=window // 2))
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x):
        y = self.conv0(F.relu(self.norm0(x)))
        y = self.conv1(F.relu(self.norm1(y)))
        return self.skip(x) + self.conv2(F.relu(self.norm2(y)))


class Hourglass(nn.Module):
    """`layers.Hourglass` with one unit per place."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.depth, self.bottom0 = depth, Unit(width, width)
        for level in range(depth):
            for place in ("skip", "down", "up"):
                self.add_module(f"level{level}_{place}0", Unit(width, width))

    def forward(self, x):
        skips = []
        for level in range(self.depth):
            skips.append(self.get_submodule(f"level{level}_skip0")(x))
            x = self.get_submodule(f"level{level}_down0")(F.max_pool2d(x, 2))
        x = self.bottom0(x)
        for level in reversed(range(self.depth)):
            x = self.get_submodule(f"level{level}_up0")(x)
            x = skips[level] + F.interpolate(x, scale_factor=2)
        return x


class Stem(nn.Module):
    """`layers.Stem`, the kind "newell"."""

    def __init__(self, width: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width // 4, 7, 2, padding=3), nn.BatchNorm2d(width // 4)
        self.unit0, self.unit1 = Unit(width // 4, width // 2), Unit(width // 2, width // 2)
        self.unit2 = Unit(width // 2, width)

    def forward(self, x):
        x = self.unit0(F.relu(self.norm(self.conv(x))))
        return self.unit2(self.unit1(F.max_pool2d(x, 2)))


class Newell(nn.Module):
    """`newell.Model` with one unit per place.

    Images (b, 3, h, w) -> heatmaps (b, k, h/4, w/4) of each stack.
    """

    def __init__(self, *, joints: int, stacks: int, width: int, depth: int):
        super().__init__()
        self.stacks, self.stem = stacks, Stem(width)
        for s in range(stacks):
            self.add_module(f"stack{s}_hourglass", Hourglass(width, depth))
            self.add_module(f"stack{s}_unit0", Unit(width, width))
            self.add_module(f"stack{s}_lin", nn.Conv2d(width, width, 1))
            self.add_module(f"stack{s}_lin_norm", nn.BatchNorm2d(width))
            self.add_module(f"stack{s}_heatmaps", nn.Conv2d(width, joints, 1))
            if s + 1 < stacks:
                self.add_module(f"stack{s}_remap_features", nn.Conv2d(width, width, 1))
                self.add_module(f"stack{s}_remap_heatmaps", nn.Conv2d(joints, width, 1))

    def forward(self, x):
        x, heatmaps = self.stem(x), []
        for s in range(self.stacks):
            y = getattr(self, f"stack{s}_unit0")(getattr(self, f"stack{s}_hourglass")(x))
            y = F.relu(getattr(self, f"stack{s}_lin_norm")(getattr(self, f"stack{s}_lin")(y)))
            heatmaps.append(getattr(self, f"stack{s}_heatmaps")(y))
            if s + 1 < self.stacks:
                remapped = getattr(self, f"stack{s}_remap_heatmaps")(heatmaps[-1])
                x = x + getattr(self, f"stack{s}_remap_features")(y) + remapped
        return heatmaps


class HourglassUnit(nn.Module):
    """`chu.HourglassUnit`, with the width of its input."""

    def __init__(self, width: int):
        super().__init__()
        for i in range(2):
            self.add_module(f"pool_norm{i}", nn.BatchNorm2d(width))
            self.add_module(f"pool_conv{i}", nn.Conv2d(width, width, 3, padding=1))
        self.residual = Unit(width, width)

    def forward(self, x):
        y = self.pool_conv0(F.max_pool2d(F.relu(self.pool_norm0(x)), 2))
        y = self.pool_conv1(F.relu(self.pool_norm1(y)))
        return self.residual(x) + F.interpolate(y, scale_factor=2)


class OneUnit(nn.Module):
    """`peers.OneUnit`."""

    def __init__(self, *, joints: int, width: int):
        super().__init__()
        self.conv, self.unit = nn.Conv2d(3, width, 4, 4), HourglassUnit(width)
        self.heatmaps = nn.Conv2d(width, joints, 1)

    def forward(self, x):
        return [self.heatmaps(self.unit(self.conv(x)))]


_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def named(variables: dict) -> dict[str, np.ndarray]:
    """A tree of a `newell.Model`'s variables, or of their gradients, with the twin's names and axes."""
    found = {}
    for path, value in traverse_util.flatten_dict(variables).items():
        value = np.array(value)  # HWIO -> OIHW
        value = value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value
        found[".".join((*path[:-1], _NAMES[path[-1]]))] = value
    return found


def create(variables: dict, **fields) -> Newell:
    """The twin with the variables {"params", "batch_stats"} of a `newell.Model` with these fields."""
    return _with(Newell(**fields), variables)


def one_unit(variables: dict, **fields) -> OneUnit:
    """The twin of a `peers.OneUnit`."""
    return _with(OneUnit(**fields), variables)


def variables(network: nn.Module, like: dict) -> dict:
    """The variables of a twin as those of the Flax model, a tree like `like`."""
    found = {name: value.detach().numpy() for name, value in network.state_dict().items()}

    def of(path, leaf):
        value = found[".".join((*path[1:-1], _NAMES[path[-1]]))]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value  # OIHW -> HWIO
        return value.reshape(leaf.shape).copy()

    flat = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict({path: of(path, leaf) for path, leaf in flat.items()})


def _with(network, variables: dict):
    """Loads a Flax model's variables into a network."""
    weights = named(variables["params"]) | named(variables["batch_stats"])
    weights = {name: torch.from_numpy(value) for name, value in weights.items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    counters = [name for name in missing if name.endswith("num_batches_tracked")]
    if unexpected or len(counters) != len(missing):
        raise ValueError(f"The networks differ: {sorted(set(missing) - set(counters)) + unexpected}.")
    return network.to(memory_format=torch.channels_last)
