"""A user's own people, in COCO's keypoint format."""

import json

import numpy as np
import pytest

from hourglass_jax import Predictor, evaluate, predict, train
from hourglass_jax.data import packed, pipeline, preparation, prepare
from hourglass_jax.data.datasets import coco_annotations
from hourglass_jax.evaluation import metrics, scores
from hourglass_jax.media import pictures

pytestmark = pytest.mark.usefixtures("quick_compiles")

NAMES = ["nose", "Left Hand", "Right Hand"]


def content(**changes):
    """A file with three joints, and one valid person in each of two pictures."""
    people = [
        {"id": 7, "image_id": 2, "category_id": 1, "bbox": [10, 20, 30, 40], "segmentation": {"counts": "x"}},
        {"id": 8, "image_id": 1, "category_id": 1},
    ]
    for person in people:
        person["keypoints"] = [5, 6, 2, 7, 8, 1, 9, 9, 0]
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "more/b.jpg"}],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}, {"id": 2, "name": "dog"}],
    } | changes


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_people_flags_and_boxes(tmp_path):
    found = coco_annotations.read(write(tmp_path / "a.json", content()))
    first, second = found.people  # in the order of the pictures
    assert (first.id, first.picture, first.box) == (8, "a.jpg", None)
    assert (second.id, second.picture, second.box.tolist()) == (7, "more/b.jpg", [10, 20, 30, 40])
    assert second.visible.tolist() == [2, 1, 0]
    assert second.joints.tolist() == [[5, 6], [7, 8], [0, 0]]  # (9, 9) is not labelled


def test_crowds_and_people_without_joints_are_counted(tmp_path):
    good, _ = content()["annotations"]
    others = [
        {"iscrowd": 1, "keypoints": []},
        {"keypoints": [0] * 9},
        {"num_keypoints": 0},
        {"category_id": 2, "keypoints": None},
    ]
    people = [good, *({"id": i, "image_id": 1, "category_id": 1} | one for i, one in enumerate(others))]
    found = coco_annotations.read(write(tmp_path / "a.json", content(annotations=people)))
    assert [one.id for one in found.people] == [7]
    assert found.left_out == {"crowds": 1, "without a labelled joint": 2, "of other categories": 1}


def test_joint_set_from_the_category():
    skeleton = coco_annotations.skeleton_of({"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]})
    assert skeleton.limbs == ((0, 1), (0, 2)) and skeleton.flip_pairs == ((1, 2),)
    assert skeleton.parts == tuple((name, (i,)) for i, name in enumerate(NAMES)) and skeleton.torso is None
    sides = {"keypoints": ["r_eye", "l_eye", "LeftEar", "rightear", "lower"]}
    assert coco_annotations.skeleton_of(sides).flip_pairs == ((0, 1), (2, 3))  # "lower" has no side
    stated = {"name": "x", "keypoints": ["a", "b", "c"], "flip_pairs": [["c", "a"]], "torso": [1, "b"]}
    skeleton = coco_annotations.skeleton_of(stated | {"parts": {"AB": ["a", "b"]}})
    assert skeleton.flip_pairs == ((2, 0),) and skeleton.flip.tolist() == [2, 1, 0]
    assert skeleton.torso == (0, 1) and skeleton.parts == (("AB", (0, 1)),)


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"keypoints": ["a", "a"]}, "joints with distinct names"),
        ({"keypoints": "abc"}, "keypoints must be the joints' names"),
        ({"keypoints": ["a", "b"], "flip_pairs": [["a", "c"]]}, "flip_pairs has"),
        ({"keypoints": ["a", "b"], "flip_pairs": [[1, 2], [2, 1]]}, "flip_pairs has a joint more than once"),
        ({"keypoints": ["a", "b"], "torso": ["a"]}, "torso has"),
        ({"keypoints": ["a", "b"], "parts": {"A": []}}, "parts has"),
    ],
)
def test_joint_sets_that_are_refused(category, message):
    with pytest.raises(ValueError, match=message):
        coco_annotations.skeleton_of(category)


