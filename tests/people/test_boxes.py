"""The selection of a detector's boxes, and their forms."""

import numpy as np
import pytest

from hourglass_jax.people.boxes import Detections, Selection, detections, iou, suppress

BOXES = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 10, 10], [5, 0, 10, 10]])
SCORES = np.array([0.6, 0.9, 0.7, 0.55])


def test_overlap_is_intersection_by_union():
    # 80 / 100; nothing; 5 x 10 of 150.
    np.testing.assert_allclose(iou(BOXES[:1], BOXES[1:]), [[0.8, 0, 1 / 3]])
    assert iou(np.zeros((1, 4)), np.zeros((1, 4))) == [[0]] and iou(np.empty((0, 4)), BOXES).shape == (0, 4)


@pytest.mark.parametrize("overlap, kept", [(0.7, [1, 2, 3]), (0.8, [1, 2, 0, 3]), (0.2, [1, 2])])
def test_of_two_boxes_of_one_person_the_better_one_is_kept(overlap, kept):
    # Box 3 covers 40 of box 1's 80, and 100 - 40 more: 40 / 140 = 0.29.
    assert suppress(BOXES, SCORES, overlap).tolist() == kept


def test_threshold_classes_limit_and_the_pictures_edges():
    labels = ("person", "person", "dog", "person")
    found = Detections(BOXES - [2, 0, 0, 0], SCORES, labels)
    people, more = Selection().of(found, (100, 9))
    np.testing.assert_array_equal(people.boxes, [[0, 0, 8, 8], [3, 0, 10, 9]])  # clipped at x = 0 and y = 9
    assert people.scores.tolist() == [0.9, 0.55] and more == 0
    people, more = Selection(classes=("person", "dog"), overlap=1, limit=2).of(found, (100, 100))
    assert people.labels == ("person", "dog") and more == 2
    assert len(Selection(threshold=0.65).of(found._replace(labels=()), (100, 100))[0].boxes) == 2
    assert len(Selection(classes=(0,)).of(found._replace(labels=(0, 1, 0, 1)), (100, 100))[0].boxes) == 2
    outside = Detections(np.array([[-20.0, 0, 10, 10]]), np.ones(1))
    assert Selection().of(outside, (9, 9))[0].boxes.shape == (0, 4)
    for wrong in ({"threshold": 1.5}, {"overlap": np.nan}, {"limit": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*: give"):
            Selection(**wrong)


def test_detectors_may_return_boxes_in_several_forms():
    for form in (
        (BOXES, SCORES),
        (BOXES.tolist(), SCORES.tolist(), ["person"] * 4),
        np.column_stack([BOXES, SCORES]),
        Detections(BOXES, SCORES),
    ):
        found = detections(form)
        np.testing.assert_array_equal(found.boxes, BOXES)
        np.testing.assert_array_equal(found.scores, SCORES)
    assert detections(BOXES.astype(int)).scores.tolist() == [1] * 4
    for nothing in ([], np.empty((0, 5)), ([], []), ([], [], [])):
        assert detections(nothing).boxes.shape == (0, 4)
    for wrong in (None, 7, "abcd", [[1, 2, 3]], (BOXES, SCORES[:2]), BOXES * np.nan, (BOXES, SCORES, ["a"])):
        with pytest.raises(ValueError, match="The detector must return boxes"):
            detections(wrong)
