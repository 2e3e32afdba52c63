"""Joints in your own pictures and videos, as a command.

    python -m hourglass_jax.predict photos/ clip.mp4 --output=out

writes out/NAME.png or out/NAME.mp4 with the skeletons drawn, and out/predictions.json in COCO's keypoint
format. In Python it is `predictor.Predictor`.
"""

import argparse
import contextlib
import csv
import functools
import io
import itertools
import os
import pathlib
import sys

import numpy as np
import tqdm

from hourglass_jax import console, devices, files, inference
from hourglass_jax.media import draw, pictures, videos
from hourglass_jax.predictor import Predictor, Result, cut

_TILE = 192  # px, of a heatmap in the pictures of all heatmaps


def predict(
    paths,
    output,
    *,
    checkpoint=None,
    boxes=None,
    table=False,
    heatmaps=False,
    attention=False,
    threshold=None,
    **options,
) -> int:
    """Draws and writes the joints of all pictures; see `main` for the arguments.

    Args:
      **options: of `Predictor`.

    Returns:
      the number of files that could not be read.
    """
    items, output = pictures.find(paths), pathlib.Path(output)
    sheets = {"heatmaps": heatmap_sheet} if heatmaps else {}
    sheets |= {"attention": attention_sheet} if attention else {}
    boxes_by_name, names = _read_boxes(boxes), _names(items, sheets)
    tables = [output / "predictions.json"] + [output / "predictions.csv"] * table
    written = [output / name for own in names.values() for name in own] + tables
    read = {path.resolve() for path in [*items, *([pathlib.Path(boxes)] if boxes else [])]}
    if taken := read & {path.resolve() for path in written}:
        raise ValueError(f"--output={output}: would overwrite {min(taken)}; choose another folder.")
    _check_folder(output)
    predictor, unread = Predictor(checkpoint, threshold=threshold, **options), []
    # Asked for here, because a wrong box is to be told before a bar shows.
    results = predictor(items, boxes=boxes_by_name, unreadable=unread.append)
    coco, rows = _coco(predictor.network.skeleton), [("file", "frame", "person", "joint", "x", "y", "score")]
    bar = tqdm.tqdm(results, total=_count(items), unit=" pictures", disable=None)
    for path, found in itertools.groupby(bar, key=lambda result: result.path):
        overlay, *maps = (output / name for name in names[path])
        with _writer(overlay, path) as write:
            for result in found:
                if attention and len(result.joints) and not result.attention[0]:
                    raise ValueError(
                        "--attention: this network has none; give a --checkpoint of chu or selvam."
                    )
                write(result.draw())
                _add(coco, result)
                rows += _rows(result)
                if result.frame is None and len(result.joints):
                    for path_of_sheet, sheet in zip(maps, sheets.values(), strict=True):
                        draw.save(path_of_sheet, sheet(result))
    files.write_json(output / "predictions.json", coco)
    if table:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        files.write(output / "predictions.csv", text.getvalue().encode())
    for error in unread:
        print(f"Skipped {error}", file=sys.stderr)
    skipped = f", {len(unread)} skipped" if unread else ""
    people, seen = len(coco["annotations"]), len(coco["images"])
    people = f"{people} {'person' if people == 1 else 'people'}"
    print(f"{people} in {seen} picture{'s' * (seen != 1)}{skipped} -> {output}")
    return len(unread)


def _check_folder(output: pathlib.Path) -> None:
    """Raises ValueError where no folder can be: not only when the first minutes of a video are done."""
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "cannot be written to" if there.is_dir() else "is a file"
        raise ValueError(f"--output={output}: {there} {reason}; choose another folder.")


def _writer(overlay, path):
    """A context with a function that writes a picture, or a frame of a video."""
    if pictures.is_video(path):
        return videos.writing(overlay, videos.about(path)[1])
    return contextlib.nullcontext(functools.partial(draw.save, overlay))


def _count(items) -> int | None:
    """Pictures and frames, None where a video does not say how many it has or cannot be read."""
    count = 0
    for path in items:
        try:
            frames = videos.about(path)[0] if pictures.is_video(path) else 1
        except ValueError:  # it is told when its turn comes
            frames = None
        if frames is None:
            return None
        count += frames
    return count


def _names(items, sheets) -> dict[pathlib.Path, tuple[str, ...]]:
    """Names of the overlays and of the sheets (heatmaps, attention); what has the same name gets a number."""
    names, used = {}, set()
    for path in items:
        suffix = ".mp4" if pictures.is_video(path) else ".png"
        for count in itertools.count(1):
            stem = path.stem if count == 1 else f"{path.stem}_{count}"
            own = (stem + suffix, *(f"{stem}_{sheet}.png" for sheet in sheets))
            if not used.intersection(own):
                break
        used.update(own)
        names[path] = own
    return names


def heatmap_sheet(result: Result) -> np.ndarray:
    """All heatmaps of one picture over each person's crop, titled, one person after the other."""
    tiles = []
    for square, maps in zip(result.crop, result.heatmaps, strict=True):
        person = cut(result.picture, square, _TILE)
        titles = result.names if maps.shape[-1] == len(result.names) else ("all joints",)
        values = np.moveaxis(maps, -1, 0)
        tiles += [draw.titled(draw.heatmap(person, v), t) for v, t in zip(values, titles, strict=True)]
    return draw.sheet(tiles, columns=min(8, len(tiles)))


