"""A trained network: the model with what its inputs and outputs mean, from its metadata and variables."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hourglass_jax import models
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import heatmaps
from hourglass_jax.pose.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Network:
    """A model with what its inputs and outputs mean.

    Attributes:
      model: returns `models.outputs.Outputs`.
      skeleton: its joints.
      size: side of its input, px.
      mean: of the channels, subtracted from images in [0, 1].
      sigma: of its targets, in cells.
      logits: its heatmaps are those of a spatial cross-entropy.
      signed: its targets are negative for occluded joints (MSSH, equation 1): a joint is where the heatmap
        is far from 0. The paper does not say how it finds them.
    """

    model: nn.Module
    skeleton: Skeleton
    size: int
    mean: tuple[float, float, float]
    sigma: float
    logits: bool
    signed: bool = False

    def outputs(self, variables: dict, images: jax.Array, *, flip: bool) -> Outputs:
        """Heatmaps of each stack, (b, h, w, k) in about [0, 1] with one channel for all joints or one for
        each, coordinates (b, k, 2) in [0, 1] of the input where the model regresses them, and attention
        maps (b, h, w, m) in [0, 1] where it has any, m like k.

        Args:
          variables: {"params", "batch_stats"}.
          images: (b, size, size, 3) in [0, 1].
          flip: average with the mirrored image's outputs, mirrored back, sides swapped.
        """
        outputs = self.answers(variables, self.views(images, flip=flip))
        return self.averaged(outputs) if flip else outputs

    def views(self, images: jax.Array, *, flip: bool) -> jax.Array:
        """What the model is to see of images: as many, or twice as many with the mirrored ones at the end."""
        images = images - jnp.asarray(self.mean)
        return jnp.concatenate([images, images[:, :, ::-1]]) if flip else images

    def answers(self, variables: dict, views: jax.Array) -> Outputs:
        """As `outputs`, of each of the `views` for itself."""
        maps, coordinates, attention = self.model.apply(variables, views, train=False)
        if self.logits:
            maps = tuple(heatmaps.from_logits(m, sigma=self.sigma) for m in maps)
        if self.signed:  # before the average: one of the two may take the joint for visible
            maps = tuple(jnp.abs(m) for m in maps)
        return Outputs(maps, coordinates, attention)

    def averaged(self, outputs: Outputs) -> Outputs:
        """Of images and, after them, the mirrored ones: the means, as the images have it."""
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
        """Left and right joints change places; a channel for all joints has no sides."""
        return values if values.shape[axis] == 1 else jnp.take(values, self.skeleton.flip, axis=axis)


def network_of(metadata: dict) -> Network:
    """The network that a checkpoint's metadata describe."""
    config, skeleton = metadata["config"], Skeleton.from_dict(metadata["skeleton"])
    return Network(
        model=models.create(joints=len(skeleton), **config["model"]),
        skeleton=skeleton,
        size=config["data"]["size"],
        mean=tuple(config["data"]["mean"]),
        sigma=config["loss"]["sigma"],
        logits=config["loss"]["kind"] == "cross_entropy",
        signed=config["loss"].get("occluded_amplitude", 1.0) < 0,
    )


def described(path, metadata: dict, sharding, count: float = math.inf) -> tuple[Network, dict]:
    """The network of a checkpoint or a stranger's file, and the shapes of its variables (`abstract`).

    Args:
      path: of the file, for the message.
      metadata: see `network_of`.
      count: of the arrays in the file; no network is built that has more.

    Raises:
      ValueError: the metadata are no network's, or a larger one's; one line.
    """
    try:
        model = metadata["config"]["model"]
        if (least := math.prod(model.get(name, 1) for name in ("stacks", "depth", "units"))) > count:
            raise ValueError(f"{least} layers at least, but {count} arrays")
        network = network_of(metadata)
        return network, abstract(network, sharding)
    except Exception as error:  # a wrong field may make any of Python's, Flax' and JAX'
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: describes no network ({type(error).__name__}: {reason}).") from error


def abstract(network: Network, sharding) -> dict:
    """Shapes of the network's variables, for restoring."""
    image = jax.ShapeDtypeStruct((1, network.size, network.size, 3), np.float32)
    shapes = jax.eval_shape(network.model.init, jax.random.key(0), image)
    shapes = {name: shapes.get(name, {}) for name in ("params", "batch_stats")}
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


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
