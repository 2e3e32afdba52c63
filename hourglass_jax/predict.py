"""Finds joints in your own pictures and videos, as a command.

    python -m hourglass_jax.predict photos/ clip.mp4 --output=out
    python -m hourglass_jax.predict photos/ --output=out --detector=torchvision
    python -m hourglass_jax.predict 0 --output=out --smooth

The command writes out/NAME.png or out/NAME.mp4 with the skeletons drawn, and out/predictions.json in COCO's
keypoint format. From Python use `predictor.Predictor`.
"""

import argparse
import contextlib
import csv
import fractions
import io
import itertools
import math
import os
import pathlib
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import tqdm

from hourglass_jax import archive, console, devices, files, inference
from hourglass_jax.media import draw, live, pictures, videos
from hourglass_jax.people import detectors
from hourglass_jax.people.boxes import Detections, Selection
from hourglass_jax.people.smoothing import OneEuro
from hourglass_jax.pose.skeletons import Skeleton
from hourglass_jax.predictor import Predictor, check_threshold, cut
from hourglass_jax.result import COLUMNS, Result

_CLOCK = fractions.Fraction(1, 1000)  # s, the unit of the times of a camera's frames
_TILE = 192  # px, size of each heatmap in the sheet of heatmaps


def predict(
    paths,
    output,
    *,
    checkpoint=None,
    boxes=None,
    table=False,
    format="results",
    heatmaps=False,
    attention=False,
    threshold=None,
    drawing=None,
    **options,
) -> int:
    """Draws and writes the joints of all pictures; for the other arguments see `main`.

    Args:
      paths: files, folders, globs, camera numbers and addresses of streams.
      drawing: options of `Result.draw`.
      **options: of `Predictor`.

    Returns:
      the number of files that could not be read.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    streams, drawing = _cameras(paths), drawing or {}
    found, output = pictures.search([path for path in paths if path not in streams]), files.path(output)
    items = [*found.items, *(camera.path for camera in streams.values())]
    cameras = {camera.path: camera for camera in streams.values()}
    unread, remarks = list(found.unreadable), list(found.remarks())
    sheets = {"heatmaps": heatmap_sheet} if heatmaps else {}
    sheets |= {"attention": attention_sheet} if attention else {}
    names, titles = _names(items, sheets), _titles(items)
    boxes_by_name = _read_boxes(boxes, items, options.get("selection"), remarks.append)
    tables = [output / "predictions.json"] + [output / "predictions.csv"] * table
    written = [output / name for own in names.values() for name in own] + tables
    _check_keeps(output, written, read=[*found.items, *([boxes] if boxes else [])])
    _check_folder(output)
    predictor = Predictor(checkpoint, threshold=threshold, **options)
    # Call the predictor before the bar is shown: it refuses wrong boxes.
    source = [cameras.get(item, item) for item in items]
    results = predictor(source, boxes=boxes_by_name, unreadable=unread.append, remark=remarks.append)
    results = cast(Iterator[Result], results)  # because the source is a list
    coco, rows, whole, crops = Coco(predictor.skeleton, _image_ids(items)), [COLUMNS], 0, 0
    stopped: list[bool] = []
    bar = tqdm.tqdm(results, total=_count(items), unit=" pictures", disable=None)
    for path, results_of_path in itertools.groupby(bar, key=_path):
        overlay, *maps = (output / name for name in names[path])
        with _writer(overlay, path, cameras.get(path)) as write, _until_interrupted(stopped, path in cameras):
            for result in results_of_path:
                if attention and len(result) and not result.attention[0]:
                    raise ValueError(
                        "--attention: this network has no attention maps; give a --checkpoint of chu or "
                        "selvam."
                    )
                write(result, **drawing)
                coco.add(result, titles[path])
                rows += _rows(result, titles[path])
                whole += result.whole
                crops += _crops(result)
                if result.frame is None and len(result):
                    for path_of_sheet, sheet in zip(maps, sheets.values(), strict=True):
                        draw.save(path_of_sheet, sheet(result))
        if stopped:
            break
    bar.close()
    getattr(results, "close", lambda: None)()
    files.write_json(output / "predictions.json", coco.dataset if format == "dataset" else coco.results)
    if table:
        _write_table(output / "predictions.csv", rows)
    if whole:
        remarks.append(
            f"without boxes {'each' if whole > 1 else 'the'} whole picture is treated as one person; "
            "--boxes or --detector says where the people are."
        )
    for line in [f"Note: {remark}" for remark in remarks] + [f"Skipped {error}" for error in unread]:
        print(line, file=sys.stderr)
    print(f"{_summary(coco, crops)}{f', {len(unread)} skipped' if unread else ''} -> {output}")
    return len(unread)


def _check_keeps(output: pathlib.Path, written: list[pathlib.Path], read: list) -> None:
    """Raises ValueError if the command would overwrite a file that it reads."""
    if taken := {files.absolute(path) for path in read} & {files.absolute(path) for path in written}:
        raise ValueError(f"--output={output}: would overwrite {min(taken)}; choose another folder.")


def _write_table(path: pathlib.Path, rows: list[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    # A name that is not UTF-8 would make the whole table unreadable.
    files.write(path, text.getvalue().encode(errors="backslashreplace"))


def _archive(options: dict, shard: str | None, selection: Selection) -> int:
    """Runs `archive.predict` with the command's options."""
    pictured = ("table", "heatmaps", "attention", "labels", "draw_boxes")
    if drawn := [name for name in pictured if options.pop(name)]:
        raise ValueError(
            f"--jsonl writes lines and draws nothing: leave out --{drawn[0]}.".replace("table", "csv")
        )
    options.pop("colours")
    smooth = OneEuro(min_cutoff=options.pop("min_cutoff"), beta=options.pop("beta"))
    # Options of videos at their defaults stay out of the file's description, which older files lack.
    options |= {"smooth": smooth} if options.pop("smooth") else {}
    options |= {"detect_every": every} if (every := options.pop("detect_every")) != 1 else {}
    if options.pop("format") != "results":
        raise ValueError("--jsonl has a format of its own: leave out --format.")
    part = archive.Shard.parse(shard) if shard else None
    paths, output, boxes = (options.pop(name) for name in ("paths", "output", "boxes"))
    people = _read_boxes(boxes, None, selection, lambda line: None)
    return archive.predict(paths, output, shard=part, boxes=people, selection=selection, **options)