def attention_sheet(result: Result) -> np.ndarray:
    """Each person's crop under the network's attention maps, a row for each stack."""
    people = zip(result.crop, result.attention, strict=True)
    sheets = [draw.attention_sheet(cut(result.picture, c, _TILE), maps, result.names) for c, maps in people]
    return np.concatenate(sheets)


def _read_boxes(path: str | None) -> dict[str, list] | None:
    """{file name: boxes} from a json file; the predictor looks at the boxes themselves.

    Raises:
      ValueError: anything else in the file.
    """
    if not path:
        return None
    boxes = files.read_json(path)
    if not isinstance(boxes, dict):
        expected = '{"photo.jpg": [[x, y, width, height], ...], ...}'
        raise ValueError(f"{path}: expected json like {expected}; found a {type(boxes).__name__}.")
    return boxes


def _coco(skeleton) -> dict:
    """An empty COCO keypoint file for a joint set."""
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]  # COCO counts joints from 1
    person = {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}
    return {"images": [], "annotations": [], "categories": [person]}


def _add(coco: dict, result: Result) -> None:
    """Adds a picture and its people; visibility is 2 for joints that are drawn, else 1."""
    width, height = result.picture.size
    image_id = len(coco["images"]) + 1
    image = {"id": image_id, "file_name": result.path.name, "width": width, "height": height}
    coco["images"].append(image if result.frame is None else image | {"frame": result.frame})
    for joints, scores, (x, y, side) in zip(result.joints, result.scores, result.crop, strict=True):
        flags = np.where(scores >= result.threshold, 2, 1)
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": 1,
                "keypoints": np.round(np.column_stack([joints, flags]), 2).ravel(),
                "num_keypoints": int((flags == 2).sum()),
                "keypoint_scores": np.round(scores.astype(float), 4),
                "score": round(float(scores.mean()), 4),
                "bbox": np.round([x, y, side, side], 2),
            }
        )


def _rows(result: Result) -> list[tuple]:
    """A row of the table for each joint; people are counted from 1."""
    frame = "" if result.frame is None else result.frame
    return [
        (result.path.name, frame, person, name, f"{x:.2f}", f"{y:.2f}", f"{score:.4f}")
        for person, (joints, scores) in enumerate(zip(result.joints, result.scores, strict=True), start=1)
        for name, (x, y), score in zip(result.names, joints, scores, strict=True)
    ]


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, text.split(",")))
        inference.check_scales(scales)
        return scales
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers above 0, such as 0.8,1,1.2") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.predict",
        description="Finds the joints of people in pictures and videos, draws them and writes COCO keypoint "
        "json. Coordinates are pixels from the upper left corner, whose own centre is at (0.5, 0.5).",
        epilog='BOXES.json: {"photo.jpg": [[x, y, width, height], ...], ...}, a box for each person; a '
        "video's are for all its frames. Exit code: 0, 1 where a file could not be read or an argument is "
        "wrong, 130 where it was interrupted.",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="pictures and videos, folders of them, or quoted globs")
    add("--output", required=True, help="folder for what is drawn and the json")
    add(
        *("--checkpoint", "--workdir"), metavar="PATH",
        help="a training's workdir, one of its checkpoints or a file of weights (default: the weights that "
        "come with the package)",
    )  # fmt: skip
    add("--boxes", help="json of people's boxes; without, the whole picture is the person's box")
    add(
        "--threshold", type=float,
        help="least score of a drawn joint (default: that of best F1 in the weights' evaluation, else 0.1)",
    )  # fmt: skip
    add(
        "--flip", action=argparse.BooleanOptionalAction, default=True,
        help="average with the mirrored picture (default: on)",
    )  # fmt: skip
    add(
        "--scales", type=_scales, default=(1.0,), metavar="S,S,...",
        help="average a pyramid, such as 0.8,1,1.2: at 1.2 the person is 1.2 times larger (default: 1)",
    )  # fmt: skip
    add(
        "--decode", choices=("quarter", "argmax", "dark", "soft_argmax"), default="quarter",
        help="how joints are read from heatmaps (default: %(default)s)",
    )  # fmt: skip
    add("--csv", dest="table", action="store_true", help="write predictions.csv, too: a row for each joint")
    add("--heatmaps", action="store_true", help="draw each picture's heatmaps, too: NAME_heatmaps.png")
    add("--attention", action="store_true", help="draw attention maps over each person: NAME_attention.png")
    add("--device", choices=("cpu", "gpu", "tpu"), help="where to compute (default: the best there is)")
    add("--batch_size", type=int, default=8, help="people at a time, at most (default: %(default)s)")
    args = parser.parse_args(arguments)
    devices.keep_programs()

    def command() -> int:
        return 1 if predict(**vars(args)) else 0

    return console.run(command, interrupted="Interrupted; what has been written is whole.")


if __name__ == "__main__":
    devices.keep_memory()
    sys.exit(main())
