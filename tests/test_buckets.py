"""Paths in buckets, on an emulator: tests/store.py."""

import ast
import json
import os
import pathlib
import time

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore
from orbax.checkpoint._src.serialization import tensorstore_utils

from hourglass_jax import (
    archive,
    buckets,
    checkpoint,
    copies,
    devices,
    evaluate,
    files,
    loading,
    predict,
    train,
)
from hourglass_jax.media import pictures
from hourglass_jax.network import Metadata, network_of
from hourglass_jax.people import detectors
from hourglass_jax.pose import skeletons
from hourglass_jax.training import log as logs
from hourglass_jax.training import processes, step
from hourglass_jax.training.step import State

pytestmark = pytest.mark.usefixtures("small_model", "shared_programs")


def names(folder):
    return sorted(buckets.listing(folder))


@pytest.mark.parametrize(
    "name, found",
    [
        (
            "gx://bucket/run",
            "^gx://bucket/run: gx:// is not supported; a path is local, or begins with gs:// and s3://",
        ),
        ("gs:/bucket/run", "^gs:/bucket/run: two slashes are missing"),
        ("gs:bucket", "^gs:bucket: two slashes are missing"),
        ("s3://", "^s3://: names no bucket; expected s3://BUCKET/FOLDER"),
    ],
)
def test_a_url_of_another_kind_is_refused_and_makes_no_folder(name, found, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    for use in (files.path, files.read_json, copies.fetched, loading.load):
        with pytest.raises(ValueError, match=found):
            use(name)
    for use in (lambda: files.write(name, b""), lambda: train.train(tiny(), name)):
        with pytest.raises(ValueError, match=found):
            use()
    assert set(os.listdir(tmp_path)) <= {"cache"}


def test_local_paths_are_pathlibs_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:").mkdir()  # a user's own folder
    for name in ("a", "a b/c:d", "x:/y", "gs:/y", b"x".decode(), tmp_path):
        assert files.path(name) == pathlib.Path(name) and not files.in_bucket(name)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"gs://b/x: reading and writing gs:// needs gcsfs"):
        files.read_json("gs://b/x")


def test_a_training_in_a_bucket_equals_that_in_a_folder(
    gcs, tiny, metrics_of, state_of, same, tmp_path, monkeypatch
):
    store, run = gcs
    monkeypatch.chdir(tmp_path)
    config = tiny({"train.tensorboard": True, "train.steps": 2})
    train.train(config, run)
    config.train.steps = 4
    train.train(config, run)  # goes on
    local = tmp_path / "local"
    scores = train.train(config, local)
    same(state_of(config, run, 4), state_of(config, local, 4))
    lines = [json.loads(line) for line in files.opened(f"{run}/metrics.jsonl").read().splitlines()]
    for line in (lines, wanted := metrics_of(local)):
        for entry in line:
            for name in logs.CLOCKED:
                entry.pop(name, None)
    assert [line for line in lines if "loss" in line] == [line for line in wanted if "loss" in line]
    evaluate.evaluate(config, run, run)
    assert files.read_json(f"{run}/evaluation.json")["table"]["Mean"] == pytest.approx(
        scores["table"]["Mean"]
    )
    found = {name.partition("/")[0] for name in names(run)}
    assert found >= {"checkpoints", "config.json", "metrics.jsonl", "pictures", "predictions.json"}
    assert any(name.startswith("events.out.tfevents") for name in found) and ".lock" not in found
    assert "pictures/validation_0000004.png" in names(run)
    assert loading.load(run)[2].step == 4
    assert set(os.listdir(tmp_path)) <= {"cache", "local"}  # no folder called gs:


def test_files_are_written_whole_and_read_back(gcs):
    _, folder = gcs
    files.write_json(f"{folder}/a/b.json", {"x": 1})
    with pytest.raises(KeyError), files.replacing(f"{folder}/a/b.json") as file:
        file.write(b"half")
        raise KeyError
    assert files.read_json(f"{folder}/a/b.json") == {"x": 1} and names(folder) == ["a/b.json"]
    assert files.size(f"{folder}/a/b.json") == len(b'{\n "x": 1\n}')
    for absent in (f"{folder}/c.json", f"{folder}/a", "gs://nobucket/c.json"):
        with pytest.raises(FileNotFoundError, match=f"^{absent}: "):
            files.read_json(absent)
    with pytest.raises(FileNotFoundError, match="^gs://nobucket/x: there is no such bucket or object.$"):
        files.check_writable("gs://nobucket/x")


