"""Scores of predictions from elsewhere: published figures, small files by hand, and refused files."""

import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hourglass_jax import score
from hourglass_jax.evaluation import annotations
from hourglass_jax.pose.skeletons import SKELETONS

h5py = pytest.importorskip("h5py")
scipy_io = pytest.importorskip("scipy.io")

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
N, K = 5, 16


def run(capsys, **options):
    """The command's exit code and what it printed, one of them empty: output or error."""
    code = score.main([f"--{name}={value}" for name, value in options.items()])
    return code, "".join(capsys.readouterr())


def made(folder):
    """valid.h5 of 5 people, heads of 20 px: joint 0 is missing in the first, all of the last are occluded."""
    rng = np.random.default_rng(0)
    joints = rng.integers(50, 400, (N, K, 2)).astype(float)
    joints[0, 0], joints[1, 9] = (0, 0), (30, -4)  # a head top above the picture is valid
    visible = np.ones((N, K))
    visible[0, 0] = visible[4] = 0
    with h5py.File(folder / "valid.h5", "w") as file:
        file["part"], file["visible"], file["normalize"] = joints, visible, np.full(N, 20.0)
        file["imgname"] = np.array([b"007.jpg", b"007.jpg", b"a.jpg", b"b.jpg", b"c.jpg"])
        file["person"] = np.array([2.0, 0, 0, 0, 1])
    return joints


def write(path, joints):
    if path.suffix == ".mat":
        scipy_io.savemat(path, {"preds": joints})
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["preds"] = joints
    else:
        path.write_text(json.dumps(joints))
    return path


def scored(folder, capsys, path, **options):
    """The content of --json for a file of predictions."""
    files = {"annotations": folder / "valid.h5", "predictions": path, "json": folder / "score.json"}
    code, text = run(capsys, dataset="mpii", **files, **options)
    assert code == 0, text
    return json.loads((folder / "score.json").read_text()), text


def refused(folder, capsys, path, **options):
    """The line of the error for a refused file of predictions."""
    options = {"dataset": "mpii", "annotations": folder / "valid.h5", "predictions": path} | options
    code, text = run(capsys, **options)
    assert code == 1 and text.startswith("Error: ") and text.count("\n") == 1, text
    return text


# Published predictions and figures.


@pytest.mark.parametrize(
    ("name", "expected", "pools"),
    [
        (
            "newell_valid.h5",
            [96.6917, 94.6841, 88.5291, 83.3823, 87.4848, 83.0944, 79.0740, 88.0354],
            [87.5629, 58.8205, 92.8567, 68.9308],
        ),
        (
            "bearpaw_hg_s2_b1.mat",
            [96.7428, 94.5652, 88.1200, 83.3124, 86.2558, 80.8787, 77.4686, 87.3042],
            [86.7633, 57.5507, 92.4754, 66.8130],
        ),
    ],
)
def test_published_predictions_have_their_figures(name, expected, pools, capsys):
    path = DATA / "mpii" / "reference_predictions" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    code, text = run(capsys, dataset="mpii", annotations=DATA / "mpii" / "valid.h5", predictions=path)
    lines = text.splitlines()
    assert code == 0 and lines[1].split() == ["PCKh@0.5", *"Head Sho Elb Wri Hip Knee Ank Mean".split()]
    assert lines[2].split() == ["stack", "1", *(f"{value:.4f}" for value in expected)]
    assert lines[3] == "Macro mean {:.4f}, AUC {:.4f}, visible {:.4f}, occluded {:.4f}".format(*pools)


def test_pytorch_poses_rule_gives_its_published_figures(capsys):
    path = DATA / "mpii" / "detections_our_format.mat"
    if not path.exists():
        pytest.skip(f"no {path}")
    predictions = DATA / "mpii" / "reference_predictions" / "bearpaw_hg_s2_b1.mat"
    options = {"annotations": path, "predictions": predictions, "rule": "pytorch-pose"}
    code, text = run(capsys, dataset="mpii", **options)
    assert code == 0
    found = [f"{float(value):.2f}" for value in text.splitlines()[2].split()[2:]]
    assert found == ["95.80", "94.57", "88.12", "83.31", "86.24", "80.88", "77.44", "86.76"]


