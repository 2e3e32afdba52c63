"""Detectors as ONNX files, run by onnxruntime, with one of five layouts of their outputs."""

import ast
import os
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from hourglass_jax import copies, extras
from hourglass_jax.people.boxes import Detections, from_corners

_FREE = 640  # px, sides of an input that the file does not fix
_GREY = 114  # colour of the padding, as in the training of YOLO and YOLOX
_STRIDES = (8, 16, 32)  # px of a YOLOX cell

Outputs = dict[str, np.ndarray]  # by name, without the dimension of the batch


class Layout(NamedTuple):
    """The format of a file's input and outputs.

    Attributes:
      about: a description.
      place: place of the picture in the input: "corner" or "middle" of a grey area, at one scale, or
        "stretched".
      bgr: whether the order of colours is BGR, else RGB.
      full: the largest value of a colour in the input, 1 or 255.
      fits: (outputs, (height, width) of the input) -> whether the outputs have this layout.
      read: (outputs, (height, width) of the input) -> corners (n, 4) in px of the input, scores (n,) and
        numbers of classes (n,).
    """

    about: str
    place: str
    bgr: bool
    full: int
    fits: Callable[[Outputs, tuple[int, int]], bool]
    read: Callable[[Outputs, tuple[int, int]], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _fits_boxes(outputs, size):
    return {"boxes", "scores", "labels"} <= outputs.keys()


def _read_boxes(outputs, size):
    return outputs["boxes"], outputs["scores"], outputs["labels"]


def _fits_dets(outputs, size):
    return {"dets", "labels"} <= outputs.keys() and outputs["dets"].shape[1:] == (5,)


def _read_dets(outputs, size):
    return outputs["dets"][:, :4], outputs["dets"][:, 4], outputs["labels"]


def _fits_rows(outputs, size):
    return len(outputs) == 1 and _only(outputs).shape[1:] == (6,)


def _read_rows(outputs, size):
    rows = _only(outputs)
    return rows[:, :4], rows[:, 4], rows[:, 5]


def _fits_yolo(outputs, size):
    first = _only(outputs).shape
    return len(outputs) == 1 and len(first) == 2 and 4 < first[0] and first[1] == _cells(size)


def _read_yolo(outputs, size):
    rows = _only(outputs).T
    return _from_middles(rows[:, :4]), rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)


def _fits_yolox(outputs, size):
    first = _only(outputs).shape
    return len(outputs) == 1 and len(first) == 2 and 5 < first[1] and first[0] == _cells(size)


def _read_yolox(outputs, size):
    """Reads each cell's offset, logarithm of the size, and probabilities of an object and of the classes."""
    rows, cells = _only(outputs), []
    for stride in _STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], axis=1))
    cells = np.concatenate(cells)
    stride = cells[:, 2:]
    middles = np.concatenate([(rows[:, :2] + cells[:, :2]) * stride, np.exp(rows[:, 2:4]) * stride], axis=1)
    scores = rows[:, 4:5] * rows[:, 5:]
    return _from_middles(middles), scores.max(axis=1), scores.argmax(axis=1)


LAYOUTS = {
    "boxes": Layout(
        "outputs boxes (n, 4) x1 y1 x2 y2, scores (n,) and labels (n,), as in the exports of RT-DETR and "
        "D-FINE, with the picture's size as a second input, orig_target_sizes",
        *("stretched", False, 1, _fits_boxes, _read_boxes),
    ),
    "yolox": Layout(
        "one output (cells, 5 + classes), not decoded, as in YOLOX's own export",
        *("corner", True, 255, _fits_yolox, _read_yolox),
    ),
    "dets": Layout(
        "outputs dets (n, 5) x1 y1 x2 y2 score and labels (n,): YOLOX by MMDeploy",
        *("corner", True, 255, _fits_dets, _read_dets),
    ),
    "yolo": Layout(
        "one output (4 + classes, cells) of centres and sizes, as ultralytics exports it",
        *("middle", False, 1, _fits_yolo, _read_yolo),
    ),
    "rows": Layout(
        "one output (n, 6) x1 y1 x2 y2 score class: ultralytics with NMS or end to end",
        *("middle", False, 1, _fits_rows, _read_rows),
    ),
}