def test_fetched_files_are_kept_until_they_change(gcs, monkeypatch):
    store, folder = gcs
    monkeypatch.setattr(buckets, "BLOCK", 1000)
    content = np.random.default_rng(0).bytes(2500)

    def reads():
        return sum("alt=media" in path for _, path in store.requests)

    for name in ("one.bin", "in/two.bin", "empty"):
        files.write(f"{folder}/data/{name}", b"" if name == "empty" else content)
    local = copies.fetched(f"{folder}/data/one.bin")
    assert local.name == "one.bin" and local.read_bytes() == content and reads() == 3  # blocks
    assert copies.fetched(f"{folder}/data/one.bin") == local and reads() == 3
    local.write_bytes(content[:-1] + b"x")  # damaged on the disk
    assert copies.fetched(f"{folder}/data/one.bin").read_bytes() == content and reads() == 6
    files.write(f"{folder}/data/one.bin", content[::-1])
    assert copies.fetched(f"{folder}/data/one.bin").read_bytes() == content[::-1] and reads() == 9
    whole = copies.fetched(f"{folder}/data")
    assert {p.relative_to(whole).as_posix(): p.stat().st_size for p in whole.rglob("*") if p.is_file()} == {
        "one.bin": 2500, "in/two.bin": 2500, "empty": 0,
    }  # fmt: skip
    buckets.filesystem(folder).rm_file(f"{folder}/data/in/two.bin")
    assert not (copies.fetched(f"{folder}/data") / "in" / "two.bin").exists()
    assert copies.fetched(str(local)) == local  # a local path is itself


def test_a_lease_keeps_others_out_and_ends_with_its_process(gcs, monkeypatch):
    _, folder = gcs
    monkeypatch.setattr(buckets, "RENEWED", 0.2)
    monkeypatch.setattr(buckets, "EXPIRED", 1.0)
    lost, waited = [], []

    def lease():
        return buckets.Lease(f"{folder}/.lock", lambda: lost.append(1), waited.append)

    with lease():
        with pytest.raises(
            ValueError, match=f"^{folder}: another training is running in this workdir .*process"
        ):
            lease().__enter__()
        assert str(os.getpid()) in waited[0]
        found = files.read_json(f"{folder}/.lock")
    assert buckets.filesystem(folder).find(folder) == [] and not lost

    # A process that died on this machine, and one that died elsewhere.
    dead = found["process"][:3] + ["1"]
    elsewhere = ["another boot", *found["process"][1:]]
    for process, waits in ((dead, 1), (elsewhere, 2)):
        files.write_json(f"{folder}/.lock", found | {"process": process})
        with lease():
            assert len(waited) == waits and files.read_json(f"{folder}/.lock")["token"] != found["token"]

    with lease():
        files.write_json(f"{folder}/.lock", found)  # another takes it
        until = time.monotonic() + 20
        while not lost and time.monotonic() < until:
            time.sleep(0.02)
    assert lost and files.read_json(f"{folder}/.lock") == found  # and keeps it


