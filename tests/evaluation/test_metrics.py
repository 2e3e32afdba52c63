"""Scores: by hand, and on published predictions for MPII's validation persons."""

import pathlib

import numpy as np
import pytest

from hourglass_jax.evaluation import metrics, scores
from hourglass_jax.pose.skeletons import LSP, MPII, Skeleton

MPII_DATA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "mpii"

TINY = Skeleton(
    name="tiny",
    joints=("head", "right_hand", "left_hand", "navel"),
    flip_pairs=((1, 2),),
    limbs=((0, 3),),
    parts=(("Head", (0,)), ("Hand", (1, 2))),  # the navel is in no part
    torso=(0, 3),
)


def test_distances_by_hand():
    predicted = np.array([[[3, 4], [1, 1]]], np.int16)
    truth = np.array([[[0, 0], [-300, 1]]], np.int16)
    result = metrics.distances(predicted, truth)
    np.testing.assert_array_equal(result, [[5, 301]])  # 301^2 would not fit into int16
    assert result.dtype == np.float64


def test_a_joint_at_exactly_the_threshold_is_right():
    distance = np.array([[5.0, 5.000001, 4.999999]])
    hits, counts = metrics.correct(distance, np.ones((1, 3), bool), np.array([10.0]), 0.5)
    np.testing.assert_array_equal(hits, [1, 0, 1])
    np.testing.assert_array_equal(counts, [1, 1, 1])
    right, _ = metrics.judged(distance, np.ones((1, 3), bool), np.array([10.0]), 0.5)
    np.testing.assert_array_equal(right, [[True, False, True]])


def test_each_person_has_the_own_reference_and_hits_are_by_joint():
    distance = np.array([[1.0, 9], [1, 9], [11, 9]])
    hits, counts = metrics.correct(distance, np.ones((3, 2), bool), np.array([2.0, 20, 20]), 0.5)
    # Limits 1, 10, 10: the first joint is right twice, the second in the two larger persons.
    np.testing.assert_array_equal(hits, [2, 2])
    np.testing.assert_array_equal(counts, [3, 3])


def test_unlabelled_joints_do_not_count():
    distance = np.zeros((2, 3))
    labelled = np.array([[True, False, True], [True, False, False]])
    hits, counts = metrics.correct(distance, labelled, np.array([1.0, 1]), 0.5)
    np.testing.assert_array_equal(hits, [2, 0, 1])
    np.testing.assert_array_equal(counts, [2, 0, 1])


@pytest.mark.parametrize("reference", [0.0, -1.0, np.nan])
def test_a_person_without_a_reference_does_not_count(reference):
    hits, counts = metrics.correct(np.zeros((2, 2)), np.ones((2, 2), bool), np.array([reference, 1.0]), 0.5)
    np.testing.assert_array_equal(hits, [1, 1])
    np.testing.assert_array_equal(counts, [1, 1])


def test_a_prediction_that_is_not_a_number_is_wrong():
    predicted = np.array([[[np.nan, 0], [0, 0], [np.inf, 0]]])
    distance = metrics.distances(predicted, np.zeros((1, 3, 2)))
    hits, counts = metrics.correct(distance, np.ones((1, 3), bool), np.array([1.0]), 0.5)
    np.testing.assert_array_equal(hits, [0, 1, 0])
    np.testing.assert_array_equal(counts, [1, 1, 1])


def test_threshold_zero_wants_the_exact_place():
    hits, _ = metrics.correct(np.array([[0.0, 1e-9]]), np.ones((1, 2), bool), np.array([1.0]), 0.0)
    np.testing.assert_array_equal(hits, [1, 0])


def test_torso_is_left_hip_to_right_shoulder_and_zero_where_not_labelled():
    joints, labelled = np.zeros((3, 14, 2)), np.ones((3, 14), bool)
    joints[:, 3], joints[:, 8] = (10, 10), (13, 14)  # 3-4-5
    joints[:, 2] = 500  # the right hip has no part in it
    labelled[1, 3] = labelled[2, 8] = False
    labelled[0, 2] = False
    np.testing.assert_array_equal(metrics.torso(joints, labelled, LSP), [5, 0, 0])


