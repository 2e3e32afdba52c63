"""Exports of labelling tools: read as the tools write them, or recognised in one line."""

import json

import cv2
import numpy as np
import pytest

from hourglass_jax.data import prepare
from hourglass_jax.data.datasets import (
    coco_annotations,
    dlc_annotations,
    labelme_annotations,
    yolo_annotations,
)

JOINTS = ("nose", "left_hand", "right_hand")
PLACES = ((20, 20), (40, 50), (10, 50))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((80, 100, 3), 99, np.uint8))


def coco(names, **changes):
    """COCO keypoints with the fields that CVAT, Roboflow and COCO Annotator add."""
    keypoints = [value for x, y in PLACES for value in (x, y, 2)]
    images, annotations = [], []
    for i, name in enumerate(names, start=1):
        images.append({"id": i, "width": 100, "height": 80, "file_name": name, "license": 0, "coco_url": ""})
        more = {"segmentation": [], "iscrowd": 0, "num_keypoints": 3, "attributes": {"occluded": False}}
        one = {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 8, 45, 50], "keypoints": keypoints}
        annotations.append(one | more | changes)
    category = {"id": 1, "name": "person", "supercategory": "people", "keypoints": list(JOINTS)}
    root = {"id": 0, "name": "people", "supercategory": "none"}  # Roboflow's root, without annotations
    return {"info": {}, "images": images, "annotations": annotations, "categories": [root, category]}


