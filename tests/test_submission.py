"""MPII's submission: read with SciPy as the toolkit reads it, with a small file in the benchmark's form."""

import json
import re

import numpy as np
import pytest
import scipy.io

from hourglass_jax import submission
from hourglass_jax.data.datasets import mpii_annotations
from tests.data.datasets.test_mpii import EMPTY, IMAGES, place, write_mat

TEST = [
    {
        "name": "t.jpg",
        "people": [
            {"scale": 2, "objpos": place(40, 30)},
            {"objpos": EMPTY, "scale": 1},
            {"scale": "1.5", "objpos": place(70.5, 20)},
        ],
    },
    {"name": "u.jpg", "people": []},
    {"name": "v.jpg", "people": [{"scale": 1, "objpos": place(10, 20)}]},
]


def annotations(path, images=(*IMAGES[:3], *TEST), apart=([1, 2], [], [1], [3, 1], [], [1])):
    single = np.empty((len(images), 1), object)
    single[:, 0] = [np.array(people, np.uint8) for people in apart]
    training = np.array([[i < 3 for i in range(len(images))]], np.uint8)
    return write_mat(path, images, single_person=single, img_train=training)


def joints(id_):
    return np.random.default_rng(list(id_.encode())).uniform(-5, 200, (16, 2)).round(3)


def predictions(path, *ids):
    path.write_text(json.dumps([{"id": i, "joints": joints(i).tolist(), "scores": []} for i in ids]))
    return path


def run(folder, *flags):
    names = {"predictions": "p.json", "annotations": "a.mat", "output": "pred.mat"}
    return submission.main([*(f"--{name}={folder / file}" for name, file in names.items()), *flags])


COUNTED = ("mpii-t-0", "mpii-t-2", "mpii-v-0")


def test_test_pictures_have_all_people_and_who_counts(tmp_path):
    first, empty, last = mpii_annotations.read_test(annotations(tmp_path / "a.mat"))
    assert [picture.name for picture in (first, empty, last)] == ["t.jpg", "u.jpg", "v.jpg"]
    assert [person.id for person in first.people] == ["mpii-t-0", "mpii-t-1", "mpii-t-2"]
    assert (first.single, empty.single, last.single) == ({0, 2}, set(), {0}) and not empty.people
    assert first.people[2].image == 3 and not first.people[0].training


def test_file_is_the_annotations_with_points(tmp_path, capsys):
    annotations(tmp_path / "a.mat")
    predictions(tmp_path / "p.json", *COUNTED[:2], "mpii-t-1", *COUNTED[2:])
    assert run(tmp_path) == 0
    assert "4 people, 3 of whom count, in 3 pictures" in capsys.readouterr().out
    content = scipy.io.loadmat(tmp_path / "pred.mat", struct_as_record=False)
    pred = content["pred"]  # not squeezed, in MATLAB's own shapes
    assert pred.shape == (1, 3) and [p.image[0, 0].name[0] for p in pred[0]] == ["t.jpg", "u.jpg", "v.jpg"]
    assert [p.annorect.size for p in pred[0]] == [3, 0, 1]
    people = pred[0, 0].annorect
    assert people.shape == (1, 3)
    assert [p.scale.tolist() for p in people[0]] == [[[2]], [[1]], [[1.5]]]
    assert (people[0, 2].objpos[0, 0].x[0, 0], people[0, 2].objpos[0, 0].y[0, 0]) == (70.5, 20)
    assert people[0, 1].objpos.size == 0
    found = {f"mpii-t-{i}": person for i, person in enumerate(people[0])}
    for id_, person in (found | {"mpii-v-0": pred[0, 2].annorect[0, 0]}).items():
        points = person.annopoints[0, 0].point
        assert points.shape == (1, 16)
        assert [p.id[0, 0] for p in points[0]] == list(range(16))
        np.testing.assert_array_equal([(p.x[0, 0], p.y[0, 0]) for p in points[0]], joints(id_))


def test_people_without_prediction_have_no_points(tmp_path, capsys):
    annotations(tmp_path / "a.mat")
    predictions(tmp_path / "p.json", COUNTED[2])
    assert run(tmp_path) == 1 and not (tmp_path / "pred.mat").exists()
    error = capsys.readouterr().err
    assert (
        "2 of the 3 people who count have no prediction, 'mpii-t-0' first" in error and error.count("\n") == 1
    )
    assert run(tmp_path, "--allow_missing") == 0
    assert "1 people, 1 of whom count, in 3 pictures" in capsys.readouterr().out
    pred = scipy.io.loadmat(tmp_path / "pred.mat", struct_as_record=False)["pred"]
    assert [person.annopoints.size for person in pred[0, 0].annorect[0]] == [0, 0, 0]
    assert pred[0, 2].annorect[0, 0].annopoints[0, 0].point.shape == (1, 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "3 of the 3 people who count have no prediction"),
        (
            [{"id": "mpii-a-0", "joints": [[1, 2]] * 16}],
            "1 of 1 predictions are for people outside the test set, 'mpii-a-0'",
        ),
        ([{"id": "mpii-t-0", "joints": [[1, 2]] * 14}], "the joints of mpii-t-0 are not 16 finite"),
        ([{"id": "mpii-t-0", "joints": [[1, None]] * 16}], "the joints of mpii-t-0 are not 16 finite"),
        ([{"id": "mpii-t-0", "joints": [[1, 2]] * 16}] * 2, "mpii-t-0 occurs twice"),
        ([{"id": "mpii-t-0"}], "p.json: not the predictions.json of .*no 'joints'"),
        ({"images": []}, "p.json: not the predictions.json"),
        (7, "p.json: not the predictions.json"),
    ],
)
def test_other_predictions_are_refused(tmp_path, capsys, content, message):
    annotations(tmp_path / "a.mat")
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert run(tmp_path) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1 and not (tmp_path / "pred.mat").exists()


def test_a_submission_without_people_who_count_is_refused(tmp_path, capsys):
    annotations(tmp_path / "a.mat")
    predictions(tmp_path / "p.json", "mpii-t-1")
    assert run(tmp_path, "--allow_missing") == 1
    assert "no person who counts has a prediction" in capsys.readouterr().err


def test_other_annotations_are_refused(tmp_path, capsys):
    predictions(tmp_path / "p.json", *COUNTED)
    for changes, message in (
        ({"single_person": EMPTY}, "found 0 single_person and 1 test pictures; expected mpii_human"),
        ({"img_train": np.ones((1, 4))}, "found 4 single_person and 0 test pictures"),
    ):
        write_mat(tmp_path / "a.mat", **changes)
        assert run(tmp_path) == 1 and message in capsys.readouterr().err
    annotations(tmp_path / "a.mat", apart=([1, 2], [], [1], [4], [], [1]))
    assert run(tmp_path) == 1
    assert "single_person(4) names a person who is not in annolist(4)" in capsys.readouterr().err
    (tmp_path / "a.mat").unlink()
    assert run(tmp_path) == 1 and "a.mat: no such file" in capsys.readouterr().err