def test_longer_side_is_of_the_box_around_the_labelled_joints():
    joints = np.array([[5.0, 7], [-25, 12], [-5, 47], [999, -999]]) + np.zeros((4, 1, 1))
    # Boxes of 30 x 40 px, of 30 x 5, of one place, and of none.
    labelled = np.array([[2, 1, 1, 0], [2, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(metrics.longer_side(joints, labelled), [40, 30, 0, 0])


def test_a_skeleton_without_torso_is_refused_by_name():
    faces = Skeleton("faces", ("eye",), (), (), (("Eye", (0,)),))
    with pytest.raises(ValueError, match="'faces'.*torso"):
        metrics.torso(np.zeros((1, 1, 2)), np.ones((1, 1), bool), faces)


HITS, COUNTS = np.array([1, 3, 0, 50]), np.array([2, 3, 1, 50])


@pytest.mark.parametrize(
    "wrong, right, auroc, threshold",
    [
        ([0.1, 0.2], [0.6, 0.7], 1.0, 0.6),
        ([0.6, 0.7], [0.1, 0.2], 0.0, 0.1),  # F1 from 0.1 on: 2 * 2 / (4 + 2); from 0.2 on: 2 / (3 + 2)
        # Of 6 pairs, 4 are in order and (0.5, 0.5) is a half. F1 from 0.2 on: 2 * 3 / (5 + 3) = 0.75,
        # from 0.4 on: 6 / (4 + 3) = 0.857, from 0.5 on: 4 / (3 + 3), from 0.8 on: 2 / (1 + 3).
        ([0.2, 0.5], [0.4, 0.5, 0.8], 4.5 / 6, 0.4),
        # 0.3 takes 1 of 1, 0.1 all 3 for 2: 2 / (1 + 2) = 0.67, 4 / (3 + 2) = 0.8.
        ([0.2], [0.1, 0.3], 0.5, 0.1),
        # From 0.9 on: 2 / (1 + 2) = 2 / 3; from 0.1 on: 4 / (4 + 2) = 2 / 3; of equals the highest.
        ([0.5, 0.4], [0.1, 0.9], 0.5, 0.9),
        ([], [0.3, 0.2], None, 0.2),
        ([0.3], [], None, None),
        ([], [], None, None),
    ],
)
def test_confidence_by_hand(wrong, right, auroc, threshold):
    scores = np.array(wrong + right)
    is_right = np.arange(len(scores)) >= len(wrong)
    order = np.random.default_rng(0).permutation(len(scores))
    found = metrics.confidence(scores[order], is_right[order])
    assert found == {"auroc": auroc, "threshold": threshold}


def test_presence_by_hand():
    # Falling: 0.9 labelled; 0.5 twice, one of them labelled; 0.2 labelled; 0.1 not.
    values = np.array([0.5, 0.1, 0.9, 0.2, 0.5])
    labelled = np.array([True, False, True, True, False])
    found = metrics.presence(values, labelled)
    np.testing.assert_allclose(found["precision"], [1, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(found["recall"], [1 / 3, 2 / 3, 1, 1])
    # Steps of recall: 1/3 each for the first three thresholds.
    assert found["average_precision"] == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)
    # From 0.2 on: three labelled ones found, and one of the two others left out.
    assert found["accuracy"] == pytest.approx(100 * 4 / 5)
    # Where most are not labelled, and the values say the opposite, it is best to find none.
    assert metrics.presence(np.array([0.1, 0.8, 0.9]), np.array([True, False, False]))["accuracy"] == (
        pytest.approx(100 * 2 / 3)
    )


def test_presence_agrees_with_another_library():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    labelled = rng.random(400) < 0.3
    values = np.round(rng.random(400) + 0.4 * labelled, 1)  # with ties
    found = metrics.presence(values, labelled)
    expected = 100 * average_precision_score(labelled, values)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-9)


def test_confidence_agrees_with_another_library():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    right = rng.random(2000) < 0.7
    scores = np.round(np.clip(rng.normal(0.3 + 0.3 * right, 0.2), 0, 1), 2)  # with many ties
    found = metrics.confidence(scores, right)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(right, scores), abs=1e-12)
    f1 = {t: sklearn.f1_score(right, scores >= t) for t in np.unique(scores)}
    assert f1[found["threshold"]] == pytest.approx(max(f1.values()), abs=1e-12)


def test_mean_pools_the_joints_of_all_parts_and_no_others():
    # (1 + 3 + 0) / (2 + 3 + 1): neither the mean of the rates 1/2, 3/3 and 0/1, nor with the navel.
    table = metrics.table(HITS, COUNTS, TINY)
    assert list(table) == ["Head", "Hand", "Mean"]
    np.testing.assert_allclose(table["Mean"], 400 / 6)


def test_a_part_averages_the_rates_of_its_joints():
    # MPII's own table: hands (3/3 + 0/1) / 2, not the pooled 3/4.
    table = metrics.table(HITS, COUNTS, TINY)
    assert table["Head"] == 50
    assert table["Hand"] == 50


def test_per_joint_by_hand():
    rates = metrics.per_joint(HITS, COUNTS, TINY)
    assert rates == dict(head=50, right_hand=100, left_hand=0, navel=100)


def test_a_part_without_a_labelled_joint_is_not_a_number():
    table = metrics.table(np.array([0, 1, 1, 0]), np.array([0, 2, 2, 0]), TINY)
    assert np.isnan(table["Head"])
    assert table["Hand"] == table["Mean"] == 50
    assert np.isnan(metrics.per_joint(np.zeros(4, int), np.array([0, 1, 1, 1]), TINY)["head"])
    assert np.isnan(list(metrics.table(np.zeros(4, int), np.zeros(4, int), TINY).values())).all()


def test_per_joint_refuses_another_number_of_joints():
    for hits, counts in ((3, 3), (5, 5), (5, 4), (4, 5)):
        with pytest.raises(ValueError):
            metrics.per_joint(np.zeros(hits), np.ones(counts), TINY)


def test_strictly_a_joint_at_the_threshold_is_wrong():
    distance, labelled = np.array([[5.0, 4.999999]]), np.ones((1, 2), bool)
    hits, counts = metrics.correct(distance, labelled, np.array([10.0]), 0.5, strictly=True)
    assert (hits.tolist(), counts.tolist()) == ([0, 1], [1, 1])


def test_macro_is_the_mean_of_the_rates_of_the_tables_joints():
    assert metrics.macro(HITS, COUNTS, TINY) == pytest.approx((50 + 100 + 0) / 3)  # without the navel
    assert metrics.macro(np.array([1, 0, 1, 1]), np.array([2, 0, 1, 1]), TINY) == 75  # (50 + 100) / 2
    assert np.isnan(metrics.macro(np.zeros(4, int), np.zeros(4, int), TINY))


def test_curve_is_the_table_at_each_threshold():
    distance = np.array([[1.0, 2, 4, 0], [9, 3, np.nan, 0]])
    found = metrics.curve(distance, np.ones((2, 4)), np.full(2, 10.0), np.array([0.1, 0.2, 0.4]), TINY)
    # Right at 1, 2 and 4 px: heads 1 of 2; hands 0, 1 and 3 of 4; together of 6.
    assert found == {
        "Head": [50, 50, 50],
        "Hand": [0, 25, 75],
        "Mean": [pytest.approx(100 / 6), pytest.approx(200 / 6), pytest.approx(400 / 6)],
    }
    one = metrics.curve(distance, np.ones((2, 4)), np.full(2, 10.0), np.array([0.2]), TINY)
    assert one == {title: rates[1:2] for title, rates in found.items()}


def test_auc_by_hand():
    # Trapezoids (0 + 40) / 2 * 0.1 + (40 + 80) / 2 * 0.3 = 2 + 18 = 20, over a width of 0.4.
    assert metrics.auc(np.array([0, 0.1, 0.4]), [0, 40, 80]) == pytest.approx(50)
    assert metrics.auc(np.arange(51) / 100, [100] * 51) == pytest.approx(100)
    assert metrics.auc(np.array([0.1, 0.3]), [20, 60]) == pytest.approx(40)


def test_pdj_is_pck_of_the_torso():
    joints, labelled = np.zeros((1, 14, 2)), np.ones((1, 14), bool)
    joints[:, 3], joints[:, 8] = (0, 0), (30, 40)  # the torso is 50 px: 0.2 of it is 10
    predicted = joints + np.where(np.arange(14) < 7, 10.0, 10.01)[:, None] * np.array([0, 1])
    reference = metrics.torso(joints, labelled, LSP)
    hits, _ = metrics.correct(metrics.distances(predicted, joints), labelled, reference, 0.2)
    assert hits.tolist() == [1] * 7 + [0] * 7


def test_errors_on_the_other_sides_joint_by_hand():
    # Two people with joints 100 px apart; heads of 20 px, so 10 px is right.
    truth = np.tile(np.arange(16.0)[:, None] * (100, 0), (2, 1, 1))
    joints = truth.copy()
    joints[0, 0] = truth[0, 5] + (0, 10)  # the right ankle at the left one: mirrored
    joints[0, 1] = truth[0, 5]  # the right knee at the left ankle: wrong otherwise
    joints[1, 10] = truth[1, 15] + (0, 11)  # too far from the left wrist
    joints[1, [11, 14]] = truth[1, [14, 11]]  # both elbows, but the left one is not labelled
    joints[1, 8] += 50  # the neck has no side
    visible = np.full((2, 16), 2)
    visible[1, 14] = 0
    swapped = metrics.mirrored(joints, truth, visible > 0, np.full(2, 20.0), 0.5, MPII)
    assert np.argwhere(swapped).tolist() == [[0, 0], [1, 14]]
    found = scores.score_joints(joints[:, None], truth, visible, np.full(2, 20.0), MPII, metric="pckh")
    # Wrong and labelled: ankle, knee, wrist, right elbow, neck. 27 joints of the table's count.
    assert found.mean == pytest.approx(100 * 22 / 27)
    assert found.mirrored["wrong"] == 5 and found.mirrored["share"] == 20
    assert found.mirrored["either"] == pytest.approx(100 * 23 / 27)
    assert found.mirrored["parts"]["Ank"] == 100 and found.mirrored["parts"]["Wri"] == 0
    assert "Of 5 wrong joints, 20.0% lie on the same joint of the other side" in scores.report(
        found, details=True
    )


def test_groups_of_people_have_tables_of_their_own():
    right = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], bool)
    counted = np.ones((4, 4), bool)
    counted[0, 2] = False
    found = metrics.by_group(right, counted, np.array(["a", "a", "b", ""]), TINY)
    # a: heads 2 of 2, right hands 1 of 2, left hands 0 of 1: (50 + 0) / 2, pooled 3 of 5. b: nothing.
    assert found == {"a": dict(Head=100, Hand=25, Mean=60), "b": dict(Head=0, Hand=0, Mean=0)}


