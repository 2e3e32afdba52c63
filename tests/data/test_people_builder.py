"""From lists of people to prepared canvases."""

import pathlib
import threading

import cv2
import numpy as np
import pytest

from hourglass_jax.data import catalogue, packed, people, people_builder, pipeline, preparation
from hourglass_jax.media import pictures
from hourglass_jax.pose import crop, skeletons

# The crop.


def box(joints, visible, width, height, center=None, scale=None, **config):
    joints, visible = np.array(joints, np.float32), np.array(visible)
    person = people_builder.Person("a", pathlib.Path("a.jpg"), joints, visible, center, scale)
    return people_builder.person_box(person, width, height, people_builder.CropConfig(**config))


def test_person_box_from_joints():
    # x in 10 ... 50, y in 20 ... 120: centre (30, 70), longer side 100; 1.35 * 100 / 200 = 0.675.
    center, scale = box([(10, 20), (50, 120), (999, 999)], [2, 1, 0], 200, 160)
    assert center.tolist() == [30, 70] and scale == np.float32(0.675)
    assert center.dtype == scale.dtype == np.float32
    _, scale = box([(10, 20), (50, 120)], [2, 2], 200, 160, enlargement=2.0)
    assert scale == 1


def test_person_box_of_one_point():
    # Both joints are in one point: a tenth of the picture's longer side, 1.35 * 20 / 200 = 0.135.
    center, scale = box([(5, 6), (5, 6)], [2, 2], 200, 160)
    assert center.tolist() == [5, 6] and scale == np.float32(0.135)


@pytest.mark.parametrize("visible, config", [([2, 2], {"box": "image"}), ([0, 0], {})])
def test_person_box_from_the_picture(visible, config):
    center, scale = box([(5, 6), (9, 9)], visible, 200, 160, **config)
    assert center.tolist() == [100, 80] and scale == 1  # 200 px wide, 200 px the reference


def test_person_box_as_annotated():
    center, scale = box([(5, 6), (9, 9)], [2, 2], 200, 160, center=(30.5, 40), scale=1.5, box="annotated")
    assert center.tolist() == [30.5, 40] and scale == 1.5
    assert center.dtype == scale.dtype == np.float32


@pytest.mark.parametrize("kind", ["joints", "image"])
def test_joints_lie_on_the_same_pixels_of_the_canvas(kind):
    picture = np.full((200, 300, 3), 60, np.uint8)
    joints = np.zeros((14, 2), np.float32)
    visible = np.zeros(14, np.uint8)
    for k, (x, y) in enumerate([(120, 50), (180, 90), (150, 150)]):
        picture[y - 4 : y + 4, x - 4 : x + 4] = np.eye(3, dtype=np.uint8)[k] * 250  # RGB
        joints[k], visible[k] = (x, y), 2
    person = people_builder.Person("lspet-im00001", pathlib.Path("im00001.jpg"), joints, visible)
    picture = pictures.Picture(picture, (300, 200))
    example = people_builder.make_example(person, picture, people_builder.CropConfig(box=kind, canvas=256))
    canvas = pipeline.decode(example["image"])
    assert canvas.shape == (256, 256, 3)
    assert (example["width"], example["height"]) == (300, 200)
    frame = crop.canvas_from_image(example["center"], example["scale"], canvas=256, margin=1.5)
    for k, (x, y) in enumerate(crop.apply(frame, joints)[:3].astype(int)):
        assert canvas[y, x].argmax() == k and canvas[y, x, k] > 200


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e39])  # the last beyond float32
def test_an_invalid_scale_is_a_flaw(scale):
    joints, visible = np.zeros((1, 2), np.float32), np.zeros(1, np.uint8)
    person = people_builder.Person("a", pathlib.Path("a.jpg"), joints, visible, np.zeros(2), scale)
    assert "scale" in people.flaw(person, "annotated") and not people.flaw(person, "joints")


