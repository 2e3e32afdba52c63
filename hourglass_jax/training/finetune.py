"""Fine-tuning: a training that starts from another training's network.

`--config.train.init_from=PATH` accepts the same as `loading.load`: a workdir, a checkpoint, a file of
weights, a PyTorch checkpoint, or the name of published weights. If the number of joints differs, the heads
start at random.
"""

import dataclasses

import jax
import numpy as np

from hourglass_jax import loading
from hourglass_jax.config import differences
from hourglass_jax.network import Network, abstract, flatten, misfits


def load(path, network: Network, mesh) -> tuple[dict, list[str]]:
    """The variables of another network that fit this one.

    Args:
      path: of the other network.
      network: this network.
      mesh: of the training.

    Returns:
      {name: numpy array} of the variables that are taken, under names like "params/stem/conv/kernel"; all
      other variables of this network start at random. And lines for the console.

    Raises:
      FileNotFoundError, ValueError, ImportError: as `loading.load` does;
        or the networks differ in more than their heads.
    """
    source, variables, _ = loading.load(path, mesh)
    taken, fresh = fitting(path, source, variables, network)
    return taken, remarks(path, source, network, fresh)


def fitting(path, source: Network, found: dict, network: Network) -> tuple[dict, list[str]]:
    """The variables of a network that fit another one.

    Args:
      path: of the first network, for messages.
      source: the first network; found: its variables, {"params", "batch_stats"}.
      network: the second network.

    Returns:
      {name: numpy array} of the variables that fit, and the names of the heads that do not, because the
      number of joints differs.

    Raises:
      ValueError: the networks differ in more than their heads; the message lists the differences.
    """
    joints, like = (len(source.skeleton), len(network.skeleton)), abstract(network, None)
    found, like = (flatten(tree) for tree in (jax.device_get(found), like))
    if type(source.model) is type(network.model) and hasattr(network.model, "adopt"):
        found = network.model.adopt(source.model, found)  # in the units of this model's fields
    old, new = ({name: value.shape for name, value in tree.items()} for tree in (found, like))

    def head(name):
        """A head has the joints along one axis; another width of the network changes kernels along two."""
        a, b = old[name], new[name]
        return len(a) == len(b) and sum(map(int.__ne__, a, b)) == 1 and joints[0] != joints[1]

    fresh = [name for name in sorted(new.keys() & old.keys()) if old[name] != new[name] and head(name)]
    taken = {name: np.asarray(found[name]) for name in sorted(found.keys() - set(fresh))}
    without = {name: shape for name, shape in new.items() if name not in fresh}
    if wrong := misfits({name: old[name] for name in taken}, without):
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        wrong = differences(_fields(source.model), _fields(network.model), "model.") + wrong[:5]
        raise ValueError(
            f"train.init_from={path} has another network than config.model: {'; '.join(wrong)}{more}."
        )
    return taken, fresh


def _fields(model) -> dict:
    """A model's name and fields, as in a config."""
    known = [f.name for f in dataclasses.fields(model) if f.name not in ("joints", "parent", "name", "dtype")]
    name = type(model).__module__.rpartition(".")[2]
    return {"name": name} | {field: getattr(model, field) for field in known}


def remarks(path, source: Network, network: Network, fresh: list[str]) -> list[str]:
    """Lines for the console about the start of this training."""
    lines = [f"Starts from {path}" + (f"; at random: {', '.join(fresh)}." if fresh else ".")]
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
