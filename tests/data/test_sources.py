"""Opening the data that a config names."""

import cv2
import numpy as np
import pytest

from configs import common
from hourglass_jax.data import catalogue, datasets, packed, preparation, prepare, sources
from hourglass_jax.data.examples import Source
from hourglass_jax.pose import skeletons


class OnePerson:
    """A source of one grey canvas, ready to be packed."""

    name, skeleton, canvas, margin = "lspet-train", skeletons.LSP, 48, 1.5
    loader, ids, fingerprint = "threads", ["person-0"], "1"
    extras = {"category": np.array(["sports"])}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        grey = np.full((48, 48, 3), 128, np.uint8)
        return {
            **{"image": cv2.imencode(".jpg", grey)[1].tobytes(), "id": f"person-{range(1)[index]}"},
            **{"joints": np.ones((14, 2), np.float32), "visible": np.full(14, 2, np.uint8)},
            **{"center": np.ones(2, np.float32), "scale": np.float32(1), "head_size": np.float32(0)},
        }


@pytest.fixture
def data(tmp_path):
    packed.write(OnePerson(), packed.path(tmp_path, "lspet", "joints", "train"))
    data = common.base().data
    data.update(dataset="lspet", source="packed", packed_dir=str(tmp_path), canvas=48, size=32)
    return data


def test_drawn_figures_follow_the_config():
    data = common.base().data
    data.update(examples=(7, 3), canvas=48, margin=1.25, variety=0.5)
    train, validation = (sources.open_source(data, train=train) for train in (True, False))
    assert (len(train), len(validation)) == (7, 3)
    assert (train.canvas, train.margin, train.variety) == (48, 1.25, 0.5)
    assert train[0]["id"].startswith("synthetic-train") and train.ids[6] == train[6]["id"]
    assert validation[0]["id"].startswith("synthetic-validation")


def test_test_people_are_cropped_from_the_picture_and_choose_no_checkpoint():
    data = common.base().data
    for dataset, split, box, crops, on_test in (
        ("lsp+lspet", "auto", "auto", "image", True),
        ("lsp", "test", "joints", "joints", True),
        ("lsp", "train", "auto", "joints", False),
        ("lspet", "auto", "auto", "joints", False),
        ("mpii", "auto", "auto", "annotated", False),
        ("mpii", "test", "auto", "annotated", True),
        ("flic", "auto", "auto", "annotated", True),
    ):
        data.update(dataset=dataset, validation_split=split, validation_box=box)
        assert (sources.crops(data), sources.validates_on_test(data)) == (crops, on_test), dataset
    data.update(validation_dataset="lsp+mpii", validation_split="auto", validation_box="auto")
    assert sources.crops(data) == "image+annotated"


