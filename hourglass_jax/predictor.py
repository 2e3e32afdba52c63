"""Finds joints in your own pictures, from Python.

from hourglass_jax import Predictor

result = Predictor()("photo.jpg")
result.joints, result.scores, result.names
"""

import collections
import contextlib
import dataclasses
import difflib
import itertools
import math
import pathlib
import unicodedata
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from hourglass_jax import copies, devices, files, inference, loading, weights
from hourglass_jax.media import live as live_sources
from hourglass_jax.media import pictures
from hourglass_jax.media.live import Camera
from hourglass_jax.network import about
from hourglass_jax.people import detectors
from hourglass_jax.people.boxes import Selection, detections
from hourglass_jax.people.smoothing import OneEuro
from hourglass_jax.people.tracking import Tracker
from hourglass_jax.pose import crop
from hourglass_jax.pose.skeletons import Skeleton
from hourglass_jax.result import Result
from hourglass_jax.transforms import fold_norms, per_example

ENLARGEMENT = 1.25  # side of the crop / side of a person's box, as in the released MPII loaders
THRESHOLD = 0.1  # least score of drawn joints, if the weights state none
_FARTHEST = 1e7  # px, limit of a box's coordinates and sides
MOST_PEOPLE = 4096  # largest batch size; as many pictures are decoded ahead
LEAST_JOINTS = 4  # joints that the first look has to find for a second look
_LIKELY = 0.15  # least score of such a joint
_INNER = (0.02, 0.98)  # percentiles, weighted by the scores, between which the joints' extent lies
_AROUND = 1.35  # side of the second crop / that extent, as for crops around labelled joints in training
_WIDE = 1.7  # width / height of a picture that hardly shows a single person: 16:9 videos


class _Places(NamedTuple):
    """The places of the p people in a picture.

    Attributes:
      boxes: (p, 4) px; squares: (p, 3), the crops.
      scores: (p,) of a detector, else None.
      whole: the whole picture is treated as one person.
    """

    boxes: np.ndarray
    squares: np.ndarray
    scores: np.ndarray | None = None
    whole: bool = False


class _Videos:
    """Tracks people through the videos in one stream of pictures.

    Args:
      follow, smooth, every: see `Predictor`.
      stream: pictures without a file are frames of one video if people are tracked.
    """

    def __init__(self, follow: bool | None, smooth: OneEuro | None, every: int, *, stream: bool):
        self.lead = every > 1  # the joints give the boxes of the next frame's people
        self._follow = True if follow is None else follow
        self._stream = stream and bool(follow or smooth or self.lead)
        self._smooth, self._every = smooth, every
        self._video, self._tracker, self._frames = None, Tracker(), 0

    def places(self, picture: pictures.Picture) -> _Places | None:
        """The places of the last frame's people in this frame; None if the detector has to find people."""
        video = self._video_of(picture)
        if not self.lead or video is None:
            return None
        self._begin(video, picture)
        self._frames += 1
        if self._frames % self._every == 1:
            return None
        boxes = self._tracker.boxes()
        return _Places(boxes, around(boxes))

    def followed(self, result: Result) -> Result:
        """The result with ids, and with smoothed joints if `smooth` is given."""
        video = self._video_of(result.picture)
        if video is None:
            return result
        if not self.lead:
            self._begin(video, result.picture)
        trusted = result.scores >= result.threshold
        ids, joints = self._tracker(result.boxes, result.joints, trusted, result.time, result.scores)
        return dataclasses.replace(result, ids=ids, joints=joints)

    def _video_of(self, picture: pictures.Picture) -> pathlib.Path | str | None:
        if not self._follow:
            return None
        if picture.frame is not None:
            return picture.path
        return "" if self._stream else None

    def _begin(self, video, picture: pictures.Picture) -> None:
        if video != self._video or picture.frame == 0:
            self._video, self._frames = video, 0
            rate = self._smooth.rate if self._smooth else OneEuro.rate
            self._tracker = Tracker(smooth=self._smooth, rate=rate)


def _warn(error: pictures.Unreadable) -> None:
    warnings.warn(f"Skipped {error}", stacklevel=2)


def _remark(line: str) -> None:
    warnings.warn(line, stacklevel=2)


