"""From a source to batches on the devices: sent by the host, or taken from examples stored on the devices."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import devices
from hourglass_jax.console import say
from hourglass_jax.data import pipeline
from hourglass_jax.data.examples import Source

CHUNK = 256  # canvases per transfer, when a source is stored on the devices


def create(source: Source, mesh, *, resident: bool, threads: int | None = None):
    """`Resident`, whose canvases `threads` decode, or `Sent`."""
    return Resident(source, mesh, threads=threads) if resident else Sent(source, mesh)


class Sent:
    """Batches of a source that the host decodes and sends.

    Args:
      source: see `examples.Source`.
      mesh: the devices that get the batches; every process sends its own part.
    """

    def __init__(self, source: Source, mesh):
        self._source, self._mesh, self._loader = source, mesh, source.loader

    def batches(self, **options):
        """This process's parts of the batches, on the host; options as of `pipeline.batches`."""
        return _parts(self._source, loader=self._loader, **options)

    def put(self, batch: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, jax.Array]:
        """These fields of the global batch, spread over the mesh."""
        return devices.put_batch({name: batch[name] for name in names}, self._mesh)


class Resident:
    """All examples of a source on every device, with decoded canvases: the host sends only indices.

    It replaces `Sent` and gives the same global batches; the batches on the host have no image.

    Raises:
      ValueError: the devices report their free memory, and it is too small.
    """

    def __init__(self, source: Source, mesh, *, threads: int | None = None):
        self.name, self._mesh = source.name, mesh
        same, spread = devices.replicated(mesh), devices.sharded(mesh)
        options = {"batch_size": min(CHUNK, len(source)), "threads": threads}
        chunks = pipeline.batches(source, train=False, loader=source.loader, **options)
        # In place: neither host nor device ever holds the data twice.
        write = jax.jit(_write, donate_argnums=0, out_shardings=same)
        fields = []
        with contextlib.closing(chunks):
            for number, chunk in enumerate(chunks):
                fields.append({name: chunk[name] for name in pipeline.FIELDS})
                chunk = {name: chunk[name] for name in ("image", *pipeline.FIELDS)}
                if not number:
                    self._store = self._allocate(chunk, len(source), same)
                first = number * options["batch_size"]
                self._store = write(self._store, devices.put_same(chunk, mesh), first)
        # The last chunk is padded.
        self.fields = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(source)], *fields)
        self._take = jax.jit(_take, in_shardings=(same, spread), out_shardings=spread)

    def _allocate(self, chunk, length: int, sharding) -> dict[str, jax.Array]:
        """Zeros for `length` examples, rounded up to whole chunks."""
        count, side = chunk["image"].shape[:2]
        rows = -(-length // count) * count
        shapes = {name: (rows, *x.shape[1:]) for name, x in chunk.items()}
        needed = sum(x.nbytes * rows // count for x in chunk.values())
        free = devices.free_memory(self._mesh)
        what = f"{self.name}: {length:,} canvases of {side} px take {needed / 1e6:,.1f} MB of each device"
        if free is not None and needed > free:
            raise ValueError(
                f"{what}, which has {free / 1e6:,.1f} MB left: use data.source=packed, or prepare smaller "
                "canvases."
            )
        say(f"{what}.")
        zeros = jax.jit(
            lambda: {name: jnp.zeros(shapes[name], x.dtype) for name, x in chunk.items()},
            out_shardings=sharding,
        )
        return zeros()

    def __len__(self):
        return len(self.fields["scale"])

    def batches(self, **options):
        """As `Sent.batches`, without images."""
        return _parts(self, loader="fields", **options)

    def put(self, batch, names):
        """As `Sent.put`, from the batch's indices."""
        index = devices.put_batch({"index": batch["index"]}, self._mesh)["index"]
        return self._take({name: self._store[name] for name in names}, index)


def _parts(source, **options):
    shards = {"shards": jax.process_count(), "shard": jax.process_index()}
    return pipeline.batches(source, **shards, **options)


def _write(store, chunk, first):
    """The store with the rows of a chunk written from row `first` on."""
    update = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=first, axis=0)
    return jax.tree.map(update, store, chunk)


def _take(store, index):
    return jax.tree.map(lambda values: values.at[index].get(mode="promise_in_bounds"), store)