def _path(result: Result) -> pathlib.Path:
    return cast(pathlib.Path, result.path)  # the command never has arrays


def _summary(coco: "Coco", crops: int) -> str:
    """ "3 people in 2 pictures"; if all boxes are whole pictures, which need not show a person, "3 crops"."""
    count, seen = len(coco.results), len(coco.dataset["images"])
    kinds = ("crop", "crops") if crops and crops == count else ("person", "people")
    return f"{count} {kinds[count != 1]} in {seen} picture{'s' * (seen != 1)}"


def _crops(result: Result) -> int:
    """The number of boxes, given or not, that are the whole picture."""
    return int((np.round(result.boxes) == [0, 0, *result.picture.size]).all(axis=1).sum())


def _check_folder(output: pathlib.Path) -> None:
    """Raises ValueError if the folder cannot be made, before minutes of work on a video are lost."""
    if files.in_bucket(output):
        files.check_writable(output)
        return
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "cannot be written to" if there.is_dir() else "is a file"
        raise ValueError(f"--output={output}: {there} {reason}; choose another folder.")


@contextlib.contextmanager
def _writer(
    overlay: pathlib.Path, path: pathlib.Path, camera: live.Camera | None
) -> Iterator[Callable[..., None]]:
    """A function that writes the drawn picture, or the drawn frame of a video at its time.

    Its keyword arguments are those of `Result.draw`.
    """
    if camera is None and not pictures.is_video(path):
        yield lambda result, **drawing: draw.save(overlay, result.draw(**drawing))
        return
    about = videos.about(path) if camera is None else videos.About(None, camera.rate, _CLOCK)
    with videos.writing(overlay, about.rate, about.tick) as write:
        yield lambda result, **drawing: write(result.draw(**drawing), result.picture.time)