class Predictor:
    """A trained network that finds joints in pictures.

    Args:
      path: a workdir, one of its checkpoints or a file of weights, see `loading.load`; None for the
        weights that come with the package.
      batch_size: the most people in a batch.
      flip: average with the flipped picture.
      scales, decode: see `inference.Estimator`.
      threshold: least score of drawn joints; None for the best one by the weights' evaluation, or else 0.1.
      device: "cpu", "gpu" or "tpu"; None for the best available.
      second_look: run the network again on a crop around the joints that were found, see `second_square`;
        this takes twice the time. None does so if the whole picture is treated as one person, True for every
        person, False never.
      detector: finds people in pictures without boxes: a callable, image (h, w, 3) uint8 RGB -> boxes with
        scores (see `people.boxes.detections`), or a name, see `people.detectors.named`. It is called on the
        thread that reads pictures.
      selection: which of the detector's boxes are people.
      detect_every: the detector runs on every such frame of a video; in between, the joints of a frame give
        the boxes of the next frame, so that frames go through the network one by one.
      follow: track people through videos, cameras and live iterators, so that each keeps an id
        (`people.tracking.Tracker`). None tracks them in videos and cameras, and if `smooth` is given.
      smooth: smooth the joints of videos, cameras and live iterators, see `people.smoothing`: True, or the
        parameters.
      spread: spread batches over all devices of a kind, for many pictures; batch_size is then per device.
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
        second_look: bool | None = None,
        detector: detectors.Detector | str | None = None,
        selection: Selection | None = None,
        detect_every: int = 1,
        follow: bool | None = None,
        smooth: OneEuro | bool = False,
        spread: bool = False,
    ):
        if not 1 <= batch_size <= MOST_PEOPLE:
            raise ValueError(f"batch_size={batch_size} must be in 1 ... {MOST_PEOPLE}.")
        if not (detector is None or isinstance(detector, str) or callable(detector)):
            raise ValueError(f"detector={detector!r}: give a callable or one of {detectors.NAMES}.")
        self._detector = detectors.named(detector) if isinstance(detector, str) else detector
        self._selection = selection or Selection()
        if detect_every < 1:
            raise ValueError(f"detect_every={detect_every} must be at least 1.")
        self._detect_every = detect_every if detector is not None else 1
        self._smooth = OneEuro() if smooth is True else smooth or None
        if follow is False and (self._smooth or self._detect_every > 1):
            raise ValueError("follow=False: smooth and detect_every follow people; leave one of them out.")
        self._follow = follow
        # A few pictures need only one device.
        mesh = jax.sharding.Mesh(np.array(_devices(device)[: None if spread else 1]), ("data",))
        path = weights.packaged() if path is None else path
        network, variables, self.metadata = loading.load(path, mesh)
        self._kind = type(network.model).__name__
        known = about(network, self.metadata)
        self.network, folded = fold_norms.fold(network, jax.device_get(variables), about=known)
        self._variables = jax.device_put(folded, devices.replicated(mesh))
        if threshold is None:
            threshold = self.metadata.threshold
        self.threshold = check_threshold(THRESHOLD if threshold is None else threshold)
        self._batch_size, self._second_look = batch_size * mesh.size, second_look
        self._devices = mesh.size
        self._canvas, self._margin = surroundings(self.network.size, scales)
        place = {"canvas": self._canvas, "margin": self._margin}
        options = {"flip": flip, "scales": scales, "decode": decode}
        self._one_program = per_example.suits(mesh)  # one program serves batches of any size
        estimate = inference.Estimator(self.network, **place, **options)
        self._estimate = per_example.estimator(estimate, mesh, about=known)

    @property
    def skeleton(self) -> Skeleton:
        """The joint set."""
        return self.network.skeleton

    @property
    def names(self) -> tuple[str, ...]:
        """(k,) the joints' names."""
        return self.network.skeleton.joints

    def __repr__(self) -> str:
        about = f"{len(self.names)} joints of {self.skeleton.name}, {self.network.size} px"
        return f"Predictor({self._kind}, {about}, threshold {self.threshold:.2g})"

    def __call__(
        self,
        source,
        *,
        boxes=None,
        unreadable: Callable[[pictures.Unreadable], None] = _warn,
        remark: Callable[[str], None] = _remark,
        live: bool | None = None,
        threads: int = 1,
    ) -> Result | Iterator[Result]:
        """Finds joints.

        Args:
          source: one picture: a path, an array (h, w, 3) RGB, (h, w) or (h, w, 4) of uint8 or uint16, or a
            Pillow image. Or many: a folder, a glob, a video, a list or another iterable of these. Or a source
            for `media.live.Camera`: a camera's number, an address such as rtsp://..., a `cv2.VideoCapture`.
          boxes: people's (x, y, width, height) in pixels. For one picture (4,) or (p, 4); for many pictures
            one such item for each, or a dictionary by file name, in which pictures may be missing. A video's
            boxes are for all its frames. For a picture without boxes, or with None, the detector finds
            people; without a detector the whole picture is treated as one person.
          unreadable: is called with the error of each file that cannot be read, which is then skipped. If the
            source is a single picture, its error is raised.
          remark: is called with a line about each folder with files of other kinds, which are skipped; each
            file whose content is changed in reading, for instance a picture of 12 bits in 16; and the first
            wide picture that is treated as one person.
          live: take the next picture only after the result of the last one, without batches. None does so for
            cameras and iterators of images, but not for files and lists.
          threads: number of threads that decode pictures; with more than one, all frames of a video are in
            memory together.

        Returns:
          One picture's result. For many pictures an iterator, in their order: a thread decodes pictures, one
          batch ahead of the network, and fewer of large pictures (`pictures.HELD`); no others are in memory.
          When the iterator ends or is closed, threads end and cameras are released.

        Raises:
          FileNotFoundError: there is nothing at a path.
          ValueError: wrong boxes, boxes for a missing picture, or an array that is not a picture.
        """
        source = _opened(source)
        if single := pictures.is_single(source):
            # Not a list, because a dictionary of boxes may also name other pictures.
            items = (copies.fetched(source) if pictures.is_path(source) else source,)
            boxes = boxes if boxes is None or isinstance(boxes, dict) else [boxes]
            unreadable, live = _raise, False
        else:
            items = pictures.expand(source, unreadable, remark)
        if live is None and not isinstance(source, Iterator):
            live = isinstance(items, list) and any(isinstance(item, Camera) for item in items)
        results = self._stream(_with_boxes(items, boxes), live, unreadable, remark, threads)
        if not single:
            return results
        (result,) = results
        return result

    def _stream(self, pairs, live: bool | None, unreadable, remark, threads: int = 1) -> Iterator[Result]:
        """Results of pairs of an item and its boxes; if live is None, the first item's kind decides."""
        if live is None:
            pairs = iter(pairs)
            if (first := next(pairs, None)) is None:
                return
            live = not pictures.is_path(first[0])  # files can be read ahead
            pairs = itertools.chain([first], pairs)
        tracked = _Videos(self._follow, self._smooth, self._detect_every, stream=live)
        read = self._read(pairs, unreadable, remark)
        # One more than a batch, so that pictures are decoded ahead even in batches of one.
        depth = self._batch_size + 1
        if threads > 1 and not live:
            read = pictures.in_parallel(
                lambda pair: list(self._read([pair], unreadable, remark)),
                pairs,
                threads,
                depth=depth,
                size=_bytes,
            )
        if live:
            prepared = self._crops(read, tracked, remark)
        elif tracked.lead:  # a frame's boxes come from the joints of the previous frame
            prepared = self._crops(pictures.ahead(read, depth, size=_bytes), tracked, remark)
        else:
            prepared = pictures.ahead(self._crops(read, tracked, remark), depth, size=_bytes)
        for result in self._results(prepared, live or tracked.lead):
            yield tracked.followed(result)

    def _read(self, pairs, unreadable, remark) -> Iterator[tuple]:
        """Yields each picture with the boxes given for it, or None."""
        for item, boxes in pairs:
            try:
                with contextlib.closing(_pictures(item)) as found:
                    for picture in found:
                        if picture.remark:
                            remark(f"{picture.path or 'an array'}: {picture.remark}.")
                        yield picture, boxes
            except pictures.Unreadable as error:
                error.path = files.path(item) if pictures.is_path(item) else None
                unreadable(error)

    def _crops(self, read, tracked: "_Videos", remark) -> Iterator[tuple]:
        """Yields each picture with its people's places and the canvases that are cut from it."""
        wide = False
        with contextlib.closing(read):
            for picture, boxes in read:
                places = None
                if boxes is None and self._detector is not None:
                    places = tracked.places(picture)
                if places is None:
                    places = self._places(picture, boxes, remark)
                if places.whole and not wide and picture.size[0] >= _WIDE * picture.size[1]:
                    wide = True
                    size = f"{picture.size[0]} x {picture.size[1]} px"
                    remark(
                        f"{picture.path or 'an array'} of {size} is treated as one person; boxes or a "
                        "detector say where the people are."
                    )
                crops = [cut(picture, square, self._canvas, margin=self._margin) for square in places.squares]
                yield picture, places, crops

    def _places(self, picture: pictures.Picture, boxes: np.ndarray | None, remark) -> "_Places":
        if boxes is not None:
            return _Places(boxes, around(boxes))
        if self._detector is None:
            return _Places(np.array([[0.0, 0.0, *picture.size]]), whole(picture.size)[None], whole=True)
        found = detections(self._detector(picture.image))
        start, reduction = np.array([*picture.start, 0, 0]), picture.reduction
        people, more = self._selection.of(found._replace(boxes=found.boxes * reduction + start), picture.size)
        if more:
            limit = f"limit={self._selection.limit}"
            remark(f"{picture.path or 'an array'}: {more} more people are left out by {limit}.")
        return _Places(people.boxes, around(people.boxes), people.scores)

    def _results(self, prepared, live: bool) -> Iterator[Result]:
        """Batches people across pictures, or takes pictures one by one if `live`.

        Yields a picture's result as soon as its last person is done."""
        people, answers, begun, full = [], collections.deque(), collections.deque(), False
        with contextlib.closing(prepared):  # its thread ends with the consumer
            for picture, places, crops in prepared:
                begun.append((picture, places))
                again = (
                    picture if (places.whole if self._second_look is None else self._second_look) else None
                )
                people += [(*of, again) for of in zip(crops, places.squares, strict=True)]
                while live and people:
                    batch, people = people[: self._batch_size], people[self._batch_size :]
                    answers.extend(self._run(batch, self._bucket(len(batch), full)))
                if people and sum(picture.image.nbytes for picture, *_ in begun) >= pictures.HELD:
                    answers.extend(self._run(people, self._bucket(len(people), full)))
                    people = []
                while len(people) >= self._batch_size:
                    batch, people, full = people[: self._batch_size], people[self._batch_size :], True
                    answers.extend(self._run(batch, self._batch_size))
                yield from self._finished(begun, answers)
        if people:
            answers.extend(self._run(people, self._bucket(len(people), full)))
        yield from self._finished(begun, answers)

    def _bucket(self, count: int, full: bool) -> int:
        """The number of people to which a batch that is not full is padded."""
        if self._one_program:
            return count
        if self._devices > 1:  # all devices get the same number
            return self._batch_size
        # After full batches it is padded to a full one: compiling another size would take longer.
        return self._batch_size if full else min(1 << (count - 1).bit_length(), self._batch_size)

    def _finished(self, begun, answers) -> Iterator[Result]:
        """Removes the first pictures whose people are all done, and yields their results."""
        while begun and len(answers) >= len(begun[0][1].squares):
            picture, places = begun.popleft()
            found = [answers.popleft() for _ in places.squares]
            skeleton = self.network.skeleton
            yield Result(
                joints=np.reshape([joints for joints, *_ in found], (-1, len(skeleton), 2)),
                scores=np.reshape([scores for _, scores, *_ in found], (-1, len(skeleton))).astype(
                    np.float32
                ),
                crop=np.reshape([square for *_, square in found], (-1, 3)),
                skeleton=skeleton,
                threshold=self.threshold,
                picture=picture,
                heatmaps=tuple(seen["heatmaps"] for *_, seen, _ in found),
                attention=tuple(seen["attention"] for *_, seen, _ in found),
                boxes=places.boxes,
                box_scores=places.scores,
                whole=places.whole,
            )

    def _run(self, people, bucket: int) -> list[tuple]:
        """For at most `bucket` people: joints (k, 2) px, scores (k,), maps, and the square that was seen.

        Args:
          people: for each a canvas, a square, and the picture if the person gets a second look, else None.
        """
        found = self._look([canvas for canvas, *_ in people], [square for _, square, _ in people], bucket)
        again = {}
        for i, (joints, scores, _, square) in enumerate(found):
            if (picture := people[i][2]) is not None:
                closer = second_square(joints, scores, square)
                if closer is not None:
                    again[i] = cut(picture, closer, self._canvas, margin=self._margin), closer
        if again:
            size = len(again) if self._one_program else bucket
            seen = self._look([c for c, _ in again.values()], [q for _, q in again.values()], size)
            for i, person in zip(again, seen, strict=True):
                found[i] = person
        return found

    def _look(self, canvases, squares, bucket: int) -> list[tuple]:
        """Calls the network once."""
        padded = np.pad(np.stack(canvases), [(0, bucket - len(canvases))] + [(0, 0)] * 3)
        joints, scores, seen = jax.device_get(self._estimate(self._variables, padded))
        joints, scores = joints[: len(canvases)], scores[: len(canvases)]
        seen = [jax.tree.map(lambda maps, i=i: maps[i], seen) for i in range(len(canvases))]
        center, scale = _frame(np.stack(squares))
        joints = inference.image_joints(joints[:, -1], center, scale, size=self.network.size)
        return list(zip(joints, scores[:, -1], seen, squares, strict=True))


