"""Loads a trained network, for prediction, evaluation and fine-tuning."""

from hourglass_jax import copies, devices, files, weights
from hourglass_jax.network import Metadata, Network, arrange, described
from hourglass_jax.weights import hub, published, pytorch


def located(path):
    """The file of a repository's weights, downloaded if necessary; other paths and names stay as they are."""
    return hub.fetch(hub.Repository.parse(str(path))) if hub.is_name(path) else path


def load(path, mesh=None) -> tuple[Network, dict, Metadata]:
    """A trained network.

    Args:
      path: a workdir (its best checkpoint by validation score, or the latest if none has a score),
        WORKDIR/checkpoints/STEP, a file of `weights`, a PyTorch checkpoint (`weights.pytorch`), the name of
        weights that come with the package (`weights.SHIPPED`) or that are published and fetched once
        (`weights.published`), or "hf://owner/name" (`weights.hub`). An existing path comes before a name.
      mesh: the devices that get the variables; None for all.

    Returns:
      the network, its variables (averaged if the training averages), and the metadata.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: it is damaged.
      OSError: it is not on this machine, and cannot be fetched.
    """
    path = located(path)
    if (name := str(path)) in {*weights.SHIPPED, *published.NAMES} and not files.exists(path):
        path = weights.packaged(name) if name in weights.SHIPPED else published.fetch(name)
    path, same = files.path(path), devices.replicated(mesh or devices.mesh())
    if files.is_file(path):
        path = copies.fetched(path)
        if path.suffix in pytorch.SUFFIXES:
            return pytorch.load(path, sharding=same)
        metadata, arrays = weights.read(path)
        network, like = described(path, metadata, same, len(arrays))
        return network, arrange(path, arrays, like), metadata
    from hourglass_jax import checkpoint  # Orbax's import takes a third of a second, and files do not need it

    step = int(path.name) if path.parent.name == "checkpoints" and path.name.isdigit() else None
    workdir = path if step is None else path.parent.parent
    if not files.is_dir(workdir / "checkpoints"):
        names = ", ".join([*weights.SHIPPED, *published.NAMES])
        raise FileNotFoundError(
            f"{path} holds no checkpoints; is it the --workdir of a training? Weights by name are {names}; "
            "hf://owner/name is a repository."
        )
    tried = None
    while True:
        with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
            wanted = checkpoints.preferred if step is None else step
            if wanted not in checkpoints.steps:
                found = ", ".join(map(str, checkpoints.steps)) or "none"
                raise FileNotFoundError(f"{path}: there is no such checkpoint; found {found}.")
            try:
                metadata = checkpoints.metadata(wanted)
                network, like = described(checkpoints.directory / str(wanted), metadata, same)
                name = "averaged" if metadata.averages else "model"
                return network, checkpoints.variables(wanted, name, like), metadata
            except ValueError:
                if wanted == tried:
                    raise
                # A running training may have replaced it by a better or newer one in the meantime.
                tried = wanted
