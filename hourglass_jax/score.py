"""Scores predictions in a file against annotations in a file, with the rules of the published evaluations.

python -m hourglass_jax.score --dataset=mpii --annotations=valid.h5 --predictions=preds.h5

Coordinates are pixels of the pictures and may be negative. A prediction that is not finite is a wrong joint.
Predictions are matched with the annotations' people by position in the file; in .json with ids by id; and in
COCO's format by picture and place. With --dataset=coco a picture may have more or fewer predicted people;
otherwise a wrong number of people is refused.
"""

import argparse
import dataclasses
import sys
from pathlib import PurePath

import numpy as np

from hourglass_jax import console, copies, extras, files
from hourglass_jax.data.datasets import arrays
from hourglass_jax.evaluation import annotations, metrics, oks, plots, scores
from hourglass_jax.evaluation.annotations import Annotations
from hourglass_jax.evaluation.scores import Scores

RULES = ("mpii", "pytorch-pose")
_ORDERS = {
    "(people, joints, 2)": (0, 1, 2),
    "(joints, 2, people)": (2, 0, 1),
    "(2, joints, people)": (2, 1, 0),
}
_BY_PERSON = {"(people, joints, 2)": (0, 1, 2)}  # if people are matched one by one
_SWAPPED = 20.0  # per cent: x and y are swapped if swapping them makes so many more joints correct


@dataclasses.dataclass(frozen=True)
class Detection:
    """A predicted person: the annotations' name of the picture, joints (k, 2) px, a score of any range."""

    picture: str
    joints: np.ndarray
    score: float = 1.0


def read_predictions(path, annotated: Annotations) -> np.ndarray:
    """Reads one prediction for each annotated person.

    Args:
      path: .h5 or .mat with `preds`, (n, k, 2) or, as usual in MATLAB, (k, 2, n) or (2, k, n); .json or
        .json.gz: our predictions.json, COCO keypoints (the people of a picture in any order), or a plain list
        of n people with k [x, y].
      annotated: the n people with k joints.

    Returns:
      (n, k, 2) float64 px, nan where the file has no number.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not readable, or does not fit the annotations; one line.
    """
    found = read_people(path, annotated)
    return matched(path, found, annotated)[0] if isinstance(found, list) else found


def read_people(path, annotated: Annotations) -> np.ndarray | list[Detection]:
    """As `read_predictions`, but the people of COCO keypoints as detections, not yet matched."""
    if PurePath(path).name.endswith((".json", ".json.gz")):
        return _of_json(path, annotated)
    if PurePath(path).suffix not in (".h5", ".hdf5", ".mat"):
        raise ValueError(f"{path}: unknown kind of file; give predictions as .h5, .mat, .json or .json.gz.")
    return _arranged(path, arrays.named(path, arrays.read_arrays(path), "preds"), annotated)


def matched(
    path, detections: list[Detection], annotated: Annotations, *, exactly: bool = True
) -> tuple[np.ndarray, dict[str, int]]:
    """Matches each annotated person with the detection at the same place in the picture, see `oks.match`.

    Args:
      path: path of the predictions, for messages.
      exactly: require as many detections as annotated people in each picture.

    Returns:
      joints (n, k, 2) px, nan for people without a detection; and {"missing", "extra"}, see `Scores.people`.
    """
    size = metrics.longer_side(annotated.joints, annotated.visible > 0)
    if annotated.box_size is not None:
        size = np.where(size > 0, size, annotated.box_size)
    by_picture = {}
    for one in detections:
        by_picture.setdefault(one.picture, []).append(one.joints)
    assert annotated.pictures is not None  # detections are read only if the annotations name pictures
    if not exactly and detections and not set(annotated.pictures) & by_picture.keys():
        found = f"{path}: predicts people in {next(iter(by_picture))!r} and others"
        raise ValueError(f"{found}, none of which is a picture of the annotations.")
    joints = np.full(annotated.joints.shape, np.nan)
    missing, extra = 0, 0
    for picture in dict.fromkeys([*map(str, annotated.pictures), *by_picture]):
        rows = np.flatnonzero(annotated.pictures == picture)
        people = by_picture.get(picture, [])
        if exactly and len(people) != len(rows):
            raise ValueError(
                f"{path}: predicts {len(people)} people in picture {picture!r}, but the annotations have "
                f"{len(rows)}; give one for each."
            )
        predicted = np.array(people).reshape(-1, *joints.shape[1:])
        found = oks.match(predicted, annotated.joints[rows], annotated.visible[rows] > 0, size[rows])
        joints[rows[found >= 0]] = predicted[found[found >= 0]]
        missing += int((found < 0).sum())
        extra += len(people) - int((found >= 0).sum())
    return joints, {"missing": missing, "extra": extra}


