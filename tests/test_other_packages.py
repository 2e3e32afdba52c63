"""Files of `hourglass predict` as other packages read them: pycocotools, supervision, FiftyOne."""

import contextlib
import io
import json

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from hourglass_jax import predict
from hourglass_jax.pose import skeletons

pytestmark = [
    pytest.mark.usefixtures("quick_compiles"),
    pytest.mark.filterwarnings("default"),  # of those packages
]


@pytest.fixture
def written(spots, tmp_path):
    """Two pictures with two people and one: results.json and dataset.json, and the results' list."""
    for name, spot in (("a", (50, 50)), ("b", (90, 40))):
        Image.fromarray(picture(100, 150, spot)).save(tmp_path / f"{name}.png")
    boxes = {"a.png": [[10, 10, 80, 80], [60, 20, 50, 60]], "b.png": [[40, 5, 80, 80]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    sources = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), f"--boxes={tmp_path / 'boxes.json'}"]
    for form in ("results", "dataset"):
        options = [f"--output={tmp_path / form}", f"--format={form}", "--checkpoint=any"]
        assert predict.main([*sources, *options]) == 0
        (tmp_path / form / "predictions.json").rename(tmp_path / f"{form}.json")
    return tmp_path, json.loads((tmp_path / "results.json").read_text())


def test_pycocotools_scores_the_results_against_the_dataset(written):
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    folder, results = written
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(folder / "dataset.json"))
        found = truth.loadRes(str(folder / "results.json"))
        evaluation = cocoeval.COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.full(16, 0.05)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0  # average precision of the same people
    (category,) = truth.loadCats(truth.getCatIds())
    assert tuple(category["keypoints"]) == skeletons.MPII.joints
    read = found.loadAnns(found.getAnnIds())
    assert [one["keypoints"] for one in read] == [one["keypoints"] for one in results] and len(read) == 3


def test_fiftyone_reads_the_dataset(written):
    fiftyone = pytest.importorskip("fiftyone.utils.coco")
    folder, results = written
    _, classes, _, images, annotations = fiftyone.load_coco_detection_annotations(
        str(folder / "dataset.json")
    )
    assert [one["file_name"] for one in images.values()] == ["a.png", "b.png"]
    people = [person for number in images for person in annotations[number]]
    assert len(people) == 3
    for person, result in zip(people, results, strict=True):
        points = person.to_keypoints((150, 100), classes)
        assert points.label == "person"
        wanted = np.array(result["keypoints"]).reshape(-1, 3)
        shown = wanted[:, 2] > 0  # FiftyOne has not-a-number for the others
        np.testing.assert_allclose(np.array(points.points)[shown], wanted[shown, :2] / (150, 100), atol=1e-6)
        assert np.isnan(np.array(points.points)[~shown]).all()