def test_the_size_in_the_annotations_is_that_of_the_upright_picture():
    person = people_builder.Person("a", pathlib.Path("a.jpg"), np.zeros((1, 2)), np.zeros(1), size=(200, 120))
    assert people.other_size(person, (200, 120)) == ""
    line = "the annotations say 200 x 120 px, the picture has {} px"
    assert people.other_size(person, (100, 60)) == line.format("100 x 60")
    assert people.other_size(person, (120, 200)) == line.format("120 x 200") + ", turned"


@pytest.mark.parametrize(
    ("sides", "factor"),
    # A canvas of 48 px covers 1.5 times the crop's side: above 64, 128 and 256 px a half, ... of it is
    # enough.
    [((10,), 1), ((63,), 1), ((65,), 2), ((127,), 2), ((129,), 4), ((257,), 8), ((5000,), 8), ((300, 70), 2)],
)
def test_a_picture_is_reduced_only_as_far_as_its_canvases_allow(sides, factor):
    joints, visible = np.zeros((1, 2), np.float32), np.zeros(1, np.uint8)
    place = {"center": np.zeros(2), "picture": pathlib.Path("a.jpg")}
    people = [
        people_builder.Person(f"a-{side}", joints=joints, visible=visible, scale=side / 200, **place)
        for side in sides
    ]
    config = people_builder.CropConfig(box="annotated", canvas=48)
    assert people_builder.reduction(people, config, 640, 480) == factor
    # With the whole picture as box: its longer side.
    config = people_builder.CropConfig(box="image", canvas=48)
    assert people_builder.reduction(people, config, sides[0] // 2, sides[0]) == people_builder.reduction(
        people[:1], people_builder.CropConfig(box="annotated", canvas=48), 1, 1
    )


def test_the_canvas_of_a_large_frame_is_that_of_the_frame_decoded_whole(drawn, tmp_path):
    # Smooth detail, sides not divisible by 4, and a bright spot at the first joint.
    rng = np.random.default_rng(6)
    layers = [cv2.resize(rng.normal(0, 4 << i, (400 >> i, 600 >> i, 3)), (2401, 1603)) for i in range(4)]
    frame = np.clip(110 + sum(layers), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    builder = drawn("train a.jpg a-0\nvalidation b.jpg b-0\n")
    config = builder.builder_config
    (person, *_), _ = builder.people(tmp_path / "people.txt").values()
    factors = []

    def halved(width, height):
        factors.append(people_builder.reduction([person], config, width, height))
        return factors[0]

    reduced = builder.decode(tmp_path / "a.jpg", halved)
    whole = builder.decode(tmp_path / "a.jpg", lambda width, height: 1)
    assert factors[0] > 1 and reduced.reduction == factors[0] and whole.reduction == 1
    assert reduced.size == whole.size == (2401, 1603)
    examples = [people_builder.make_example(person, picture, config) for picture in (reduced, whole)]
    for name in ("center", "scale", "width", "height", "joints"):
        np.testing.assert_array_equal(examples[0][name], examples[1][name])
    seen = [pipeline.decode(example["image"]).astype(float) for example in examples]
    assert seen[1].std() > 10
    assert np.abs(seen[0] - seen[1]).mean() < 1.5
    # It is not shifted: a shift by (dx, dy) px would change it by dx times its slope in x plus dy times that
    # in y.
    slopes = np.stack([np.gradient(seen[1], axis=axis)[2:-2, 2:-2].ravel() for axis in (1, 0)], axis=1)
    moved = np.linalg.lstsq(slopes, (seen[0] - seen[1])[2:-2, 2:-2].ravel(), rcond=None)[0]
    np.testing.assert_allclose(moved, 0, atol=0.03)


# The builders.


def test_config_names_distinguish_preparations():
    assert people_builder.CropConfig().name == "joints_c384_m1.5_q95_e1.35"
    other = people_builder.CropConfig(box="image", canvas=192, margin=2, quality=90, enlargement=1.25)
    assert other.name == "image_c192_m2_q90_e1.25"
    assert people_builder.CropConfig(allow_missing=True).name == "joints_c384_m1.5_q95_e1.35_partial"


@pytest.mark.parametrize(
    "values",
    [{"box": "head"}, {"canvas": 0}, {"margin": 0.5}, {"quality": 101}, {"margin": np.nan}],
)
def test_wrong_config_is_refused(values):
    name = next(iter(values))
    with pytest.raises(ValueError, match=f"{name}=.*must be"):
        people_builder.CropConfig(**values)


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="dataset='mars' is unknown; choose from synthetic, lsp, lspet"):
        preparation.builder("mars")