def _cameras(paths) -> dict[str, live.Camera]:
    """Cameras by their numbers, if there is no file of that name, and streams by their addresses."""
    found = {}
    for path in paths:
        if live.is_address(path):
            found[path] = live.Camera(path)
        elif isinstance(path, str) and path.isdigit() and path.isascii() and not os.path.lexists(path):
            found[path] = live.Camera(int(path))
    return found


@contextlib.contextmanager
def _until_interrupted(stopped: list[bool], live: bool) -> Iterator[None]:
    """Ctrl-C ends a camera's video: the results so far are written as if the video had ended."""
    try:
        yield
    except KeyboardInterrupt:
        if not live:
            raise
        stopped.append(True)


def _count(items) -> int | None:
    """The number of pictures and frames; None if a video does not say how many it has, or cannot be read."""
    count = 0
    for path in items:
        try:
            frames = videos.about(path).frames if pictures.is_video(path) else 1
        except ValueError:  # the error is reported when the video is read
            frames = None
        if frames is None:
            return None
        count += frames
    return count


def _names(items, sheets) -> dict[pathlib.Path, tuple[str, ...]]:
    """Names of the overlays and of the sheets (heatmaps, attention); equal names get a number."""
    names, used = {}, set()
    for path in items:
        suffix = ".mp4" if pictures.is_video(path) else ".png"
        count, own, folded = 0, (), {""}
        while not own or used & folded:
            count += 1
            stem = path.stem if count == 1 else f"{path.stem}_{count}"
            own = (stem + suffix, *(f"{stem}_{sheet}.png" for sheet in sheets))
            # Some file systems ignore the case of letters and the way in which accents are stored.
            folded = {unicodedata.normalize("NFC", name).casefold() for name in own}
        used |= folded
        names[path] = own
    return names


def _titles(items: list[pathlib.Path]) -> dict[pathlib.Path, str]:
    """The files' names in json and csv: the name only; if two are equal, the path from the common folder."""
    if len({path.name for path in items}) == len(items):
        return {path: path.name for path in items}
    places = {path: pathlib.Path(os.path.abspath(path)) for path in items}
    folder = pathlib.Path(os.path.commonpath([place.parent for place in places.values()]))
    return {path: place.relative_to(folder).as_posix() for path, place in places.items()}


def _image_ids(items: list[pathlib.Path]) -> dict[pathlib.Path, int]:
    """COCO's picture ids, if all names are numbers, as COCO's own are; else {}."""
    if not all(path.stem.isascii() and path.stem.isdigit() and not pictures.is_video(path) for path in items):
        return {}
    ids = {path: int(path.stem) for path in items}
    return ids if len(set(ids.values())) == len(ids) else {}


def heatmap_sheet(result: Result) -> np.ndarray:
    """All heatmaps of one picture, drawn over each person's crop, with titles, person by person."""
    tiles = []
    for square, maps in zip(result.crop, result.heatmaps, strict=True):
        person = cut(result.picture, square, _TILE)
        titles = result.names if maps.shape[-1] == len(result.names) else ("all joints",)
        values = np.moveaxis(maps, -1, 0)
        tiles += [draw.titled(draw.heatmap(person, v), t) for v, t in zip(values, titles, strict=True)]
    return draw.sheet(tiles, columns=min(8, len(tiles)))


def attention_sheet(result: Result) -> np.ndarray:
    """The network's attention maps, drawn over each person's crop, a row for each stack."""
    people = zip(result.crop, result.attention, strict=True)
    sheets = [draw.attention_sheet(cut(result.picture, c, _TILE), maps, result.names) for c, maps in people]
    return np.concatenate(sheets)