def score_against(
    predicted: np.ndarray,
    annotated: Annotations,
    *,
    rule: str = "mpii",
    metric: str = "auto",
    threshold: float | None = None,
) -> Scores:
    """The tables of predicted joints, see `scores.score_joints`.

    Args:
      predicted: (n, k, 2) px.
      annotated: the n people with k joints.
      rule: "mpii": <=, Head averages upper neck and head top, Mean pools the table's joints; "pytorch-pose":
        <, Head is head top, Mean is the mean of the joints' rates. AUC, curves and pools keep MPII's parts.
      metric, threshold: see `scores`.

    Raises:
      ValueError: the rule does not fit the joint set, or x and y are swapped.
    """
    skeleton = annotated.skeleton
    if rule == "pytorch-pose" and skeleton.name != "mpii":
        raise ValueError(f"--rule=pytorch-pose is for MPII's joints, not {skeleton.name}'s.")
    metric = "pck" if metric == "auto" and annotated.torso is not None else metric
    metric, reference = scores.choose(
        metric,
        annotated.joints,
        annotated.visible,
        annotated.head_size,
        skeleton,
        box_size=annotated.box_size,
    )
    if metric == "pck" and annotated.torso is not None:
        reference = annotated.torso
    found, swapped = (
        scores.score_joints(
            joints[:, None],
            annotated.joints,
            annotated.visible,
            reference,
            skeleton,
            metric=metric,
            threshold=threshold,
            strictly=rule == "pytorch-pose",
            groups=annotated.groups,
        )
        for joints in (predicted, predicted[..., ::-1])
    )
    if swapped.mean > found.mean + _SWAPPED:
        raise ValueError(
            f"x and y are swapped: as (y, x) {swapped.mean:.1f}% of the joints would be correct, as (x, y) "
            f"{found.mean:.1f}%; write x first."
        )
    if rule == "pytorch-pose":
        table = found.table | {"Head": found.joints["head_top"], "Mean": found.macro}
        metric = f"{found.metric} pytorch-pose"
        found = dataclasses.replace(found, table=table, stacks=[table], metric=metric)
    return found


def _arranged(path, values: np.ndarray, annotated: Annotations, orders=_ORDERS) -> np.ndarray:
    """Transposes values to (n, k, 2) if their shape fits one of the orders; otherwise says why not."""
    n, k = annotated.visible.shape
    fitting = [
        (order, axes)
        for order, axes in orders.items()
        if values.ndim == 3 and tuple(values.shape[a] for a in axes) == (n, k, 2)
    ]
    if len(fitting) == 1:
        return values.transpose(fitting[0][1])
    found = f"{path}: predictions {values.shape}"
    if fitting:
        orders = " and ".join(order for order, _ in fitting)
        raise ValueError(f"{found} may be {orders}; give json with ids.")
    expected = (
        f"the annotations need ({n}, {k}, 2): {n} people, {k} joints of {annotated.skeleton.name}, (x, y)"
    )
    if values.ndim == 3 and sorted(values.shape) == sorted((n, k, 2)):
        raise ValueError(f"{found} have their axes swapped; {expected}. Transpose them.")
    if values.ndim == 3 and values.shape[2] == 2 and values.shape[0] == n:
        raise ValueError(f"{found} have {values.shape[1]} joints; {expected}. Choose the right --dataset.")
    if values.ndim == 3 and values.shape[1:] == (k, 2):
        raise ValueError(
            f"{found} are for {values.shape[0]} people; {expected}. --rows=START:STOP:STEP scores some."
        )
    raise ValueError(f"{found}; {expected}.")


