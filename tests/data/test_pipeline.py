import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from hourglass_jax.data import pipeline
from hourglass_jax.pose import skeletons

ROOT = pathlib.Path(__file__).parents[2]


def picture(seed: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8: smooth like a photograph, with different channels."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


class ListSource:
    """A source held in a list: encoded canvases, or drawn ones."""

    name, skeleton, canvas, margin = "list", skeletons.LSP, 40, 1.5

    def __init__(self, length: int, drawn: bool = False, delay=lambda index: 0.0):
        self.examples = [self._example(index, drawn) for index in range(length)]
        self.delay, self.reads = delay, 0

    def _example(self, index, drawn):
        image = picture(index, self.canvas)
        rng = np.random.default_rng(index)
        return {
            "image": image if drawn else cv2.imencode(".jpg", image)[1].tobytes(),
            "joints": rng.uniform(0, 40, (14, 2)).astype(np.float32),
            "visible": rng.integers(0, 3, 14).astype(np.uint8),
            "center": np.array([20 + index, 20], np.float32),
            "scale": np.float32(0.1 * index),
            "head_size": np.float32(index),
            "id": f"list-{index:03d}",
        }

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        self.reads += 1
        time.sleep(self.delay(index))
        return self.examples[index]


def test_order_is_the_same_on_every_machine_and_version():
    # The order of the raw 64-bit numbers of Philox with the key (seed, epoch).
    assert pipeline.order(0, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert pipeline.order(0, 1, 10).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert pipeline.order(1, 0, 10).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]


def test_fresh_processes_give_the_same_batches():
    program = ROOT / "tests" / "programs" / "batches_digest.py"
    running = []
    for threads in ("1", "3"):  # and with hashes of strings that differ, as on two machines
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": threads}
        command = [sys.executable, program, threads]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    first, second = (process.communicate(timeout=300)[0] for process in running)
    assert first == second and len(first) == 65


def test_each_epoch_holds_each_example_once_and_batches_span_epochs():
    share = dict(batch_size=4, length=10, seed=3)
    batches = [pipeline.train_indices(step, **share) for step in range(5)]
    row = np.concatenate(batches)
    np.testing.assert_array_equal(row[:10], pipeline.order(3, 0, 10))
    np.testing.assert_array_equal(row[10:], pipeline.order(3, 1, 10))
    assert sorted(row[:10]) == sorted(row[10:]) == list(range(10))
    assert row[:10].tolist() != row[10:].tolist()


def test_batch_larger_than_the_epoch():
    row = pipeline.train_indices(0, batch_size=8, length=3, seed=0)
    assert sorted(row[:3]) == sorted(row[3:6]) == [0, 1, 2]


def test_order_far_into_a_run_needs_no_replay():
    # Step 10**9 is example 16 * 10**9: epoch 800,000 of 20,000 examples, from its beginning.
    indices = pipeline.train_indices(10**9, batch_size=16, length=20_000, seed=0)
    np.testing.assert_array_equal(indices, pipeline.order(0, 800_000, 20_000)[:16])


@pytest.mark.parametrize("step", [0, 2, 7])
def test_shards_together_are_the_whole_batch(step):
    share = dict(batch_size=6, length=10)
    for cut in (pipeline.train_indices, pipeline.eval_indices):
        extra = {"seed": 5} if cut is pipeline.train_indices else {}
        whole = np.stack(np.atleast_2d(cut(step, **share, **extra)))
        parts = [np.atleast_2d(cut(step, shards=3, shard=i, **share, **extra)) for i in range(3)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_evaluation_pads_the_last_batch():
    indices, mask = pipeline.eval_indices(2, batch_size=4, length=10)
    assert indices.tolist() == [8, 9, 9, 9]  # the last example again, masked
    assert mask.tolist() == [True, True, False, False]


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_evaluation_gives_every_example_once(loader):
    source = ListSource(10)
    batches = list(pipeline.batches(source, train=False, batch_size=4, loader=loader))
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in batches])
    assert [len(batch["image"]) for batch in batches] == [4, 4, 4]
    assert seen.tolist() == list(range(10))


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
@pytest.mark.parametrize("drawn", [False, True])
def test_batch_holds_the_examples_it_names(loader, drawn):
    source = ListSource(10, drawn)
    batches = pipeline.batches(source, train=True, batch_size=4, seed=1, steps=3, loader=loader)
    for batch in batches:
        for row, index in enumerate(batch["index"]):
            example = pipeline.load(source, index)
            # TensorFlow's and OpenCV's decoders gave the same bytes in all trials (0 of
            # 2 million values differed); two levels are allowed for other builds of libjpeg.
            difference = batch["image"][row].astype(int) - example["image"]
            assert np.abs(difference).max() <= 2
            for name in pipeline.FIELDS:
                np.testing.assert_array_equal(batch[name][row], example[name])
    types = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert types == {
        "image": ((4, 40, 40, 3), "uint8"),
        "joints": ((4, 14, 2), "float32"),
        "visible": ((4, 14), "int8"),
        "center": ((4, 2), "float32"),
        "scale": ((4,), "float32"),
        "head_size": ((4,), "float32"),
        "index": ((4,), "int32"),
        "mask": ((4,), "bool"),
    }
    assert batch["mask"].all()


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_resuming_equals_skipping(loader):
    share = dict(train=True, batch_size=4, seed=2, loader=loader)
    whole = list(pipeline.batches(ListSource(10), steps=6, **share))
    resumed = list(pipeline.batches(ListSource(10), start_step=4, steps=2, **share))
    for old, new in zip(whole[4:], resumed, strict=True):
        np.testing.assert_array_equal(old["index"], new["index"])
        np.testing.assert_array_equal(old["image"], new["image"])


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_slow_examples_do_not_change_the_order(loader):
    source = ListSource(12, delay=lambda index: 0.01 * (index % 3))
    share = dict(train=True, batch_size=4, seed=2, loader=loader, threads=4)
    batches = list(pipeline.batches(source, steps=6, **share))
    expected = [pipeline.train_indices(s, batch_size=4, length=12, seed=2) for s in range(6)]
    np.testing.assert_array_equal([batch["index"] for batch in batches], expected)
    for batch in batches:
        np.testing.assert_array_equal(batch["head_size"], batch["index"])


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda jpeg: jpeg[: len(jpeg) // 2], "no readable JPEG"),
        (lambda jpeg: b"", "no readable JPEG"),
        (lambda jpeg: cv2.imencode(".jpg", picture(0, 32))[1].tobytes(), r"shape \(32, 32, 3\)"),
    ],
)
def test_damaged_example_is_named(loader, change, message):
    source = ListSource(8)
    source.examples[5]["image"] = change(source.examples[5]["image"])
    batches = pipeline.batches(source, train=False, batch_size=4, loader=loader)
    assert next(batches)["index"].tolist() == [0, 1, 2, 3]  # examples before it still arrive
    with pytest.raises(ValueError, match=f"list: example 5 .list-005. holds .*{message}"):
        next(batches)