def person(**changes):
    return {"annotations": [content()["annotations"][0] | changes]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (person(keypoints=[1] * 8), "annotation 7: keypoints has 8 numbers; 3 joints need 9"),
        (person(keypoints=[np.nan, 1, 2] * 3), "annotation 7: keypoints has a labelled joint with a place"),
        (person(keypoints=[1, 1, 3] * 3), "annotation 7: keypoints has a flag that is not 0, 1 or 2"),
        (person(keypoints=[1, 1, True] * 3), "annotation 7: keypoints has a flag that is not 0, 1 or 2"),
        (person(keypoints=[[1, 1, False]] * 3), "annotation 7: keypoints has a flag that is not 0, 1 or 2"),
        (person(keypoints=["a"] * 9), "annotation 7: keypoints has 0 numbers"),
        (person(image_id=3), "annotation 7: its image_id 3 is not among images"),
        ({"annotations": [*person()["annotations"]] * 2}, "two of annotations have the id 7"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]},
            "two of images have",
        ),
        ({"images": [{"id": 2, "file_name": "../.."}]}, "image 2: file_name '' names no file in"),
        ({"images": [{"id": 2}]}, "image 2: file_name None names no file"),
        ({"images": None}, "no list of images; expected COCO keypoints"),
        ({"categories": [{"id": 1, "name": "cat"}]}, r"none of the categories \['cat'\] has keypoints; add"),
        (
            {"categories": [{"keypoints": list(i), "name": i} for i in ("ab", "cd")]},
            r"the categories \['ab', 'cd'\] have different keypoints: choose one with --category=NAME",
        ),
        ({"categories": 5}, "expected COCO keypoints"),
    ],
)
def test_errors_are_named(tmp_path, changes, message):
    path = write(tmp_path / "own.json", content(**changes))
    with pytest.raises(ValueError, match=f"own.json: {message}") as caught:
        coco_annotations.read(path)
    assert "\n" not in str(caught.value)


def test_forms_with_a_clear_meaning_are_accepted(tmp_path):
    """Numbers as text, joints as rows, limbs from 0, equal categories, the paths of other machines."""
    first, second = content()["annotations"]
    first |= {
        "keypoints": [["5", "6", "2"], [7, 8, 1], [9, 9, 0]],
        "bbox": ["10", 20, 30, "40"],
        "iscrowd": "0",
    }
    second |= {"image_id": "1", "category_id": "3", "bbox": [1, 2, 0, 4]}
    names = ["images\\a.jpg", "C:\\Users\\me\\b.jpg"]
    kinds = [{"id": i, "name": n, "keypoints": NAMES} for i, n in ((1, "person"), (3, "rider"))]
    kinds[0]["skeleton"] = [[0, 1], [0, 2], [0, 5], [2]]
    value = content(
        images=[
            {"id": i, "file_name": name, "width": "200", "height": 120}
            for i, name in enumerate(names, start=1)
        ],
        annotations=[first, second],
        categories=kinds,
    )
    found = coco_annotations.read(write(tmp_path / "a.json", value))
    b, a = found.people[1], found.people[0]
    assert [one.picture for one in (a, b)] == ["images/a.jpg", "b.jpg"] and a.size == (200, 120)
    assert b.joints.tolist() == [[5, 6], [7, 8], [0, 0]] and b.visible.tolist() == [2, 1, 0]
    assert b.box is not None and b.box.tolist() == [10, 20, 30, 40]
    assert a.box is None and a.flaw == "bbox=[1, 2, 0, 4] is not [x, y, width, height] with a size"
    assert found.skeleton.limbs == ((0, 1), (0, 2))
    assert found.remarks == [
        "the limbs of skeleton are counted from 0, because one of the numbers is 0",
        "2 limbs of skeleton do not join two of the 3 joints: [0, 5]",
    ]
    kinds[1]["keypoints"] = ["x", "y"]
    path = write(tmp_path / "b.json", value)
    assert [one.id for one in coco_annotations.read(path, "person").people] == [7]
    with pytest.raises(ValueError, match="b.json: no category with keypoints is called 'dog'; choose from"):
        coco_annotations.read(path, "dog")