def test_the_public_json_has_the_people_of_valid_h5_in_their_order():
    if not (DATA / "mpii" / "mpii_annotations.json.gz").exists():
        pytest.skip(f"no MPII annotations in {DATA}")
    json_, h5 = (
        annotations.read(DATA / "mpii" / name, "mpii") for name in ("mpii_annotations.json.gz", "valid.h5")
    )
    np.testing.assert_array_equal(json_.ids, h5.ids)
    assert np.abs(json_.joints - h5.joints).max() <= 1  # these are truncated
    np.testing.assert_array_equal(json_.pictures, h5.pictures)


def test_lsp_and_flic_score_by_the_torso():
    if not (DATA / "lsp" / "joints.mat").exists():
        pytest.skip(f"no LSP annotations in {DATA}")
    lsp = annotations.read(DATA / "lsp" / "joints.mat", "lsp").rows(slice(1000, 2000))
    assert (len(lsp), lsp.ids[0]) == (1000, "lsp-im1001")
    found = score.score_against(lsp.joints, lsp)
    assert (found.metric, found.mean, found.pcp.table["Mean"]) == ("PCK@0.2", 100, 100)
    if "flic" in SKELETONS:
        flic = annotations.read(DATA / "flic" / "valid.h5", "flic")
        found = score.score_against(flic.joints + flic.torso[:, None, None] * (0.1999, 0), flic)
        assert (found.metric, found.mean, found.left_out) == ("PCK@0.2", 100, 0)


# By hand.


def test_scores_by_hand(tmp_path, capsys):
    joints = made(tmp_path)
    joints[0, 0] = 1e6  # not annotated
    joints[1, 9] += (6, -8)  # at the limit of 0.5 * 20 px, and negative
    joints[2, 0] = np.nan  # wrong
    joints[3, 1] += (11, 0)  # wrong
    joints[4, 2] += (11, 0)  # wrong, occluded
    joints[4, 6] += (99, 0)  # the pelvis is in no table
    options = {"curves": tmp_path / "curves.png"}
    found, text = scored(tmp_path, capsys, write(tmp_path / "preds.h5", joints), **options)
    # 14 joints of 5 people, except one; 14 of them occluded. Ankles (3/4 + 5/5) / 2, hips (4/5 + 5/5) / 2.
    assert found["table"]["Mean"] == pytest.approx(100 * 66 / 69)
    assert found["table"] | {"Mean": 0} == dict(
        Head=100, Sho=100, Elb=100, Wri=100, Hip=90, Knee=90, Ank=87.5, Mean=0
    )
    assert found["visible"] == pytest.approx(100 * 53 / 55) and found["occluded"] == pytest.approx(1300 / 14)
    assert found["macro"] == pytest.approx((75 + 80 + 80 + 11 * 100) / 14)
    assert found["joints"]["pelvis"] == 80 and found["not_a_number"] == 1
    assert "1 joints have no finite prediction and count as wrong." in text
    # Below 0.5 one more is wrong: 65 of 69 at all but the last of 51 places.
    assert found["auc"] == pytest.approx((65 * 49.5 + 66 * 0.5) / 50 / 69 * 100)
    rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert len(rows) == 52 and rows[0].startswith("thresholds,Head") and rows[51].startswith("0.5,100,")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_pytorch_poses_rule_by_hand(tmp_path, capsys):
    joints = made(tmp_path)
    joints[:, 8] += (99, 0)  # the neck is not in its Head, but in its mean
    joints[2, 9] += (10, 0)  # at the threshold: wrong by <
    found, _ = scored(tmp_path, capsys, write(tmp_path / "a.h5", joints), rule="pytorch-pose")
    assert found["metric"] == "PCKh@0.5 pytorch-pose" and found["table"]["Head"] == 80
    assert found["table"]["Mean"] == pytest.approx((0 + 80 + 12 * 100) / 14)


def test_threshold_is_of_the_head(tmp_path, capsys):
    joints = made(tmp_path) + (3, 4)  # a quarter of 20 px
    path = write(tmp_path / "a.h5", joints)
    for threshold, mean in ((0.25, 100), (0.24, 0)):
        found, _ = scored(tmp_path, capsys, path, threshold=threshold)
        assert (found["metric"], found["table"]["Mean"]) == (f"PCKh@{threshold}", mean)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("suffix", [".mat", ".h5"])