def second_square(joints: np.ndarray, scores: np.ndarray, square: np.ndarray) -> np.ndarray | None:
    """The crop (x, y, side) around the joints that a first look found; None if they are too few.

    Its side is 1.35 times the extent of the likely joints, from the 2nd to the 98th percentile weighted by
    their scores: a distant joint with a low score counts less.

    Args:
      joints: (k, 2) px; scores: (k,).
      square: (x, y, side) of the first look; the new side is from 0.2 to 1.25 times this side.
    """
    likely = (scores >= _LIKELY) & np.isfinite(joints).all(axis=-1)
    if likely.sum() < LEAST_JOINTS:
        return None
    low, high = np.array([_percentiles(joints[likely, axis], scores[likely]) for axis in (0, 1)]).T
    side = np.clip(_AROUND * (high - low).max(), 0.2 * square[2], 1.25 * square[2])
    return np.array([*((low + high) / 2 - side / 2), side])


def _percentiles(values, weights) -> np.ndarray:
    """The percentiles `_INNER`, (2,), of values (n,) with weights (n,)."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) - weights[order] / 2
    return np.interp(_INNER, share / weights.sum(), values[order])


def check_threshold(threshold: float) -> float:
    """Raises ValueError for a threshold that scores cannot reach."""
    if not threshold <= 1:
        raise ValueError(f"threshold={threshold}: scores reach about 1; give a number from 0 to 1.")
    return threshold


def whole(size) -> np.ndarray:
    """The crop (x, y, side) if the whole picture, of size (width, height), is the person's box."""
    side = max(size)
    return np.array([(size[0] - side) / 2, (size[1] - side) / 2, side])


