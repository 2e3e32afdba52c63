"""Scores predictions in a file against annotations in a file, by the rules of the published evaluations.

python -m hourglass_jax.score --dataset=mpii --annotations=valid.h5 --predictions=preds.h5

Coordinates are pixels of the pictures and may be negative. A prediction that is not a finite number is a
wrong joint. Predictions belong to the annotations' people by position, in .json by id or picture where it has
them; any other number of people is refused.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from hourglass_jax import console, files
from hourglass_jax.data.datasets import arrays
from hourglass_jax.evaluation import annotations, plots, scores
from hourglass_jax.evaluation.annotations import Annotations
from hourglass_jax.evaluation.scores import Scores

RULES = ("mpii", "pytorch-pose")
_ORDERS = {
    "(people, joints, 2)": (0, 1, 2),
    "(joints, 2, people)": (2, 0, 1),
    "(2, joints, people)": (2, 1, 0),
}
_BY_PERSON = {"(people, joints, 2)": (0, 1, 2)}  # the people were found one by one
_SWAPPED = 20.0  # per cent: x and y have changed places if that makes so many more joints right


def read_predictions(path, annotated: Annotations) -> np.ndarray:
    """Reads one prediction for each annotated person.

    Args:
      path: .h5 or .mat with `preds`, (n, k, 2) or, as MATLAB's users write, (k, 2, n) or (2, k, n); .json or
        .json.gz: our predictions.json, COCO keypoints (of a picture with several people in the annotations'
        order), or a plain list of n people of k [x, y].
      annotated: the n people of k joints.

    Returns:
      (n, k, 2) float64 px, nan where the file has no number.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not readable, or does not fit the annotations; one line.
    """
    if Path(path).name.endswith((".json", ".json.gz")):
        return _of_json(path, annotated)
    if Path(path).suffix not in (".h5", ".hdf5", ".mat"):
        raise ValueError(f"{path}: unknown kind of file; predictions are .h5, .mat, .json or .json.gz.")
    return _arranged(path, arrays.named(path, arrays.read_arrays(path), "preds"), annotated)


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
      annotated: the n people of k joints.
      rule: "mpii": <=, Head averages upper neck and head top, Mean pools the table's joints; "pytorch-pose":
        <, Head is head top, Mean is the mean of the joints' rates. AUC, curves and pools keep MPII's parts.
      metric, threshold: see `scores`.

    Raises:
      ValueError: the rule does not suit the joint set, or x and y have changed places.
    """
    skeleton = annotated.skeleton
    if rule == "pytorch-pose" and skeleton.name != "mpii":
        raise ValueError(f"--rule=pytorch-pose is for MPII's joints, not {skeleton.name}'s.")
    metric = "pck" if metric == "auto" and annotated.torso is not None else metric
    metric, reference = scores.choose(
        metric, annotated.joints, annotated.visible, annotated.head_size, skeleton
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
            f"x and y have changed places: as (y, x) {swapped.mean:.1f}% of the joints would be "
            f"right, as (x, y) {found.mean:.1f}%; write x first."
        )
    if rule == "pytorch-pose":
        table = found.table | {"Head": found.joints["head_top"], "Mean": found.macro}
        metric = f"{found.metric} pytorch-pose"
        found = dataclasses.replace(found, table=table, stacks=[table], metric=metric)
    return found


def _arranged(path, values: np.ndarray, annotated: Annotations, orders=_ORDERS) -> np.ndarray:
    """(n, k, 2), of whichever of the orders the shape is; refuses all others, saying why."""
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
        f"the annotations want ({n}, {k}, 2): {n} people, {k} joints of {annotated.skeleton.name}, (x, y)"
    )
    if values.ndim == 3 and sorted(values.shape) == sorted((n, k, 2)):
        raise ValueError(f"{found} have their axes swapped; {expected}. Transpose them.")
    if values.ndim == 3 and values.shape[2] == 2 and values.shape[0] == n:
        raise ValueError(f"{found} have {values.shape[1]} joints; {expected}. Choose the right --dataset.")
    if values.ndim == 3 and values.shape[1:] == (k, 2):
        raise ValueError(
            f"{found} are of {values.shape[0]} people; {expected}. --rows=START:STOP:STEP scores some."
        )
    raise ValueError(f"{found}; {expected}.")


def _of_json(path, annotated: Annotations) -> np.ndarray:
    content = files.read_json(path)
    try:
        if isinstance(content, dict):
            return _of_coco(path, content["annotations"], content["images"], annotated)
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
        raise ValueError(f"{path}: people's lists of joints are not of one length ({error}).") from None