def _read_boxes(
    path: str | None,
    items: list[pathlib.Path] | None,
    selection: Selection | None,
    remark: Callable[[str], None],
) -> dict[str, list] | None:
    """{file name: boxes} from a json file; the predictor checks the boxes themselves.

    Args:
      path: a file with {file name: boxes}, COCO's detection results or a data set in COCO's format.
      items: the pictures; None if they are not known yet: the boxes must then be given by name.
      selection: chooses people among COCO's results.
      remark: is called with a line if some pictures have no boxes in COCO's results.

    Raises:
      ValueError: the file contains something else.
    """
    if not path:
        return None
    content = files.read_json(path, unique=True)  # of two equal names json would keep only the last
    if isinstance(content, dict) and not {"images", "annotations"} <= content.keys():
        return content
    if items is None:
        raise ValueError(
            f'{path}: --jsonl takes boxes by name, {{"photo.jpg": [[x, y, width, height], ...]}}.'
        )
    try:
        found = _of_coco(content, items)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected json like {{"photo.jpg": [[x, y, width, height], ...], ...}}, or COCO\'s '
            f'detection results, [{{"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": '
            f"0.9}}, ...]; {error}."
        ) from None
    boxes, selection = {}, selection or Selection()
    for item in items:
        rows = found.get(item, [])
        people = Detections(np.array([box for box, _ in rows]), np.array([score for _, score in rows]))
        chosen = people
        if rows:
            size = np.abs(people.boxes[:, :2] + people.boxes[:, 2:]).max(axis=0)
            chosen, _ = selection.of(people, (math.ceil(size[0]), math.ceil(size[1])))
        boxes[str(item)] = chosen.boxes.tolist()
    if missing := [item for item in items if item not in found]:
        some = f"{missing[0].name} and {len(missing) - 1} more" if len(missing) > 1 else missing[0].name
        remark(f"{path} has no boxes for {some}: no person is searched for there.")
    return boxes


def _of_coco(content, items: list[pathlib.Path]) -> dict[pathlib.Path, list[tuple[list[float], float]]]:
    """People's boxes with scores for each picture.

    A box belongs to a picture by, in this order: its id in the data set's list of pictures, the `file_name`
    in the box's record, or the picture's name, with or without its ending, or as a number.
    """
    names, records = {}, content
    if isinstance(content, dict):
        names = {image["id"]: image["file_name"] for image in content["images"]}
        records = content["annotations"]
    places: dict[str | int, pathlib.Path] = {}
    for item in items:
        places |= {item.name: item, item.stem: item}
        places |= {int(item.stem): item} if item.stem.isascii() and item.stem.isdigit() else {}
    found: dict[pathlib.Path, list] = {}
    if not isinstance(records, list):
        raise ValueError(f"found a {type(records).__name__}")
    for record in records:
        if record.get("frame") is not None:
            raise ValueError("boxes of single frames of a video are not supported; use a detector")
        name = names.get(record["image_id"], record.get("file_name", record["image_id"]))
        name = pathlib.PurePath(name).name if isinstance(name, str) else name
        if record.get("category_id", 1) != 1 or name not in places:
            continue
        box = [float(value) for value in record["bbox"]]
        if len(box) != 4 or not np.isfinite(box).all():
            raise ValueError(f"found the box {record['bbox']}")
        found.setdefault(places[name], []).append((box, float(record.get("score", 1.0))))
    if records and not found:
        some = [record["image_id"] for record in records[:3]]
        raise ValueError(
            f"none of its boxes belongs to a person (category_id 1) in these pictures; image_id {some}"
        )
    return found


class Coco:
    """Collects results in COCO's formats, as a list of results and as a data set.

    Attributes:
      results: a list that `loadRes` of pycocotools reads, with each picture's name, frame and time.
      dataset: {"images", "annotations", "categories"}, which also lists pictures without people.
    """

    def __init__(self, skeleton: Skeleton, ids: dict[pathlib.Path, int]):
        limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]  # COCO counts joints from 1
        person = {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}
        self.results: list[dict] = []
        self.dataset: dict[str, list] = {"images": [], "annotations": [], "categories": [person]}
        self._ids = ids

    def add(self, result: Result, title: str) -> None:
        """Adds a picture and its people."""
        width, height = result.picture.size
        image_id = self._ids.get(_path(result), len(self.dataset["images"]) + 1)
        place = {} if result.frame is None else {"frame": result.frame, "time": _seconds(result.time)}
        image = {"id": image_id, "file_name": title, "width": width, "height": height}
        self.dataset["images"].append(image | place)
        for person in result.to_coco(image_id):
            self.results.append(person | {"file_name": title} | place)
            flags = person["keypoints"][2::3]
            more = {"id": len(self.dataset["annotations"]) + 1, "num_keypoints": flags.count(2)}
            more |= {"area": round(person["bbox"][2] * person["bbox"][3], 2), "iscrowd": 0}
            self.dataset["annotations"].append(person | more)