def around(boxes) -> np.ndarray:
    """The crops (p, 3), (x, y, side), around people's boxes (p, 4), (x, y, width, height)."""
    corner, extent = np.split(np.asarray(boxes, np.float64), 2, axis=-1)
    side = ENLARGEMENT * extent.max(axis=-1, keepdims=True)
    return np.concatenate([corner + extent / 2 - side / 2, side], axis=-1)


def surroundings(size: int, scales: tuple[float, ...]) -> tuple[int, float]:
    """Side (px) and margin of canvases that contain the whole view of the smallest scale; see `Estimator`.

    A pixel of the canvas equals a pixel of the input, and the nominal crop ends between pixels. If no scale
    is below 1, the result is (size, 1.0). At scale 1 nothing is resampled.
    """
    inference.check_scales(tuple(scales))
    border = math.ceil((size / min(1, *scales) - size) / 2)
    canvas = size + 2 * border
    return canvas, canvas / size


def cut(picture: pictures.Picture, square, size: int, *, margin: float = 1.0) -> np.ndarray:
    """A crop (x, y, side), `margin` times larger, as (size, size, 3) uint8; black outside of the picture."""
    center, scale = _frame(square)
    return picture.cut(crop.canvas_from_image(center, scale, canvas=size, margin=margin), size)