def _by_id(path, people: list[dict], annotated: Annotations) -> np.ndarray:
    if annotated.ids is None:
        raise ValueError(f"{path}: goes by id, but the annotations have none; for MPII use valid.h5.")
    found = {str(person["id"]): person["joints"] for person in people}
    if len(found) < len(people):
        raise ValueError(
            f"{path}: {len(people) - len(found)} ids come twice; each person has one prediction."
        )
    wanted = list(map(str, annotated.ids))
    for lacking, who in ((set(wanted) - found.keys(), "lacks"), (found.keys() - set(wanted), "has unknown")):
        if lacking:
            raise ValueError(
                f"{path}: {who} {len(lacking)} people, {min(lacking)!r} first; the annotations have "
                f"{len(wanted)}. --rows=START:STOP:STEP scores some of them."
            )
    return _arranged(path, np.array([found[id_] for id_ in wanted], np.float64), annotated, _BY_PERSON)


def _of_coco(path, people: list[dict], images: list[dict], annotated: Annotations) -> np.ndarray:
    """By picture, and in it by position. Names are compared without folder, ending and leading zeros, unless
    this makes two of them the same."""
    if annotated.pictures is None:
        raise ValueError(f"{path}: goes by picture, but the annotations name none; for MPII use valid.h5.")
    names = {str(image["id"]): image["file_name"] for image in images}
    if not images and annotated.images is not None:  # COCO's results: a list of people alone
        names = dict(zip(annotated.images, annotated.pictures, strict=True))
    known = set(annotated.pictures)
    short = _stem if len(known) == len(set(map(_stem, known))) else str
    found = {}
    for person in people:
        picture = short(names.get(str(person["image_id"]), person["image_id"]))
        triples = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        found.setdefault(picture, []).append(triples[:, :2])
    wanted = list(map(short, annotated.pictures))
    for picture in dict.fromkeys([*wanted, *found]):
        has, wants = len(found.get(picture, ())), wanted.count(picture)
        if has != wants:
            raise ValueError(
                f"{path}: predicts {has} people in picture {picture!r}, the annotations have {wants}; give "
                "one for each, in their order."
            )
    return _arranged(path, np.array([found[picture].pop(0) for picture in wanted]), annotated, _BY_PERSON)


def _stem(name) -> str:
    return Path(str(name)).stem.lstrip("0")


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
    parser.add_argument("--rule", default="mpii", choices=RULES, help="whose rule (default: %(default)s)")
    parser.add_argument("--metric", default="auto", choices=("auto", *scores.METRICS), help=(
        "pckh: share of the head size; pck (also called PDJ): of the torso, LSP's left hip to right shoulder"
        "; pckbox: of the longer side of the labelled joints' box"
    ))  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, help="default: 0.5 of the head, 0.2 of the torso, 0.1 of a box"
    )
    parser.add_argument("--crop", default="", choices=("joints", "image", "annotated"), help=(
        "where the predicting network's crops came from; stored beside the scores"
    ))  # fmt: skip
    parser.add_argument("--rows", type=_rows, default=slice(None), help="annotations START:STOP:STEP alone")
    parser.add_argument("--curves", metavar="FILE.png", help="draws the curves, and writes FILE.csv")
    parser.add_argument("--json", metavar="FILE", help="writes all figures, for hourglass_jax.compare")
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    annotated = annotations.read(args.annotations, args.dataset).rows(args.rows)
    if not len(annotated):
        raise ValueError(f"{args.annotations}: no people to score; see --rows.")
    predicted = read_predictions(args.predictions, annotated)
    found = score_against(predicted, annotated, rule=args.rule, metric=args.metric, threshold=args.threshold)
    about = {"data": f"{args.dataset}, {Path(args.annotations).name}"}
    if args.rows != slice(None):
        about["data"] += f", {len(annotated)} people of --rows"
    about |= {"predictions": Path(args.predictions).name, "crop": args.crop}
    print(f"{about['predictions']}: {about['data']}, {len(annotated)} people")
    if args.crop:
        print(f"crop: {args.crop}")
    print(scores.report(found, digits=4, details=True, joints=True))
    if args.curves:
        plots.write_curve(args.curves, found.curve)
        plots.plot_scores(args.curves, found)
    if args.json:
        files.write_json(args.json, about | found.to_dict())


if __name__ == "__main__":
    sys.exit(main())