# Published predictions


PUBLISHED = {  # PCKh@0.5 with <=: Head Sho Elb Wri Hip Knee Ank Mean, and the mean of the joints' rates
    "newell_valid.h5": (
        [96.6917, 94.6841, 88.5291, 83.3823, 87.4848, 83.0944, 79.0740, 88.0354],
        87.5629,
    ),
    "bearpaw_hg_s2_b1.mat": (
        [96.7428, 94.5652, 88.1200, 83.3124, 86.2558, 80.8787, 77.4686, 87.3042],
        86.7633,
    ),
}


def mpii_validation():
    """Joints (n, 16, 2), labelled (n, 16) and head sizes (n,)."""
    h5py = pytest.importorskip("h5py")
    if not (MPII_DATA / "valid.h5").exists():
        pytest.skip(f"no MPII annotations in {MPII_DATA}")
    with h5py.File(MPII_DATA / "valid.h5") as file:
        truth, head_size = file["part"][()], file["normalize"][()]
    return truth, (truth != 0).any(axis=-1), head_size


def published_predictions(name):
    path = MPII_DATA / "reference_predictions" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    if path.suffix == ".mat":
        return pytest.importorskip("scipy.io").loadmat(path)["preds"]
    with pytest.importorskip("h5py").File(path) as file:
        return file["preds"][()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_predictions_have_their_published_scores(name):
    truth, labelled, head_size = mpii_validation()
    distance = metrics.distances(published_predictions(name), truth)
    hits, counts = metrics.correct(distance, labelled, head_size, 0.5)
    expected, macro = PUBLISHED[name]
    table = metrics.table(hits, counts, MPII)
    assert list(table) == [*"Head Sho Elb Wri Hip Knee Ank".split(), "Mean"]
    np.testing.assert_allclose(list(table.values()), expected, atol=5.1e-5)
    rates = metrics.per_joint(hits, counts, MPII)
    rates = [rate for joint, rate in rates.items() if joint not in ("pelvis", "thorax")]
    np.testing.assert_allclose(np.mean(rates), macro, atol=5.1e-5)


def test_pytorch_poses_figures_follow_from_its_own_rule():
    # Its "<" is the largest threshold below 0.5; the errors are whole numbers, the head boxes not.
    scipy_io = pytest.importorskip("scipy.io")
    path = MPII_DATA / "detections_our_format.mat"
    if not path.exists():
        pytest.skip(f"no {path}")
    ground = scipy_io.loadmat(path)
    truth = ground["pos_gt_src"].transpose(2, 0, 1)
    labelled = ground["jnt_missing"].T == 0
    boxes = ground["headboxes_src"].astype(np.float64)
    head_size = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    distance = metrics.distances(published_predictions("bearpaw_hg_s2_b1.mat"), truth)
    hits, counts = metrics.correct(distance, labelled, head_size, np.nextafter(0.5, 0))
    rates = metrics.per_joint(hits, counts, MPII)
    sides = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    pairs = [(rates[f"right_{side}"] + rates[f"left_{side}"]) / 2 for side in sides]
    published = [95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44]
    np.testing.assert_allclose([rates["head_top"], *pairs], published, atol=0.0051)


# Limbs


LIMB = [((0,), (1,))]
TRUE_LIMB = np.array([[[0.0, 0], [0, 10]]])  # length 10: half of it is 5


@pytest.mark.parametrize(
    ("start", "end", "strict", "older"),
    [
        (5, 5, True, True),  # at the limit; the mean is 5 too
        (5.001, 0, False, True),  # one end beyond; mean 2.5005
        (0, 10, False, True),  # mean 5
        (0, 10.002, False, False),  # mean 5.001
        (5.001, 5.001, False, False),
        (np.nan, 0, False, False),
    ],
)
def test_a_limb_needs_both_ends_or_in_the_older_rule_their_mean(start, end, strict, older):
    predicted = TRUE_LIMB + np.array([[[start, 0], [end, 0]]])  # to the side
    for rule, right in ((True, strict), (False, older)):
        hits, counts = metrics.correct_parts(predicted, TRUE_LIMB, np.ones((1, 2), bool), LIMB, strict=rule)
        assert (hits.tolist(), counts.tolist()) == ([int(right)], [1])


def test_the_threshold_of_limbs_is_a_share_of_the_true_length():
    predicted = TRUE_LIMB + np.array([[[2.0, 0], [0, 30]]])  # the predicted one is 40 long
    found = [
        metrics.correct_parts(predicted, TRUE_LIMB, np.ones((1, 2)), LIMB, threshold=t)[0][0]
        for t in (2.9, 3.0)
    ]
    assert found == [0, 1]  # 30 / 10


def test_limbs_without_both_ends_or_without_length_do_not_count():
    truth = np.array([1, 1, 1, 0.05, 0])[:, None, None] * TRUE_LIMB
    # Flags; the fourth limb is half a pixel long, the last one has its ends on one spot.
    labelled = np.array([[2, 1], [2, 0], [0, 2], [1, 2], [2, 2]])
    hits, counts = metrics.correct_parts(truth, truth, labelled, LIMB)
    assert (hits.tolist(), counts.tolist()) == ([2], [2])


def lsp_person():
    """(1, 14, 2): arms hang at the sides, 1 px outside the shoulders."""
    rows = {
        **dict(head_top=(2, -12), neck=(2, -2), right_shoulder=(0, 0), left_shoulder=(4, 0)),
        **dict(right_elbow=(-1, 8), left_elbow=(5, 8), right_wrist=(-1, 14), left_wrist=(5, 14)),
        **dict(right_hip=(0, 20), left_hip=(4, 20), right_knee=(0, 30), left_knee=(4, 30)),
        **dict(right_ankle=(0, 42), left_ankle=(4, 42)),
    }
    return np.array([[rows[name] for name in LSP.joints]], float)


def limbs_of(moved):
    predicted = lsp_person()
    for name, by in moved.items():
        predicted[0, LSP.joints.index(name)] += by
    return metrics.table_of_parts(predicted, lsp_person(), np.ones((1, 14)), LSP)


@pytest.mark.parametrize(
    ("moved", "wrong"),
    [
        ({}, {}),
        # Middle of the shoulders (2, 0) to that of the hips (2, 20): half is 10, and the middle moves by
        # half of what one shoulder does. The upper arm, 8.06 long, is lost.
        (dict(right_shoulder=(20, 0)), {"U.Arm": 50}),
        (dict(right_shoulder=(20.1, 0)), {"U.Arm": 50, "Torso": 0}),
        (dict(left_hip=(0, 20.1)), {"U.Leg": 50, "Torso": 0}),  # the upper leg is 10
        (dict(head_top=(5, 0)), {}),  # neck to head top 10
        (dict(neck=(5.1, 0)), {"Head": 0}),
        (dict(right_wrist=(3.1, 0)), {"Forearm": 50}),  # 6
        (dict(left_elbow=(0, 3.9)), {"Forearm": 50}),  # 6, but the upper arm is 8.06
        (dict(left_ankle=(6.1, 0), right_ankle=(0, 6.1)), {"L.Leg": 0}),  # 12
        (dict(right_knee=(5.5, 0)), {"U.Leg": 50}),  # 10, but the lower leg is 12
    ],
)
def test_limbs_of_lsp_by_hand(moved, wrong):
    table = limbs_of(moved)
    rows = {title: 100.0 for title in ("Torso", "U.Leg", "L.Leg", "U.Arm", "Forearm", "Head")} | wrong
    limbs = {title: 1 if title in ("Torso", "Head") else 2 for title in rows}
    mean = sum(rate * limbs[title] for title, rate in rows.items()) / 10  # ten limbs
    assert table == rows | {"Mean": pytest.approx(mean)}


def test_the_mean_of_limbs_is_the_papers_total():
    # MSSH's Table 3 of ten limbs, per thousand: (979 + 2 (943 + 914 + 866 + 785) + 957) / 10 = 895.2.
    hits = np.array([979, 943, 943, 914, 914, 866, 866, 785, 785, 957])
    rows, first = [], 0
    for title, row in LSP.sticks:
        rows.append((title, range(first, first + len(row))))
        first += len(row)
    table = metrics._rows(hits, np.full(10, 1000), rows)
    np.testing.assert_allclose(list(table.values()), [97.9, 94.3, 91.4, 86.6, 78.5, 95.7, 89.52])