MIDDLE = [31, 31, 42, 42]
CORNERS = [12, 12, 2, 50, 12, 2, 12, 50, 2, 50, 50, 2, 31, 31, 2]
CASES = {
    # name: changes of a file with 3 people in pictures of 64 x 64 px, box, error message.
    "size": (lambda f: f["images"][1].update(width=128, height=64), "auto",
             r"1 of 4 people .*train2.png: coco-train-2: the annotations say 128 x 64 px, the picture has"),
    "all sizes": (lambda f: [i.update(width=32, height=32) for i in f["images"]], "auto",
                  r"no picture of a split can be used .*the annotations say 32 x 32 px, the picture has"),
    "no box": (lambda f: [a.pop("bbox") for a in f["annotations"]], "auto",
               r"no person has a box .*no bbox.*--box=joints"),
    "category": (lambda f: [a.update(category_id=5) for a in f["annotations"]], "auto",
                 r"train: 3 of no category; no category has the category_id '5': 'jumper' has 1"),
    "missing": (lambda f: f["images"][0].update(file_name="x/y.png"), "auto",
                r"the picture is missing in .*/mine/images/x; --images=FOLDER"),
    "shares": (lambda f: [a.update(keypoints=[0.5, 0.5, 2] * 5) for a in f["annotations"]], "joints",
               "all joints lie in 0 ... 1: keypoints must be pixels"),
    "corners": (lambda f: [a.update(bbox=[11, 11, 63, 63]) for a in f["annotations"]], "auto",
                r"100% of the boxes leave their pictures, and look like \[x1, y1, x2, y2\]"),
    "middle": (lambda f: [a.update(bbox=MIDDLE, keypoints=CORNERS) for a in f["annotations"]], "auto",
               r"60% of the joints are outside their boxes, which look like \[center x"),
    "units": (lambda f: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in f["annotations"]], "auto",
              "all boxes lie in 0 ... 1"),
    "elsewhere": (lambda f: [a.update(bbox=[1, 1, 4, 4]) for a in f["annotations"]], "auto",
                  r"labelled joints lie outside their crops .*prepare with --box=joints"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_errors_that_would_be_silent_are_refused(own_data, tmp_path, case):
    change, box, message = CASES[case]
    folder = own_data(tmp_path / "mine", train=3, val=1)
    value = json.loads((folder / "train.json").read_text())
    for image in value["images"]:
        image |= {"width": 64, "height": 64}
    change(value)
    write(folder / "train.json", value)
    with pytest.raises(ValueError, match=message) as caught:
        preparation.prepare(own(folder, tmp_path, box=box))
    assert "\n" not in str(caught.value)


def test_remarks_are_printed(own_data, tmp_path, capsys):
    names = ["kopf", "hand1", "hand2", "fuss1", "fuss2"]
    category = {"id": 1, "name": "p", "keypoints": names, "skeleton": [[0, 1]]}
    folder = own_data(tmp_path / "mine", category, train=11)
    value = json.loads((folder / "train.json").read_text())
    value["annotations"][1]["bbox"] = [5, 5, 0, 9]
    value["annotations"][2]["keypoints"][:3] = [63, 63, 2]
    (folder / "other").mkdir()
    for image in value["images"]:  # as Label Studio exports them, and one that is rotated
        image["file_name"] = "images/" + image["file_name"]
    value["images"][3]["file_name"] = "D:\\photos\\train4.png"
    write(folder / "train.json", value)
    flags = [f"--annotations={folder / 'train.json'}", f"--data_dir={tmp_path}", "--canvas=48"]
    assert prepare.main(["--dataset=coco", *flags]) == 0
    output = capsys.readouterr().out
    assert "train: 9 examples" in output and "flip pairs: none" in output
    assert "not in train: annotation 2: bbox=[5, 5, 0, 9] is not" in output
    assert "train: no flip pairs, but 'hand1' and 'hand2', 'fuss1' and 'fuss2' look like two sides" in output
    assert "train: the limbs of skeleton are counted from 0" in output
    assert "labelled joints lie outside their crops (coco-train-3 first)" in output


def own(folder, tmp_path, annotations="train.json,val.json", **config):
    files = ",".join(str(folder / name) for name in annotations.split(","))
    return preparation.builder("coco", data_dir=tmp_path / "data", annotations=files, canvas=48, **config)


def test_from_files_to_sources(own_data, tmp_path):
    folder = own_data(tmp_path / "mine", train=3, val=2)
    record = json.loads((folder / "train.json").read_text())
    record["annotations"][1]["keypoints"] = [0] * 15
    write(folder / "train.json", record)
    builder = own(folder, tmp_path)
    preparation.prepare(builder)
    assert "not in train: 1 without a labelled joint" in builder.problems.read_text()
    again = own(folder, tmp_path)  # the joint set comes from the prepared data
    preparation.prepare(again)
    train_, validation = (packed.TfdsSource(again, split) for split in ("train", "validation"))
    assert train_.ids == ["coco-train-1", "coco-train-3"]
    assert validation.ids == ["coco-validation-1", "coco-validation-2"]
    skeleton = coco_annotations.read(folder / "val.json").skeleton
    assert train_.skeleton == skeleton and skeleton.flip_pairs == ((1, 2), (3, 4))
    # bbox [11, 11, 42, 42]: around (32, 32); 1.25 * 42 / 200 = 0.2625.
    assert train_[0]["center"].tolist() == [32, 32] and train_[0]["scale"] == np.float32(0.2625)
    wanted = np.reshape(record["annotations"][2]["keypoints"], (5, 3))
    np.testing.assert_allclose(train_[1]["joints"], wanted[:, :2], rtol=1e-6)
    assert train_[1]["visible"].tolist() == wanted[:, 2].tolist()

    write(folder / "train.json", record | {"info": {"version": 2}})
    assert not own(folder, tmp_path).is_prepared()  # other files have another folder


def test_large_pictures_are_read_reduced(own_data, tmp_path, monkeypatch):
    folder = own_data(tmp_path / "mine", train=3, val=2)
    canvases = []
    for largest in (pictures.LARGEST, 32 * 32):  # px; the pictures have 64 x 64 px
        monkeypatch.setattr(pictures, "LARGEST", largest)
        builder = own(folder, tmp_path / str(largest))
        preparation.prepare(builder)
        assert not builder.problems.exists()
        source = packed.TfdsSource(builder, "train")
        canvases.append(pipeline.load(source, 0)["image"].astype(float))
    assert canvases[0].std() > 20 and 0 < np.abs(canvases[0] - canvases[1]).mean() < 8


def test_one_file_gives_every_tenth_picture_to_validation(own_data, tmp_path):
    folder = own_data(tmp_path / "mine", train=11)
    builder = own(folder, tmp_path, "train.json", images=str(folder / "images"))
    preparation.prepare(builder)
    train_, validation = (packed.TfdsSource(builder, split) for split in ("train", "validation"))
    assert validation.ids == ["coco-train-1", "coco-train-11"]
    assert train_.ids == [f"coco-train-{i}" for i in range(2, 11)]


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"annotations": ""}, ValueError, "names 0 files; give train.json,validation.json"),
        ({"annotations": "a.json"}, FileNotFoundError, "found no file a.json"),
        ({"annotations": "a.json,b.json", "images": "a,b,c"}, ValueError, "names 3 folders for 2 files"),
    ],
)
def test_missing_files_are_named(tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        preparation.builder("coco", data_dir=tmp_path, **config)


def test_files_with_different_joints(own_data, tmp_path):
    folder = own_data(tmp_path / "mine", train=1, val=1)
    record = json.loads((folder / "val.json").read_text())
    record["categories"][0]["skeleton"] = []
    write(folder / "val.json", record)
    with pytest.raises(ValueError, match="val.json: its category differs from that of .*train.json"):
        preparation.prepare(own(folder, tmp_path))


def test_pck_by_the_box_of_the_joints():
    # Labelled from (0, 0) to (30, 50): the longer side is 50 px, a tenth of it 5 px.
    truth = np.array([[(0, 0), (30, 50), (99, 99)], [(0, 0), (0, 0), (0, 0)]], float)
    visible = np.array([[2, 1, 0], [0, 0, -1]], np.int8)
    assert metrics.longer_side(truth, visible > 0).tolist() == [50, 0]
    skeleton = coco_annotations.skeleton_of({"keypoints": ["a", "b", "a_long_name"]})
    metric, reference = scores.choose("auto", truth, visible, np.zeros(2), skeleton)
    assert metric == "pckbox"
    joints = truth[:, None] + [(5, 0), (5.01, 0), (0, 0)]
    found = scores.score_joints(joints, truth, visible, reference, skeleton, metric=metric)
    assert found.metric == "PCKbox@0.1" and found.left_out == 1
    assert found.joints["a"] == 100 and found.joints["b"] == 0 and found.mean == 50
    head, row, *_ = scores.report(found).splitlines()
    assert head.split() == ["PCKbox@0.1", "a", "b", "a_long_name", "Mean"]  # long names are separated
    assert len(head) == len(row)


def test_own_joints_from_files_to_pictures(own_data, tmp_path, tiny, small_model, shared_programs, capsys):
    folder = own_data(tmp_path / "mine")
    flags = [f"--annotations={folder}/train.json,{folder}/val.json", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--canvas=48", f"--pack={tmp_path / 'packed'}", f"--sheet={tmp_path / 'sheet.png'}"]
    assert prepare.main(["--dataset=coco", *flags]) == 0
    assert "train: 12 examples" in capsys.readouterr().out and (tmp_path / "sheet.png").exists()

    config = tiny({"data.dataset": "coco", "data.source": "packed", "train.steps": 2})
    config.data.packed_dir = str(tmp_path / "packed")
    train.train(config, tmp_path / "run")
    found = evaluate.evaluate(config, tmp_path / "run", tmp_path / "run")
    names = ["head", "l_hand", "r_hand", "l_foot", "r_foot"]
    assert found.metric == "PCKbox@0.1" and list(found.table) == [*names, "Mean"]
    assert (found.examples, found.left_out) == (4, 0)

    options = {"output": tmp_path / "out", "checkpoint": tmp_path / "run", "format": "dataset"}
    predict.predict([folder / "images" / "val1.png"], **options)
    written = coco_annotations.read(tmp_path / "out" / "predictions.json")
    assert list(written.skeleton.joints) == names
    assert written.skeleton.limbs == ((0, 1), (0, 2), (0, 3), (0, 4))
    predictor = Predictor(tmp_path / "run")
    assert predictor(folder / "images" / "val1.png").joints.shape == (1, 5, 2)


def test_flags_for_other_datasets_are_refused(capsys):
    assert prepare.main(["--dataset=lspet", "--annotations=a.json"]) == 1
    assert (
        "--annotations, --images and --category are for your own data, not for lspet"
        in capsys.readouterr().err
    )