def test_matlabs_orders_are_known_by_their_shape(order, suffix, tmp_path, capsys):
    path = write(tmp_path / f"p{suffix}", made(tmp_path).transpose(order))
    assert scored(tmp_path, capsys, path)[0]["table"]["Mean"] == 100


def test_matlab_7_files_are_hdf5_with_their_axes_reversed(tmp_path, capsys):
    joints = made(tmp_path)
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["preds"] = joints.T
    assert scored(tmp_path, capsys, tmp_path / "new.mat")[0]["table"]["Mean"] == 100


IDS = ["mpii-007-2", "mpii-007-0", "mpii-a-0", "mpii-b-0", "mpii-c-1"]


def test_json_is_matched_by_id_by_picture_or_by_position(tmp_path, capsys):
    joints = made(tmp_path).tolist()
    joints[3][4] = [None, None]
    own = [{"id": id_, "joints": places, "scores": []} for id_, places in zip(IDS, joints, strict=True)]
    flat = [[*(0 if c is None else c for c in p), 2] for person in joints for p in person]
    triples = np.array(flat, float).reshape(N, -1).tolist()
    names = ["007.jpg", "007.jpg", "x/a.png", "b", "c.jpg"]
    coco = [{"image_id": i, "keypoints": t} for i, t in zip([7, 7, 1, 2, 3], triples, strict=True)]
    images = [{"id": i, "file_name": n} for i, n in zip([7, 7, 1, 2, 3], names, strict=True)]
    results = [{"image_id": i, "keypoints": t} for i, t in zip([7, 7, "a", "b", "c"], triples, strict=True)]
    turned = [coco[i] for i in (4, 0, 3, 1, 2)]  # the two people of 007 stay in order
    for content, broken in (
        *((own[::-1], 1), (joints, 1), (results, 0)),
        ({"annotations": turned, "images": images}, 0),
    ):
        path = tmp_path / "p.json.gz"
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
        found, _ = scored(tmp_path, capsys, path)
        assert found["not_a_number"] == broken
        assert found["table"]["Mean"] == pytest.approx(100 * 68 / 69)


def test_a_users_own_joints_by_hand(tmp_path, capsys):
    category = {"id": 1, "name": "jumper", "keypoints": ["head", "l_hand", "r_hand"]}
    a, b = (
        [10, 10, 2, 110, 10, 2, 10, 60, 1],
        [0, 0, 2, 0, 40, 2, 0, 0, 0],
    )  # 100 px, 40 px at their longer side
    crowd = {"id": 9, "image_id": 1, "keypoints": a, "iscrowd": 1}
    people = [crowd, {"id": 7, "image_id": 1, "keypoints": a}, {"id": "b", "image_id": 2, "keypoints": b}]
    # Two pictures of the same name, each in a folder.
    content = {"images": [{"id": i, "file_name": f"{'ab'[i - 1]}/1.jpg"} for i in (1, 2)]}
    content |= {"annotations": people, "categories": [category]}
    annotated, path = tmp_path / "own.json", tmp_path / "results.json"
    files = {"annotations": annotated, "predictions": path, "json": tmp_path / "score.json"}

    def said(predicted, **options):
        annotated.write_text(json.dumps(content))
        path.write_text(json.dumps(predicted))
        code, text = run(capsys, dataset="coco", **files, **options)
        assert code == 0, text
        return json.loads((tmp_path / "score.json").read_text())

    # 10 px off is within a tenth of 100, 11 is not; 4 is within a tenth of 40, 5 is not.
    near_a, near_b = [20, 10, 1, 110, 21, 1, 10, 60, 1], [0, 4, 1, 0, 45, 1, 50, 50, 1]
    results = [{"image_id": 2, "keypoints": near_b}, {"image_id": 1, "keypoints": near_a}]
    own = [
        {"id": f"coco-validation-{id_}", "joints": np.reshape(values, (3, 3))[:, :2].tolist()}
        for id_, values in (("b", near_b), (7, near_a))
    ]
    for predicted in (results, own):
        found = said(predicted)
        assert found["metric"] == "PCKbox@0.1" and found["examples"] == 2
        assert found["joints"] == {"head": 100, "l_hand": 0, "r_hand": 100}
        assert found["table"]["Mean"] == 60 and found["occluded"] == 100  # 3 of 5 that are labelled
    category["torso"] = ["head", "l_hand"]  # 100 px, 40 px; a fifth of them are 20 and 8
    found = said(results)
    assert found["metric"] == "PCK@0.2" and found["table"]["Mean"] == 100
    del category["torso"]
    found = said(results[:1])  # no prediction in the other picture: three of its joints are wrong
    assert found["people"] == {"missing": 1, "extra": 0} and found["not_a_number"] == 3
    assert found["table"]["Mean"] == pytest.approx(100 * 1 / 5)
    path.write_text(json.dumps([{"image_id": 77, "keypoints": near_a}]))
    code, text = run(capsys, dataset="coco", **files)
    assert code == 1 and "predicts people in '77' and others, none of which is a picture" in text