def test_a_packed_file_is_found_by_dataset_box_and_split(data):
    source = sources.open_source(data, train=True)
    assert source.ids == ["person-0"] and source.extras["category"].tolist() == ["sports"]
    assert source[0]["category"] == "sports"
    assert source.loader == "threads"  # needs no TensorFlow
    assert isinstance(source, Source)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "mars"}, ValueError, "choose from.*lspet"),
        ({"source": "disk"}, ValueError, "choose tfds, packed or device"),
        ({"packed_dir": "nowhere"}, FileNotFoundError, "nowhere.*prepare --pack"),
        ({"box": "image"}, FileNotFoundError, "lspet-image-train.npz"),
        ({"canvas": 96}, ValueError, r"--config.data.canvas=48 .*--canvas=96"),
        ({"margin": 1.25}, ValueError, r"--config.data.margin=1.5"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_a_remedy(data, change, error, message):
    data.update(change)
    with pytest.raises(error, match=message) as caught:
        sources.open_source(data, train=True)
    assert "\n" not in str(caught.value)


# A complete new dataset: this file, and its line in the catalogue.
TINY = """
import numpy as np

from hourglass_jax.data.people_builder import PeopleBuilder, Person
from hourglass_jax.pose import skeletons


class Tiny(PeopleBuilder, skip_registration=True):
    \"""Two people.\"""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Draw them."
    homepage = license = citation = ""
    skeleton, folder, layouts = skeletons.LSP, "tiny", (("people.txt",),)

    def people(self, annotations):
        joints = np.tile(np.float32([[10, 20], [40, 30]]), (7, 1))
        picture = annotations.parent / "a.jpg"
        people = [Person(name, picture, joints, np.full(14, 2, np.uint8)) for name in ("a", "b")]
        return {"train": people[:1], "validation": people[1:]}
"""


def add_tiny(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tiny.py").write_text(TINY)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "code")])
    monkeypatch.setitem(catalogue.DATASETS, "tiny", catalogue.Dataset("tiny", ("joints", "image")))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((60, 80, 3), 99, np.uint8))
    (tmp_path / "people.txt").touch()


def prepare_tiny(tmp_path, monkeypatch):
    add_tiny(tmp_path, monkeypatch)
    builder = preparation.builder("tiny", data_dir=tmp_path, canvas=48)
    preparation.prepare(builder, manual_dir=tmp_path)
    return builder


def test_a_new_dataset_is_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    add_tiny(tmp_path, monkeypatch)
    flags = [f"--{name}={tmp_path}" for name in ("manual_dir", "data_dir", "pack")]
    assert prepare.main(["--dataset=tiny", "--canvas=48", *flags]) == 0
    assert "train: 1 examples; joints: 14 visible" in capsys.readouterr().out
    found = []
    for source in ("tfds", "packed"):
        data = common.base().data
        data.update(dataset="tiny", source=source, packed_dir=str(tmp_path), data_dir=str(tmp_path))
        data.update(manual_dir=str(tmp_path), canvas=48)
        found += [sources.open_source(data, train=train) for train in (True, False)]
    assert [source.ids for source in found] == [["a"], ["b"]] * 2
    assert all(isinstance(source, Source) for source in found)
    # Equal data have equal fingerprints in all forms of storage.
    assert found[0].fingerprint == found[2].fingerprint != found[3].fingerprint == found[1].fingerprint
    prepared = found[0]
    assert isinstance(prepared, packed.TfdsSource) and prepared._noted == prepared.fingerprint
    del prepared._fingerprint
    prepared._noted = ""  # as in data that an earlier version prepared
    assert prepared.fingerprint == found[2].fingerprint


def write_leeds(folder):
    """The splits of LSP extended and LSP, with one person each."""
    for name, split in (("lspet", "train"), ("lspet", "validation"), ("lsp", "train"), ("lsp", "test")):
        person = OnePerson()
        person.name = f"{name}-{split}"
        packed.write(person, packed.path(folder, name, "joints", split))


def test_all_people_of_lsp_extended_and_of_lsp_in_one_word(data, tmp_path):
    write_leeds(tmp_path)
    data.train_split = "train_all"
    source = sources.open_source(data, train=True)
    assert source.name == "lspet-train + lspet-validation + lsp-train" and len(source) == 3


class Several(OnePerson):
    """People with (visible, occluded, unlabelled) joints; the first two are alone in their pictures."""

    rows = ((14, 0, 0), (13, 1, 0), (13, 0, 1), (14, 0, 0))
    alone = (True, True, True, False)
    extras = {"alone": np.array(alone)}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        visible = np.repeat([2, 1, 0], self.rows[index]).astype(np.int8)
        return super().__getitem__(0) | {"id": f"p{index}", "visible": visible}


def test_people_are_selected_by_their_labels(tmp_path):
    packed.write(Several(), packed.path(tmp_path, "mpii", "annotated", "train"))
    data = common.base().data
    data.update(dataset="mpii", source="packed", packed_dir=str(tmp_path), canvas=48)
    found = {}
    for people in ("all", "labelled", "visible", "single", "visible+single"):
        data.people = people
        source = sources.open_source(data, train=True)
        assert isinstance(source, Source)
        assert [source[i]["id"] for i in range(len(source))] == source.ids
        found[people] = " ".join(source.ids)
    assert found == {
        "all": "p0 p1 p2 p3",
        "labelled": "p0 p1 p3",
        "visible": "p0 p3",
        "single": "p0 p1",
        "visible+single": "p0",
    }
    data.people = "tall"
    with pytest.raises(
        ValueError, match="data.people='tall' is unknown; choose all, labelled, visible, sing"
    ):
        sources.open_source(data, train=True)


def test_not_every_dataset_records_who_is_alone(data):
    data.people = "single"
    with pytest.raises(ValueError, match="lspet-train does not record who is alone. Only mpii does"):
        sources.open_source(data, train=True)


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: bytes(len(whole)), None],
)
def test_damaged_records_are_one_line(tmp_path, monkeypatch, damage):
    builder = prepare_tiny(tmp_path, monkeypatch)
    (records,) = builder.data_path.glob("*-train.*")
    whole = records.read_bytes()
    if damage:
        records.write_bytes(damage(whole))
    else:
        records.unlink()
    with pytest.raises(
        ValueError, match="the prepared data are damaged .*; delete that folder and"
    ) as caught:
        packed.TfdsSource(builder, "train")[0]
    assert str(builder.data_dir) in str(caught.value) and "\n" not in str(caught.value)
    records.write_bytes(whole)
    (builder.data_path / "dataset_info.json").write_text("{}")
    with pytest.raises(
        ValueError, match="the prepared data are damaged .*; delete that folder and"
    ) as caught:
        preparation.builder("tiny", data_dir=tmp_path, canvas=48)
    assert "\n" not in str(caught.value)
