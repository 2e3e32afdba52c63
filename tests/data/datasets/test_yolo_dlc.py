"""The folders of YOLO pose and the tables of DeepLabCut."""

import json

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from hourglass_jax.data import packed, preparation, prepare
from hourglass_jax.data.datasets import dlc_annotations, yolo_annotations

YAML = {
    "path": "/home/someone/else",
    "train": "../train/images",
    "val": "../valid/images",
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": ["person", "dog"],
}


@pytest.fixture
def yolo(tmp_path):
    """Folders as Roboflow exports them: two pictures of 200 x 100 px for training, one for validation."""
    for split, names in (("train", "ab"), ("valid", "c")):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
        for name in names:
            cv2.imwrite(
                str(tmp_path / split / "images" / f"{name}.jpg"), np.full((100, 200, 3), 99, np.uint8)
            )
            line = "0 0.5 0.5 0.2 0.4 0.45 0.6 2 0.5 0.5 1 0 0 0\n"
            (tmp_path / split / "labels" / f"{name}.txt").write_text(line)
    (tmp_path / "data.yaml").write_text(json.dumps(YAML))
    return tmp_path


def test_people_of_yolo(yolo):
    (yolo / "train/labels/a.txt").write_text(
        "1 0.5 0.5 0.2 0.4 0.45 0.6 2 0.5 0.5 1 0 0 0\n\n0 .5 .5 0 .1 " + "0 0 2 " * 3
    )
    (yolo / "train/labels/b.txt").unlink()
    train, validation = yolo_annotations.read(yolo / "data.yaml")
    first, second = train.people
    # Centre (100, 50), 40 x 40 px; joints at 0.45 * 200, 0.6 * 100 and in the centre.
    np.testing.assert_allclose(first.box, [80, 30, 40, 40], rtol=1e-5)
    np.testing.assert_allclose(first.joints, [[90, 60], [100, 50], [0, 0]], rtol=1e-5)
    assert first.visible.tolist() == [2, 1, 0] and first.size == (200, 100)
    assert second.box is None and second.flaw == "its box has no size" and second.id == "a-3"
    assert train.skeleton.flip_pairs == ((1, 2),) and len(validation.people) == 1
    assert [reason.split(" (")[0] for reason in train.left_out] == ["pictures without a file of labels"]
    (dog,) = yolo_annotations.read(yolo / "data.yaml", category="dog")[0].people
    assert dog.id == "a-1"


@pytest.mark.parametrize(("before", "after"), [("0.45", "90"), ("0.2", "40"), ("0.6", "nan")])
def test_labels_in_pixels_are_refused(yolo, before, after):
    label = yolo / "train/labels/b.txt"
    label.write_text(label.read_text().replace(before, after))
    with pytest.raises(ValueError, match="b.txt: line 1: has numbers that are not fractions of the picture"):
        yolo_annotations.read(yolo / "data.yaml")


def test_lines_with_a_byte_order_mark_an_unnamed_class_and_duplicates(yolo, tmp_path, capsys):
    label = yolo / "train/labels/b.txt"
    row = label.read_text()
    label.write_bytes(b"\xef\xbb\xbf" + (row + "7" + row[1:] + row).encode())
    flags = [f"--annotations={yolo / 'data.yaml'}", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main(["--dataset=yolo", *flags]) == 0
    output = capsys.readouterr().out
    assert "train: 2 examples" in output
    assert "not in train: 1 people who are annotated twice, with the same joints" in output
    assert "not in train: 1 people of a class that is not wanted or that data.yaml does not name" in output


def test_labels_refer_to_upright_pixels_and_need_no_flags(yolo):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (200, 100)).save(yolo / "train/images/a.jpg", exif=turned)
    for file in yolo.rglob("*.txt"):
        file.write_text("0 0.5 0.5 0.2 0.4 0.45 0.6 0.5 0.5 0 0\n")
    names = {"kpt_names": {"0": ["head", "LHand", "RHand"]}}
    fields = {name: value for name, value in YAML.items() if name != "flip_idx"}
    (yolo / "data.yaml").write_text(json.dumps(fields | {"kpt_shape": [3, 2]} | names))
    train, _ = yolo_annotations.read(yolo / "data.yaml")
    np.testing.assert_allclose(train.people[0].joints, [[45, 120], [50, 100], [0, 0]], rtol=1e-5)
    assert train.people[0].size == (100, 200) and train.people[0].visible.tolist() == [2, 2, 0]
    assert train.skeleton.flip_pairs == ((1, 2),) and train.skeleton.joints[1] == "LHand"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kpt_shape": None}, "data.yaml: expected YOLO pose's data.yaml"),
        ({"train": "images/nowhere"}, "data.yaml: found no folder 'images/nowhere' in .*--images=FOLDER"),
        ({"train": "/etc", "val": "../../../../../etc"}, "data.yaml: found no folder '/etc'"),
        ({"flip_idx": [1, 2, 0]}, "flip_idx must swap pairs of the 3 joints"),
        ({"kpt_names": {0: ["a"]}}, "kpt_names has 1 names for 3 joints"),
        ({"kpt_shape": [4, 3], "flip_idx": None}, "a.txt: line 1: has 14 numbers; 4 joints need 17 .*data"),
        ({"kpt_shape": [True, 3]}, r"data.yaml: .*kpt_shape is \[True, 3\]"),
        ({"train": None, "val": None}, "names neither train nor val"),
    ],
)
def test_errors_in_yolos_files_are_named(yolo, change, message):
    (yolo / "data.yaml").write_text(json.dumps(YAML | change))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        yolo_annotations.read(yolo / "data.yaml")
    assert "\n" not in str(caught.value)


