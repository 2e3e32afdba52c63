"""Writers for a run's numbers and pictures: classes with the methods of `clu.metric_writers.MetricWriter`.

They do not inherit from that class, because clu's package imports TensorFlow. They can be mixed with clu's
writers: in `Several` here, and in `clu.metric_writers.MultiWriter`.
"""

import importlib.util
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from hourglass_jax import extras, files


class Writer:
    """Ignores everything; a writer overrides the methods that it supports, those of clu's `MetricWriter`."""

    def write_summaries(self, step: int, values: Mapping, metadata: Mapping | None = None) -> None: ...
    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None: ...
    def write_images(self, step: int, images: Mapping[str, Any]) -> None: ...
    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None: ...
    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None: ...
    def write_texts(self, step: int, texts: Mapping[str, str]) -> None: ...
    def write_histograms(self, step: int, arrays: Mapping, num_buckets: Mapping | None = None) -> None: ...
    def write_hparams(self, hparams: Mapping[str, Any]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class JsonLines(Writer):
    """Writes a line of json for each call: {"step": 3, "loss": 0.5}."""

    def __init__(self, path: pathlib.Path):
        self._file = path.open("a")

    def write_scalars(self, step, scalars):
        self._file.write(json.dumps({"step": step} | {k: float(v) for k, v in scalars.items()}) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


class TensorBoard(Writer):
    """Writes TensorBoard's event files with its own package only, without TensorFlow.

    Raises:
      ImportError: the package is not installed.
    """

    def __init__(self, folder: str | os.PathLike):
        with extras.needed("tensorboard", "writing TensorBoard's files"):
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.image import metadata as image
            from tensorboard.plugins.scalar import metadata as scalar
            from tensorboard.plugins.text import metadata as text
            from tensorboard.summary.writer.record_writer import RecordWriter
            from tensorboard.util import tensor_util
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary  # pyright: ignore
        kinds = {"scalar": scalar, "image": image, "text": text}
        self._kinds = {name: of.create_summary_metadata for name, of in kinds.items()}
        self._tensor = tensor_util.make_tensor_proto
        # TensorBoard's EventFileWriter would open the file with TensorFlow, if that is installed.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter((pathlib.Path(folder) / name).open("xb"))
        self._file.write(self._event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def _add(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        kinds = {"display_name": None, "description": ""}
        found = [
            self._summary.Value(tag=name, metadata=self._kinds[kind](**kinds), tensor=self._tensor(value))
            for name, value in values.items()
        ]
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=found))
        self._file.write(event.SerializeToString())
        self._file.flush()

    def write_scalars(self, step, scalars):
        self._add(step, "scalar", {name: np.float32(number) for name, number in scalars.items()})

    def write_images(self, step, images):
        pictures = {}
        for name, of in images.items():
            height, width = _several(of).shape[1:3]
            encoded = [_png(picture) for picture in _several(of)]
            pictures[name] = np.array([str(width).encode(), str(height).encode(), *encoded], object)
        self._add(step, "image", pictures)

    def write_texts(self, step, texts):
        lines = {f"{name}/text_summary": np.array([text.encode()], object) for name, text in texts.items()}
        self._add(step, "text", lines)

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()


class WeightsAndBiases(Writer):
    """A run of Weights & Biases, which the next start continues. Weights & Biases' own environment variables
    (WANDB_MODE=offline, ...) say where it is stored.

    Args:
      project: of Weights & Biases.
      folder: the workdir's; it keeps the run's id and the data that are not sent yet.
      config: of the training.
    """

    def __init__(self, project: str, folder: pathlib.Path, config: Mapping[str, Any]):
        with extras.needed("wandb", "train.track=wandb"):
            import wandb
        self._wandb = wandb
        ids = Ids(folder, "wandb")
        self._run = wandb.init(
            project=project,
            dir=folder,
            name=folder.resolve().name,
            config=dict(config),
            id=ids.known or None,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        ids.keep(self._run.id)
        # Log the step as a value of its own: steps that are repeated after a kill are behind wandb's count.
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step, scalars):
        self._run.log({"step": step} | {name: float(number) for name, number in scalars.items()})

    def write_images(self, step, images):
        pictures = {
            name: [self._wandb.Image(np.asarray(picture)) for picture in _several(of)]
            for name, of in images.items()
        }
        self._run.log({"step": step} | pictures)

    def close(self):
        self._run.finish()


class MLflow(Writer):
    """A run of MLflow, which the next start continues; MLFLOW_TRACKING_URI says where it is stored.

    Args:
      experiment: of MLflow; created if it does not exist.
      folder: the workdir's; it keeps the run's id.
      config: of the training.

    Raises:
      ValueError: MLflow raises an error, for instance because there is no such server.
    """

    def __init__(self, experiment: str, folder: pathlib.Path, config: Mapping[str, Any]):
        with extras.needed("mlflow", "train.track=mlflow"):
            import mlflow
        try:
            self._client = mlflow.MlflowClient()
            ids = Ids(folder, "mlflow")
            if ids.known:
                self._run = self._client.get_run(ids.known).info.run_id
                self._client.update_run(self._run, status="RUNNING")
                return
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            run = self._client.create_run(number, run_name=folder.resolve().name)
            self._run = run.info.run_id
            ids.keep(self._run)
            for name, value in _flat(config).items():
                self._client.log_param(self._run, name, str(value)[:500])
        except mlflow.MlflowException as error:
            found = " ".join(str(error).split())[:200]
            raise ValueError(
                f"train.track=mlflow:{experiment}: {found}; MLFLOW_TRACKING_URI names a server."
            ) from None

    def write_scalars(self, step, scalars):
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow does not allow "@" and "%" in names.
        metrics = [
            Metric(name.replace("@", "_at_").replace("%", ""), float(number), now, step)
            for name, number in scalars.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def write_images(self, step, images):
        for name, of in images.items():
            for number, picture in enumerate(_several(of)):
                file = f"{name.partition(':')[0]}_{step:07d}_{number}.png"
                self._client.log_image(self._run, np.asarray(picture), f"pictures/{file}")

    def write_texts(self, step, texts):
        for name, text in texts.items():
            self._client.log_text(self._run, text, f"{name}.txt")

    def close(self):
        self._client.set_terminated(self._run)


class Ids:
    """Keeps the id that a tracker gives a run in the run's folder, so that the next start continues it."""

    def __init__(self, folder: pathlib.Path, tracker: str):
        self._path, self._tracker = folder / "trackers.json", tracker
        self._all = files.read_json(self._path) if self._path.exists() else {}
        self.known: str = self._all.get(tracker, "")

    def keep(self, number: str) -> None:
        files.write_json(self._path, self._all | {self._tracker: number})


TRACKERS = {"wandb": WeightsAndBiases, "mlflow": MLflow}


def trackers(track: str) -> list[tuple[type, str]]:
    """The classes and the projects that `train.track` names, as in "wandb:pose" or "wandb:pose,mlflow:pose".

    Raises:
      ValueError: a tracker is unknown, or a project is missing; ImportError: a tracker's package is missing.
    """
    found = []
    for item in filter(None, (part.strip() for part in track.split(","))):
        name, _, project = item.partition(":")
        if name not in TRACKERS or not project:
            known = " or ".join(f"{name}:PROJECT" for name in TRACKERS)
            raise ValueError(f"train.track={item!r}: expected {known}, or several with commas.")
        with extras.needed(name, f"train.track={item}"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found.append((TRACKERS[name], project))
    return found


class Several(Writer):
    """Passes each call to several writers: those of this file, and clu's."""

    def __init__(self, writers: Iterable[Any]):
        self._writers = list(writers)

    def write_scalars(self, step, scalars):
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step, images):
        for writer in self._writers:
            writer.write_images(step, images)

    def write_texts(self, step, texts):
        for writer in self._writers:
            writer.write_texts(step, texts)

    def flush(self):
        for writer in self._writers:
            writer.flush()

    def close(self):
        for writer in self._writers:
            writer.close()


def _several(pictures) -> Any:
    """(h, w, c) or (n, h, w, c) -> (n, h, w, c)."""
    pictures = np.asarray(pictures)
    return pictures if pictures.ndim == 4 else pictures[None]


def _png(picture: np.ndarray) -> bytes:
    """A picture (h, w, 3) or (h, w, 1) uint8 RGB."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 3}} -> {"train.steps": 3}."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