def _frame(square):
    """(x, y, side) -> MPII's center (x, y) and scale."""
    side = square[..., 2]
    return square[..., :2] + side[..., None] / 2, side / crop.REFERENCE


def _bytes(prepared: tuple) -> int:
    """The bytes of a picture, and of the canvases if `Predictor._crops` has cut them."""
    picture, _, *crops = prepared
    return picture.image.nbytes + sum(canvas.nbytes for canvas in itertools.chain(*crops))


def _opened(source) -> Any:
    """The source, with numbers, addresses and `cv2.VideoCapture`s replaced by `Camera`s."""
    if live_sources.is_source(source):
        return [Camera(source)]
    if isinstance(source, (list, tuple)):
        return [Camera(item) if live_sources.is_source(item) else item for item in source]
    return [source] if isinstance(source, Camera) else source


def _pictures(item) -> Generator[pictures.Picture]:
    yield from item if isinstance(item, Camera) else pictures.of(item)


def _raise(error):
    raise error


def _devices(name):
    try:
        return jax.local_devices(backend=name)
    except RuntimeError:
        known = jax.default_backend()
        message = "there is none, or the installed JAX does not support it"
        raise ValueError(f"device={name!r}: {message}; the default is {known}.") from None


def _with_boxes(items: Iterable, boxes) -> Iterable[tuple]:
    """Pairs of an item and its (p, 4) boxes or None; raises errors as early as the boxes can be checked."""
    counted = isinstance(items, list)
    if boxes is None:
        return ((item, None) for item in items)
    if isinstance(boxes, dict):
        boxes = {_normal(name): _sound(name, value) for name, value in boxes.items()}
        if counted:
            _check_names(boxes, [_path(item) for item in items if pictures.is_path(_path(item))])
        return ((item, _by_name(boxes, _path(item))) for item in items)
    if counted and len(boxes) != len(items):
        raise ValueError(f"boxes: {len(boxes)} for {len(items)} pictures; give one or None for each.")
    if counted:
        boxes = [_sound(number, value) for number, value in enumerate(boxes)]
    pairs = enumerate(zip(items, boxes, strict=True))
    return ((item, _sound(number, value)) for number, (item, value) in pairs)


