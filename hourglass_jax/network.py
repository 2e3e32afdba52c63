"""A trained network: the model, and the meaning of its inputs and outputs, from metadata and variables."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hourglass_jax import kept, models
from hourglass_jax.models import shapes as model_shapes
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import heatmaps
from hourglass_jax.pose.skeletons import Skeleton

# Ten times as large as in any paper's network.
MOST_LAYERS, MOST_WIDTH, MOST_SIZE = 1000, 8192, 8192


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The json that a checkpoint or a file of weights has in addition to its arrays.

    Attributes:
      config: the training's config, nested dictionaries, see `config_base.py`.
      skeleton: the joints, see `Skeleton.to_dict`.
      step: the number of updates.
      data: the fingerprint of the training's examples; "" if unknown.
      checksums: CRC-32 of each item of a checkpoint; {} if there are none.
      evaluation: the scores, see `evaluation.scores.Scores`; {} if there are none.
      card: a description of how the weights were made; {} if there is none.
      stopping: the best score and the evaluations since then, see `training.stopping.Patience`; or {}.
      due: "evaluation" if the training was stopped before it evaluated this step; else "".
    """

    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    skeleton: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: int = 0
    data: str = ""
    checksums: dict[str, int] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    card: dict[str, Any] = dataclasses.field(default_factory=dict)
    due: str = ""
    stopping: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Any) -> "Metadata":
        """Reads the json; unknown fields are ignored.

        Raises:
          ValueError: a field has another type.
        """
        if not isinstance(content, dict):
            raise ValueError(f"metadata: expected an object, found {type(content).__name__}")
        values = {}
        for field in dataclasses.fields(cls):
            if field.name not in content:
                continue
            kind = {"step": int, "data": str, "due": str}.get(field.name, dict)
            value = content[field.name]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"metadata: {field.name} is {type(value).__name__}, not {kind.__name__}")
            values[field.name] = value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The json, without optional fields that have no value."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        optional = ("config", "skeleton", "data", "checksums", "evaluation", "card", "due", "stopping")
        return {name: value for name, value in values.items() if value or name not in optional}

    # Items can be read by name, because metadata were a dictionary before version 0.2.
    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __contains__(self, name: str) -> bool:
        return name in self.to_dict()

    def get(self, name: str, default: Any = None) -> Any:
        return self.to_dict().get(name, default)

    @property
    def averages(self) -> bool:
        """Whether the training averages its variables over the steps."""
        train = self.config.get("train", {})
        return isinstance(train, dict) and bool(train.get("average_decay"))

    @property
    def threshold(self) -> float | None:
        """The lowest score of joints that are drawn, from the evaluation; None if unknown."""
        confidence = self.evaluation.get("confidence")
        value = confidence.get("threshold") if isinstance(confidence, dict) else None
        known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return value if known else None


@dataclasses.dataclass(frozen=True)
class Network:
    """A model and the meaning of its inputs and outputs.

    Attributes:
      model: returns `models.outputs.Outputs`.
      skeleton: its joints.
      size: side of its input, px.
      mean: mean of the channels, which is subtracted from images in [0, 1].
      sigma: sigma of its targets, in cells.
      logits: whether its heatmaps are logits of a spatial cross-entropy.
      signed: whether its targets are negative for occluded joints (MSSH, equation 1). Then a joint is where
        the heatmap is far from 0. The paper does not say how it finds such joints.
    """

    model: nn.Module
    skeleton: Skeleton
    size: int
    mean: tuple[float, float, float]
    sigma: float
    logits: bool
    signed: bool = False

    def outputs(self, variables: dict, images: jax.Array, *, flip: bool) -> Outputs:
        """The outputs for images: heatmaps of each stack, (b, h, w, k) in about [0, 1], with one channel for
        all joints or one for each; coordinates (b, k, 2) in [0, 1] of the input, if the model regresses them;
        and attention maps (b, h, w, m) in [0, 1], if it has any, with m as k.

        Args:
          variables: {"params", "batch_stats"}.
          images: (b, size, size, 3) in [0, 1].
          flip: average with the flipped image's outputs, which are flipped back, with sides swapped.
        """
        outputs = self.forward(variables, self.views(images, flip=flip))
        return self.averaged(outputs) if flip else outputs

    def views(self, images: jax.Array, *, flip: bool) -> jax.Array:
        """The model's inputs: the images, followed by the flipped images if `flip`."""
        images = images - jnp.asarray(self.mean)
        return jnp.concatenate([images, images[:, :, ::-1]]) if flip else images

    def forward(self, variables: dict, views: jax.Array) -> Outputs:
        """As `outputs`, for each of the `views` separately."""
        outputs: Any = self.model.apply(variables, views, train=False)
        maps, coordinates, attention = outputs
        if self.logits:
            maps = tuple(heatmaps.from_logits(m, sigma=self.sigma) for m in maps)
        if self.signed:  # before the average, because a joint may have opposite signs in the two images
            maps = tuple(jnp.abs(m) for m in maps)
        return Outputs(maps, coordinates, attention)

    def averaged(self, outputs: Outputs) -> Outputs:
        """The means of the outputs of images and of the flipped images that follow them."""
        maps, coordinates, attention = outputs
        b = len(maps[0]) // 2
        maps, attention = jax.tree.map(
            lambda m: (m[:b] + self._swap(m[b:, :, ::-1], axis=3)) / 2, (maps, attention)
        )
        if coordinates is not None:
            mirrored = self._swap(coordinates[b:], axis=1) * jnp.array([-1, 1]) + jnp.array([1, 0])
            coordinates = (coordinates[:b] + mirrored) / 2
        return Outputs(maps, coordinates, attention)

    def _swap(self, values, axis):
        """Swaps left and right joints; a channel for all joints has no sides."""
        return values if values.shape[axis] == 1 else jnp.take(values, self.skeleton.flip, axis=axis)


