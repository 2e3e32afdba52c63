"""Batches on the devices are the same wherever the canvases are stored."""

import os
import types

import cv2
import jax
import numpy as np
import pytest

from hourglass_jax import devices, train
from hourglass_jax.data import feed, packed, pipeline, selection
from hourglass_jax.pose import skeletons

pytestmark = pytest.mark.usefixtures("quick_compiles")


class People:
    """Random canvases, ready to be packed."""

    skeleton, canvas, margin, extras, loader = skeletons.LSP, 48, 1.5, {}, "threads"

    def __init__(self, split, length):
        self.name, self._split, self._length = f"lspet-{split}", split, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        rng = np.random.default_rng([range(self._length)[index], len(self._split)])
        canvas = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (48, 48))
        return {
            **{"image": cv2.imencode(".jpg", canvas)[1].tobytes(), "id": f"{self._split}-{index}"},
            **{
                "joints": rng.uniform(0, 200, (14, 2)).astype(np.float32),
                "visible": np.full(14, 2, np.uint8),
            },
            **{"center": np.full(2, 100, np.float32), "scale": np.float32(1), "head_size": np.float32(0)},
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    for split, length in (("train", 20), ("validation", 5)):
        packed.write(People(split, length), packed.path(folder, "lspet", "joints", split))
    return folder


@pytest.fixture
def source(folder, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK", 8)  # three parts, the last one padded
    return packed.PackedSource(packed.path(folder, "lspet", "joints", "train"))


def test_each_of_four_hosts_reads_its_share_of_a_packed_file_and_no_more(folder, source, monkeypatch):
    path, share, reads = packed.path(folder, "lspet", "joints", "train"), {"shards": 4}, []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: reads.append(size) or pread(file, size, at))
    for training in (True, False):
        steps = 3 if training else None  # of 8 examples; the 20 examples of an evaluation need 3 batches, too
        options = {"train": training, "batch_size": 8, "steps": steps, "loader": "threads"}
        whole = list(pipeline.batches(source, **options))
        parts = []
        for shard in range(4):
            ours = packed.PackedSource(path, whole=False)
            del reads[:]
            assert len(selection.Selection(ours, "visible")) == 20 and not reads  # needs no pictures
            parts.append(list(pipeline.batches(ours, shard=shard, **share, **options)))
            indices = np.concatenate([batch["index"] for batch in parts[-1]])
            assert sorted(reads) == sorted(len(source[i]["image"]) for i in indices)
            assert len(reads) == 2 * 3
        for step, batch in enumerate(whole):
            for name, values in batch.items():
                together = np.concatenate([part[step][name] for part in parts])
                np.testing.assert_array_equal(together, values, err_msg=name)


@pytest.mark.parametrize(
    "options", [{"train": True, "seed": 3, "start_step": 4, "steps": 4}, {"train": False}], ids=str
)
def test_resident_data_give_the_batches_that_would_be_sent(source, options):
    mesh = devices.mesh()
    sent, resident = feed.Sent(source, mesh), feed.Resident(source, mesh)
    names, count = ("image", *pipeline.FIELDS), 0
    both = (fed.batches(batch_size=6, **options) for fed in (sent, resident))
    for a, b in zip(*both, strict=True):
        assert a.keys() - b.keys() == {"image"}
        for name in b:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])
        ours, theirs = resident.put(b, names), sent.put(a, names)
        for name in names:
            assert ours[name].dtype == theirs[name].dtype and ours[name].sharding == theirs[name].sharding
            np.testing.assert_array_equal(ours[name], theirs[name])
        count += 1
    assert count == 4  # 24 of an endless sequence; 20 examples, padded


def test_the_memory_is_printed_and_refused_if_it_is_too_small(source, monkeypatch, capsys):
    # 24 rows of 48 x 48 x 3 bytes, 14 joints of 2 x 4 + 1, and 8 + 4 + 4 of centre, scale and head size.
    needed = 24 * (48 * 48 * 3 + 14 * 9 + 16)
    free = [needed - 1, needed]
    monkeypatch.setattr(devices, "free_memory", lambda mesh: free.pop(0))
    with pytest.raises(ValueError, match="20 canvases of 48 px take 0.2 MB .* 0.2 MB left.*source=packed"):
        feed.Resident(source, devices.mesh())
    resident = feed.Resident(source, devices.mesh())
    assert "lspet-train: 20 canvases of 48 px take 0.2 MB of each device." in capsys.readouterr().out
    assert sum(x.nbytes for x in jax.tree.leaves(resident._store)) == needed


def test_the_device_with_the_least_memory_counts():
    def mesh(*stats):
        return types.SimpleNamespace(
            local_devices=[types.SimpleNamespace(memory_stats=lambda s=s: s) for s in stats]
        )

    known = [{"bytes_limit": 100, "bytes_in_use": used} for used in (10, 30)]
    assert devices.free_memory(mesh(*known)) == 70
    assert devices.free_memory(mesh(known[0], None)) is None


@pytest.mark.usefixtures("small_model", "shared_programs")
def test_a_training_on_resident_data_is_that_on_sent_data(tiny, folder, state_of, same, tmp_path):
    changes = {"data.dataset": "lspet", "data.packed_dir": str(folder), "data.source": "packed"}
    changes |= {"train.evaluate_every": 2, "train.pictures": 1}
    config = tiny(changes)
    scores = train.train(config, tmp_path / "sent")
    # A run continues where a run on the other kind stopped.
    for kind, steps in (("device", 2), ("packed", 3), ("device", 4)):
        changed = tiny(changes | {"data.source": kind, "train.steps": steps})
        found = train.train(changed, tmp_path / "resident", allow_changed_config=True)
    assert found == scores
    same(*(state_of(config, tmp_path / name, 4) for name in ("sent", "resident")))
    names = [f"pictures/validation_{step:07d}.png" for step in (2, 4)]
    for name in names:
        assert (tmp_path / "sent" / name).read_bytes() == (tmp_path / "resident" / name).read_bytes()