def test_yolo_is_prepared(yolo, tmp_path, capsys):
    flags = [f"--annotations={yolo / 'data.yaml'}", f"--data_dir={tmp_path / 'data'}", "--canvas=48"]
    assert prepare.main(["--dataset=yolo", *flags]) == 0
    output = capsys.readouterr().out
    assert "train: 2 examples; joints: 2 visible, 2 occluded, 2 not labelled" in output
    assert "flip pairs: joint2 - joint3" in output
    options = {"data_dir": tmp_path / "data", "annotations": str(yolo / "data.yaml"), "canvas": 48}
    builder = preparation.builder("yolo", **options)
    assert packed.TfdsSource(builder, "validation").ids == ["yolo-validation-c-1"]
    (yolo / "valid/labels/c.txt").write_text("0 0.5 0.5 0.2 0.4 0.45 0.6 2 0.5 0.5 2 0 0 0\n")
    assert not preparation.builder("yolo", **options).is_prepared()  # other labels have another folder


ROWS = """scorer,,,me,me,me,me
bodyparts,,,nose,nose,pawL,pawL
coords,,,x,y,x,y
labeled-data,film,img000.png,10.5,20,30,40
labeled-data,film,img001.png,,,31,41
labeled-data,film,img002.png,,,,
"""


def table(folder, text=ROWS):
    (folder / "labeled-data" / "film").mkdir(parents=True, exist_ok=True)
    path = folder / "labeled-data" / "film" / "CollectedData_me.csv"
    path.write_text(text)
    for number in range(3):
        cv2.imwrite(str(path.parent / f"img{number:03d}.png"), np.full((60, 80, 3), 99, np.uint8))
    return path


def test_frames_of_deeplabcut(tmp_path):
    path = table(tmp_path)
    for given, folder in ((path, ""), (path.with_suffix(".h5"), ""), (tmp_path, "labeled-data/film/")):
        found = dlc_annotations.read(given)
        assert found.skeleton.joints == ("nose", "pawL") and found.left_out == {"without a labelled joint": 1}
        first, second = found.people
        assert first.picture == f"{folder}img000.png" and first.joints.tolist() == [[10.5, 20], [30, 40]]
        assert second.visible.tolist() == [0, 2] and second.id == f"{folder}img001"
    # The older form has the path in one column; with several animals there is a row of individuals.
    old = [line.replace("labeled-data,film,", "labeled-data\\film\\") for line in ROWS.splitlines()]
    old = [line.replace(",,,", ",", 1) if number < 3 else line for number, line in enumerate(old)]
    assert [one.picture for one in dlc_annotations.read(table(tmp_path, "\n".join(old))).people][
        0
    ] == "img000.png"
    several = ROWS.replace("bodyparts", "individuals,,,a,a,b,b\nbodyparts")
    people = dlc_annotations.read(table(tmp_path, several)).people
    assert [one.id for one in people] == ["img000-a", "img000-b", "img001-b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected DeepLabCut's CollectedData"),
        (ROWS.replace("coords,,,x,y", "coords,,,x,likelihood"), "its coords are not x, y of each joint"),
        (ROWS.replace("10.5", "ten"), "row 4 has words that are not numbers"),
        (ROWS.replace("pawL", "nose"), "has the joint 'nose' twice"),
        (ROWS + "labeled-data,film\n", "row 7 has 2 columns, not 7"),
    ],
)
def test_errors_in_deeplabcuts_tables_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"CollectedData_me.csv: .*{message}") as caught:
        dlc_annotations.read(table(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), (";", "."), ("\t", ",")])
def test_tables_that_a_spreadsheet_saved(tmp_path, encoding, separator, decimal):
    text = ROWS.replace(",", separator).replace("10.5", f"10{decimal}5").replace("\n", "\r\n")
    (tmp_path / "CollectedData_me.csv").write_bytes(text.encode(encoding))
    first, second = dlc_annotations.read(tmp_path / "CollectedData_me.csv").people
    assert first.joints.tolist() == [[10.5, 20], [30, 40]] and second.visible.tolist() == [0, 2]


def test_deeplabcut_is_prepared(tmp_path, capsys):
    path = table(tmp_path)
    for number, given in enumerate((path, tmp_path)):
        flags = [f"--annotations={given}", f"--data_dir={tmp_path / 'data' / str(number)}", "--canvas=48"]
        assert prepare.main(["--dataset=dlc", *flags]) == 0
        output = capsys.readouterr().out
        assert "train: 1 examples" in output and "'pawL' looks like one side" in output
        assert "1 without a labelled joint" in output
