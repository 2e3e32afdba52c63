"""The writers with clu's interface: the packages whose files they write read them back."""

import inspect
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from hourglass_jax.training import log as logs
from hourglass_jax.training import writers

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
CONFIG = {"train": {"steps": 3}, "model": {"name": "newell"}}


def test_the_writers_have_clus_methods_and_can_be_mixed_with_clus(tmp_path):
    clu = pytest.importorskip("clu.metric_writers")
    for name in clu.MetricWriter.__abstractmethods__:
        ours, theirs = (
            list(inspect.signature(getattr(of, name)).parameters) for of in (writers.Writer, clu.MetricWriter)
        )
        assert ours == theirs, name
    both = clu.MultiWriter([writers.JsonLines(tmp_path / "a.jsonl"), writers.TensorBoard(tmp_path)])
    both.write_scalars(2, {"loss": np.float32(0.5)})
    both.write_hparams({"a": 1})
    both.close()
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 2, "loss": 0.5}\n'


def test_tensorboards_files_need_no_tensorflow(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util import tensor_util

    program = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
from hourglass_jax.training import writers
writer = writers.TensorBoard(sys.argv[1])
writer.write_scalars(3, {"loss": 0.25, "validation/Mean": 50})
writer.write_images(3, {"two": np.array([np.full((2, 3, 3), 7, np.uint8), np.full((2, 3, 3), 9, np.uint8)])})
writer.write_texts(3, {"parameters": "    a table"})
writer.close()
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=os.getcwd())
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    (loss,), (mean,) = events.Tensors("loss"), events.Tensors("validation/Mean")
    assert loss.step == 3 and tensor_util.make_ndarray(loss.tensor_proto) == 0.25
    assert tensor_util.make_ndarray(mean.tensor_proto) == 50
    width, height, *pictures = events.Tensors("two")[0].tensor_proto.string_val
    assert (width, height) == (b"3", b"2")
    for encoded, grey in zip(pictures, (7, 9), strict=True):
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(picture, np.full((2, 3, 3), grey))
    (text,) = events.Tensors("parameters/text_summary")
    assert text.tensor_proto.string_val[0] == b"    a table"


def test_without_tensorboard_a_line_says_so_and_the_rest_is_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with logs.Log(tmp_path, 0) as log:
        log.scalars(1, {"loss": 1.0})
        log.pictures(1, {"a": PICTURE})
        log.parameters(
            0, {"stack0_a": {"kernel": np.ones((500, 3))}, "b": np.ones(7), "stack1_a": np.ones(3)}
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "parameters.txt"]
    output = capsys.readouterr().out
    assert "TensorBoard's files are not written: writing TensorBoard's files needs" in output
    found = "Parameters: stack*_a 1,503 (2 modules), b 7; all are in parameters.txt.\n"
    assert output.endswith(found)
    table = (tmp_path / "parameters.txt").read_text()
    assert "| stack0_a/kernel | (500, 3) |" in table and "\nTotal: 1,510 " in table
    assert logs.summary({f"{'abcdef'[i]}": np.ones(i + 1) for i in range(6)}) == (
        "f 6, e 5, d 4, c 3, 3 in 2 others"
    )


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("comet:a", "train.track='comet:a': expected wandb:PROJECT or mlflow:PROJECT, or several"),
        ("mlflow", "train.track='mlflow': expected wandb:PROJECT"),
    ],
)
def test_unknown_trackers_are_refused(track, message):
    with pytest.raises(ValueError, match=message):
        writers.trackers(track)


def test_a_tracker_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    message = r"train.track=wandb:pose needs Weights & Biases, .*pip install 'hourglass_jax\[wandb\]'"
    with pytest.raises(ImportError, match=message):
        writers.trackers("wandb:pose")


@pytest.mark.filterwarnings("default")  # other packages' deprecations
def test_weights_and_biases_gets_scalars_and_pictures_of_one_run(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):  # the second start continues the run
        with logs.Log(tmp_path, step - 1, tensorboard=False, track="wandb:pose", config=CONFIG) as log:
            log.scalars(step, {"loss": 1 / step})
            log.pictures(step, {"validation": PICTURE})
    number = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    files = [path.name for path in (tmp_path / "wandb").rglob("*.wandb")]
    assert set(files) == {f"run-{number}.wandb"}
    pictures = list((tmp_path / "wandb").rglob("*.png"))
    assert len(pictures) == 2
    np.testing.assert_array_equal(cv2.imread(str(pictures[0]))[..., ::-1], PICTURE)


@pytest.mark.filterwarnings("default")
def test_mlflow_gets_scalars_and_pictures_of_one_run(monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    mlflow.set_tracking_uri(f"file://{tmp_path}/store")
    for step in (1, 2):
        with logs.Log(tmp_path, step - 1, tensorboard=False, track="mlflow:pose", config=CONFIG) as log:
            log.scalars(step, {"validation/PCKh@0.5": 10.0 * step})
            log.pictures(step, {"validation: annotated": PICTURE})
    client = mlflow.MlflowClient()
    number = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    (run,) = client.search_runs([client.get_experiment_by_name("pose").experiment_id])
    assert run.info.run_id == number and run.info.status == "FINISHED"
    assert run.data.params == {"train.steps": "3", "model.name": "newell"}
    history = client.get_metric_history(number, "validation/PCKh_at_0.5")
    assert [(point.step, point.value) for point in history] == [(1, 10.0), (2, 20.0)]
    names = [item.path for item in client.list_artifacts(number, "pictures")]
    assert names == ["pictures/validation_0000001_0.png", "pictures/validation_0000002_0.png"]