# Calls that work only on a local path.
PACKAGE = pathlib.Path(files.__file__).parent
LOCAL = {"open", "Path", "pathlib.Path", "np.load", "cv2.imread", "cv2.imwrite", "Image.open"}
LOCAL |= {"glob.glob", "glob.iglob"}
LOCAL |= {f"os.path.{name}" for name in ("exists", "isfile", "isdir", "lexists", "getsize", "abspath")}
LOCAL |= {f"os.{name}" for name in ("open", "listdir", "scandir", "stat", "access", "makedirs", "mkdir")}
LOCAL |= {f"os.{name}" for name in ("remove", "unlink", "rename", "replace", "walk")}
COPIED = "copied by its callers, with copies.fetched"
MAY = {  # modules and functions that may call them -> the reason
    "files": "opens paths for all others",
    "buckets": "looks at /proc",
    "copies": "keeps local copies",
    "benchmarks": "refuses paths in buckets",
    "demo": "has a temporary folder",
    "data.datasets": COPIED,
    "archive": "refuses an output in a bucket; its input is copied",
    "checkpoint._linked": "a temporary folder",
    "config_base.find": "a program, which is local",
    "console.run": "/dev/null",
    "data.packed.Ranges": COPIED,
    "data.packed.PackedSource": COPIED,
    "data.people_builder": "refuses a data_dir in a bucket; its manual_dir is copied",
    "data.preparation.prepare": "refuses a data_dir in a bucket; its manual_dir is copied",
    "devices.keep_programs": "the cache of programs",
    "dry_run._check_folder": "only for a local folder",
    "export.savedmodel": "refused in a bucket",
    "kept.prune": "the cache of programs",
    "media.live.Camera": "the name of a camera",
    "media.pictures": COPIED,
    "people.onnx.Onnx": COPIED,
    "predict._cameras": "cameras, not files",
    "predict._check_folder": "only for a local folder",
    "predict._titles": COPIED,
    "training.writers.TensorBoard": "the local folder of copies.Spool",
    "weights._is_archive": COPIED,
    "weights._read_archive": COPIED,
    "weights.hub": "the cache of the Hub",
    "weights.published": "the cache of weights",
    "weights.pytorch._read": COPIED,
}