def _path(item):
    return item.path if isinstance(item, Camera) else item


def _normal(name) -> str:
    """A name in one Unicode form: macOS stores letters with accents differently from other systems."""
    return unicodedata.normalize("NFC", str(name))


def _by_name(boxes: dict, item) -> np.ndarray | None:
    """The boxes of an item's path, or else of its name."""
    name = getattr(item, "name", None)
    return boxes.get(_normal(item), boxes.get(None if name is None else _normal(name)))


def _sound(name, boxes) -> np.ndarray | None:
    """(p, 4) float64, or None."""
    if boxes is None:
        return None
    try:
        values = np.atleast_2d(np.asarray(boxes, np.float64))
        values = values if values.size else np.empty((0, 4))  # no people
    except (TypeError, ValueError, OverflowError):
        values = np.full((1, 4), np.nan)
    sound = values.shape[1:] == (4,) and (np.abs(values) < _FARTHEST).all()  # False for nan, too
    if not sound or not (values[:, 2:] > 0).all():
        raise ValueError(
            f"boxes of {name!r}: expected [[x, y, width, height], ...] in pixels, with widths and heights "
            f"above 0; found {' '.join(str(boxes).split())[:200]}"
        )
    return values


def _check_names(boxes, paths):
    known = {_normal(name) for path in paths for name in (path.name, path)}
    for name in sorted(boxes.keys() - known):
        near = difflib.get_close_matches(pathlib.PurePath(name).name, {path.name for path in paths})
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_few(paths)}."
        raise ValueError(f"boxes: there is no picture {name!r}; {hint}")


def _few(paths) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:5] + ["..."] * (len(names) > 5))
