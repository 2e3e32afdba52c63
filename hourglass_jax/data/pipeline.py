"""The pipeline on the host: from (seed, step) to a batch of canvases, with or without TensorFlow.

See `examples` for sources and examples. A *batch* holds the fields of its examples, stacked (b first),
without the ids, and

    index      (b,) int32, positions in the source
    mask       (b,) bool, False for the padding of an evaluation's last batch

The order of training is a function of only (seed, step): a run resumes at any step without replaying the
previous ones, and every process computes its own share of the batch directly.
"""

import atexit
import collections
import contextlib
import functools
import os
import sys
import weakref
from concurrent import futures
from typing import Any, Protocol

import cv2
import numpy as np

from hourglass_jax.data.examples import FIELDS as FIELDS
from hourglass_jax.data.examples import Source


class FieldSource(Protocol):
    """A source whose canvases are stored elsewhere. It has only `fields`, {name: (n, ...) array}."""

    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> dict[str, np.ndarray]: ...
    def __len__(self) -> int: ...


@functools.lru_cache(maxsize=4)
def order(seed: int, epoch: int, length: int) -> np.ndarray:
    """(length,) int64: the permutation of one epoch."""
    # Sort raw bits, because NumPy guarantees stable bits, but not a stable Generator.permutation.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(length)
    permutation = np.argsort(bits, kind="stable")
    permutation.flags.writeable = False  # one array for all callers
    return permutation