def coco_file(people, keypoints=("head", "l_hand", "r_hand"), **more):
    """Annotations: people are (picture, keypoints, box)."""
    category = {"id": 1, "name": "own", "keypoints": list(keypoints)} | more
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in sorted({picture for picture, *_ in people})],
        "annotations": [
            {"id": i, "image_id": picture, "category_id": 1, "keypoints": points, "bbox": box}
            for i, (picture, points, box) in enumerate(people)
        ],
        "categories": [category],
    }


def test_people_are_matched_by_place_and_extra_ones_counted(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    left, right = [60, 50, 2, 40, 80, 2, 80, 80, 2], [200, 50, 2, 180, 80, 2, 220, 80, 2]
    boxes = [35, 45, 50, 50], [175, 45, 50, 50]
    people = [(i, points, box) for i in (1, 2) for points, box in zip((left, right), boxes, strict=True)]
    truth = write(tmp_path / "gt.json", coco_file(people))
    swapped = [
        {"image_id": i, "category_id": 1, "keypoints": points, "score": score}
        for i in (1, 2)
        for points, score in ((right, 0.9), (left, 0.8))
    ]
    stray = [{"image_id": 1, "category_id": 1, "keypoints": [5, 5, 2, 9, 9, 2, 9, 5, 2], "score": 0.95}]

    def said(predictions, annotations=truth):
        path = write(tmp_path / "p.json", predictions)
        options = {"annotations": annotations, "predictions": path, "json": tmp_path / "out.json"}
        code, text = run(capsys, dataset="coco", **options)
        assert code == 0, text
        return json.loads((tmp_path / "out.json").read_text()), text

    found, text = said(swapped)
    assert found["table"]["Mean"] == 100 and found["people"] == {"missing": 0, "extra": 0}
    assert found["average_precision"]["AP"] == pytest.approx(100) and "OKS: AP 100.0000" in text
    odd = [one | {"image_id": float(one["image_id"]), "score": None} for one in swapped]
    assert said(odd)[0]["table"]["Mean"] == 100
    nothing, text = said([])
    assert nothing["table"]["Mean"] == 0 and nothing["people"] == {"missing": 4, "extra": 0}
    found, text = said(stray + swapped)
    assert found["table"]["Mean"] == 100 and found["people"] == {"missing": 0, "extra": 1}
    # By falling score: wrong, right (3 of 4 ... until all are found): precision 4/5 at every recall.
    assert found["average_precision"]["AP"] == pytest.approx(80) and found["average_precision"]["AR"] == 100
    assert "0 annotated people have no prediction (their joints count as wrong), 1 predicted" in text
    found, _ = said(swapped[:3])
    assert found["people"] == {"missing": 1, "extra": 0} and found["table"]["Mean"] == 75
    # Three of four are found: 76 of the 101 recalls from 0 to 1 have precision 1.
    assert found["average_precision"]["AP"] == pytest.approx(100 * 76 / 101)

    # One joint: scaled by the box of 50 px, of which a tenth is 5 px.
    single = [(1, [60, 50, 2], boxes[0]), (1, [200, 50, 2], boxes[1])]
    truth = write(tmp_path / "one.json", coco_file(single, ["nose"], sigmas=[0.1]))
    near = [{"image_id": 1, "keypoints": [x, 50, 2], "score": 1} for x in (206, 64)]
    found, _ = said(near, truth)
    assert (found["metric"], found["table"]["Mean"], found["left_out"]) == ("PCKbox@0.1", 50, 0)
    # OKS of 4 and 6 px at an area of 2500 px and sigma 0.1: exp(-16 / (2 * 2500 * 0.2^2)) = 0.92 counts up to
    # 0.9, exp(-36 / 200) = 0.835 up to 0.8. Of ten thresholds two at 0.85 and 0.9 find one of two: the first
    # by score is the worse one, so precision is 1/2 up to recall 1/2 (51 of 101 recalls); at 0.95 none.
    expected = (7 + 2 * 0.5 * 51 / 101) / 10
    assert found["average_precision"]["AP"] == pytest.approx(100 * expected)


def test_the_case_of_people_in_order_of_score():
    folder = pathlib.Path(__file__).parents[2] / "shared" / "cases" / "05-score-order-of-people"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    pytest.importorskip("pycocotools")
    for name in ("same", "byscore"):
        annotated = annotations.read(folder / "gt.json", "coco")
        predicted = score.read_predictions(folder / f"{name}.json", annotated)
        assert score.score_against(predicted, annotated).mean == 100


# Refused input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda j: j[:4],
            r"(4, 16, 2) are for 4 people; the annotations need (5, 16, 2): 5 people, 16 joints",
        ),
        (lambda j: j[:, :14], r"(5, 14, 2) have 14 joints; the annotations need (5, 16, 2)"),
        (lambda j: j.transpose(0, 2, 1), r"(5, 2, 16) have their axes swapped; the annotations need"),
        (lambda j: j[..., :1], "(5, 16, 1); the annotations need"),
        (lambda j: j[0], "(16, 2); the annotations need"),
        (
            lambda j: j[..., ::-1],
            "x and y are swapped: as (y, x) 100.0% of the joints would be correct",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".json"])