def _of_json(path, annotated: Annotations) -> np.ndarray | list[Detection]:
    content = files.read_json(path)
    try:
        if isinstance(content, dict):
            return _of_coco(path, content["annotations"], content["images"], annotated)
        if content == [] and annotated.images is not None:
            return []  # COCO's results without people
        if content and isinstance(content[0], dict):
            own = "id" in content[0] and "joints" in content[0]
            return _by_id(path, content, annotated) if own else _of_coco(path, content, [], annotated)
        return _arranged(path, np.array(content, np.float64), annotated)  # null becomes nan
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path}: neither our predictions.json, COCO keypoints nor a list of people's joints ({reason})."
        ) from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: the people's lists of joints differ in length ({error}).") from None


def _by_id(path, people: list[dict], annotated: Annotations) -> np.ndarray:
    if annotated.ids is None:
        raise ValueError(f"{path}: has ids, but the annotations have none; for MPII use valid.h5.")
    found = {str(person["id"]): person["joints"] for person in people}
    if len(found) < len(people):
        raise ValueError(
            f"{path}: {len(people) - len(found)} ids occur twice; give each person one prediction."
        )
    wanted = list(map(str, annotated.ids))
    for lacking, who in ((set(wanted) - found.keys(), "lacks"), (found.keys() - set(wanted), "has unknown")):
        if lacking:
            raise ValueError(
                f"{path}: {who} {len(lacking)} people, {min(lacking)!r} first; the annotations have "
                f"{len(wanted)}. --rows=START:STOP:STEP scores some of them."
            )
    return _arranged(path, np.array([found[id_] for id_ in wanted], np.float64), annotated, _BY_PERSON)


def _of_coco(path, people: list[dict], images: list[dict], annotated: Annotations) -> list[Detection]:
    """Reads people by picture.

    Names are compared without folder, ending and leading zeros, unless two of them would become equal.
    """
    if annotated.pictures is None:
        raise ValueError(f"{path}: names pictures, but the annotations do not; for MPII use valid.h5.")
    names = {_number(image["id"]): image["file_name"] for image in images}
    if not images and annotated.images is not None:  # COCO's results: only a list of people
        names = dict(zip(annotated.images, annotated.pictures, strict=True))
    names |= {_number(person["image_id"]): person["file_name"] for person in people if "file_name" in person}
    known = dict.fromkeys(map(str, annotated.pictures))
    short = _stem if len(known) == len(set(map(_stem, known))) else str
    whole = {short(name): name for name in known}
    k = len(annotated.skeleton)
    found = []
    for number, person in enumerate(people, start=1):
        image = _number(person["image_id"])
        name = str(names.get(image, image))
        values = np.array(person["keypoints"], np.float64)
        if values.size % 3 or values.ndim == 0:
            raise ValueError(
                f"{path}: person {number}: keypoints has {values.size} numbers, not x, y, score of each"
            )
        joints = values.reshape(-1, 3)[:, :2]
        if len(joints) != k:
            raise ValueError(
                f"{path}: a person has {len(joints)} joints, but the annotations have {k} "
                f"({annotated.skeleton.name}). Choose the right --dataset."
            )
        score = 1.0 if person.get("score") is None else float(person["score"])
        if not np.isfinite(score):
            raise ValueError(f"{path}: person {number}: score is {score}; expected a number")
        found.append(Detection(whole.get(short(name), short(name)), joints, score))
    return found