def _seconds(time: float | None) -> float | None:
    return None if time is None else round(time, 6)


def _rows(result: Result, title: str) -> list[tuple]:
    """A row of the table for each joint."""
    rows = []
    for _, frame, time, person, name, x, y, score in result.rows():
        when = ("", "") if frame is None else (frame, f"{time:.6f}")
        rows.append((title, *when, person, name, f"{x:.2f}", f"{y:.2f}", f"{score:.4f}"))
    return rows


def _classes(text: str) -> tuple[str | int, ...]:
    return tuple(int(name) if name.isdigit() else name for name in text.split(","))


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, text.split(",")))
        inference.check_scales(scales)
        return scales
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not numbers from 0.1 to 10, such as 0.8,1,1.2"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.predict",
        description="Finds the joints of people in pictures and videos, draws them and writes COCO keypoint "
        "json. Coordinates are in pixels; the centre of the upper left pixel is at (0.5, 0.5).",
        epilog="hourglass predict photos/ --output=out --detector=torchvision finds all people; "
        "hourglass predict clip.mp4 --output=out --smooth --detector=yolox_s.onnx --detect_every=5 tracks "
        "people through a video; hourglass predict 0 --output=out reads the first camera. "
        'BOXES.json: {"photo.jpg": [[x, y, width, height], ...], ...}, a box for each person; the boxes of a '
        "video are for all its frames. Or COCO's detection results. Exit code: 0; 1 if a file could not "
        "be read or an argument is wrong; 130 if the command was interrupted.",
    )
    _add_sources(parser.add_argument)
    _add_detection(parser.add_argument)
    _add_estimation(parser.add_argument)
    _add_videos(parser.add_argument)
    _add_outputs(parser.add_argument)
    return parser


def _add_sources(add: Callable) -> None:
    """Adds the options of the pictures, the output folder, the weights and the boxes."""
    add(
        "paths", nargs="+", metavar="PATH",
        help="pictures and videos, folders of them, quoted globs, the number of a camera, or the address of "
        "a stream (rtsp://..., http://...), which Ctrl-C ends",
    )  # fmt: skip
    add("--output", required=True, help="folder for the drawings and the json")
    add(
        *("--checkpoint", "--workdir"), metavar="PATH",
        help="a training's workdir, one of its checkpoints or a file of weights (default: the weights that "
        "come with the package)",
    )  # fmt: skip
    add(
        "--boxes",
        help="json of people's boxes, or COCO's detection results; without boxes and detector, the whole "
        "picture is the person's box",
    )


def _add_detection(add: Callable) -> None:
    """Adds the options of the detector and the choice of its boxes."""
    add(
        "--detector", metavar="NAME",
        help=f"detector that finds the people: {detectors.NAMES}; each needs its own extra packages",
    )  # fmt: skip
    add(
        "--detector_threshold", type=float, default=Selection.threshold, metavar="SCORE",
        help="least score of a detected person, also for COCO's results (default: %(default)s)",
    )  # fmt: skip
    add(
        "--detector_classes", type=_classes, default=Selection.classes, metavar="NAME,...",
        help="names or numbers of the detector's classes that are people (default: person)",
    )  # fmt: skip
    add(
        "--detector_overlap", type=float, default=Selection.overlap, metavar="SHARE",
        help="of two boxes whose intersection / union is larger, keep the better one (default: %(default)s)",
    )  # fmt: skip
    add(
        "--people", type=int, default=Selection.limit, metavar="N",
        help="keep at most the N best detected people of a picture (default: %(default)s)",
    )  # fmt: skip


