"""Joints in your own pictures.

    python -m hourglass_jax.predict photos/ more/me.jpg --workdir=runs/quickstart --output=out

writes out/NAME.png with the skeleton drawn, and out/predictions.json in COCO's keypoint format.
"""

import argparse
import collections
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator

import cv2
import jax
import numpy as np
import tqdm

from hourglass_jax import checkpoint, draw, files, inference
from hourglass_jax.data import crop

EXTENSIONS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
ENLARGEMENT = 1.25  # of a person's box to the crop, as the released MPII loaders do


class Predictor:
    """A trained network that finds joints in pictures.

    Args:
      path: a workdir or one of its checkpoints, see `checkpoint.load`.
      batch_size: people at a time; the program is compiled once, for this number.
      flip: average with the mirrored picture.
    """

    def __init__(self, path, *, batch_size: int = 8, flip: bool = True):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        # A few pictures need no mesh: one device.
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("data",))
        self.network, self._variables, self.metadata = checkpoint.load(path, mesh)
        self._batch_size = batch_size
        size = self.network.size
        self._estimate = jax.jit(inference.estimator(self.network, canvas=size, margin=1.0, flip=flip))

    def __call__(
        self, people: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Joints of each person.

        Args:
          people: pairs of a picture (h, w, 3) uint8 RGB and the person's crop (x, y, side): its upper left
            corner and its side in pixels, see `whole` and `around`.

        Yields:
          in their order, joints (k, 2) float64 in pixels of the picture, and scores (k,) in [0, 1].
        """
        waiting = []
        for image, square in people:
            x, y, side = np.asarray(square, np.float64)
            center, scale = np.array([x + side / 2, y + side / 2]), side / crop.REFERENCE
            size = self.network.size
            view = crop.canvas_from_image(center, np.asarray(scale), canvas=size, margin=1.0)
            waiting.append((crop.cut(image, view, size), center, scale))
            if len(waiting) == self._batch_size:
                yield from self._run(waiting)
                waiting = []
        if waiting:
            yield from self._run(waiting)

    def _run(self, waiting):
        crops, center, scale = (np.stack(values) for values in zip(*waiting, strict=True))
        padding = [(0, self._batch_size - len(crops))] + [(0, 0)] * 3
        joints, scores, _ = jax.device_get(self._estimate(self._variables, np.pad(crops, padding)))
        joints, scores = joints[: len(crops), -1], scores[: len(crops), -1]
        joints = inference.image_joints(joints, center, scale, size=self.network.size)
        yield from zip(joints, scores, strict=True)


def whole(image: np.ndarray) -> np.ndarray:
    """The crop (x, y, side) when the whole picture is the person's box."""
    height, width = image.shape[:2]
    side = max(height, width)
    return np.array([(width - side) / 2, (height - side) / 2, side])


def around(box) -> np.ndarray:
    """The crop (x, y, side) around a person's box (x, y, width, height)."""
    x, y, width, height = np.asarray(box, np.float64)
    side = ENLARGEMENT * max(width, height)
    return np.array([x + width / 2 - side / 2, y + height / 2 - side / 2, side])


def read(path: pathlib.Path) -> np.ndarray | None:
    """A picture as (h, w, 3) uint8 RGB, turned as its EXIF says; None where it cannot be read."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError:
        return None
    # OpenCV 4 fills up a truncated JPEG with grey: the end marker has to follow the last scan.
    truncated = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if not data or truncated:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def find(paths: list[str]) -> list[pathlib.Path]:
    """Files, and the pictures in folders, sorted.

    Raises:
      FileNotFoundError: a path that is not there, or a folder without pictures.
    """
    found = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            pictures = sorted(f for f in path.iterdir() if f.suffix.lower() in EXTENSIONS)
            if not pictures:
                raise FileNotFoundError(f"{path} holds no pictures ({', '.join(sorted(EXTENSIONS))}).")
            found += pictures
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such file or folder.")
    return found


def read_boxes(path: str | None) -> dict[str, list]:
    """{file name: [[x, y, width, height], ...]} in pixels from a json file.

    Raises:
      ValueError: anything else in the file.
    """
    if not path:
        return {}
    try:
        boxes = {name: np.array(value, np.float64) for name, value in json.loads(
            pathlib.Path(path).read_text()).items()}  # fmt: skip
        for name, value in boxes.items():
            sound = value.ndim == 2 and value.shape[1] == 4 and np.isfinite(value).all()
            if not sound or not (value[:, 2:] > 0).all():
                raise ValueError(f"{name!r} has {value.tolist()}")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f'{path}: expected json like {{"photo.jpg": [[x, y, width, height]]}} in pixels, with widths '
            f"and heights above 0; {error}"
        ) from None
    return {name: value.tolist() for name, value in boxes.items()}


def coco(skeleton) -> dict:
    """An empty COCO keypoint file for a joint set."""
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]  # COCO counts joints from 1
    person = {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}
    return {"images": [], "annotations": [], "categories": [person]}


def add_image(result: dict, path: pathlib.Path, image: np.ndarray) -> int:
    """Adds a picture; its id."""
    height, width = image.shape[:2]
    entry = {"id": len(result["images"]) + 1, "file_name": path.name, "width": width, "height": height}
    result["images"].append(entry)
    return entry["id"]


def add_person(result: dict, image_id: int, square, joints, scores, threshold: float) -> None:
    """Adds one person; visibility is 2 for joints at or above the threshold, else 1."""
    flags = np.where(scores >= threshold, 2, 1)
    x, y, side = square
    result["annotations"].append(
        {
            "id": len(result["annotations"]) + 1,
            "image_id": image_id,
            "category_id": 1,
            "keypoints": np.round(np.column_stack([joints, flags]), 2).ravel(),
            "num_keypoints": int((flags == 2).sum()),
            "keypoint_scores": np.round(scores.astype(float), 4),
            "score": round(float(scores.mean()), 4),
            "bbox": np.round([x, y, side, side], 2),
        }
    )


def predict(paths, workdir, output, *, boxes=None, threshold=0.1, flip=True, batch_size=8) -> int:
    """Draws and writes the joints of all pictures; see `main` for the arguments.

    Returns:
      the number of pictures that could not be read.
    """
    pictures, boxes = find(paths), read_boxes(boxes)
    predictor = Predictor(workdir, batch_size=batch_size, flip=flip)
    if unknown := boxes.keys() - {path.name for path in pictures}:
        print(f"Note: no picture is called {', '.join(sorted(unknown))}, as in --boxes.", file=sys.stderr)
    skeleton, output, names = predictor.network.skeleton, pathlib.Path(output), _names(pictures)
    taken = {path.resolve() for path in pictures} & {(output / name).resolve() for name in names.values()}
    if taken:
        raise ValueError(f"--output={output}: would overwrite {min(taken)}; choose another folder.")
    result, unread, asked = coco(skeleton), [], collections.deque()

    def people():
        for path in tqdm.tqdm(pictures, unit=" pictures", disable=None):
            image = read(path)
            if image is None:
                unread.append(path)
                continue
            image_id = add_image(result, path, image)
            squares = [around(box) for box in boxes.get(path.name, [])] or [whole(image)]
            for number, square in enumerate(squares, start=1):
                asked.append((path, image, image_id, square, number == len(squares)))
                yield image, square

    overlay = None
    for joints, scores in predictor(people()):
        path, image, image_id, square, last = asked.popleft()
        add_person(result, image_id, square, joints, scores, threshold)
        before = image if overlay is None else overlay
        overlay = draw.skeleton(before, joints, scores >= threshold, skeleton)
        if last:  # of the people in this picture
            draw.save(output / names[path], overlay)
            overlay = None
    files.write_json(output / "predictions.json", result)
    for path in unread:
        print(f"Skipped {path}: not a picture that can be read.", file=sys.stderr)
    print(f"{len(result['annotations'])} people in {len(result['images'])} pictures -> {output}")
    return len(unread)


def _names(pictures) -> dict[pathlib.Path, str]:
    """Names of the overlays; pictures of the same name from several folders get a number."""
    names, used = {}, set()
    for path in pictures:
        name, count = f"{path.stem}.png", 1
        while name in used:
            count += 1
            name = f"{path.stem}_{count}.png"
        used.add(name)
        names[path] = name
    return names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.predict",
        description="Finds the joints of people in pictures, draws them and writes COCO keypoint json.",
        epilog='BOXES.json: {"photo.jpg": [[x, y, width, height], ...], ...}, a box for each person.',
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, or folders of pictures")
    parser.add_argument("--workdir", required=True, help="a training's workdir, or one of its checkpoints")
    parser.add_argument("--output", required=True, help="folder for the drawn pictures and the json")
    parser.add_argument("--boxes", help="people's boxes; without, the whole picture is the person's box")
    parser.add_argument(
        "--threshold", type=float, default=0.1, help="least score of a drawn joint (default: %(default)s)"
    )
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True,
        help="average with the mirrored picture (default: on)",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=8, help="people at a time (default: 8)")
    args = parser.parse_args(arguments)
    try:
        unread = predict(**vars(args))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