def _number(id_) -> str:
    """A picture's id in COCO's files as text; some tools write 7 as 7.0."""
    return str(int(id_)) if isinstance(id_, float) and id_.is_integer() else str(id_)


def _stem(name) -> str:
    return PurePath(str(name)).stem.lstrip("0")


def _rows(text: str) -> slice:
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not START:STOP:STEP, such as 1000:2000") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.score", description="Scores predicted joints as the papers do."
    )
    parser.add_argument("--dataset", required=True, choices=annotations.DATASETS)
    parser.add_argument("--annotations", required=True, metavar="FILE", help=".h5, .mat, .json, .json.gz")
    parser.add_argument("--predictions", required=True, metavar="FILE", help=".h5, .mat (preds), .json")
    parser.add_argument("--rule", default="mpii", choices=RULES, help="scoring rule (default: %(default)s)")
    parser.add_argument("--metric", default="auto", choices=("auto", *scores.METRICS), help=(
        "pckh: relative to the head size; pck (also called PDJ): to the torso, for LSP left hip to right "
        "shoulder; pckbox: to the longer side of the labelled joints' box"
    ))  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, help="default: 0.5 of the head, 0.2 of the torso, 0.1 of a box"
    )
    parser.add_argument("--crop", default="", choices=("joints", "image", "annotated"), help=(
        "source of the predicting network's crops; stored with the scores"
    ))  # fmt: skip
    parser.add_argument("--rows", type=_rows, default=slice(None), help="score only rows START:STOP:STEP")
    parser.add_argument("--curves", metavar="FILE.png", help="draw the curves, and write FILE.csv")
    parser.add_argument("--json", metavar="FILE", help="write all figures, for hourglass_jax.compare")
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    files.check_output("curves", args.curves, plots.ENDINGS)
    files.check_output("json", args.json)
    args.annotations, args.predictions = map(copies.fetched, (args.annotations, args.predictions))
    annotated = annotations.read(args.annotations, args.dataset).rows(args.rows)
    if not len(annotated):
        raise ValueError(f"{args.annotations}: no people to score; see --rows.")
    found_people, about_people, precision = read_people(args.predictions, annotated), None, None
    if isinstance(found_people, list):
        own = args.dataset == "coco"
        predicted, counts = matched(args.predictions, found_people, annotated, exactly=not own)
        if own:
            about_people, precision = counts, _average_precision(args, found_people, annotated)
    else:
        predicted = found_people
    found = score_against(predicted, annotated, rule=args.rule, metric=args.metric, threshold=args.threshold)
    found = dataclasses.replace(found, people=about_people, average_precision=precision)
    about = {"data": f"{args.dataset}, {PurePath(args.annotations).name}"}
    if args.rows != slice(None):
        about["data"] += f", {len(annotated)} people of --rows"
    about |= {"predictions": PurePath(args.predictions).name, "crop": args.crop}
    print(f"{about['predictions']}: {about['data']}, {len(annotated)} people")
    if args.crop:
        print(f"crop: {args.crop}")
    print(scores.report(found, digits=4, details=True, joints=True))
    if args.curves:
        plots.write_curve(args.curves, found.curve)
        plots.plot_scores(args.curves, found)
    if args.json:
        files.write_json(args.json, about | found.to_dict())


def _average_precision(args, detections: list[Detection], annotated: Annotations) -> dict | None:
    """COCO's figures, if all people of the file are scored and pycocotools is installed."""
    if args.rows != slice(None) or annotated.pictures is None or annotated.images is None:
        return None
    numbers = dict(zip(annotated.pictures, annotated.images, strict=True))
    people = [(numbers.get(one.picture, one.picture), one.joints, one.score) for one in detections]
    try:
        return oks.average_precision(args.annotations, people)
    except ModuleNotFoundError as error:
        print(f"No average precision by OKS: it needs {extras.failure(error)}.")
        return None


if __name__ == "__main__":
    sys.exit(main())
