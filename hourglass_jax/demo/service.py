"""The page's work without the page: choices, kept predictors, joints of pictures, videos and a camera."""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from hourglass_jax import files, weights
from hourglass_jax.media import draw, pictures, videos
from hourglass_jax.people.smoothing import OneEuro
from hourglass_jax.predict import Coco, attention_sheet, heatmap_sheet
from hourglass_jax.predictor import Predictor
from hourglass_jax.result import Result
from hourglass_jax.weights import published

FRAMES = 1500  # of a video: a minute
KEPT_PREDICTORS, KEPT_OUTCOMES = 4, 16
WHOLE = "none: the picture is one person"
DETECTORS = ("torchvision", "transformers", "ultralytics")
LOOKS = {"where it helps": None, "always": True, "never": False}
HEAD = ("person", "score", "joints", "where")
EVERY = 0.2  # s, from one picture of the camera to the next


@dataclasses.dataclass(frozen=True)
class Choice:
    """The options of a predictor that a visitor of the page can choose.

    Attributes:
      weights: a name, or a path; "" for the default.
      detector: a name of `people.detectors.named`; "" or `WHOLE` for none.
      second_look, threshold: see `Predictor`.
      smooth: smooth the joints of videos and of the camera.
    """

    weights: str = ""
    detector: str = ""
    second_look: bool | None = None
    threshold: float | None = None
    smooth: bool = False


class Outcome(NamedTuple):
    """The result of one picture or video.

    Attributes:
      overlay: a PNG or MP4 file with the joints drawn.
      json: `predictions.json` as `hourglass predict` writes it.
      people: rows of the table whose head is `HEAD`.
      note: one line of text.
      heatmaps, attention: pictures (h, w, 3) uint8 of the maps of a picture, or of a video's first frame;
        None if they were not requested or the network has none.
    """

    overlay: pathlib.Path
    json: pathlib.Path
    people: list[list[str]]
    note: str
    heatmaps: np.ndarray | None = None
    attention: np.ndarray | None = None


