"""MPII's annotations in both forms, with the irregularities of the benchmark's own file."""

import gzip
import json
import pathlib

import cv2
import numpy as np
import pytest
import scipy.io

from configs import common
from hourglass_jax.data import packed, pipeline, preparation, selection, sources
from hourglass_jax.data.datasets import mpii, mpii_annotations

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data" / "mpii"
needs_mpii = pytest.mark.skipif(not SHARED.is_dir(), reason="MPII's annotations are not here")


def structs(rows):
    """Dictionaries as a MATLAB structure array (1, n); missing fields are empty."""
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["x1"]
    array = np.empty((1, len(rows)), [(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            array[name][0, i] = row.get(name, np.zeros((0, 0)))
    return array


def points(*rows):
    """annopoints of (id, x, y) or (id, x, y, is_visible)."""
    names = ("id", "x", "y", "is_visible")
    return structs([{"point": structs([dict(zip(names, row, strict=False)) for row in rows])}])


def place(x, y):
    return structs([{"x": x, "y": y}])


EMPTY = np.zeros((0, 0))
HEAD = {"x1": 10, "y1": 20, "x2": 40, "y2": 60}  # 30 x 40 px: the diagonal is 50, 0.6 of it 30

# Two people for training; the same place in the list for validation; one for testing.
IMAGES = [
    {
        "name": "a.jpg",
        "people": [
            {
                **HEAD,
                "scale": 1.5,
                "objpos": place(60, 50),
                # Neck (8) and head top (9) have no is_visible; some numbers are text.
                "annopoints": points(
                    (0, 30, 70, 1),
                    (1, 31, 60, 0),
                    (8, 40.5, 20.25, EMPTY),
                    (9, 40.5, -2, EMPTY),
                    (10, "12", 0, "0"),
                ),
            },
            # A single point in a single structure, no head box, and empty fields.
            {"scale": "2", "objpos": place("70", 40), "annopoints": points((12, 77, 33, 1))},
            {"scale": EMPTY, "objpos": EMPTY, "annopoints": EMPTY},  # not annotated
        ],
    },
    {"name": "empty.jpg", "people": []},
    {
        "name": "b.jpg",
        "people": [{"scale": 1, "objpos": place(40, 30), "annopoints": points((8, 10, 20), (9, 10, 28))}],
    },
    {"name": "t.jpg", "people": [{"scale": 2, "objpos": place(40, 30)}, {"objpos": EMPTY, "scale": 1}]},
]
SPLIT = {"train": np.array([(0, 0), (0, 1)]), "validation": np.array([(2, 0)])}


def write_mat(path, images=IMAGES, **changes):
    """A file like mpii_human_pose_v1_u12_1.mat."""
    annolist = [
        {
            **{"image": structs([{"name": image["name"]}]), "vididx": 1, "frame_sec": EMPTY},
            "annorect": structs(image["people"]) if image["people"] else EMPTY,
        }
        for image in images
    ]
    single = np.empty((len(images), 1), object)
    single[:] = [[np.arange(1, len(image["people"]) + 1)] for image in images]
    act = [{"cat_name": "sports", "act_name": "tennis, singles", "act_id": 7}]
    act += [{"cat_name": EMPTY, "act_name": EMPTY, "act_id": -1}] * (len(images) - 1)
    release = {
        **{"annolist": structs(annolist), "single_person": single, "act": structs(act).T, "version": "12"},
        "img_train": np.array([[image["name"] != "t.jpg" for image in images]], np.uint8),
    }
    scipy.io.savemat(path, {"RELEASE": release | changes})
    return path


def json_person(image, person, name, joints, others=(), **fields):
    none = {"_ArrayType_": "double", "_ArraySize_": [0, 0], "_ArrayData_": None}
    others = others[0] if len(others) == 1 else list(others) or none  # as MATLAB's json has it
    return {
        **{
            "img_paths": name,
            "annolist_index": image + 1.0,
            "people_index": person + 1.0,
            "joint_self": joints,
        },
        **{
            "joint_others": others,
            "objpos": [60.0, 50.0],
            "scale_provided": 1.5,
            "isValidation": 0.0,
            **fields,
        },
    }


def table(*rows):
    """(16, 3) as lists, of rows (joint, x, y, visible)."""
    joints = np.zeros((16, 3))
    for joint, *values in rows:
        joints[joint] = values
    return joints.tolist()


# The benchmark's file.


def test_the_mat_file_and_its_irregularities(tmp_path):
    people = mpii_annotations.read(write_mat(tmp_path / "a.mat"))
    assert [(p.picture, p.image, p.person) for p in people] == [
        *(
            ("a.jpg", 0, 0),
            ("a.jpg", 0, 1),
            ("a.jpg", 0, 2),
            ("b.jpg", 2, 0),
            ("t.jpg", 3, 0),
            ("t.jpg", 3, 1),
        )
    ]
    first, second, none, other, test, lost = people
    assert first.joints[[0, 1, 8, 9, 10]].tolist() == [[30, 70], [31, 60], [40.5, 20.25], [40.5, -2], [12, 0]]
    # Neck and head top count as visible; (12, 0) is a place, and its "0" says occluded.
    assert first.visible.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0]
    assert first.center.tolist() == [60, 50] and first.scale == 1.5 and first.head_size == pytest.approx(30)
    assert (first.category, first.activity) == ("sports", "tennis, singles")
    assert first.others.shape == (1, 16, 3) and first.others[0, 12].tolist() == [77, 33, 2]
    assert second.joints[12].tolist() == [77, 33] and second.visible.sum() == 2
    assert second.center.tolist() == [70, 40] and second.scale == 2 and second.head_size == 0
    assert not none.visible.any() and len(none.others) == 2 and np.isnan(none.scale)
    assert other.head_size == 0.75 * 8  # no head box: 0.75 of neck to head top
    assert (other.category, other.activity) == ("", "") and other.others.shape == (0, 16, 3)
    assert [p.training for p in people] == [True] * 4 + [False] * 2
    assert not test.visible.any() and test.center.tolist() == [40, 30] and np.isnan(lost.center).all()


def test_without_activities(tmp_path):
    people = mpii_annotations.read(write_mat(tmp_path / "a.mat", act=EMPTY))
    assert len(people) == 6 and people[0].category == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annolist": EMPTY}, "found 0 pictures, 4 of known use and 4 activities; expected mpii_human"),
        ({"img_train": np.ones((1, 3))}, "found 4 pictures, 3 of known use"),
    ],
)
def test_other_mat_files_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        mpii_annotations.read(write_mat(tmp_path / "a.mat", **changes))
    assert "\n" not in str(caught.value)


