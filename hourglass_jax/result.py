"""The joints of one picture, and their conversion to formats that other programs read."""

import dataclasses
import inspect
import io
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from hourglass_jax.media import draw, pictures
from hourglass_jax.pose.skeletons import Skeleton

COLUMNS = ("file", "frame", "time", "person", "joint", "x", "y", "score")


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """One person of a `Result`.

    Attributes:
      joints: (k, 2) float64, x and y in pixels of the picture.
      scores: (k,) float32.
      box: (4,) float64, x, y, width, height: the given box, the detector's box, or the whole picture.
      crop: (3,) float64, x, y, side: the square that the network saw.
      names: (k,) of the joints.
      id: the same in all frames of a video; None if people are not tracked.
      box_score: the detector's score; None without a detector.
    """

    joints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    crop: np.ndarray
    names: tuple[str, ...]
    id: int | None = None
    box_score: float | None = None

    @property
    def score(self) -> float:
        """Mean of the joints' scores."""
        return float(self.scores.mean())

    def to_dict(self) -> dict[str, Any]:
        """{"id", "box", "box_score", "score", "joints": {name: [x, y, score]}}, plain numbers."""
        rows = zip(self.names, self.joints.tolist(), self.scores.tolist(), strict=True)
        joints = {name: [round(x, 2), round(y, 2), round(score, 4)] for name, (x, y), score in rows}
        box = [round(value, 2) for value in self.box.tolist()]
        box_score = None if self.box_score is None else round(self.box_score, 4)
        about = {"id": self.id, "box": box, "box_score": box_score, "score": round(self.score, 4)}
        return about | {"joints": joints}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The people found in one picture, or one frame of a video; p people of k joints.

    `len` gives the number of people, and iteration gives each `Person`.

    Attributes:
      joints: (p, k, 2) float64, x and y in pixels of the picture (see `pose.crop`).
      scores: (p, k) float32, about 0 to 1.
      crop: (p, 3) float64: upper left corner and side (x, y, side) of each person's square that the network
        saw, in its last look.
      skeleton: the joint set.
      threshold: joints with this score or more are drawn.
      picture: image, size, path and frame, see `pictures.Picture`.
      heatmaps: for each person (h, w, k) over the crop, or (h, w, 1) for all joints together.
      attention: for each person maps (h, w, m) over the crop by name; empty for a network without attention.
      boxes: (p, 4) float64, x, y, width, height: as given or found by a detector; else the whole picture.
      ids: of people that are tracked through a video; otherwise None.
      whole: no box was given, so the whole picture was the person's box.
      box_scores: (p,) float64, of the detector that found the boxes; None without a detector.
    """

    joints: np.ndarray
    scores: np.ndarray
    crop: np.ndarray
    skeleton: Skeleton
    threshold: float
    picture: pictures.Picture
    heatmaps: tuple[np.ndarray, ...]
    attention: tuple[dict[str, np.ndarray], ...]
    boxes: np.ndarray
    ids: tuple[int, ...] | None = None
    whole: bool = False
    box_scores: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """(k,): the joints' names, in the order of the arrays."""
        return self.skeleton.joints

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB; reduced if the picture is huge."""
        return self.picture.image

    @property
    def path(self) -> pathlib.Path | None:
        """The file's path; None for arrays."""
        return self.picture.path

    @property
    def frame(self) -> int | None:
        """The frame's number in the video, from 0; None for pictures."""
        return self.picture.frame

    @property
    def time(self) -> float | None:
        """Seconds since the beginning of the video; None for pictures."""
        return None if self.picture.time is None else float(self.picture.time)

    def __len__(self) -> int:
        return len(self.joints)

    def __iter__(self) -> Iterator[Person]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, i: int) -> Person:
        id_ = None if self.ids is None else self.ids[i]
        box_score = None if self.box_scores is None else float(self.box_scores[i])
        return Person(self.joints[i], self.scores[i], self.boxes[i], self.crop[i], self.names, id_, box_score)

    def __repr__(self) -> str:
        width, height = self.picture.size
        name = f"array {width}x{height}" if self.path is None else self.path.name
        frame = "" if self.frame is None else f" frame {self.frame}"
        people = f"{len(self)} {'person' if len(self) == 1 else 'people'}"
        mean = f", mean {self.scores.mean():.2f}" if len(self) else ""
        return f"Result({name}{frame}, {people}, {len(self.names)} joints{mean})"

    def draw(
        self,
        threshold: float | None = None,
        *,
        lines: bool = True,
        points: bool = True,
        labels: bool = False,
        boxes: bool = False,
        colours: str = "side",
    ) -> np.ndarray:
        """The image with all skeletons, (h, w, 3) uint8, at its own size.

        Args:
          threshold: least score of a drawn joint; None for the result's own.
          lines, points: draw the limbs and the joints.
          labels: draw the joints' names.
          boxes: draw the people's boxes, with their ids if they are tracked.
          colours: "side" for a colour per side of the body, or "person" for a colour per person.
        """
        if colours not in ("side", "person"):
            raise ValueError(f"colours={colours!r}: choose 'side' or 'person'.")
        threshold = self.threshold if threshold is None else threshold
        image, zoom = self.image, self.picture.zoom
        for number, person in enumerate(self):
            places = (person.joints - self.picture.start) * zoom
            own = draw.person_colour(number if person.id is None else person.id)
            image = draw.skeleton(
                image, places, person.scores >= threshold, self.skeleton,
                colour=own if colours == "person" else None, lines=lines, points=points, labels=labels,
            )  # fmt: skip
            if boxes:
                corner = (person.box[:2] - self.picture.start) * zoom
                title = "" if person.id is None else str(person.id)
                image = draw.box(image, [*corner, *person.box[2:] * zoom], own, title)
        return image.copy() if image is self.image else image

    def save(self, path: str | os.PathLike, **options) -> None:
        """Writes the drawn picture in the format of the path's ending; `options` are those of `draw`."""
        draw.save(path, self.draw(**options))

    def show(self, **options) -> None:
        """Shows the drawn picture in the notebook or in a window; `options` are those of `draw`."""
        image = Image.fromarray(self.draw(**options))
        try:
            from IPython import display, get_ipython  # pyright: ignore[reportMissingImports]

            if get_ipython() is not None:
                display.display(image)
                return
        except ImportError:
            pass
        image.show()

    def _repr_png_(self) -> bytes:
        """Notebooks call this for a cell's last value."""
        file = io.BytesIO()
        Image.fromarray(self.draw()).save(file, "png")
        return file.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """The picture and its people, see `Person.to_dict`, as plain numbers."""
        width, height = self.picture.size
        file = None if self.path is None else str(self.path)
        about = {"file": file, "frame": self.frame, "time": self.time, "width": width, "height": height}
        return about | {"people": [person.to_dict() for person in self]}

    def to_json(self) -> str:
        """`to_dict` as json."""
        return json.dumps(self.to_dict())

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO's results, one for each person, as `pycocotools.coco.COCO.loadRes` reads them.

        Joints below the threshold have the flag 0; 1 would mean occluded. They keep their place, because
        COCO's evaluation counts them all the same.
        """
        people = []
        for person in self:
            flags = np.where(person.scores >= self.threshold, 2, 0)
            people.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.round(np.column_stack([person.joints, flags]), 2).ravel().tolist(),
                    "keypoint_scores": np.round(person.scores.astype(float), 4).tolist(),
                    "score": round(person.score, 4),
                    "bbox": np.round(person.box, 2).tolist(),
                }
            )
            if person.id is not None:
                people[-1]["track_id"] = person.id
        return people

    def rows(self) -> list[tuple]:
        """A row for each joint, with the values of `COLUMNS`; a person is the id, else a number from 1."""
        file = "" if self.path is None else str(self.path)
        rows = []
        for number, person in enumerate(self, start=1):
            who = number if person.id is None else person.id
            for name, (x, y), score in zip(self.names, person.joints, person.scores, strict=True):
                rows.append((file, self.frame, self.time, who, name, float(x), float(y), float(score)))
        return rows

    def to_pandas(self):
        """A pandas DataFrame of `rows`."""
        return _optional("pandas", "pandas").DataFrame(self.rows(), columns=list(COLUMNS))

    def to_supervision(self):
        """`supervision.KeyPoints`."""
        points = _optional("supervision", "supervision").KeyPoints
        # Until version 0.28 the argument was called `confidence`.
        known = inspect.signature(points).parameters
        name = "keypoint_confidence" if "keypoint_confidence" in known else "confidence"
        values: dict[str, Any] = {name: self.scores, "class_id": np.zeros(len(self), int)}
        return points(xy=self.joints.astype(np.float32), **values)


def _optional(module: str, package: str):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"This needs {package}; pip install {package}") from None