def train_indices(step, *, batch_size, length, seed, shards=1, shard=0) -> np.ndarray:
    """This process's part of a training batch.

    The batches cut the endless sequence of the epochs' permutations into pieces: no example is dropped, and a
    batch may hold the end of one epoch and the beginning of the next.

    Args:
      step: counts from 0.
      batch_size: batch size of all processes together.
      length: number of examples in the source.
      seed: >= 0.
      shards, shard: number of processes, and index of this process.

    Returns:
      (batch_size / shards,) int64 positions in the source.
    """
    share = batch_size // shards
    first = step * batch_size + shard * share
    epochs, positions = np.divmod(np.arange(first, first + share), length)
    pieces = [order(seed, int(epoch), length)[positions[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(pieces)


def eval_indices(step, *, batch_size, length, shards=1, shard=0) -> tuple[np.ndarray, np.ndarray]:
    """This process's part of an evaluation batch: all examples in order, the last batch padded.

    Returns:
      (batch_size / shards,) int64 positions, and (batch_size / shards,) bool: False for padding,
      which repeats the last example.
    """
    share = batch_size // shards
    first = step * batch_size + shard * share
    positions = np.arange(first, first + share)
    return np.minimum(positions, length - 1), positions < length


def batches(
    source: Source | FieldSource,
    *,
    train: bool,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    steps: int | None = None,
    shards: int = 1,
    shard: int = 0,
    threads: int | None = None,
    loader: str = "tfdata",
    prefetch: int = 2,
):
    """Batches of a source, as dictionaries of NumPy arrays (see the top of this file).

    Args:
      source: see `examples.Source`.
      train: True for endless, shuffled batches; False for all examples once, in order, padded.
      batch_size: batch size of all processes together; a multiple of `shards`.
      seed: seed of the order of training, >= 0.
      start_step: the first step; the batches before it are not computed.
      steps: number of batches; None: endless (training), or all that are left (evaluation).
      shards, shard: number of processes, and index of this process.
      threads: number of threads that decode; None or 0: one per CPU core.
      loader: "tfdata" (tf.data); "threads", which needs no TensorFlow; or "fields": batches without images,
        from a source that has an attribute `fields`, {name: (n, ...) array}.
      prefetch: number of whole batches that are prepared in advance.

    Returns:
      A generator. Its threads stop when it ends or is closed (`contextlib.closing`).

    Raises:
      ValueError: an argument is wrong; or, while iterating, an example cannot be decoded.
    """
    _check(source, batch_size, seed, start_step, shards, shard, loader)
    share = dict(batch_size=batch_size, length=len(source), shards=shards, shard=shard)
    if train:
        stop = sys.maxsize

        def plan(step):
            indices = train_indices(step, seed=seed, **share)
            return indices, np.ones(len(indices), bool)
    else:
        stop = -(-len(source) // batch_size)
        plan = functools.partial(eval_indices, **share)
    if steps is not None:
        stop = min(stop, start_step + steps)
    load_batches = LOADERS[loader]
    threads = threads or os.cpu_count() or 1
    wanted = range(start_step, stop)
    generator = load_batches(source, plan, wanted, threads=threads, prefetch=prefetch)
    _open_generators.add(generator)
    return generator


_open_generators = weakref.WeakSet()


@atexit.register
def _close_generators():
    """Runs before Python removes its modules, because TensorFlow's threads would then abort the process."""
    for generator in list(_open_generators):
        with contextlib.suppress(ValueError):  # the generator is running in another thread
            generator.close()


def _check(source, batch_size, seed, start_step, shards, shard, loader):
    """Refuses wrong arguments of `batches`, before the first batch."""
    if len(source) == 0:
        raise ValueError(f"{source.name} has no examples")
    if not 0 <= shard < shards:
        raise ValueError(f"shard={shard}, shards={shards}: must be 0 <= shard < shards")
    if batch_size < 1 or batch_size % shards:
        raise ValueError(f"batch_size={batch_size}: must be a positive multiple of shards={shards}")
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed={seed}, start_step={start_step}: must not be negative")
    if loader not in LOADERS:
        raise ValueError(f"loader={loader!r}: must be one of {', '.join(LOADERS)}")


def threaded_batches(source, plan, steps: range, *, threads: int, prefetch: int):
    """Yields batches decoded by OpenCV on a pool of threads.

    Args:
      source: see `examples.Source`.
      plan: step -> (positions, mask), both (b,).
      steps: the steps to load.
      threads, prefetch: see `batches`.
    """
    pool = futures.ThreadPoolExecutor(threads)
    pending = collections.deque()

    def finish(indices, mask, loading):
        examples = [example.result() for example in loading]
        images = np.stack([example["image"] for example in examples])
        return _collate(images, examples, indices, mask)

    try:
        for step in steps:
            indices, mask = plan(step)
            loading = [pool.submit(load, source, index) for index in indices]
            pending.append((indices, mask, loading))
            if len(pending) > prefetch:
                yield finish(*pending.popleft())
        while pending:
            yield finish(*pending.popleft())
    finally:
        # Stop decoding when the consumer stops early or an example fails.
        pool.shutdown(cancel_futures=True)


def tfdata_batches(source, plan, steps: range, *, threads: int, prefetch: int):
    """As `threaded_batches`, with tf.data: Python looks up the records, TensorFlow decodes them."""
    tf = tensorflow()

    def fetch(step):
        indices, mask = plan(int(step))
        examples = [source[int(index)] for index in indices]
        images = [example["image"] for example in examples]
        # np.stack would make fixed-width strings of the bytes, which lose zeros at their end.
        images = np.array(images, object) if isinstance(images[0], bytes) else np.stack(images)
        return _collate(images, examples, indices, mask)

    names, arrays = zip(*fetch(steps.start).items(), strict=True)
    types = [tf.string if array.dtype == object else array.dtype for array in arrays]

    def fetch_in_graph(step):
        tensors = tf.numpy_function(lambda s: list(fetch(s).values()), [step], types)
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.set_shape(array.shape)
        return dict(zip(names, tensors, strict=True))

    def decode_one(encoded):
        # OpenCV uses the accurate transform, too; TensorFlow's default is another one.
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, (source.canvas, source.canvas, 3))

    def decode_all(batch):
        if batch["image"].dtype != tf.string:
            return batch
        images = tf.map_fn(decode_one, batch["image"], fn_output_signature=tf.uint8)
        return batch | {"image": images}

    dataset = tf.data.Dataset.range(steps.start, steps.stop).map(fetch_in_graph)
    dataset = dataset.map(decode_all, num_parallel_calls=threads).prefetch(prefetch)
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    iterator = dataset.with_options(options).as_numpy_iterator()
    for step in steps:
        try:
            batch: Any = next(iterator)  # a dictionary; TensorFlow's stubs say an array
        except tf.errors.OpError:
            for index in plan(step)[0]:
                load(source, index)  # raises the error that names the example
            raise
        yield batch


def field_batches(source, plan, steps: range, *, threads: int, prefetch: int):
    """As `threaded_batches`, from `source.fields` and without images, so that nothing is decoded."""
    for step in steps:
        indices, mask = plan(step)
        fields = {name: values[indices] for name, values in source.fields.items()}
        yield fields | {"index": indices.astype(np.int32), "mask": mask}


LOADERS = {"tfdata": tfdata_batches, "threads": threaded_batches, "fields": field_batches}


def tensorflow():
    """TensorFlow, on the CPU only: otherwise it would reserve all of an accelerator's memory."""
    # Silences the oneDNN banner; TensorFlow only decodes here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


def load(source, index) -> dict:
    """The example at one position, with its picture decoded.

    Raises:
      ValueError: it cannot be decoded, or the picture does not have the size of the source's canvas.
    """
    example = source[int(index)]
    if isinstance(example["image"], bytes):
        example = {**example, "image": decode(example["image"])}
    shape = getattr(example["image"], "shape", None)
    if shape != (source.canvas, source.canvas, 3):
        found = f"a picture of shape {shape}" if shape else "no readable JPEG"
        raise ValueError(
            f"{source.name}: example {index} ({example['id']}) holds {found}, not a canvas of "
            f"{source.canvas} px; prepare the data again"
        )
    return example


_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def decode(encoded: bytes, reduction: int = 1) -> np.ndarray | None:
    """Decodes a JPEG as stored, without regard to its EXIF orientation.

    Args:
      encoded: the file's bytes.
      reduction: 1, 2, 4 or 8: the factor by which the decoded picture is smaller, which saves most of the
        inverse transform.

    Returns:
      (h, w, 3) uint8 RGB, sides divided by `reduction` and rounded up; None if unreadable.
    """
    # Annotations refer to stored pixels. OpenCV 4 pads a truncated JPEG with grey instead of
    # refusing it. So check that the end marker follows the last scan (neither can occur inside a scan).
    end = encoded.rfind(b"\xff\xd9")
    if not 0 < encoded.find(b"\xff\xda") < end or encoded.find(b"\xff\xda", end) > 0:
        return None
    stored = np.frombuffer(encoded, np.uint8)
    if reduction == 1:
        return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    reduced = cv2.imdecode(stored, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if reduced is None else cv2.cvtColor(reduced, cv2.COLOR_BGR2RGB)


def _collate(images, examples, indices, mask) -> dict:
    """A batch of stacked fields."""
    batch = {"image": images}
    for name, dtype in FIELDS.items():
        batch[name] = np.stack([example[name] for example in examples]).astype(dtype)
    return batch | {"index": indices.astype(np.int32), "mask": mask}