class Service:
    """The page's work without the page.

    Args:
      folder: for the files of outcomes; the last `KEPT_OUTCOMES` are kept.
      offered: names and paths of weights to offer before the known ones.
      detectors: names and paths of detectors to offer before the known ones.
      open_paths: whether visitors may name any path and detector of this machine.
      frames: the most frames that are read of a video.
      device: see `Predictor`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        offered: tuple[str, ...] = (),
        detectors: tuple[str, ...] = (),
        open_paths: bool = False,
        frames: int = FRAMES,
        device: str | None = None,
    ):
        if frames < 1:
            raise ValueError(f"frames={frames}: give at least 1.")
        self._folder, self._frames, self._device = pathlib.Path(folder), frames, device
        self.open_paths = open_paths
        here = [name for name, path in weights.SHIPPED.items() if path.is_file()]
        self.weights = tuple(dict.fromkeys([*map(str, offered), *here, *published.NAMES]))
        self.detectors = (WHOLE, *dict.fromkeys([*detectors, *DETECTORS]))
        self._kept: collections.OrderedDict[Choice, Predictor] = collections.OrderedDict()
        self._alone, self._numbers = threading.Lock(), itertools.count(1)

    def predictor(self, choice: Choice) -> Predictor:
        """The predictor of a choice; the last `KEPT_PREDICTORS` are kept and used again.

        Raises:
          ValueError: the weights or the detector are not offered; OSError, ImportError: see `Predictor`.
        """
        choice = dataclasses.replace(
            choice,
            weights=(choice.weights or "").strip() or self.weights[0],
            detector="" if choice.detector in (None, WHOLE) else choice.detector.strip(),
        )
        for name, known in ((choice.weights, self.weights), (choice.detector, ("", *self.detectors))):
            if name not in known and not self.open_paths:
                raise ValueError(f"{name[:99]!r} is not offered here; choose one of the list.")
        with self._alone:
            if choice not in self._kept:
                self._kept[choice] = Predictor(
                    choice.weights,
                    detector=choice.detector or None,
                    second_look=choice.second_look,
                    threshold=choice.threshold,
                    # The camera's pictures come without times.
                    smooth=choice.smooth and OneEuro(rate=1 / EVERY),
                    device=self._device,
                )
                while len(self._kept) > KEPT_PREDICTORS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(choice)
            return self._kept[choice]

    def look(
        self, path: str | os.PathLike, choice: Choice, *, heatmaps: bool = False, attention: bool = False
    ) -> Iterator[str | Outcome]:
        """Finds joints in a picture or a video: yields lines of progress, then the outcome.

        Args:
          path: of the file.
          choice: of the predictor.
          heatmaps, attention: also draw these maps.

        Raises:
          ValueError, OSError, ImportError: one line, see `Predictor`; `pictures.Unreadable` is one.
        """
        path = pathlib.Path(path)
        yield "Loading the network ..."
        predictor = self.predictor(choice)
        video, folder, notes = pictures.is_video(path), self._new_folder(), []
        overlay = folder / (path.stem + (".mp4" if video else ".png"))
        # A list, so that a single picture comes as an iterator, too, like a video's frames.
        results: Any = predictor([path], unreadable=_raise, remark=notes.append)
        coco, sheets, seen = Coco(predictor.skeleton, {}), {}, collections.defaultdict(list)
        with contextlib.closing(results), _writing(overlay, path, video) as write:
            for number, result in enumerate(results):
                if number == self._frames:
                    notes.append(f"Only the first {number} frames are read (--frames).")
                    break
                if video and number % 10 == 0:
                    yield f"Frame {number} ..."
                write(result)
                coco.add(result, path.name)
                for i, person in enumerate(result, start=1):
                    seen[i if person.id is None else person.id].append((result.time, person))
                if number == 0 and len(result):
                    sheets["heatmaps"] = heatmap_sheet(result) if heatmaps else None
                    if attention and not result.attention[0]:
                        notes.append("This network has no attention maps; chu and selvam have them.")
                    elif attention:
                        sheets["attention"] = attention_sheet(result)
        if not coco.dataset["images"]:
            raise ValueError(f"{path.name}: contains no pictures.")
        files.write_json(folder / "predictions.json", coco.results)
        threshold = predictor.threshold
        people = [_row(who, found, threshold) for who, found in sorted(seen.items())]
        count = len(coco.dataset["images"])
        found = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
        where = f" in {count} frame{'s' * (count != 1)}" if video else ""
        line = f"{found}{where}; joints are drawn from a score of {threshold:.2f} on."
        yield Outcome(overlay, folder / "predictions.json", people, " ".join([line, *notes]), **sheets)

    def live(self, choice: Choice) -> Callable[[np.ndarray], Result]:
        """A function from the camera's next picture (h, w, 3) uint8 to its result, for one visitor."""
        waiting: list[np.ndarray] = []

        def arriving() -> Iterator[np.ndarray]:
            while waiting:
                yield waiting.pop()

        # A live predictor takes a picture only after it has returned the last one's result.
        results: Any = self.predictor(choice)(arriving(), live=True, remark=lambda line: None)

        def next_result(image: np.ndarray) -> Result:
            waiting.append(image)
            return next(results)

        return next_result

    def _new_folder(self) -> pathlib.Path:
        number = next(self._numbers)
        shutil.rmtree(self._folder / str(number - KEPT_OUTCOMES), ignore_errors=True)
        folder = self._folder / str(number)
        folder.mkdir(parents=True)
        return folder


def _raise(error: pictures.Unreadable) -> None:
    raise error


@contextlib.contextmanager
def _writing(overlay: pathlib.Path, path: pathlib.Path, video: bool) -> Iterator[Callable[[Result], None]]:
    """A function that writes the drawn picture, or a video's next frame."""
    if not video:
        yield lambda result: draw.save(overlay, drawn(result))
        return
    about = videos.about(path)
    with videos.writing(overlay, about.rate, about.tick) as write:
        yield lambda result: write(drawn(result), result.picture.time)


def drawn(result: Result) -> np.ndarray:
    """The picture with the skeletons, (h, w, 3) uint8; if there are several people, each has a colour."""
    several = len(result) > 1
    return result.draw(boxes=several, colours="person" if several else "side")


def _row(who: int, found: list[tuple], threshold: float) -> list[str]:
    """A person as a row of the page's table; `found` has pairs of a time and a `Person`."""
    scores = np.array([person.scores for _, person in found])
    shown = (scores >= threshold).sum(axis=1).mean()
    begin, end = found[0][0], found[-1][0]
    if begin is None:
        x, y, width, height = found[0][1].box
        where = f"{width:.0f} x {height:.0f} px at ({x:.0f}, {y:.0f})"
    else:
        where = f"{begin:.1f} to {end:.1f} s"
    return [str(who), f"{scores.mean():.2f}", f"{shown:.3g} of {scores.shape[1]}", where]