class Onnx:
    """A detector in an ONNX file; its input is one picture, (1, 3, height, width) or (3, height, width).

    Args:
      path: path of the file.
      layout: a key of `LAYOUTS`; None: the layout that fits its outputs.
      names: names of the classes by number. The default is the names that ultralytics writes into the file,
        or, without these, "person" for class 0, as in COCO's 80 classes.

    Raises:
      ValueError: onnxruntime cannot load the file, or its outputs have another layout.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        layout: str | None = None,
        names: dict[int, str] | None = None,
    ):
        if layout not in (None, *LAYOUTS):
            raise ValueError(f"layout={layout!r} is unknown; choose from {', '.join(LAYOUTS)}.")
        with extras.needed("onnxruntime", f"{path}: running it", extra="onnx"):
            import onnxruntime
        path = copies.fetched(path)
        if not os.path.isfile(path):
            raise ValueError(f"{path}: there is no such file.")
        try:
            providers = onnxruntime.get_available_providers()
            self._session = onnxruntime.InferenceSession(os.fspath(path), providers=providers)
        except Exception as error:  # onnxruntime raises many different exceptions
            raise ValueError(f"{path}: onnxruntime cannot load it ({_line(error)}).") from error
        inputs = {one.name: one for one in self._session.get_inputs()}
        self._sizes = next((name for name in inputs if name == "orig_target_sizes"), None)
        images = [one for name, one in inputs.items() if name != self._sizes]
        shape = images[0].shape if len(images) == 1 else []
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
        # A side that the file does not fix is None or a name.
        sound = len(shape) in (3, 4) and (shape[-3] == 3 or not isinstance(shape[-3], int))
        if not sound or images[0].type not in types:
            found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs.values())
            raise ValueError(f"{path}: its input is not a picture (1, 3, height, width) but {found}.")
        self._input, self._type, self._batched = images[0].name, types[images[0].type], len(shape) == 4
        height, width = (side if isinstance(side, int) and side > 0 else _FREE for side in shape[-2:])
        self._size = height, width
        outputs = self._run(np.zeros((3, height, width), np.float32))
        fitting = [name for name, one in LAYOUTS.items() if one.fits(outputs, self._size)]
        if (layout is None and not fitting) or (layout is not None and layout not in fitting):
            found = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
            known = "; ".join(f"{name}: {LAYOUTS[name].about}" for name in ([layout] if layout else LAYOUTS))
            raise ValueError(f"{path}: its outputs, {found}, do not have the layout {known}.")
        self.layout = layout or fitting[0]
        self._names = names if names is not None else self._stored_names()

    def __call__(self, image: np.ndarray) -> Detections:
        layout = LAYOUTS[self.layout]
        pixels, zoom, start = placed(image, self._size, layout)
        corners, scores, classes = layout.read(self._run(pixels), self._size)
        corners = (np.asarray(corners, np.float64).reshape(-1, 4) - np.tile(start, 2)) / np.tile(zoom, 2)
        labels = tuple(self._names.get(int(i), int(i)) for i in np.ravel(classes))
        return Detections(from_corners(corners), np.ravel(np.asarray(scores, np.float64)), labels)

    def _run(self, pixels: np.ndarray) -> Outputs:
        inputs = {self._input: (pixels[None] if self._batched else pixels).astype(self._type)}
        if self._sizes is not None:
            # Results are in px of the input, as in all other layouts.
            inputs[self._sizes] = np.array([self._size[::-1]], np.int64)
        names = [one.name for one in self._session.get_outputs()]
        values = self._session.run(names, inputs)
        return {
            name: value[0] if self._batched and len(value) == 1 else value
            for name, value in zip(names, map(np.asarray, values), strict=True)
        }

    def _stored_names(self) -> dict[int, str]:
        stored = self._session.get_modelmeta().custom_metadata_map.get("names")
        try:
            return {int(i): str(name) for i, name in ast.literal_eval(stored or "").items()}
        except (ValueError, SyntaxError, AttributeError):
            return {0: "person"}


def placed(
    image: np.ndarray, size: tuple[int, int], layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture as a network's input.

    Args:
      image: (h, w, 3) uint8 RGB.
      size: (height, width) of the input.

    Returns:
      (3, height, width) float32; px of the input per px of the picture, (2,) x and y; and the picture's first
      pixel in the input, (2,) x and y.
    """
    (height, width), (h, w) = size, image.shape[:2]
    zoom = np.array([width / w, height / h])
    if layout.place != "stretched":
        zoom = np.full(2, zoom.min())
    inner = np.maximum(1, np.round(zoom * (w, h)).astype(int))
    spare = np.array([width, height]) - inner
    start = spare // 2 if layout.place == "middle" else np.zeros(2, int)
    canvas = np.full((height, width, 3), _GREY, np.uint8)
    x, y = start
    canvas[y : y + inner[1], x : x + inner[0]] = cv2.resize(image, (int(inner[0]), int(inner[1])))
    canvas = canvas[..., ::-1] if layout.bgr else canvas
    pixels = canvas.transpose(2, 0, 1).astype(np.float32) * np.float32(layout.full / 255)
    return pixels, inner / (w, h), start.astype(float)


def _only(outputs: Outputs) -> np.ndarray:
    return next(iter(outputs.values()))


def _cells(size) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in _STRIDES)


def _from_middles(middles: np.ndarray) -> np.ndarray:
    """Corners (n, 4) from centres and sizes (n, 4)."""
    half = middles[:, 2:] / 2
    return np.concatenate([middles[:, :2] - half, middles[:, :2] + half], axis=1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
