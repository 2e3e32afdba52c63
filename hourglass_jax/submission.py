"""Writes predictions of MPII's test people as a file for the benchmark's server.

    python -m hourglass_jax.submission --predictions=predictions.json \\
      --annotations=mpii_human_pose_v1_u12_1.mat --output=pred_keypoints_mpii.mat

The toolkit's evaluatePCKh.m compares `pred` with annolist(img_train == 0): all test pictures in their order,
including those without people, and all rectangles of each. Only people of single_person are scored.
"""

import argparse
import sys

import numpy as np

from hourglass_jax import console, copies, files
from hourglass_jax.data.datasets import mpii_annotations

_NOTHING = np.zeros((0, 0))  # MATLAB's []


def read_predictions(path) -> dict[str, np.ndarray]:
    """Reads the joints of a predictions.json, (16, 2) float64 px of the picture, by the person's id.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has other content, an id occurs twice, or a joint is not finite; one line.
    """
    people, found = files.read_json(path), {}
    try:
        for person in people:
            id_, joints = str(person["id"]), np.array(person["joints"], np.float64)  # null becomes nan
            if id_ in found:
                raise ValueError(f"{id_} occurs twice")
            if joints.shape != (mpii_annotations.JOINTS, 2) or not np.isfinite(joints).all():
                raise ValueError(f"the joints of {id_} are not 16 finite [x, y]")
            found[id_] = joints
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path}: not the predictions.json of a network with MPII's 16 joints ({reason})."
        ) from None
    return found


def check(
    pictures: list[mpii_annotations.Picture], joints: dict[str, np.ndarray], *, allow_missing: bool = False
) -> int:
    """Counts the people who count in the benchmark and have a prediction.

    Args:
      pictures: the test set.
      joints: the joints by the person's id.
      allow_missing: allow people who count without a prediction.

    Raises:
      ValueError: a prediction is missing, or its person is not in the test set; one line.
    """
    known = {person.id for picture in pictures for person in picture.people}
    if unknown := [id_ for id_ in joints if id_ not in known]:
        raise ValueError(
            f"{len(unknown)} of {len(joints)} predictions are for people outside the test set, "
            f"{unknown[0]!r} first; evaluate with --config.data.validation_split=test."
        )
    count = [picture.people[i].id for picture in pictures for i in sorted(picture.single)]
    missing = [id_ for id_ in count if id_ not in joints]
    if missing and not allow_missing:
        raise ValueError(
            f"{len(missing)} of the {len(count)} people who count have no prediction, {missing[0]!r} first; "
            "their joints would count as wrong; --allow_missing leaves them out."
        )
    if len(missing) == len(count):
        raise ValueError("no person who counts has a prediction; there is nothing to submit.")
    return len(count) - len(missing)


def structure(pictures: list[mpii_annotations.Picture], joints: dict[str, np.ndarray]) -> np.ndarray:
    """`pred` as SciPy writes it: a structure array (1, n) of the n test pictures, with annolist's fields.

    The fields are image.name, and annorect with scale, objpos.{x, y} and annopoints.point.{x, y, id}; ids
    count from 0, places are as in the annotations. annopoints is empty for people without a prediction, and
    annorect for pictures without people.
    """
    return _structs(
        {
            "image": _structs([{"name": picture.name}]),
            "annorect": _structs([_rectangle(p, joints.get(p.id)) for p in picture.people]),
        }
        for picture in pictures
    )


def _rectangle(person: mpii_annotations.Annotation, joints: np.ndarray | None) -> dict:
    known = np.isfinite(person.center).all()
    points = [] if joints is None else [{"x": x, "y": y, "id": float(i)} for i, (x, y) in enumerate(joints)]
    return {
        "scale": person.scale if np.isfinite(person.scale) else _NOTHING,
        "objpos": _structs([dict(zip("xy", person.center, strict=True))] if known else []),
        "annopoints": _structs([{"point": _structs(points)}] if points else []),
    }


def _structs(rows) -> np.ndarray:
    """Dictionaries of one kind as a structure array (1, n), or []."""
    rows = list(rows)
    if not rows:
        return _NOTHING
    array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row.values())
    return array


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.submission",
        description="Writes predictions of MPII's test people for the benchmark's server.",
    )
    parser.add_argument(
        "--predictions", required=True, metavar="FILE", help="predictions.json of the split test"
    )
    parser.add_argument("--annotations", required=True, metavar="FILE", help="mpii_human_pose_v1_u12_1.mat")
    parser.add_argument("--output", required=True, metavar="FILE", help="such as pred_keypoints_mpii.mat")
    parser.add_argument(
        "--allow_missing", action="store_true", help="allow people who count without a prediction"
    )
    args = parser.parse_args(arguments)
    return console.run(_main, args)


def _main(args) -> None:
    import scipy.io  # not in requirements-minimal.txt

    files.check_output("output", args.output)
    joints = read_predictions(args.predictions)
    pictures = mpii_annotations.read_test(copies.fetched(args.annotations))
    count = check(pictures, joints, allow_missing=args.allow_missing)
    with files.replacing(args.output) as file:
        scipy.io.savemat(file, {"pred": structure(pictures, joints)}, do_compression=True)
    print(f"{len(joints)} people, {count} of whom count, in {len(pictures)} pictures -> {args.output}")


if __name__ == "__main__":
    sys.exit(main())