def local_calls(node, name):
    """(name of the function, call) of calls in LOCAL, except of constants and of the package's own files."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func) in LOCAL and child.args:
            if not isinstance(child.args[0], ast.Constant) and "__file__" not in ast.unparse(child.args[0]):
                yield name, ast.unparse(child)
        if isinstance(child, ast.keyword) and child.arg == "type" and ast.unparse(child.value) in LOCAL:
            yield name, f"type={ast.unparse(child.value)}"  # of an option
        scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from local_calls(child, f"{name}.{child.name}" if scope else name)


def test_users_paths_are_opened_through_files():
    used = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if module.startswith("configs"):
            continue  # a wheel has them here
        for function, call in local_calls(ast.parse(path.read_text()), module):
            parents = {function.rsplit(".", n)[0] for n in range(function.count(".") + 1)}
            assert parents & MAY.keys(), f"{function}: {call}; see hourglass_jax/files.py, or add it to MAY"
            used |= parents & MAY.keys()
    assert used == MAY.keys()  # none is out of date


def test_weights_predictions_and_reports_go_to_buckets(gcs, spots, tmp_path, monkeypatch):
    _, folder = gcs
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.full((64, 64, 3), 90, np.uint8))
    files.write(f"{folder}/photos/a.png", (tmp_path / "a.png").read_bytes())
    assert predict.predict([f"{folder}/photos"], f"{folder}/out", table=True) == 0
    assert names(f"{folder}/out") == ["a.png", "predictions.csv", "predictions.json"]
    assert len(files.read_json(f"{folder}/out/predictions.json")) == 1
    (found,) = pictures.of(f"{folder}/photos/a.png")  # an item of a user's iterator
    assert found.size == (64, 64)
    with pytest.raises(pictures.Unreadable, match=f"^{folder}/b.png: there is no such bucket or object[.]"):
        next(pictures.of(f"{folder}/b.png"))
    with pytest.raises(ValueError, match="a bucket cannot append lines"):
        archive.predict([f"{folder}/photos"], f"{folder}/out")
    assert set(os.listdir(tmp_path)) <= {"a.png", "cache"}


def test_a_detector_in_a_bucket_is_copied(gcs):
    _, folder = gcs
    files.write(f"{folder}/yolo.onnx", b"no model")
    with pytest.raises(ValueError, match="yolo.onnx: onnxruntime cannot load it"):
        detectors.named(f"{folder}/yolo.onnx")


def test_no_permission_is_an_immediate_line_and_nothing_is_written(gcs, tiny):
    store, folder = gcs
    store.fault = lambda method, path: 403 if "upload" in path else None
    with pytest.raises(OSError, match=f"^{folder}: no permission .*made by the test.*[.]$"):
        train.train(tiny(), folder)
    store.fault = lambda method, path: 401 if "upload" in path else None
    with pytest.raises(
        OSError, match=f"^{folder}: the credentials are missing or have expired .*gcloud auth"
    ):
        train.train(tiny(), folder)
    store.fault = lambda method, path: None
    assert buckets.filesystem(folder).find(folder) == []


def test_a_pattern_in_the_place_of_a_workdir_is_refused(gcs, tiny):
    """Orbax would find none of its own files, and end with checkpoints that are empty."""
    store, folder = gcs
    with pytest.raises(ValueError, match=r"run\[1\]: checkpoints in a bucket need a path without \[[.]$"):
        train.train(tiny(), "gs://bucket/run[1]")
    assert not store.requests


def test_checkpoints_on_s3_are_refused(tiny, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^s3://bucket/run: checkpoints can be in gs:// or a local folder"):
        train.train(tiny(), "s3://bucket/run")
    assert set(os.listdir(tmp_path)) <= {"cache"}


@pytest.fixture
def impatient(monkeypatch):
    """No pauses between attempts."""
    from gcsfs import retry

    monkeypatch.setattr(retry, "min", lambda *values: 0.0, raising=False)
    monkeypatch.setattr(buckets, "_PAUSE", 0.0)


@pytest.mark.parametrize("fault", [503, "drop", "silent"])
def test_temporary_faults_are_tried_again(gcs, fault, impatient, capsys, monkeypatch):
    from fsspec import config

    store, folder = gcs
    if fault == "silent":
        monkeypatch.setitem(config.conf["gs"], "requests_timeout", 1.0)
    left = [1] * (1 if fault == "silent" else 13)  # gcsfs tries six times

    def fails(method, path):
        if not left:
            return None
        left.pop()
        return time.sleep(2) if fault == "silent" else fault

    for use in (lambda: files.write(f"{folder}/a", b"content"), lambda: files.opened(f"{folder}/a").read()):
        store.fault = lambda method, path: fails(method, path) if "upload" in path or "alt=" in path else None
        use()
        assert not left and "trying again.\n" in capsys.readouterr().err
        left[:] = [1] * (1 if fault == "silent" else 13)
    store.fault = lambda method, path: None
    assert files.opened(f"{folder}/a").read() == b"content"


def test_an_outage_that_lasts_ends_in_one_line_and_keeps_what_was_there(gcs, impatient, monkeypatch, capsys):
    store, folder = gcs
    files.write(f"{folder}/a", b"content")
    monkeypatch.setattr(buckets, "OUTAGE", 0.0)
    store.fault = lambda method, path: 503 if "upload" in path else None
    with pytest.raises(OSError, match=f"^{folder}/a: the bucket does not respond as it should .*[.]$"):
        files.write(f"{folder}/a", b"other")
    monkeypatch.setattr(buckets, "NOTICED", 0.1)
    store.fault = lambda method, path: time.sleep(0.3)  # a slow link
    assert files.opened(f"{folder}/a").read() == b"content"
    assert f"{folder}/a: waiting for the bucket, 0 s so far.\n" in capsys.readouterr().err


# Requests of gcsfs, by which Orbax makes and ends a checkpoint, and of TensorStore, which writes its arrays.
GCSFS, TENSORSTORE = "uploadType=resumable", "uploadType=media"


def tensorstore_tries(monkeypatch, times):
    """Lets TensorStore repeat a request so many times, without pauses."""
    context = tensorstore_utils.get_ts_context().spec.to_json()
    context |= {"gcs_request_retries": {"max_retries": times, "initial_delay": "1ms", "max_delay": "1ms"}}
    monkeypatch.setattr(tensorstore_utils, "get_ts_context", lambda **options: tensorstore.Context(context))


@pytest.mark.parametrize(
    "fault, where, found",
    [
        (503, GCSFS, "the bucket does not respond"),
        (403, TENSORSTORE, "no permission"),
        (401, TENSORSTORE, "the credentials are"),
        (503, TENSORSTORE, "the bucket does not respond"),
    ],
)
def test_a_store_that_fails_in_a_save_keeps_the_checkpoint_before(
    gcs, fault, where, found, impatient, monkeypatch
):
    store, folder = gcs
    monkeypatch.setattr(buckets, "OUTAGE", 0.0)
    tensorstore_tries(monkeypatch, 1)  # by default it repeats a request for a quarter of an hour

    def state(step):
        return State(np.int32(step), {"a": jnp.full(3, float(step))}, {}, {"m": jnp.ones(2)}, None)

    failed = f"^{folder}/checkpoints: a checkpoint could not be saved [(]{found}"
    with pytest.raises(OSError, match=failed) as caught, checkpoint.Checkpoints(folder) as saved:
        saved.save(state(1), {}, None)
        saved.wait()
        store.fault = lambda method, path: fault if where in path else None
        saved.save(state(2), {}, None)
        saved.wait()
    assert not processes.lost_contact(caught.value)
    store.fault = lambda method, path: None
    with checkpoint.Checkpoints(folder) as saved:
        like = {"params": {"a": jnp.ones(3)}, "batch_stats": {}}
        assert saved.steps == [1] and saved.variables(1, "model", like)["params"]["a"].tolist() == [1, 1, 1]
        if where == TENSORSTORE:
            store.fault = lambda method, path: fault if "alt=media" in path and "model" in path else None
            with pytest.raises(OSError, match=f"^{folder}/checkpoints/1: cannot be read; {found}"):
                saved.variables(1, "model", like)


@pytest.fixture
def saved(gcs, tiny):
    """A checkpoint of step 7 of a small network in the bucket, and its state."""
    _, folder = gcs
    metadata = Metadata(tiny().to_dict(), skeletons.MPII.to_dict())
    network, rng = network_of(metadata), np.random.default_rng(0)
    like = jax.eval_shape(
        lambda: step.init(network.model, optax.adam(1e-3), seed=0, size=network.size, average=True)
    )
    state = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), like)
    state = state.replace(step=jnp.int32(7))
    with checkpoint.Checkpoints(folder) as checkpoints:
        checkpoints.save(state, metadata, None)
    return state


def is_tensorstores(method, path):
    return method == "GET" and "tensorstore=" in path


def is_gcsfs(method, path):
    return method == "GET" and "tensorstore=" not in path


def test_a_restore_is_tried_again(gcs, saved, same, impatient, monkeypatch, capsys):
    store, folder = gcs
    tensorstore_tries(monkeypatch, 32)  # as by default
    everywhere = devices.replicated(devices.mesh())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), saved)
    left = []
    # gcsfs tries six times, with two requests if the connection is cut; then we do.
    for fault, where, times in (
        (503, is_gcsfs, 13),
        ("drop", is_gcsfs, 26),
        (503, is_tensorstores, 1),
        ("drop", is_tensorstores, 1),
    ):
        store.fault = lambda method, path: left.pop() if left and where(method, path) else None  # noqa: B023
        with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
            left += [fault] * times
            same(jax.device_get(checkpoints.restore(7, like)), jax.device_get(saved))
        assert not left and ("trying again.\n" in capsys.readouterr().err) == (where is is_gcsfs)
        if where is is_gcsfs:
            left += [fault] * times
            assert loading.load(folder)[2].step == 7 and not left
            capsys.readouterr()


def test_an_outage_in_a_restore_is_one_line_and_no_new_start(gcs, saved, tiny, impatient, monkeypatch):
    store, folder = gcs
    monkeypatch.setattr(buckets, "OUTAGE", 0.0)

    def read():
        with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
            checkpoints.metadata(7)

    for fault, where, found in (
        # After these two fsspec says that there is no such folder.
        (502, "/o?", ": the bucket does not respond as it should [(]ProxyError[)][.]"),
        (403, "/o?", ": no permission [(]Forbidden.*made by the test[)][.]"),
        (503, "/o?", ": the bucket does not respond as it should [(]made by the test, 503[)][.]"),
        ("drop", "/o?", ": the bucket does not respond as it should [(]Server disconnected[)][.]"),
        (503, "metadata?alt=media", "/7: cannot be read; the bucket does not respond as it should"),
    ):
        store.fault = lambda method, path: fault if method == "GET" and where in path else None  # noqa: B023
        uses = (read, lambda: train.train(tiny(), folder), lambda: loading.load(folder))
        for use in uses[: 1 if where != "/o?" else 3]:
            with pytest.raises(OSError, match=f"^{folder}(/checkpoints)?{found}"):
                use()
    store.fault = lambda method, path: None
    assert {name.split("/")[1] for name in names(folder) if "/" in name} == {"7"}
