"""Detectors of people, from other packages: torchvision, transformers, ultralytics, ONNX.

A detector is a callable, image (h, w, 3) uint8 RGB -> boxes (x, y, width, height) px with scores, see
`boxes.detections`. `named` makes one from a name such as "torchvision" or "yolox_s.onnx". None of the
packages is required; each is imported when its detector is made.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from hourglass_jax import extras
from hourglass_jax.people import onnx
from hourglass_jax.people.boxes import Detections, from_corners

Detector = Callable[[np.ndarray], Any]
TORCHVISION = "fasterrcnn_mobilenet_v3_large_fpn"
TRANSFORMERS = "PekingU/rtdetr_v2_r18vd"
ULTRALYTICS = "yolo11n.pt"
NAMES = "torchvision[:MODEL], transformers[:MODEL], ultralytics[:FILE.pt], FILE.onnx[:LAYOUT]"


def named(name: str) -> Detector:
    """A detector by its name.

    Args:
      name: "torchvision[:MODEL[:FILE]]", "transformers[:MODEL]" (a name on the Hugging Face hub or a folder),
        "ultralytics[:FILE]", or "[onnx:]FILE.onnx[:LAYOUT]" with one of `onnx.LAYOUTS`. The first three
        download weights if the package has not stored them yet.

    Raises:
      ValueError: an unknown name, file or layout.
      ImportError: its package is not installed; one line with the remedy.
    """
    package, _, rest = name.partition(":")
    if package == "torchvision":
        model, _, file = rest.partition(":")
        return Torchvision(model or TORCHVISION, weights=file or "DEFAULT")
    if package == "transformers":
        return Transformers(rest or TRANSFORMERS)
    if package == "ultralytics":
        return Ultralytics(rest or ULTRALYTICS)
    path, ending, layout = (rest if package == "onnx" else name).rpartition(".onnx")
    if ending and layout[:1] in ("", ":"):
        return onnx.Onnx(path + ending, layout=layout[1:] or None)
    raise ValueError(f"detector={name!r} is unknown; choose from {NAMES}, or in Python pass any callable.")


class Torchvision:
    """A model of `torchvision.models.detection`.

    Args:
      model: its name, "fasterrcnn_resnet50_fpn_v2".
      weights: "DEFAULT" for those that torchvision downloads, a file with a state dictionary, or None for
        random ones.
      device: torch's device; None: a GPU if there is one.
      **options: options of the model, such as box_score_thresh.
    """

    def __init__(self, model: str = TORCHVISION, *, weights=None, device: str | None = None, **options):
        with extras.needed("torch", "The detector", extra="detect"):
            import torch
        with extras.needed("torchvision", "The detector"):
            from torchvision import models
        known = models.list_models(module=models.detection)
        if model not in known:
            raise ValueError(f"detector: torchvision has no model {model!r}; choose from {', '.join(known)}.")
        published = models.get_model_weights(model).DEFAULT  # pyright: ignore
        self._names = published.meta["categories"]
        fetched = weights == "DEFAULT"
        try:
            self._model = models.get_model(
                model, weights=published if fetched else None, weights_backbone=None, **options
            )
            if not fetched and weights is not None:
                state = torch.load(os.fspath(weights), map_location="cpu", weights_only=True)
                self._model.load_state_dict(state)
        except Exception as error:  # network, disk, pickle and torch each have their own exceptions
            reason = " ".join(str(error).split())[:200]
            source = f"fetching its weights from {published.url}" if fetched else f"loading {weights}"
            raise ValueError(f"detector torchvision:{model}: {source} failed ({reason}).") from error
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = self._model.eval().to(self._device)

    def __call__(self, image: np.ndarray) -> Detections:
        import torch

        pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255).to(self._device)
        with torch.inference_mode():
            (found,) = self._model([pixels])
        labels = tuple(self._names[i] for i in found["labels"].tolist())
        return Detections(from_corners(found["boxes"].cpu()), _doubles(found["scores"]), labels)


class Transformers:
    """An object detector of Hugging Face's transformers: RT-DETR, DETR, YOLOS and others.

    Args:
      model: a name on the hub, or a folder of `save_pretrained`.
      device: torch's device; None: a GPU if there is one.
      least: boxes with a lower score are dropped early; `Selection` applies the actual threshold.
    """

    def __init__(self, model: str = TRANSFORMERS, *, device: str | None = None, least: float = 0.05):
        with extras.needed("torch", "The detector", extra="transformers"):
            import torch
        with extras.needed("transformers", "The detector"):
            import transformers
        try:
            self._processor = transformers.AutoImageProcessor.from_pretrained(model)
            self._model = transformers.AutoModelForObjectDetection.from_pretrained(model)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"detector transformers:{model}: loading failed ({reason}).") from error
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._least = self._model.eval().to(self._device), least

    def __call__(self, image: np.ndarray) -> Detections:
        import torch

        inputs = self._processor(images=image, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        (found,) = self._processor.post_process_object_detection(
            outputs, threshold=self._least, target_sizes=[image.shape[:2]]
        )
        labels = tuple(self._model.config.id2label[i] for i in found["labels"].tolist())
        return Detections(from_corners(found["boxes"].cpu()), _doubles(found["scores"]), labels)


class Ultralytics:
    """A detector of the package ultralytics (YOLO), whose licence is AGPL-3.0 and not this project's.

    Args:
      model: a file of weights, the name of weights that the package downloads, or a .yaml for random weights.
      least: boxes with a lower score are dropped early; `Selection` applies the actual threshold.
      **options: options of the package's `predict`, such as device and imgsz.
    """

    def __init__(self, model: str = ULTRALYTICS, *, least: float = 0.05, **options):
        with extras.needed("ultralytics", "The detector"):
            import ultralytics
        try:
            self._model = ultralytics.YOLO(model, task="detect")  # pyright: ignore
        except Exception as error:  # network, disk and torch each have their own exceptions
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"detector ultralytics:{model}: loading failed ({reason}).") from error
        self._options: dict[str, Any] = {"conf": least, "verbose": False} | options

    def __call__(self, image: np.ndarray) -> Detections:
        # The package expects arrays in OpenCV's BGR.
        (result,) = self._model.predict(np.ascontiguousarray(image[..., ::-1]), **self._options)
        found = result.boxes
        labels = tuple(result.names[int(i)] for i in found.cls.tolist())
        return Detections(from_corners(found.xyxy.cpu()), _doubles(found.conf), labels)


def _doubles(values) -> np.ndarray:
    return np.asarray(values.cpu(), np.float64).reshape(-1)