def labelme(**changes):
    points = [
        {"label": label, "points": [place], "group_id": 1, "shape_type": "point", "flags": {}}
        for label, place in zip(JOINTS, PLACES, strict=True)
    ]
    box = {"label": "person", "points": [[50, 58], [5, 8]], "group_id": 1, "shape_type": "rectangle"}
    outline = {"label": "tree", "points": [[0, 0], [9, 9], [0, 9]], "shape_type": "polygon", "group_id": 1}
    about = {"version": "5.4.1", "flags": {}, "imageData": None, "imageHeight": 80, "imageWidth": 100}
    return about | {"shapes": [box, outline, *points], "imagePath": "..\\x\\a.jpg"} | changes


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_pictures_are_found_where_cvat_puts_them(tmp_path, capsys):
    names = [f"{i}.jpg" for i in range(3)]
    for name in names:
        picture(tmp_path / "images/default" / name.upper())  # from a case-insensitive system
    content = coco(names)
    tracked = {"keypoints": [], "num_keypoints": 0, "bbox": [0, 0, 0, 0]}  # a track outside the picture
    content["annotations"].append(content["annotations"][0] | tracked | {"id": 9})
    file = write(tmp_path / "annotations/person_keypoints_default.json", content)
    flags = ["--dataset=coco", f"--annotations={file}", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main(flags) == 0
    output = capsys.readouterr().out
    assert "train: 2 examples; joints: 6 visible" in output
    assert "not in train: 1 without a labelled joint" in output
    picture(tmp_path / "images/other/0.jpg")  # now the name is ambiguous
    assert prepare.main([*flags[:2], f"--data_dir={tmp_path / 'again'}", "--canvas=48"]) == 1
    assert "0.jpg: coco-train-1: the picture is missing in" in capsys.readouterr().err


def test_for_a_folder_instead_of_a_file_the_error_names_its_files(tmp_path, capsys):
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.rf.1.jpg")
        write(tmp_path / split / "_annotations.coco.json", coco(["a.rf.1.jpg"]))
    common = ["--dataset=coco", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main([*common, f"--annotations={tmp_path}"]) == 1
    wanted = ",".join(f"{tmp_path / split / '_annotations.coco.json'}" for split in ("train", "valid"))
    assert f"did you mean {wanted}?" in capsys.readouterr().err
    assert prepare.main([*common, f"--annotations={wanted}"]) == 0
    assert "validation: 1 examples; joints: 3 visible" in capsys.readouterr().out


def test_yolos_splits_may_be_lists_of_pictures(tmp_path):
    row = "0 0.5 0.5 0.2 0.4 0.45 0.6 2\n"
    for name in ("a", "b"):
        picture(tmp_path / f"set/images/{name}.jpg")
        write(tmp_path / f"set/labels/{name}.txt", row)
    write(tmp_path / "set/train.txt", "./images/a.jpg\n\n/home/someone/else/set/images/b.jpg\n")
    fields = {"path": "set", "train": "train.txt", "kpt_shape": [1, 3]}
    file = write(tmp_path / "data.yaml", json.dumps(fields))
    (content,) = yolo_annotations.read(file)
    assert [one.id for one in content.people] == ["a-1", "b-1"]
    assert [one.name for one in yolo_annotations.labels(file)] == ["a.txt", "b.txt"]
    write(tmp_path / "set/train.txt", "./images/a.jpg\n./images/c.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"train.txt: line 2: found no picture './images/c.jpg' in"):
        yolo_annotations.read(file)


def test_labelmes_people_by_hand(tmp_path):
    second = labelme(imagePath="b.jpg")
    second["shapes"][2] |= {"flags": {"occluded": True}, "group_id": 2}
    write(tmp_path / "sub/b.json", second)
    write(tmp_path / "a.json", labelme())
    content = labelme_annotations.read(tmp_path)
    assert content.skeleton.joints == ("left_hand", "nose", "right_hand")
    assert content.skeleton.flip_pairs == ((0, 2),)
    whole, two, one = content.people
    assert (whole.id, whole.picture, whole.size) == ("a-1", "a.jpg", (100, 80))
    np.testing.assert_array_equal(whole.joints, [(40, 50), (20, 20), (10, 50)])
    np.testing.assert_array_equal(whole.box, [5, 8, 45, 50])
    assert (two.id, two.picture, two.visible.tolist()) == ("sub/b-1", "sub/b.jpg", [2, 0, 2])
    assert (one.id, one.box, one.visible.tolist()) == ("sub/b-2", None, [0, 1, 0])


def test_labelme_is_prepared(tmp_path, capsys):
    for name in "abc":
        picture(tmp_path / "labels" / f"{name}.jpg")
        write(tmp_path / "labels" / f"{name}.json", labelme(imagePath=f"{name}.jpg"))
    flags = [f"--annotations={tmp_path / 'labels'}", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main(["--dataset=labelme", *flags]) == 0
    output = capsys.readouterr().out
    assert "train: 2 examples; joints: 6 visible" in output
    assert "flip pairs: left_hand - right_hand" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": None}, "a.json: no list of shapes; expected a folder of labelme's files"),
        ({"imagePath": ".."}, "a.json: imagePath '..' names no picture"),
        (lambda c: c["shapes"][2].update(label="right_hand"), "shape 5: group 1 has two points called 'rig"),
        (
            lambda c: c["shapes"][2].update(points=[[1]]),
            r"shape 3: points are \[\[1\]\]; expected 1",
        ),
        (lambda c: c["shapes"][1].update(c["shapes"][0]), "shape 2: group 1 has two rectangles; give each"),
        (lambda c: c["shapes"][2].update(group_id=[]), r"shape 3: label and group_id are \('nose', \[\]\)"),
        (lambda c: c.update(shapes=c["shapes"][:2]), "has no points in 1 files, .*a.json first; expected"),
        (lambda c: c.update(coco(["a.jpg"])) or c.pop("shapes"), "looks like COCO's.*use --dataset=coco"),
    ],
)
def test_errors_in_labelmes_files_are_named(tmp_path, change, message):
    content = labelme()
    if callable(change):
        change(content)
    else:
        content |= change
    write(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match=message) as caught:
        labelme_annotations.read(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


VIA = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [], "file_attributes": {}}}
HRNET = [{"joints_vis": [1], "joints": [[1, 2]], "image": "a.jpg", "scale": 1, "center": [1, 2]}]
RAW = [{"id": 1, "annotations": [{"result": []}], "data": {"img": "/data/upload/a.jpg"}}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.xml",
            "<?xml version='1.0'?><annotations/>",
            "not readable as json.*looks like XML, such as",
        ),
        ("a.json", labelme(), "no list of images.*labelme's file .*; use --dataset=labelme with the folder"),
        ("a.json", VIA, "looks like a project of VIA, which has no joint sets; convert it to COCO"),
        ("a.json", {"_via_img_metadata": VIA}, "looks like a project of VIA"),
        ("a.json", HRNET, "looks like MPII's people in HRNet's and mmpose's json"),
        ("a.json", RAW, "looks like Label Studio's own json; export the project as COCO with keypoints"),
        ("a.json", coco(["a.jpg"])["annotations"], "looks like COCO results, which are predictions"),
        ("a.yaml", "kpt_shape: [1, 3]", "looks like YOLO pose's data.yaml; use --dataset=yolo"),
        ("a.csv", "scorer,me\n", "looks like a table of DeepLabCut's; use --dataset=dlc"),
        ("a.slp", "\x89HDF", "not readable as json.*$"),
        (
            "a.json",
            {"images": [], "annotations": []},
            r"none of the categories \[\] has keypoints; expected",
        ),
        (
            "a.json",
            coco([]) | {"categories": [{"id": 1, "name": "hand"}]},
            r"none of the categories \['hand'\] has keypoints; add the joints' names to it, \"keypoints\"",
        ),
    ],
)
def test_files_of_other_tools_are_recognised(tmp_path, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as caught:
        coco_annotations.read(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_coco_and_sleap_are_recognised_where_others_are_read(tmp_path):
    file = write(tmp_path / "a.json", coco(["a.jpg"]))
    for read in (dlc_annotations.read, yolo_annotations.read, labelme_annotations.read):
        with pytest.raises(ValueError, match="it looks like COCO's format; use --dataset=coco"):
            read(file)
    (tmp_path / "a.slp").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(9))
    with pytest.raises(ValueError, match=r"a project of SLEAP; convert it with .* save_coco\(\) of sleap-io"):
        coco_annotations.read(tmp_path / "a.slp")
