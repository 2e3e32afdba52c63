"""From your pictures to joints, in Python.

from hourglass_jax import Predictor

result = Predictor()("photo.jpg")
result.joints, result.scores, result.names
"""

import collections
import contextlib
import dataclasses
import difflib
import math
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator

import cv2
import jax
import numpy as np

from hourglass_jax import inference, loading, weights
from hourglass_jax.media import draw, pictures
from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton
from hourglass_jax.transforms import fold_norms, per_example

ENLARGEMENT = 1.25  # of a person's box to the crop, as the released MPII loaders do
THRESHOLD = 0.1  # of drawn joints, where the weights state none
_LEAST = 320  # px, longer side of a drawn picture: on smaller ones lines hide what they show


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What was found in one picture, or one frame of a video; p people of k joints.

    Attributes:
      joints: (p, k, 2) float64, x and y in pixels of the picture (see `data.crop`).
      scores: (p, k) float32, about 0 to 1.
      crop: (p, 3) float64: upper left corner and side (x, y, side) of what the network saw of each person.
      skeleton: the joint set.
      threshold: joints with this score or more are drawn.
      picture: image, size, path and frame, see `pictures.Picture`.
      heatmaps: for each person (h, w, k) over the crop, or (h, w, 1) for all joints together.
      attention: for each person maps (h, w, m) over the crop by name; none of a network without attention.
    """

    joints: np.ndarray
    scores: np.ndarray
    crop: np.ndarray
    skeleton: Skeleton
    threshold: float
    picture: pictures.Picture = dataclasses.field(repr=False)
    heatmaps: tuple[np.ndarray, ...] = dataclasses.field(repr=False)
    attention: tuple[dict[str, np.ndarray], ...] = dataclasses.field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """(k,): the joints' names, in the order of the arrays."""
        return self.skeleton.joints

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB; reduced where the picture is huge."""
        return self.picture.image

    @property
    def path(self) -> pathlib.Path | None:
        """Of the file; None for arrays."""
        return self.picture.path

    @property
    def frame(self) -> int | None:
        """The number in the video, from 0; None for pictures."""
        return self.picture.frame

    def draw(self, threshold: float | None = None) -> np.ndarray:
        """The image with everybody's skeleton, (h, w, 3) uint8; small images are enlarged by a whole factor.

        Args:
          threshold: least score of a drawn joint; None for the result's own.
        """
        threshold = self.threshold if threshold is None else threshold
        image, zoom = self.image, self.picture.zoom
        if (factor := -(-_LEAST // max(image.shape[:2]))) > 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            zoom = zoom * factor
        for joints, scores in zip(self.joints, self.scores, strict=True):
            places = (joints - self.picture.start) * zoom
            image = draw.skeleton(image, places, scores >= threshold, self.skeleton)
        return image


def _warn(error: pictures.Unreadable) -> None:
    warnings.warn(f"Skipped {error}", stacklevel=2)


class Predictor:
    """A trained network that finds joints in pictures.

    Args:
      path: a workdir, one of its checkpoints or a file of weights, see `loading.load`; None for the
        weights that come with the package.
      batch_size: people at a time, at most.
      flip: average with the mirrored picture.
      scales: of a pyramid, decode: of heatmaps, see `inference.Estimator`.
      threshold: of drawn joints; None for what suits these weights best by their evaluation, or else 0.1.
      device: "cpu", "gpu" or "tpu"; None for the best that there is.
    """

    def __init__(
        self,
        path=None,
        *,
        batch_size: int = 8,
        flip: bool = True,
        scales: tuple[float, ...] = (1.0,),
        decode: str = "quarter",
        threshold=None,
        device=None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        # A few pictures need no mesh: one device.
        mesh = jax.sharding.Mesh(np.array([_device(device)]), ("data",))
        path = weights.shipped() if path is None else path
        network, variables, self.metadata = loading.load(path, mesh)
        self.network, self._variables = fold_norms.fold(network, variables)
        if threshold is None:
            threshold = self.metadata.threshold
        self.threshold = THRESHOLD if threshold is None else threshold
        self._batch_size = batch_size
        self._canvas, self._margin = surroundings(self.network.size, scales)
        place = {"canvas": self._canvas, "margin": self._margin}
        options = {"flip": flip, "scales": scales, "decode": decode}
        self._one_program = per_example.suits(mesh)  # for batches of any size
        self._estimate = per_example.estimator(inference.Estimator(self.network, **place, **options), mesh)

    def __call__(
        self, source, *, boxes=None, unreadable: Callable[[pictures.Unreadable], None] = _warn
    ) -> Result | Iterator[Result]:
        """Finds joints.

        Args:
          source: one picture: a path, an array (h, w, 3) RGB, (h, w) or (h, w, 4) of uint8 or uint16, or a
            Pillow image. Or many: a folder, a glob, a video, a list or any other iterable of these.
          boxes: people (x, y, width, height) in pixels. For one picture (4,) or (p, 4); for many, one such
            for each (a video's are for all its frames; None is the whole picture), or by file name a
            dictionary, in which pictures may be missing. None takes the whole picture for one person.
          unreadable: is called with the error of each file that cannot be read, which is then skipped. A
            single picture's is raised.

        Returns:
          One picture's result. Of many an iterator, in their order: pictures are decoded on a thread, a batch
          ahead of the network, and no others are held.

        Raises:
          FileNotFoundError: there is nothing at a path.
          ValueError: boxes that are none or of no picture, or an array that is no picture.
        """
        if single := pictures.is_single(source):
            # No list: a dictionary may name others, too.
            items = (pathlib.Path(source) if pictures.is_path(source) else source,)
            boxes = boxes if boxes is None or isinstance(boxes, dict) else [boxes]
            unreadable = _raise
        else:
            items = pictures.expand(source)
        crops = self._crops(_with_boxes(items, boxes), unreadable)
        # One more than a batch, so that batches of one are decoded ahead, too.
        results = self._results(pictures.ahead(crops, depth=self._batch_size + 1))
        if not single:
            return results
        (result,) = results
        return result

    def _crops(self, items, unreadable):
        """Yields each picture with the squares of its people and the canvases cut from it."""
        for item, boxes in items:
            try:
                for picture in pictures.of(item):
                    squares = whole(picture.size)[None] if boxes is None else around(boxes)
                    crops = [cut(picture, square, self._canvas, margin=self._margin) for square in squares]
                    yield picture, squares, crops
            except pictures.Unreadable as error:
                unreadable(error)

    def _results(self, prepared) -> Iterator[Result]:
        """Batches across pictures; a result as soon as its last person is done."""
        people, answers, begun, full = [], collections.deque(), collections.deque(), False
        with contextlib.closing(prepared):  # its thread ends when nobody asks for more
            for picture, squares, crops in prepared:
                begun.append((picture, squares))
                people += zip(crops, squares, strict=True)
                while len(people) >= self._batch_size:
                    batch, people, full = people[: self._batch_size], people[self._batch_size :], True
                    answers.extend(self._run(batch, self._batch_size))
                yield from self._finished(begun, answers)
        if people:
            # After full batches the rest is padded to one: compiling another would take longer.
            bucket = self._batch_size if full else min(1 << (len(people) - 1).bit_length(), self._batch_size)
            answers.extend(self._run(people, len(people) if self._one_program else bucket))
        yield from self._finished(begun, answers)

    def _finished(self, begun, answers) -> Iterator[Result]:
        """Takes the pictures off whose people have all been answered."""
        while begun and len(answers) >= len(begun[0][1]):
            picture, squares = begun.popleft()
            found = [answers.popleft() for _ in squares]
            skeleton = self.network.skeleton
            yield Result(
                joints=np.reshape([joints for joints, *_ in found], (-1, len(skeleton), 2)),
                scores=np.reshape([scores for _, scores, *_ in found], (-1, len(skeleton))).astype(
                    np.float32
                ),
                crop=squares,
                skeleton=skeleton,
                threshold=self.threshold,
                picture=picture,
                heatmaps=tuple(seen["heatmaps"] for *_, seen in found),
                attention=tuple(seen["attention"] for *_, seen in found),
            )

    def _run(self, people, bucket: int):
        """One call of the network for at most `bucket` people: joints (k, 2) px, scores (k,) and maps."""
        crops, squares = (np.stack(values) for values in zip(*people, strict=True))
        padded = np.pad(crops, [(0, bucket - len(crops))] + [(0, 0)] * 3)
        joints, scores, seen = jax.device_get(self._estimate(self._variables, padded))
        joints, scores = joints[: len(crops)], scores[: len(crops)]
        seen = [jax.tree.map(lambda maps, i=i: maps[i], seen) for i in range(len(crops))]
        center, scale = _frame(squares)
        joints = inference.image_joints(joints[:, -1], center, scale, size=self.network.size)
        return zip(joints, scores[:, -1], seen, strict=True)


def whole(size) -> np.ndarray:
    """The crop (x, y, side) when the whole picture of (width, height) is the person's box."""
    side = max(size)
    return np.array([(size[0] - side) / 2, (size[1] - side) / 2, side])


def around(boxes) -> np.ndarray:
    """The crops (p, 3), (x, y, side), around people's boxes (p, 4), (x, y, width, height)."""
    corner, extent = np.split(np.asarray(boxes, np.float64), 2, axis=-1)
    side = ENLARGEMENT * extent.max(axis=-1, keepdims=True)
    return np.concatenate([corner + extent / 2 - side / 2, side], axis=-1)


def surroundings(size: int, scales: tuple[float, ...]) -> tuple[int, float]:
    """Side (px) and margin of canvases on which the smallest of `scales` sees no end; see `Estimator`.

    A pixel of the canvas is one of the input, and the nominal crop ends between pixels: (size, 1.0) where no
    scale is below 1, and at scale 1 nothing is resampled.
    """
    inference.check_scales(tuple(scales))
    border = math.ceil((size / min(1, *scales) - size) / 2)
    canvas = size + 2 * border
    return canvas, canvas / size


def cut(picture: pictures.Picture, square, size: int, *, margin: float = 1.0) -> np.ndarray:
    """A crop (x, y, side), `margin` times larger, as (size, size, 3) uint8; black where the picture ends."""
    center, scale = _frame(square)
    return picture.cut(crop.canvas_from_image(center, scale, canvas=size, margin=margin), size)


def _frame(square):
    """(x, y, side) -> MPII's center (x, y) and scale."""
    side = square[..., 2]
    return square[..., :2] + side[..., None] / 2, side / crop.REFERENCE


def _raise(error):
    raise error


def _device(name):
    try:
        return jax.local_devices(backend=name)[0]
    except RuntimeError:
        known = jax.default_backend()
        message = "there is none, or the installed JAX does not know it"
        raise ValueError(f"device={name!r}: {message}; without, it is {known}.") from None


def _with_boxes(items: Iterable, boxes) -> Iterable[tuple]:
    """Pairs of an item and its (p, 4) boxes or None; refuses what can be known to be wrong beforehand."""
    counted = isinstance(items, list)
    if boxes is None:
        return ((item, None) for item in items)
    if isinstance(boxes, dict):
        boxes = {str(name): _sound(name, value) for name, value in boxes.items()}
        if counted:
            _check_names(boxes, [item for item in items if pictures.is_path(item)])
        return ((item, boxes.get(str(item), boxes.get(getattr(item, "name", None)))) for item in items)
    if counted and len(boxes) != len(items):
        raise ValueError(f"boxes: {len(boxes)} for {len(items)} pictures; give one or None for each.")
    if counted:
        boxes = [_sound(number, value) for number, value in enumerate(boxes)]
    pairs = enumerate(zip(items, boxes, strict=True))
    return ((item, _sound(number, value)) for number, (item, value) in pairs)


def _sound(name, boxes) -> np.ndarray | None:
    """(p, 4) float64, or None."""
    if boxes is None:
        return None
    try:
        values = np.atleast_2d(np.asarray(boxes, np.float64))
        values = values if values.size else np.empty((0, 4))  # nobody
    except (TypeError, ValueError, OverflowError):
        values = np.full((1, 4), np.nan)
    if values.shape[1:] != (4,) or not np.isfinite(values).all() or not (values[:, 2:] > 0).all():
        raise ValueError(
            f"boxes of {name!r}: expected [[x, y, width, height], ...] in pixels, with widths and heights "
            f"above 0; found {' '.join(str(boxes).split())[:200]}"
        )
    return values


def _check_names(boxes, paths):
    known = {name for path in paths for name in (path.name, str(path))}
    for name in sorted(boxes.keys() - known):
        near = difflib.get_close_matches(pathlib.Path(name).name, {path.name for path in paths})
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_few(paths)}."
        raise ValueError(f"boxes: there is no picture {name!r}; {hint}")


def _few(paths) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:5] + ["..."] * (len(names) > 5))