def test_predictions_that_do_not_fit_are_refused(change, message, suffix, tmp_path, capsys):
    joints = change(made(tmp_path))
    path = write(tmp_path / f"p{suffix}", joints.tolist() if suffix == ".json" else joints)
    assert message in refused(tmp_path, capsys, path)


def test_two_people_in_an_order_that_may_be_two_are_refused(tmp_path, capsys):
    joints = made(tmp_path)
    path = write(tmp_path / "p.h5", joints[:2])
    assert "may be (people, joints, 2) and (2, joints, people)" in refused(tmp_path, capsys, path, rows=":2")
    own = [{"id": id_, "joints": places} for id_, places in zip(IDS, made(tmp_path).tolist(), strict=True)]
    path = write(tmp_path / "p.json", own[1::-1])  # ids are not ambiguous
    assert scored(tmp_path, capsys, path, rows=":2")[0]["table"]["Mean"] == 100


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".json"])
def test_broken_and_missing_files_are_refused(suffix, tmp_path, capsys):
    joints = made(tmp_path)
    whole = write(tmp_path / f"whole{suffix}", joints.tolist() if suffix == ".json" else joints)
    for name, data in (("cut", whole.read_bytes()[:-300]), ("empty", b""), ("text", b"no predictions")):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(data)
        assert f"{path}: not readable" in refused(tmp_path, capsys, path)
    assert "no such file" in refused(tmp_path, capsys, tmp_path / f"none{suffix}")