def test_a_box_that_the_dataset_lacks_is_refused(tmp_path):
    assert preparation.builder("lsp", data_dir=tmp_path).builder_config.box == "joints"
    with pytest.raises(ValueError, match="box='annotated': lsp has joints, image, or auto for the first"):
        preparation.builder("lsp", data_dir=tmp_path, box="annotated")


class Drawn(people_builder.PeopleBuilder, skip_registration=True):
    """People with joints chosen by the test."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Draw them."
    BUILDER_CONFIGS = [people_builder.CropConfig(box="joints", canvas=48)]
    skeleton = skeletons.LSP
    homepage = license = citation = ""
    folder = "drawn"
    layouts = (("people.txt",),)

    def people(self, annotations):
        rows = [line.split() for line in annotations.read_text().splitlines()]
        splits = {split: [] for split in ("train", "validation")}
        for split, name, id_, *joint in rows:
            joints = np.tile(np.array([(10, 20)], np.float32), (14, 1))
            joints[1] = 40, 30
            if joint:
                joints[3] = joint
            visible = np.full(14, 2, np.uint8)
            splits[split].append(people_builder.Person(id_, annotations.parent / name, joints, visible))
        return splits


PEOPLE = "train a.jpg a-0\ntrain a.jpg a-1\nvalidation b.jpg b-0\n"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """builder(people, **config) for two pictures of 80 x 60 px, prepared from tmp_path."""
    monkeypatch.setattr(catalogue.Dataset, "builder_class", lambda self: Drawn)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.full((60, 80, 3), 99, np.uint8))

    def make(people=PEOPLE, **config):
        (tmp_path / "people.txt").write_text(people)
        return preparation.builder("lspet", data_dir=tmp_path / "data", canvas=48, **config)

    return make


def test_a_picture_with_several_people_is_decoded_once(drawn, tmp_path, monkeypatch):
    decoded = []
    decode = pipeline.decode
    monkeypatch.setattr(pipeline, "decode", lambda *data: decoded.append(data) or decode(*data))
    builder = drawn()
    preparation.prepare(builder, manual_dir=tmp_path)
    assert len(decoded) == 2
    assert packed.TfdsSource(builder, "train").ids == ["a-0", "a-1"]
    assert not builder.problems.exists()


FLAWS = {
    "nan": ("train a.jpg a-2 nan 5\n", "joints or head size that are not finite"),
    "twice": ("validation b.jpg a-1\n", "another person has the same id"),
    "absent": ("train c.jpg c-0\n", "the picture is missing in {folder}"),
    "empty": ("train empty.jpg e-0\n", "truncated or not a JPEG"),
    "text": ("train people.txt t-0\n", "truncated or not a JPEG"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_people_are_never_dropped_silently(drawn, tmp_path, flaw):
    line, what = FLAWS[flaw]
    what = what.format(folder=tmp_path)
    (tmp_path / "empty.jpg").touch()
    _, picture, id_ = line.split()[:3]
    builder = drawn(PEOPLE + line)
    with pytest.raises(ValueError, match=r"1 of \d+ people cannot be prepared.*--allow_missing") as caught:
        preparation.prepare(builder, manual_dir=tmp_path)
    assert f"({picture}: {id_}: {what})" in str(caught.value) and "\n" not in str(caught.value)
    assert builder.problems.read_text() == f"left out: {picture}: {id_}: {what}\n"

    partial = drawn(PEOPLE + line, allow_missing=True)
    preparation.prepare(partial, manual_dir=tmp_path)
    train = packed.TfdsSource(partial, "train")
    assert train.ids == ["a-0", "a-1"] and train.name == "drawn-train-partial"
    assert packed.TfdsSource(partial, "validation").ids == ["b-0"]
    assert partial.info.metadata["left_out"] == 1 and not builder.is_prepared()
    assert partial.problems.read_text() == builder.problems.read_text()


def test_joints_far_outside_the_picture_are_reported(drawn, tmp_path):
    # 80 px wide: beyond x = 80 + 0.25 * 80 = 100 it is far.
    builder = drawn(PEOPLE + "train a.jpg near 99 30\ntrain a.jpg far 101 30\n")
    preparation.prepare(builder, manual_dir=tmp_path)
    line = "kept: a.jpg: far: left_hip at (101, 30) is far outside 80 x 60 px\n"
    assert builder.problems.read_text() == line and builder.info.metadata["remarks"] == 1
    assert len(packed.TfdsSource(builder, "train")) == 4


def test_an_empty_split(drawn, tmp_path):
    only = "train a.jpg a-0\nvalidation c.jpg c-0\n"
    with pytest.raises(ValueError, match="no person is left in validation"):
        preparation.prepare(drawn("train a.jpg a-0\n"), manual_dir=tmp_path)
    partial = drawn(only, allow_missing=True)
    preparation.prepare(partial, manual_dir=tmp_path)
    assert list(partial.info.splits) == ["train"]
    with pytest.raises(ValueError, match="split='validation': drawn has train"):
        packed.TfdsSource(partial, "validation")


def test_very_large_pictures(drawn, tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((1500, 30_000, 3), 99, np.uint8))
    builder = drawn("train a.jpg a-0\nvalidation b.jpg b-0\n")
    preparation.prepare(builder, manual_dir=tmp_path)
    canvas = pipeline.load(packed.TfdsSource(builder, "train"), 0)["image"]
    # The canvas is at least 1.5 * 1.35 / 10 of the picture's width, 6,075 px: the picture, from about the
    # middle row, 23.8, down, fills 1,500 / 6,075 * 48 = 11.9 rows.
    assert canvas[26:34, 30].tolist() == [[99] * 3] * 8 and canvas[38:, 30].max() == 0


def test_changed_annotations_are_noticed(drawn, tmp_path):
    preparation.prepare(drawn(), manual_dir=tmp_path)
    changed = drawn(PEOPLE + "train a.jpg a-2\n")
    with pytest.raises(ValueError, match="people.txt: not the annotations from which .*drawn.* delete"):
        preparation.prepare(changed, manual_dir=tmp_path)
    preparation.prepare(changed, manual_dir=tmp_path / "nowhere")  # without the archive
    preparation.prepare(drawn(), manual_dir=tmp_path)


def test_two_preparations_at_once(drawn, tmp_path, monkeypatch):
    slow, fast = drawn(), drawn()
    original, begun, go_on = people_builder.make_example, threading.Event(), threading.Event()
    cut = []

    def make(*arguments):
        begun.set()
        go_on.wait(60)
        cut.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(people_builder, "make_example", make)
    first, second = (
        threading.Thread(target=preparation.prepare, args=(b,), kwargs={"manual_dir": tmp_path})
        for b in (slow, fast)
    )
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.3)
    assert second.is_alive()  # it waits
    go_on.set()
    first.join(60)
    second.join(60)
    assert len(cut) == 3
    assert [len(packed.TfdsSource(b, "train")) for b in (slow, fast)] == [2, 2]


def test_interrupted_preparation_leaves_nothing(drawn, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    builder = drawn()
    with monkeypatch.context() as patch:
        patch.setattr(people_builder, "make_example", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preparation.prepare(builder, manual_dir=tmp_path)
    assert [path.name for path in builder.home.iterdir()] == [".lock"]
    (builder.home / "incomplete.ABC_1.0.0").mkdir()  # as left by a kill
    preparation.prepare(builder, manual_dir=tmp_path)
    assert sorted(path.name for path in builder.home.iterdir()) == [".lock", "1.0.0"]
