"""Fine-tuning: a training that begins with another training's network.

`--config.train.init_from=PATH` takes what `loading.load` takes (a workdir, a checkpoint, a file of
weights) and the PyTorch checkpoints of `import_torch`. On another number of joints the heads begin anew.
"""

import dataclasses

import jax
import numpy as np
from flax import traverse_util

from hourglass_jax import loading
from hourglass_jax.network import Network, abstract


def load(path, network: Network, mesh) -> tuple[dict, list[str]]:
    """The variables of another network that fit this one.

    Args:
      path: of the other one.
      network: this one.
      mesh: of the training.

    Returns:
      {name: numpy array} of what is taken, under names like "params/stem/conv/kernel"; all others of this
      network's begin anew. And lines to tell.

    Raises:
      FileNotFoundError, ValueError, ImportError: as of `loading.load`;
        or the networks differ in more than their heads.
    """
    source, variables, _ = loading.load(path, mesh)
    taken, fresh = fitting(path, source, variables, network)
    return taken, remarks(path, source, network, fresh)


def fitting(path, source: Network, found: dict, network: Network) -> tuple[dict, list[str]]:
    """What of a network's variables fits another one.

    Args:
      path: of the first one, for messages.
      source: the first one; found: its variables, {"params", "batch_stats"}.
      network: the second one.

    Returns:
      {name: numpy array} of what fits, and the names of the heads of another number of joints, which do not.

    Raises:
      ValueError: the networks differ in more than their heads; the message lists where.
    """
    joints, like = (len(source.skeleton), len(network.skeleton)), abstract(network, None)
    found, like = (traverse_util.flatten_dict(tree, sep="/") for tree in (jax.device_get(found), like))
    if type(source.model) is type(network.model) and hasattr(network.model, "adopt"):
        found = network.model.adopt(source.model, found)  # in the units of this model's fields
    wrong = [f"{name} is missing" for name in sorted(like.keys() - found.keys())]
    wrong += [f"{name} is too much" for name in sorted(found.keys() - like.keys())]
    taken, fresh = {}, []
    for name in sorted(like.keys() & found.keys()):
        old, new = found[name].shape, like[name].shape
        if old == new:
            taken[name] = np.asarray(found[name])
        # A head has the joints along one axis; another width changes kernels along two.
        elif len(old) == len(new) and sum(map(int.__ne__, old, new)) == 1 and joints[0] != joints[1]:
            fresh.append(name)
        else:
            wrong.append(f"{name} is {old}, not {new}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        wrong = _differences(source.model, network.model) + wrong[:5]
        raise ValueError(
            f"train.init_from={path} is of another network than config.model: {'; '.join(wrong)}{more}."
        )
    return taken, fresh


def _differences(old, new) -> list[str]:
    """What a model's fields are, and another one's of the same class: "width is 4, not 8"."""
    if type(old) is not type(new):
        return [f"it is {type(old).__module__.rpartition('.')[2]}"]
    known = [
        field.name for field in dataclasses.fields(old) if field.name not in ("joints", "parent", "name")
    ]
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in known)
    return [f"{name} is {a}, not {b}" for name, a, b in pairs if a != b]


def remarks(path, source: Network, network: Network, fresh: list[str]) -> list[str]:
    """What to tell of a training that begins so, a line each."""
    lines = [f"Begins with {path}" + (f"; anew: {', '.join(fresh)}." if fresh else ".")]
    if not fresh and source.skeleton.joints != network.skeleton.joints:
        lines.append(
            f"Note: its joints are {', '.join(source.skeleton.joints)}; the heads are kept, for "
            f"{', '.join(network.skeleton.joints)}."
        )
    if source.mean != network.mean:
        mean = ",".join(map(str, source.mean))
        lines.append(f"Note: it was trained with another mean of the channels: --config.data.mean=({mean})")
    if source.logits != network.logits:
        kind = "cross_entropy" if source.logits else "mean_squared_error"
        lines.append(f"Note: it was trained with another loss: --config.loss.kind={kind}")
    return lines
