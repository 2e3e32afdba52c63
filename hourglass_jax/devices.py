"""The device mesh, what lies where on it, and how programs are compiled for it."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh() -> Mesh:
    """All devices of all processes along one axis, "data"."""
    # Auto axes: under Explicit ones, the default, vmap over a sharded batch fails.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device: the state."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first dimension spread over the devices: a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process' part of a batch -> the global batch on the mesh."""
    put = functools.partial(jax.make_array_from_process_local_data, sharded(mesh))
    return {name: put(value) for name, value in batch.items()}


def check_divides(batch_size: int, what: str) -> None:
    """Raises ValueError unless the devices divide the batch."""
    if batch_size < 1 or batch_size % jax.device_count():
        raise ValueError(
            f"{what}={batch_size} must be a positive multiple of the {jax.device_count()} devices."
        )