def test_a_missing_dataset_is_an_error_that_lists_those_present(tmp_path, capsys):
    made(tmp_path)
    scipy_io.savemat(tmp_path / "p.mat", {"predictions": np.zeros((5, 16, 2))})
    said = refused(tmp_path, capsys, tmp_path / "p.mat")
    assert "has no dataset 'preds'; found 'predictions' (5, 16, 2)." in said
    scipy_io.savemat(tmp_path / "p.mat", {"preds": np.array(["a", "b"])})
    assert "'preds' is <U1, not real numbers" in refused(tmp_path, capsys, tmp_path / "p.mat")
    path = write(tmp_path / "p.h5", np.zeros((5, 16, 2)))
    assert "no dataset 'part'; found 'preds'" in refused(tmp_path, capsys, path, annotations=path)
    assert "unknown kind of file" in refused(tmp_path, capsys, tmp_path / "p.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own[1:], "lacks 1 people, 'mpii-007-2' first"),
        (lambda own: [*own, own[0]], "1 ids occur twice"),
        (lambda own: [*own, own[0] | {"id": "mpii-z-0"}], "has unknown 1 people, 'mpii-z-0' first"),
        (lambda own: [own[0] | {"joints": [[1, 2]]}, *own[1:]], "lists of joints differ in length"),
        (lambda own: [{"keypoints": [1, 2, 2]}], "(no 'image_id')"),
        (lambda own: [{"image_id": "a", "keypoints": [1, 2]}], "person 1: keypoints has 2 numbers"),
        (
            lambda own: [{"image_id": "a", "keypoints": None}],
            "person 1: keypoints has 1 numbers, not x, y, s",
        ),
        (
            lambda own: [{"image_id": "a", "keypoints": K * [1, 2, 2], "score": float("inf")}],
            "person 1: score is inf; expected a number",
        ),
        (
            lambda own: [{"image_id": "a", "keypoints": [1, 2, 2]}],
            "a person has 1 joints, but the annotations",
        ),
        (
            lambda own: [{"image_id": "a", "keypoints": K * [1, 2, 2]}],
            "predicts 0 people in picture '007.jpg'",
        ),
        (lambda own: {"annotations": []}, "(no 'images')"),
        (lambda own: [], "predictions (0,); the annotations need (5, 16, 2)"),
        (lambda own: 3, "neither our predictions.json, COCO keypoints nor a list"),
        (lambda own: ["x"], "could not convert"),
    ],
)
def test_json_that_does_not_fit_is_refused(change, message, tmp_path, capsys):
    joints = made(tmp_path).tolist()
    own = [{"id": id_, "joints": places} for id_, places in zip(IDS, joints, strict=True)]
    assert message in refused(tmp_path, capsys, write(tmp_path / "p.json", change(own)))


def test_rules_and_rows_that_do_not_suit_are_refused(tmp_path, capsys):
    table = np.ones((14, 3, 4))
    table[:, :2] = np.random.default_rng(0).uniform(10, 50, (14, 2, 4))
    scipy_io.savemat(tmp_path / "joints.mat", {"joints": table})
    path = write(tmp_path / "p.h5", table[:, :2].transpose(2, 0, 1))
    lspet = {"dataset": "lspet", "annotations": tmp_path / "joints.mat", "predictions": path}
    assert "is for MPII's joints, not lsp's" in refused(tmp_path, capsys, path, **lspet, rule="pytorch-pose")
    assert "no people to score" in refused(tmp_path, capsys, path, **lspet, rows="9:")
    assert "threshold=0.0: give a positive fraction" in refused(tmp_path, capsys, path, **lspet, threshold=0)
    code, text = run(capsys, **lspet)
    assert code == 0 and "PCK@0.2" in text and "PCP mean" in text
    with pytest.raises(SystemExit):
        run(capsys, **lspet, rows="a:b")
    assert "'a:b' is not START:STOP:STEP" in capsys.readouterr().err


def test_annotations_that_are_not_numbers_are_refused(tmp_path, capsys):
    joints = made(tmp_path)
    path = write(tmp_path / "p.h5", joints)
    with h5py.File(tmp_path / "valid.h5", "a") as file:
        file["part"][3, 3] = np.nan
    assert "annotated joints, flags or sizes are not finite" in refused(tmp_path, capsys, path)
    with h5py.File(tmp_path / "valid.h5", "a") as file:
        del file["visible"]
        file["visible"] = np.ones((N, 14))
    assert "mpii needs (people, 16, 2) and (people, 16)" in refused(tmp_path, capsys, path)


def test_scoring_needs_neither_tensorflow_nor_jax():
    heavy = "{'tensorflow', 'tensorflow_datasets', 'jax'}"
    code = f"import sys, hourglass_jax.score; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