def network_of(metadata: Metadata | Mapping[str, Any]) -> Network:
    """The network that metadata, or their json, describe."""
    if not isinstance(metadata, Metadata):
        metadata = Metadata.from_dict(metadata)
    for name in ("config", "skeleton"):
        if not getattr(metadata, name):
            raise ValueError(f"metadata: {name} is missing")
    config, skeleton = metadata.config, Skeleton.from_dict(metadata.skeleton)
    return Network(
        model=models.build(joints=len(skeleton), **config["model"]),
        skeleton=skeleton,
        size=config["data"]["size"],
        mean=tuple(config["data"]["mean"]),
        sigma=config["loss"]["sigma"],
        logits=config["loss"]["kind"] == "cross_entropy",
        signed=config["loss"].get("occluded_amplitude", 1.0) < 0,
    )


def described(path, metadata: Metadata, sharding, count: float = math.inf) -> tuple[Network, dict]:
    """The network of a checkpoint or file, and the shapes of its variables (`abstract`).

    The file may be damaged or forged.

    Args:
      path: path of the file, for the message.
      metadata: see `network_of`.
      count: number of arrays in the file; a network with more is not built.

    Raises:
      ValueError: the metadata do not describe a network, or describe a larger one; one line.
    """
    try:
        sizes = _sizes(metadata.config) if metadata.config else {}
        # Check sizes before anything is built: thousands of stacks take minutes, and a huge side all memory.
        least = math.prod(sizes.get(name, 1) for name in ("stacks", "depth", "units"))
        if least > min(count, MOST_LAYERS):
            known = f"{count} arrays" if count < MOST_LAYERS else f"{MOST_LAYERS} are the most"
            raise ValueError(f"at least {least} layers, but {known}")
        for name, most in (("width", MOST_WIDTH), ("size", MOST_SIZE)):
            if sizes.get(name, 0) > most:
                raise ValueError(f"{name} is {sizes[name]}, above {most}")
        network = network_of(metadata)
        return network, abstract(network, sharding, about=about(network, metadata))
    except Exception as error:  # a wrong field may raise any exception of Python, Flax and JAX
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: describes no network ({type(error).__name__}: {reason}).") from error


def _sizes(config: dict) -> dict[str, int]:
    """The integers in a config that determine the time and the memory of building its network."""
    found = {name: config["model"].get(name, 1) for name in ("stacks", "depth", "units", "width")}
    found["size"] = config["data"]["size"]
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}"[:99] + ", not a whole number")
    return found


def about(network: Network, metadata: Metadata) -> list | None:
    """The parts of the metadata that determine a network's structure, for `kept.fact`.

    None without a config, and for a model from outside this package, whose source `kept` does not watch.
    """
    if not metadata.config or type(network.model).__module__.partition(".")[0] != __package__:
        return None
    return [metadata.config["model"], metadata.config["data"]["size"], metadata.skeleton["joints"]]


def abstract(network: Network, sharding, *, about: list | None = None) -> dict:
    """Shapes of the network's variables, for restoring.

    Args:
      about: see `about`; None: always trace the network.
    """

    def traced() -> dict[str, list]:
        image = jax.ShapeDtypeStruct((1, network.size, network.size, 3), np.float32)
        _, variables = model_shapes.of(network.model, image)
        variables = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
        return {path: [list(x.shape), x.dtype.name] for path, x in flatten(variables).items()}

    flat = {
        path: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype), sharding=sharding)
        for path, (shape, dtype) in kept.fact("shapes", about, traced).items()
    }
    return {"params": {}, "batch_stats": {}} | traverse_util.unflatten_dict(flat, sep="/")


def flatten(tree, **options) -> dict[str, Any]:
    """Variables by path: {"params": {"stem": ...}} -> {"params/stem/...": leaf}."""
    return dict(traverse_util.flatten_dict(tree, sep="/", **options))


def arrange(path, arrays: dict[str, np.ndarray], like: dict) -> dict:
    """Variables by path -> the tree of a network, on its devices.

    Args:
      path: path of the file, for the message.
      arrays: see `weights.read`.
      like: the network's variables as `jax.ShapeDtypeStruct` with shardings, see `abstract`.

    Raises:
      ValueError: the variables belong to another network; the message lists all names that are missing,
        unexpected or of another shape.
    """
    wanted = flatten(like, keep_empty_nodes=True)
    shapes = {name: value.shape for name, value in wanted.items() if hasattr(value, "shape")}
    if differ := misfits({name: value.shape for name, value in arrays.items()}, shapes):
        raise ValueError(f"{path}: the weights are of another network: {'; '.join(differ)}.")
    # A single call, because each call has a fixed cost.
    placed = jax.device_put(
        {name: arrays[name] for name in shapes}, {name: wanted[name].sharding for name in shapes}
    )
    return traverse_util.unflatten_dict(wanted | placed, sep="/")


def misfits(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The differences between the shapes of named arrays and those of a network: a line for each name that is
    missing, unexpected or of another shape."""
    lines = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    lines += [f"{name} is unexpected" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    return lines + [f"{n} is {found[n]} instead of {wanted[n]}" for n in both if found[n] != wanted[n]]