def test_unreadable_mat_files_are_refused(tmp_path):
    path = write_mat(tmp_path / "a.mat")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="a.mat: not readable"):
        mpii_annotations.read(path)
    scipy.io.savemat(path, {"joints": np.zeros(3)})
    with pytest.raises(ValueError, match="found 0 pictures"):
        mpii_annotations.read(path)
    write_mat(path, [{"name": "a.jpg", "people": [{"annopoints": points((16, 1, 1, 1))}]}])
    with pytest.raises(ValueError, match=r"a.mat: annolist\(1\) has a joint 16, not 0 to 15"):
        mpii_annotations.read(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        mpii_annotations.read(tmp_path / "b.mat")


# The public json.


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_the_json(tmp_path, name):
    mine = table((0, 30, 70, 1), (1, 31, 60, 0), (2, 0, 5, 1), (3, -4, 0, 1), (8, 3, 4, 1), (9, 0, 0, 0))
    one, two = table((5, 1, 2, 0)), table((6, 3, 4, 1))
    rows = [json_person(4, i, "a.jpg", mine, others) for i, others in enumerate([(), (one,), (one, two)])]
    text = json.dumps(rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    people = mpii_annotations.read(tmp_path / name)
    assert [(p.picture, p.image, p.person) for p in people] == [("a.jpg", 4, i) for i in range(3)]
    # Only (0, 0) is missing; a single coordinate of any sign is not.
    assert people[0].visible.tolist() == [2, 1, 2, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    assert [len(p.others) for p in people] == [0, 1, 2]
    assert people[2].others[0, 5].tolist() == [1, 2, 1] and people[2].others[1, 6].tolist() == [3, 4, 2]
    assert people[0].head_size == 0 and people[0].training and people[0].category == ""


# The dataset.


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """MANUAL_DIR with a small mpii: the .mat in its own folder, and pictures of 120 x 90 px."""
    monkeypatch.setattr(mpii_annotations, "split", lambda: SPLIT)
    folder = tmp_path / "mpii" / "mpii_human_pose_v1_u12_2"
    folder.mkdir(parents=True)
    write_mat(folder / mpii.MATLAB)
    (tmp_path / "mpii" / "images").mkdir()
    for name in ("a", "b", "t"):
        cv2.imwrite(str(tmp_path / "mpii" / "images" / f"{name}.jpg"), np.full((90, 120, 3), 99, np.uint8))
    return tmp_path


def test_from_archive_to_source(archive):
    builder = preparation.builder("mpii", data_dir=archive / "data", canvas=48)
    assert builder.builder_config.box == "annotated"
    preparation.prepare(builder, manual_dir=archive)
    train, validation, test = (packed.TfdsSource(builder, name) for name in ("train", "validation", "test"))
    assert (
        train.ids == ["mpii-a-0", "mpii-a-1"] and validation.ids == ["mpii-b-0"] and test.ids == ["mpii-t-0"]
    )
    first = train[0]
    # The released code's box: 15 * 1.5 px lower, 1.25 * 1.5.
    assert first["center"].tolist() == [60, 72.5] and first["scale"] == 1.875
    assert first["head_size"] == pytest.approx(30) and first["joints"][10].tolist() == [12, 0]
    assert first["visible"].tolist()[:2] == [2, 1] and first["others"].shape == (1, 16, 3)
    assert (first["category"], first["activity"]) == ("sports", "tennis, singles")
    assert validation[0]["others"].shape == (0, 16, 3)
    assert train.extras["alone"].tolist() == [False, False] and validation.extras["alone"].tolist() == [True]
    assert train.extras["category"].tolist() == ["sports"] * 2
    assert test.extras["image_index"].tolist() == [3] and train.extras["person_index"].tolist() == [0, 1]
    assert not test[0]["visible"].any() and test[0]["scale"] == 2.5
    assert pipeline.load(test, 0)["image"].shape == (48, 48, 3)
    # The person without a place is listed; the joint at (12, 0) is not far outside.
    assert builder.problems.read_text() == "not in test: t.jpg: mpii-t-1: no centre or no scale\n"


def test_train_all_is_both_by_tfds_and_packed(archive):
    data = common.base().data
    data.update(dataset="mpii", canvas=48, train_split="train_all", validation_split="validation")
    data.update(data_dir=str(archive / "data"), manual_dir=str(archive), packed_dir=str(archive / "packed"))
    both = sources.open_source(data, train=True)
    assert both.ids == ["mpii-a-0", "mpii-a-1", "mpii-b-0"] and both.loader == "tfdata"
    for split in both.sources:
        packed.write(split, packed.path(data.packed_dir, "mpii", "annotated", split.name.split("-")[1]))
    data.source = "packed"
    copy = sources.open_source(data, train=True)
    assert copy.ids == both.ids and copy.loader == "threads"
    assert copy.extras["category"].tolist() == ["sports", "sports", ""] == both.extras["category"].tolist()
    assert copy[1]["activity"] == "tennis, singles" and copy[2]["image"] == both[2]["image"]


def test_an_incomplete_file_is_refused(archive, monkeypatch):
    monkeypatch.setattr(mpii_annotations, "split", lambda: SPLIT | {"validation": np.array([(2, 0), (9, 4)])})
    builder = preparation.builder("mpii", data_dir=archive / "data", canvas=48)
    message = r"lacks 1 of the 2 people of validation \(annolist\(10\).annorect\(5\) first\)"
    with pytest.raises(ValueError, match=message):
        preparation.prepare(builder, manual_dir=archive)


def test_no_archive(tmp_path):
    builder = preparation.builder("mpii", data_dir=tmp_path / "data", canvas=48)
    with pytest.raises(
        FileNotFoundError, match="found no mpii/mpii_human_pose_v1_u12_1.mat. Download"
    ) as caught:
        preparation.prepare(builder, manual_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_split_has_the_numbers_of_tompson():
    split = mpii_annotations.split()
    assert {name: rows.shape for name, rows in split.items()} == {
        "train": (22246, 2),
        "validation": (2958, 2),
    }
    images = {name: set(rows[:, 0].tolist()) for name, rows in split.items()}
    assert len(images["train"]) == 14679 and not images["train"] & images["validation"]


# The real annotations, if available.


@needs_mpii
def test_real_json():
    people = mpii_annotations.read(SHARED / "mpii_annotations.json.gz")
    visible = np.array([p.visible for p in people])
    assert len(people) == 25_204 and (visible == 0).sum() == 27_001 and (visible == 1).sum() == 86_703
    assert (visible > 0).all(axis=1).sum() == 16_992
    places = {(p.image, p.person): p for p in people}
    split = mpii_annotations.split()
    assert set(places) == {tuple(row) for rows in split.values() for row in rows.tolist()}
    names = (SHARED / "valid_images.txt").read_text().split()
    validation = [places[tuple(row)] for row in split["validation"].tolist()]
    assert [p.picture for p in validation] == names
    assert len({p.id for p in people}) == len(people)

    train = [places[tuple(row)] for row in split["train"].tolist()]
    alone = [{"visible": p.visible, "alone": not len(p.others)} for p in train]
    counts = {
        kinds: sum(selection._chosen(example, kinds.split("+")) for example in alone)
        for kinds in ("all", "labelled", "visible", "single", "visible+single")
    }
    assert counts == {
        "all": 22_246,
        "labelled": 14_975,
        "visible": 2_892,
        "single": 6_425,
        "visible+single": 1_184,
    }

    import h5py

    with h5py.File(SHARED / "valid.h5") as file:
        published = {name: file[name][()] for name in ("center", "scale", "normalize", "part")}
    boxes = [mpii._person(p, pathlib.Path()) for p in validation]
    np.testing.assert_allclose([b.center for b in boxes], published["center"], atol=0.01)
    np.testing.assert_allclose([b.scale for b in boxes], published["scale"], atol=1e-3)
    sizes = np.array([p.head_size for p in validation])
    close = np.abs(sizes - published["normalize"])[sizes > 0]
    assert len(close) == 2932 and (close <= 0.01).sum() == 2732 and (close > 0.5).sum() == 74


@needs_mpii
def test_real_pictures(tmp_path, monkeypatch):
    people = mpii_annotations.read(SHARED / "sample_annotations.json")
    rows = np.array([(p.image, p.person) for p in people])
    monkeypatch.setattr(mpii_annotations, "split", lambda: {"train": rows[:1], "validation": rows[1:]})
    (tmp_path / "images").symlink_to(SHARED / "images")
    (tmp_path / "mpii_annotations.json").symlink_to(SHARED / "sample_annotations.json")
    builder = preparation.builder("mpii", data_dir=tmp_path / "data", canvas=96)
    preparation.prepare(builder, manual_dir=tmp_path)
    source = packed.TfdsSource(builder, "validation")
    assert len(source) == 4 and not builder.problems.exists()
    assert source.ids[0] == f"mpii-{pathlib.Path(people[1].picture).stem}-{people[1].person}"