def _add_estimation(add: Callable) -> None:
    """Adds the options of how the network finds joints."""
    add(
        "--threshold", type=float,
        help="least score of a drawn joint (default: the one with the best F1 in the weights' evaluation, "
        "else 0.1)",
    )  # fmt: skip
    add(
        "--flip", action=argparse.BooleanOptionalAction, default=True,
        help="average with the flipped picture (default: on)",
    )  # fmt: skip
    add(
        "--scales", type=_scales, default=(1.0,), metavar="S,S,...",
        help="average over scales, such as 0.8,1,1.2: at 1.2 the person is 1.2 times larger (default: 1)",
    )  # fmt: skip
    add(
        "--second_look", action=argparse.BooleanOptionalAction,
        help="run the network again on a crop around the joints found, which takes twice the time (default: "
        "if a whole picture is treated as one person)",
    )  # fmt: skip
    add(
        "--decode", choices=("quarter", "argmax", "dark", "soft_argmax"), default="quarter",
        help="how joints are read from heatmaps (default: %(default)s)",
    )  # fmt: skip
    add(
        "--format", choices=("results", "dataset"), default="results",
        help="format of predictions.json: COCO's results, a list of people that pycocotools' loadRes reads, "
        "or a data set with pictures and categories (default: %(default)s)",
    )  # fmt: skip


def _add_videos(add: Callable) -> None:
    """Adds the options of the videos."""
    add(
        "--detect_every", type=int, default=1, metavar="N",
        help="run the detector on every N-th frame of a video; in between, the joints give the boxes",
    )  # fmt: skip
    add(
        "--smooth", action="store_true",
        help="remove jitter from videos, with a One-Euro filter for each person's joints",
    )  # fmt: skip
    add("--min_cutoff", type=float, default=OneEuro.min_cutoff, metavar="HZ",
        help="cutoff of --smooth at rest: a lower one jitters less (default: %(default)s)")  # fmt: skip
    add("--beta", type=float, default=OneEuro.beta, metavar="B",
        help="speed coefficient of --smooth: a larger one lags less (default: %(default)s)")  # fmt: skip


def _add_outputs(add: Callable) -> None:
    """Adds the options of the drawings, the other files and the device."""
    add("--colours", choices=("side", "person"), default="side",
        help="colours of the skeletons: by side, or one for each person (default: %(default)s)")  # fmt: skip
    add("--labels", action="store_true", help="also draw the joints' names")
    add("--draw_boxes", action="store_true", help="also draw people's boxes, with their ids in videos")
    add(
        "--jsonl", action="store_true",
        help="for archives: write a line of json for each picture and frame and draw nothing; the same "
        "command continues where it stopped",
    )  # fmt: skip
    add(
        "--shard",
        metavar="I/N",
        help="with --jsonl: only the I-th of N parts of the pictures, split by name, such as 3/16; auto: the "
        "part of this process, by SLURM's, Open MPI's or a TPU slice's variables",
    )
    add("--csv", dest="table", action="store_true", help="also write predictions.csv, a row for each joint")
    add("--heatmaps", action="store_true", help="also draw each picture's heatmaps: NAME_heatmaps.png")
    add("--attention", action="store_true", help="also draw each person's attention maps: NAME_attention.png")
    add("--device", choices=("cpu", "gpu", "tpu"), help="where to compute (default: the best available)")
    add("--batch_size", type=int, default=8, help="most people in a batch (default: %(default)s)")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.threshold is not None:
        try:
            check_threshold(args.threshold)
        except ValueError as error:
            parser.error(f"--{error}")
    devices.keep_programs()

    def command() -> int:
        options = vars(args)
        names = {
            "detector_threshold": "threshold", "detector_classes": "classes", "detector_overlap": "overlap",
            "people": "limit",
        }  # fmt: skip
        selection = Selection(**{name: options.pop(flag) for flag, name in names.items()})
        jsonl, shard = options.pop("jsonl"), options.pop("shard")
        if jsonl:
            return 1 if _archive(options, shard, selection) else 0
        if shard:
            raise ValueError("--shard needs --jsonl: only the parts of its lines can be joined.")
        drawing = {"boxes": options.pop("draw_boxes")}
        drawing |= {name: options.pop(name) for name in ("colours", "labels")}
        smooth = OneEuro(min_cutoff=options.pop("min_cutoff"), beta=options.pop("beta"))
        options |= {"smooth": options["smooth"] and smooth, "drawing": drawing}
        return 1 if predict(**options, selection=selection) else 0

    return console.run(command, interrupted="Interrupted; the files written so far are complete.")


if __name__ == "__main__":
    devices.keep_memory()
    sys.exit(main())