def test_decode_keeps_stored_pixels_for_every_exif_orientation():
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16, 0] = 255  # the left half is red
    jpeg = cv2.imencode(".jpg", stored[..., ::-1])[1].tobytes()
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"  # orientation 6: a quarter turn
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3)
    decoded = pipeline.decode(turned)
    assert decoded.shape == (16, 32, 3)
    assert decoded[8, 4, 0] > 200 and decoded[8, 4, 2] < 50 and decoded[8, 28].max() < 50


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_reduced_pixel_covers_a_block_of_the_stored_ones(reduction):
    # A ramp of 2 per pixel in x and 1 in y, only in red, with sides not divisible by 8.
    y, x = np.mgrid[:61, :93]
    stored = np.zeros((61, 93, 3), np.uint8)
    stored[..., 0] = 2 * x + y
    jpeg = cv2.imencode(".jpg", stored[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    decoded = pipeline.decode(jpeg, reduction)
    assert decoded.shape == (-(-61 // reduction), -(-93 // reduction), 3)
    rows, columns = 61 // reduction, 93 // reduction
    y, x = np.mgrid[:rows, :columns] * reduction + (reduction - 1) / 2
    # Within 3 levels, 1.5 px of 93: colours are stored at half the resolution.
    np.testing.assert_allclose(decoded[:rows, :columns, 0].astype(float), 2 * x + y, atol=3)
    assert decoded[..., 1:].max() < 8  # blue and green


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xda\xff\xd9"])
def test_decode_refuses_files_other_than_jpegs(content, reduction):
    assert pipeline.decode(content, reduction) is None


@pytest.mark.parametrize("cut", [2, 10, 200])
def test_decode_refuses_truncated_pictures(cut):
    jpeg = cv2.imencode(".jpg", picture(0, 64))[1].tobytes()
    assert pipeline.decode(jpeg).shape == (64, 64, 3)
    assert pipeline.decode(jpeg + b"\0\0").shape == (64, 64, 3)  # some cameras pad their files
    assert pipeline.decode(jpeg[:-cut]) is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch_size=0), "batch_size=0"),
        (dict(batch_size=5, shards=2), "multiple of shards=2"),
        (dict(batch_size=4, shards=2, shard=2), "shard=2, shards=2"),
        (dict(batch_size=4, seed=-1), "seed=-1"),
        (dict(batch_size=4, start_step=-1), "start_step=-1"),
        (dict(batch_size=4, loader="grain"), "one of tfdata, threads, fields"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.batches(ListSource(4), train=True, **arguments)


def test_tensorflow_leaves_accelerators_alone(monkeypatch):
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: hidden.append(given))
    next(pipeline.batches(ListSource(4), train=True, batch_size=2, loader="tfdata"))
    assert hidden == [([], "GPU"), ([], "TPU")]


def test_empty_source_is_refused():
    with pytest.raises(ValueError, match="list has no examples"):
        pipeline.batches(ListSource(0), train=True, batch_size=1)


def test_threads_work_ahead_by_prefetch_only():
    source = ListSource(100)
    batches = pipeline.batches(source, train=True, batch_size=4, loader="threads", threads=3, prefetch=2)
    with contextlib.closing(batches):
        next(batches)
        for _ in range(1000):
            if source.reads >= 4 * 3:
                break
            time.sleep(0.01)
        time.sleep(0.1)
        assert source.reads == 4 * 3  # the first batch, and two more


def test_closing_stops_the_threads():
    before = threading.active_count()
    # After 40 reads each takes half a second, so that even a busy machine has not read all when it closes.
    source = ListSource(100, delay=lambda index: 0.01 if source.reads <= 40 else 0.5)
    batches = pipeline.batches(source, train=True, batch_size=32, loader="threads", threads=2, prefetch=4)
    next(batches)
    batches.close()
    reads = source.reads
    assert reads < 100  # of the 160 requested
    time.sleep(0.2)
    assert source.reads == reads and threading.active_count() <= before  # others' threads may have ended


def test_failure_stops_the_threads():
    before = threading.active_count()
    source = ListSource(64)
    source.examples[3]["image"] = b""
    with pytest.raises(ValueError, match="list-003"):
        list(pipeline.batches(source, train=False, batch_size=4, loader="threads"))
    assert threading.active_count() <= before


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_process_ends_with_batches_left_open(loader, run_python):
    # TensorFlow aborts the process if its threads outlive Python's modules; the other loader does not use it.
    result = run_python("batches_left_open.py", loader)
    assert (result.returncode, result.stdout.strip()) == (0, "left"), result.stderr
    assert "Exception ignored" not in result.stderr
