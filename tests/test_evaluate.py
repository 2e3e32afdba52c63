import contextlib
import dataclasses
import io
import json

import conftest
import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import config_base, devices, evaluate, inference, loading, models
from hourglass_jax.evaluation import metrics, plots, results, run, sheets
from hourglass_jax.media import draw
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network, network_of
from hourglass_jax.pose import crop, heatmaps, skeletons

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs")

SIZE, CANVAS, MARGIN = 32, 48, 1.5


class Exact(nn.Module):
    """A perfect network without parameters: the canvas' red value names the example, and the brighter half
    shows whether it is mirrored. `offsets` (s) are errors of its stacks, in cells."""

    joints: tuple  # (n, k, 2) input pixels
    flip: tuple
    offsets: tuple = (0.0,)

    @nn.compact
    def __call__(self, image, train=False):
        known = jnp.asarray(self.joints, jnp.float32)
        index = jnp.round(image[:, :, :, 0].mean(axis=(1, 2)) * 255 / 8).astype(int)
        mirrored = image[:, :, : SIZE // 2, 1].mean(axis=(1, 2)) > 0.5
        joints = known[index]
        other = jnp.stack([SIZE - joints[..., 0], joints[..., 1]], axis=-1)[:, jnp.asarray(self.flip)]
        joints = jnp.where(mirrored[:, None, None], other, joints) / 4
        shown = jnp.ones(joints.shape[:2], bool)
        maps = [heatmaps.render(joints + o, shown, size=SIZE // 4, sigma=1.0) for o in self.offsets]
        return Outputs(heatmaps=tuple(maps))


class Source:
    """Examples that `Exact` knows: random joints in pictures with various frames."""

    name, canvas, margin, loader = "exact", CANVAS, MARGIN, "threads"

    def __init__(self, n, skeleton=skeletons.MPII, seed=0):
        rng = np.random.default_rng(seed)
        self.skeleton, self.n = skeleton, n
        k = len(skeleton)
        self.center = rng.uniform(50, 500, (n, 2)).astype(np.float32)
        self.scale = rng.uniform(0.5, 3, n).astype(np.float32)
        # The annotations in input pixels; cells at the border are not refined by a quarter.
        self.inputs = rng.uniform(4, 24, (n, k, 2))
        frames = crop.square(self.center.astype(float), self.scale.astype(float) * 200, SIZE)
        self.joints = crop.apply(crop.invert(frames), self.inputs).astype(np.float32)
        self.visible = np.full((n, k), 2, np.uint8)
        # A quarter cell in x and in y is 1.42 px of the input; half of this head size is 1.6 px.
        self.head_size = (3.2 * 200 * self.scale / SIZE).astype(np.float32)
        self.ids = [f"exact-{i}" for i in range(n)]

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        image = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        image[..., 0], image[:, CANVAS // 2 :, 1] = 8 * i, 255
        names = ("joints", "visible", "center", "scale", "head_size")
        return {"image": image, "id": self.ids[i]} | {name: getattr(self, name)[i] for name in names}


def exact(source, offsets=(0.0,)):
    tuples = jax.tree.map(float, source.inputs.tolist(), is_leaf=lambda x: isinstance(x, float))
    joints = tuple(tuple(map(tuple, example)) for example in tuples)
    model = Exact(joints, tuple(source.skeleton.flip.tolist()), offsets)
    zero = (0.0, 0.0, 0.0)
    return Network(model, source.skeleton, SIZE, zero, 1.0, logits=False)


def predict(network, source, batch_size=8, flip=False, variables=None, **options):
    evaluator = evaluate.Evaluator(network, source, devices.mesh(), batch_size=batch_size, flip=flip)
    return evaluator.predict(variables or {}, **options)


# A network that knows the annotations.


@pytest.mark.parametrize("flip", [False, True])
def test_a_perfect_network_scores_100_and_errs_only_by_the_cells(flip):
    source = Source(10)
    predictions = predict(exact(source), source, flip=flip)
    scores = results.score_predictions(predictions, source.skeleton)
    assert scores["metric"] == "PCKh@0.5" and scores["examples"] == 10 and scores["left_out"] == 0
    assert set(scores["table"].values()) == {100.0} and set(scores["joints"].values()) == {100.0}
    # Decoding resolves a quarter of a cell, which has 4 px of the input, in x and in y.
    cell = 4 * 200 * source.scale / SIZE  # image pixels
    error = np.abs(predictions.joints[:, -1] - source.joints) / cell[:, None, None]
    assert 0.2 < error.max() <= 0.2501
    # A peak is at most half a cell away in x and y: at least exp(-(0.5^2 + 0.5^2) / 2) = 0.78.
    assert (predictions.scores >= 0.777).all() and (predictions.scores <= 1).all()
    np.testing.assert_array_equal(predictions.truth, source.joints)
    assert predictions.joints.dtype == np.float64
    maps = np.stack(
        [kept["heatmaps"] for kept in predict(exact(source), source, pictures=10, flip=flip).pictures]
    )
    np.testing.assert_allclose(predictions.means, maps.mean(axis=(1, 2)), rtol=1e-5)


def test_predictions_do_not_depend_on_the_batch():
    source = Source(10)
    network = exact(source)
    whole = predict(network, source, 16)
    for batch_size in (1, 3, 8):
        done = []
        part = predict(network, source, batch_size, progress=done.append)
        for field in ("joints", "scores", "truth", "visible", "head_size"):
            np.testing.assert_array_equal(getattr(part, field), getattr(whole, field))
        assert done == [min(b * batch_size, 10) for b in range(1, -(-10 // batch_size) + 1)]
    assert len(whole.joints) == len(whole.truth) == 10  # without the padding of 6


def test_trained_network_does_not_depend_on_the_batch(trained):
    from hourglass_jax.data import sources

    config, workdir, _ = trained
    network, variables, _ = loading.load(workdir, devices.mesh())
    source = sources.open_source(config.data, train=False)
    a, b = (predict(network, source, size, variables=variables) for size in (8, 16))  # 8: as in training
    np.testing.assert_allclose(a.joints, b.joints, atol=1e-4)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_flip_averages_with_the_flipped_picture():
    class Uneven(nn.Module):
        """Heatmaps that differ for a flipped picture."""

        @nn.compact
        def __call__(self, image, train=False):
            maps = image.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4))
            weights = jnp.sin(jnp.arange(8 * 3 * 16)).reshape(8, 3, 16)
            return Outputs(
                heatmaps=tuple(jnp.einsum("bhwc,wck->bhwk", maps, w) for w in (weights, weights**2))
            )

    skeleton = skeletons.MPII
    network = Network(Uneven(), skeleton, SIZE, (0.1, 0.2, 0.3), 1.0, logits=False)
    images = np.random.default_rng(0).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    plain, mirrored = (network.outputs({}, x, flip=False).heatmaps for x in (images, images[:, :, ::-1]))
    both = network.outputs({}, images, flip=True).heatmaps
    assert len(both) == 2
    for a, b, averaged in zip(plain, mirrored, both, strict=True):
        back = np.asarray(b)[:, :, ::-1]
        for k, name in enumerate(skeleton.joints):
            pair = name.replace("right", "?").replace("left", "right").replace("?", "left")
            expected = (np.asarray(a)[..., k] + back[..., skeleton.joints.index(pair)]) / 2
            np.testing.assert_allclose(averaged[..., k], expected, rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(averaged) - a).max() > 0.05


class Attending(nn.Module):
    """Attention that shows the place: the red channel's cells, once for all joints and once for each."""

    @nn.compact
    def __call__(self, image, train=False):
        cells = image.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4))[..., :1]
        each = cells * jnp.arange(1.0, 17)
        return Outputs(heatmaps=(each,), attention={"stack1_refined": cells, "stack1_parts": each})


def test_flip_averages_attention_like_heatmaps():
    network = Network(Attending(), skeletons.MPII, SIZE, (0.0, 0.0, 0.0), 1.0, logits=False)
    images = np.random.default_rng(0).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    plain, both = (network.outputs({}, images, flip=flip).attention for flip in (False, True))
    # Every cell follows its pixels, so that flipping twice gives the same map.
    np.testing.assert_allclose(both["stack1_refined"], plain["stack1_refined"], rtol=1e-5)
    # The right ankle is joint 0 and the left ankle 5, with the factors 1 and 6: both get 3.5. Joint 6, the
    # pelvis, has no side.
    cells = np.asarray(plain["stack1_refined"])[..., 0]
    for joint, factor in ((0, 3.5), (5, 3.5), (6, 7.0)):
        np.testing.assert_allclose(both["stack1_parts"][..., joint], factor * cells, rtol=1e-5)


def test_kept_pictures_hold_their_attention():
    source = Source(6)
    network = Network(Attending(), skeletons.MPII, SIZE, (0.0, 0.0, 0.0), 1.0, logits=False)
    predictions = predict(network, source, batch_size=4, pictures=6)
    for i, kept in enumerate(predictions.pictures):
        assert {name: maps.shape for name, maps in kept["attention"].items()} == {
            "stack1_refined": (8, 8, 1),
            "stack1_parts": (8, 8, 16),
        }
        # The source's red value is 8 times the example's number.
        np.testing.assert_allclose(kept["attention"]["stack1_refined"], 8 * i / 255, atol=1e-3)
    sheet = sheets.attention_sheet(predictions)
    one = draw.attention_sheet(predictions.pictures[0]["crop"], predictions.pictures[0]["attention"])
    assert sheet.shape == (4 * one.shape[0], *one.shape[1:])  # the first four examples
    np.testing.assert_array_equal(sheet[: len(one)], one)
    assert sheets.attention_sheet(predict(exact(source), source, pictures=2)) is None
    assert sheets.attention_sheet(predict(network, source)) is None


def test_logits_become_heatmaps_before_they_are_averaged():
    class Logits(nn.Module):
        @nn.compact
        def __call__(self, image, train=False):
            joints = jnp.broadcast_to(jnp.array([3.5, 2.5]), (image.shape[0], 16, 2))
            target = heatmaps.render(joints, jnp.ones(joints.shape[:2], bool), size=8, sigma=1.0)
            return Outputs(heatmaps=(jnp.log(target + 1e-9),))

    network = Network(Logits(), skeletons.MPII, SIZE, (0.0, 0.0, 0.0), 1.0, logits=True)
    images = np.zeros((1, SIZE, SIZE, 3), np.float32)
    ((maps,), (both,)) = (
        jax.jit(lambda x, flip=flip: network.outputs({}, x, flip=flip).heatmaps)(images)
        for flip in (False, True)
    )
    # The share of a Gaussian's sum times 2 pi sigma^2 is its peak, except for the part beyond the border.
    assert float(maps.max()) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(
        both[..., 0], (np.asarray(maps) + np.asarray(maps)[:, :, ::-1])[..., 0] / 2, rtol=1e-5
    )


def test_each_stack_has_its_table():
    source = Source(6)
    # An error of one cell in x and y is 5.66 px of the input, more than the limit of 1.6 px.
    predictions = predict(exact(source, offsets=(1.0, 0.0)), source)
    scores = results.score_predictions(predictions, source.skeleton)
    assert predictions.joints.shape == (6, 2, 16, 2)
    assert [table["Mean"] for table in scores["stacks"]] == [0.0, 100.0]
    assert scores["table"] == scores["stacks"][-1]


def test_heatmaps_are_drawn_stack_by_stack():
    source = Source(6)
    predictions = predict(exact(source, offsets=(1.0, 0.0)), source, pictures=6)
    for kept in predictions.pictures:
        np.testing.assert_array_equal(kept["stacks"][1], kept["heatmaps"].max(axis=-1))
        # The first stack's Gaussians lie one cell to the right and below.
        np.testing.assert_allclose(kept["stacks"][0][1:, 1:], kept["stacks"][1][:-1, :-1], atol=1e-2)
    sheet = sheets.stacks_sheet(predictions)
    assert sheet.shape[1] == 3 * 196 and sheet.shape[0] % 4 == 0  # the first four: crop and two stacks
    assert sheets.stacks_sheet(predict(exact(source), source, pictures=2)) is None


# MSSH's two stacks have strides 4 and 2.
CELLS = {"newell": (8, 8), "chu": (8, 8), "tang": (8, 8), "mssh": (8, 16), "selvam": (8, 8)}


@pytest.mark.parametrize("name", models.names())
def test_every_systems_stacks_can_be_drawn(name):
    config = config_base.named("quickstart").get_config(f"model={name},stacks=2,width=8")
    config.data.size, config.model.depth = SIZE, 1
    network = network_of({"config": config.to_dict(), "skeleton": skeletons.MPII.to_dict()})
    estimate = inference.Estimator(network, canvas=48, margin=1.5, flip=True)
    _, variables = conftest.shapes_of(network.model, jnp.zeros((1, SIZE, SIZE, 3)))
    _, _, seen = jax.eval_shape(estimate, variables, jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.uint8))
    assert tuple(maps.shape[1] for maps in seen["stacks"]) == CELLS[name]
    rng = np.random.default_rng(0)
    stacks = [rng.uniform(size=maps.shape[1:]).astype(maps.dtype) for maps in seen["stacks"]]
    kept = {"crop": np.zeros((SIZE, SIZE, 3), np.uint8), "stacks": stacks}
    nothing = np.zeros((1, 2, 16, 2))
    predictions = results.Predictions(nothing, nothing[..., 0], nothing[0], nothing[0, ..., 0], [0], [kept])
    sheet = sheets.stacks_sheet(predictions)
    assert sheet.shape[1] == 3 * 196  # the crop and two stacks
    tiles = np.split(sheet[40:180], 3, axis=1)  # below the titles, whose number is the stack's
    assert [tile[:, 20:176].std() > 10 for tile in tiles] == [False, True, True]
    assert (tiles[1] != tiles[2]).any()


def test_kept_pictures_hold_crop_annotation_and_prediction():
    source = Source(5)
    source.visible[1, 3] = 0
    predictions = predict(exact(source), source, batch_size=4, pictures=5)
    assert len(predictions.pictures) == 5  # also from the second batch, but without its padding
    for i, kept in enumerate(predictions.pictures):
        np.testing.assert_allclose(kept["truth"], source.inputs[i], atol=1e-3)
        assert np.abs(kept["joints"] - source.inputs[i]).max() <= 1.001
        assert kept["crop"].shape == (SIZE, SIZE, 3) and abs(kept["crop"][..., 0].mean() - 8 * i) < 0.5
        assert kept["heatmaps"].shape == (8, 8, 16)
    assert not predictions.pictures[1]["labelled"][3] and predictions.pictures[1]["labelled"].sum() == 15
    sheet = sheets.predictions_sheet(predictions, exact(source))
    assert sheet.shape == (3 * 196, 6 * 196, 3)  # 15 tiles of 192 px in rows of 6


# Scores.


def test_presence_pools_a_row_and_leaves_out_rows_without_information(tmp_path):
    predictions = dataclasses.replace(made([0.0, 0.0]), visible=np.full((2, 16), 2, np.int8))
    predictions.visible[0, [0, 5]] = [0, 1]  # ankles: right not labelled, left occluded
    predictions.visible[:, [1, 4]] = -1  # the dataset has no knees
    predictions.visible[1, [10, 15]] = -1  # and, in the second picture, no wrists; all others are labelled
    predictions.scores[:, 0, [0, 5]] = [[0.4, 0.3], [0.8, 0.9]]
    predictions = dataclasses.replace(predictions, means=np.ones((2, 16), np.float32))
    found = results.presence(predictions, skeletons.MPII)
    assert list(found) == ["Ank"]
    # In falling order: 0.9 and 0.8 labelled, 0.4 not, 0.3 labelled.
    np.testing.assert_allclose(found["Ank"]["max"]["precision"], [1, 1, 2 / 3, 3 / 4])
    # Equal means have one threshold: all joints are found, three of four correctly.
    np.testing.assert_allclose(found["Ank"]["mean"]["precision"], [3 / 4])
    scores = results.score_predictions(predictions, skeletons.MPII)
    average = 100 * (1 + 1 + 3 / 4) / 3
    assert scores["presence"]["Ank"]["max"] == pytest.approx({"average_precision": average, "accuracy": 75})
    assert evaluate.report(scores).splitlines()[-2:] == [
        "Is a joint labelled? Accuracy from the heatmap's max (Newell 5.3): Ank 75.0.",
        "Is a joint labelled? Accuracy from the heatmap's mean (Newell 5.3): Ank 75.0.",
    ]
    plots.plot_presence(tmp_path / "presence.png", found)
    assert cv2.imread(str(tmp_path / "presence.png")).std() > 10
    everybody = made([0.0])
    assert results.presence(everybody, skeletons.MPII) == {}
    assert results.score_predictions(everybody, skeletons.MPII)["presence"] == {}


def made(errors, *, k=16, head=10.0, skeleton=skeletons.MPII):
    """Predictions of one stack whose joints are all off by `errors` (n) px; torsos are 50 px."""
    n = len(errors)
    truth = np.zeros((n, k, 2))
    truth[:, skeleton.torso[1] if skeleton.torso else 0] = (0, 50)
    joints = truth[:, None] + np.array(errors, float)[:, None, None, None] * np.array([0.6, 0.8])
    visible = np.ones((n, k), np.uint8)
    return evaluate.Predictions(joints, np.ones((n, 1, k), np.float32), truth, visible, np.full(n, head), [])


def test_metric_is_chosen_by_the_head_sizes():
    # 0.5 * 10 px and 0.2 * 50 px.
    errors = [4.0, 5.0, 6.0, 9.0]
    pckh = results.score_predictions(made(errors), skeletons.MPII)
    assert (pckh["metric"], pckh["table"]["Mean"]) == ("PCKh@0.5", 50.0)
    pck = results.score_predictions(made(errors, head=0.0), skeletons.MPII)
    assert (pck["metric"], pck["table"]["Mean"]) == ("PCK@0.2", 100.0)
    forced = results.score_predictions(made(errors), skeletons.MPII, metric="pck")
    assert (forced["metric"], forced["table"]["Mean"]) == ("PCK@0.2", 100.0)
    nothing = results.score_predictions(made(errors, head=0.0), skeletons.MPII, metric="pckh")
    assert nothing["left_out"] == 4 and np.isnan(nothing["table"]["Mean"])


def test_wrong_metrics_are_refused():
    with pytest.raises(ValueError, match="evaluate.metric='oks' is unknown; choose auto, pckh, pck, pckbox"):
        results.score_predictions(made([0.0]), skeletons.MPII, metric="oks")
    torsoless = dataclasses.replace(skeletons.LSP, torso=None)
    with pytest.raises(ValueError, match="'lsp' defines no torso"):
        results.score_predictions(made([0.0], k=14, skeleton=torsoless), torsoless, metric="pck")


def test_unlabelled_joints_and_torsos_are_left_out():
    predictions = made([0.0, 30.0, 0.0, 30.0], head=0.0)
    predictions.visible[0, skeletons.MPII.torso[0]] = 0  # no torso: the person is left out
    predictions.visible[1, 0] = 0  # its right ankle does not count
    scores = results.score_predictions(predictions, skeletons.MPII)
    assert scores["left_out"] == 1
    assert scores["joints"]["right_ankle"] == 50.0  # the third and the fourth person
    assert scores["joints"]["left_ankle"] == pytest.approx(100 / 3)


def spread(skeleton, moved):
    """Two stacks and one person with a joint every ten px; the first stack moves every joint."""
    n = len(skeleton)
    truth = 10.0 * np.stack([np.arange(n), np.arange(n) ** 2 % 7], axis=-1)[None]
    joints = np.stack([truth + moved, truth], axis=1)
    return evaluate.Predictions(joints, np.ones((1, 2, n)), truth, np.full((1, n), 2), np.zeros(1), [])


def test_limbs_are_reported_in_addition_to_joints_for_lsp():
    split = spread(skeletons.LSP, moved=1000)
    scores = results.score_predictions(split, skeletons.LSP)
    assert (scores["metric"], scores["table"]["Mean"]) == ("PCK@0.2", 100)
    limbs = scores["pcp"]
    assert limbs.metric == "PCP@0.5" and list(limbs.table)[0] == "Torso" and limbs.table["Mean"] == 100
    assert [table["Mean"] for table in limbs.stacks] == [0, 100]
    labelled = split.visible > 0
    assert limbs.stacks[1] == metrics.table_of_parts(split.joints[:, 1], split.truth, labelled, skeletons.LSP)
    lines = evaluate.report(scores).splitlines()
    starts = ["PCK@0.2", "stack", "stack", "Macro", "PCP@0.5", "stack", "stack", "PCP", "stack", "stack"]
    assert [line.split()[0] for line in lines] == starts
    assert lines[4].split() == ["PCP@0.5", *"Torso U.Leg L.Leg U.Arm Forearm Head Mean".split()]
    assert lines[6].split() == ["stack", "2", *["100.00"] * 7]
    assert len({len(line) for line in lines[4:]}) == 1  # columns
    scalars = scores.scalars()
    assert scalars["Mean"] == scalars["PCP/Mean"] == scalars["PCP/Torso"] == 100 and "AUC" in scalars


def test_people_of_an_activity_have_tables_of_their_own():
    predictions = made([0.0, 6.0, 6.0, 0.0])
    groups = {"category": np.array(["sports", "sports", "dancing", ""])}
    scores = results.score_predictions(predictions, skeletons.MPII, groups=groups)
    of = scores["by"]["category"]
    assert {name: table["Mean"] for name, table in of.items()} == {"dancing": 0, "sports": 50}
    assert [line.split()[0] for line in evaluate.report(scores).splitlines()[3:6]] == [
        *("category", "dancing", "sports")
    ]


def test_joint_sets_without_limbs_report_only_joints():
    scores = results.score_predictions(spread(skeletons.MPII, moved=0), skeletons.MPII)
    assert scores.pcp is None and "PCP" not in evaluate.report(scores)


def test_confidence_uses_the_last_stack_and_joints_that_count():
    predictions = made([6.0, 6.0, 0.0, 0.0])  # wrong, wrong, right, right
    other = dataclasses.replace(predictions, joints=predictions.joints[::-1]).joints
    scores = np.broadcast_to(np.array([0.1, 0.3, 0.3, 0.9])[:, None, None], predictions.scores.shape)
    both = dataclasses.replace(
        predictions,
        joints=np.concatenate([other, predictions.joints], axis=1),
        scores=np.concatenate([1 - scores, scores], axis=1),
    )
    # Pairs of a wrong and a correct joint: (0.1, 0.3), (0.1, 0.9), (0.3, 0.9) are in order, (0.3, 0.3) counts
    # half. F1 from 0.3 on: 2 * 2 / (3 + 2) = 0.8; from 0.9 on: 2 * 1 / (1 + 2) = 0.67; from 0.1 on: 0.67.
    sure = results.score_predictions(both, skeletons.MPII)["confidence"]
    assert sure == {"auroc": 3.5 / 4, "threshold": 0.3}
    both.visible[0] = 0  # the wrong joint with 0.1 does not count: of (0.3, 0.3), (0.3, 0.9) one counts half
    sure = results.score_predictions(both, skeletons.MPII)["confidence"]
    assert sure == {"auroc": 1.5 / 2, "threshold": 0.3}


def test_report_has_a_row_for_each_stack():
    predictions = made([0.0, 0.0, 0.0, 6.0])
    worse = predictions.joints + np.array([6.0, 0.0])
    both = dataclasses.replace(predictions, joints=np.concatenate([worse, predictions.joints], axis=1))
    scores = results.score_predictions(both, skeletons.MPII)
    assert evaluate.report(scores).splitlines() == [
        "PCKh@0.5      Head     Sho     Elb     Wri     Hip    Knee     Ank    Mean",
        "stack 1       0.00    0.00    0.00    0.00    0.00    0.00    0.00    0.00",
        "stack 2      75.00   75.00   75.00   75.00   75.00   75.00   75.00   75.00",
        # Of four joints, three are exact and one is 6 px off, with a head of 10 px.
        "Macro mean 75.00, AUC 75.00, occluded 75.00",
        # All scores are equal, as good as chance.
        "Scores separate correct joints from wrong ones with an AUROC of 0.500; best F1 at 1.000.",
    ]
    left_out = evaluate.report(dataclasses.replace(scores, left_out=2))
    assert left_out.splitlines()[-2] == (
        "2 of 4 people are left out: the reference length of PCKh@0.5 is not annotated."
    )


# Files.


def test_files_hold_the_predictions(tmp_path):
    predictions = made([1.0, 2.0])
    predictions.joints[1, 0, 5] = np.nan
    predictions.visible[:, [11, 14]] = 0  # no elbow is labelled
    predictions.scores[0, 0, 0] = 0.123456
    scores = results.score_predictions(predictions, skeletons.MPII)
    assert np.isnan(scores["table"]["Elb"])
    results.write(tmp_path, predictions, scores, ["a", "b"], {"data": "made", "step": 7, "flip": True})

    def strict(constant):
        raise AssertionError(f"{constant} is no json")

    written = [
        json.loads((tmp_path / name).read_text(), parse_constant=strict)
        for name in ("evaluation.json", "predictions.json")
    ]
    evaluation, people = written
    assert (evaluation["data"], evaluation["step"], evaluation["flip"]) == ("made", 7, True)
    assert evaluation["metric"] == "PCKh@0.5" and evaluation["examples"] == 2
    assert evaluation["table"]["Elb"] is None and evaluation["joints"]["left_elbow"] is None
    assert evaluation["table"]["Head"] == 100.0 and evaluation["stacks"] == [evaluation["table"]]
    assert [person["id"] for person in people] == ["a", "b"]
    assert people[0]["joints"][12] == [0.6, 50.8] and people[0]["scores"][0] == 0.1235
    assert people[1]["joints"][5] == [None, None]
    assert people[0]["stacks"] == [{"joints": people[0]["joints"], "scores": people[0]["scores"]}]
    # Errors of 1 px and 2 px with a head of 10 px: none is correct below 0.1, the first one from 0.1 on.
    rows = [line.split(",") for line in (tmp_path / "curves.csv").read_text().splitlines()]
    assert rows[0] == ["thresholds", *"Head Sho Elb Wri Hip Knee Ank Mean".split()] and len(rows) == 52
    assert [(row[0], row[1], row[3]) for row in (rows[1], rows[11], rows[51])] == [
        *(("0", "0", ""), ("0.1", "50", ""), ("0.5", "100", ""))
    ]
    assert evaluation["not_a_number"] == 1 and (tmp_path / "curves.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """(scores, printed lines, folder) of an evaluation of the training's last checkpoint."""
    config, workdir, _ = trained
    folder, printed = tmp_path_factory.mktemp("evaluated"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        scores = evaluate.evaluate(config, folder, workdir / "checkpoints" / "4")
    return scores, printed.getvalue(), folder


def test_evaluating_a_checkpoint_repeats_the_scores_of_its_training(trained, evaluated):
    config, _, scores = trained
    again, output, folder = evaluated
    assert again == scores  # the averaged variables, both times
    assert output == (
        "synthetic-validation, step 4, 10 people\ncrop: image, no flip, scales 1, quarter\n"
        f"{evaluate.report(scores, details=True)}\n"
    )
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["data"] == "synthetic-validation" and evaluation["step"] == 4
    assert evaluation["stacks"] == scores["stacks"] and len(evaluation["stacks"]) == 2
    people = json.loads((folder / "predictions.json").read_text())
    assert [p["id"] for p in people] == [f"synthetic-validation-{i:06d}" for i in range(10)]
    # The table from the file: the joints are in the pixels of the annotations.
    from hourglass_jax.data import sources

    source = sources.open_source(config.data, train=False)
    joints = np.array([p["joints"] for p in people])
    examples = [source[i] for i in range(10)]
    truth, visible, head = (
        np.stack([e[name] for e in examples]) for name in ("joints", "visible", "head_size")
    )
    hits, counts = metrics.correct(metrics.distances(joints, truth), visible > 0, head, 0.5)
    assert metrics.table(hits, counts, source.skeleton) == scores["table"]
    assert (folder / "pictures" / "evaluation.png").exists()


def test_data_flip_and_batch_may_differ_from_those_of_the_training(trained, tiny, tmp_path):
    _, workdir, _ = trained
    other = tiny({"data.examples": (40, 3), "evaluate.flip": True, "evaluate.batch_size": 2})
    assert evaluate.evaluate(other, tmp_path, workdir)["examples"] == 3
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert (stored["flip"], stored["crop"], stored["scales"]) == (True, "image", [1.0])


def test_a_split_without_joints_is_predicted_and_not_scored(
    trained, evaluated, tmp_path, capsys, monkeypatch
):
    config, workdir, _ = trained
    load = run.pipeline.load

    def bare(*args):
        example = load(*args)
        return example | {name: 0 * example[name] for name in ("joints", "visible")}

    monkeypatch.setattr(run.pipeline, "load", bare)
    assert evaluate.evaluate(config, tmp_path, workdir) is None
    assert "No joint is labelled: there are no scores, only predictions.json." in capsys.readouterr().out
    folders = (evaluated[-1], tmp_path)
    labelled, found = (json.loads((folder / "predictions.json").read_text()) for folder in folders)
    assert found == labelled  # they do not depend on annotations
    assert (tmp_path / "pictures" / "evaluation.png").exists()
    assert not [name for name in ("evaluation.json", "curves.csv") if (tmp_path / name).exists()]


def test_wrong_batch_and_wrong_joints_are_refused():
    source = Source(2)
    with pytest.raises(ValueError, match="evaluate.batch_size=0 must be a positive multiple of the 1"):
        predict(exact(source), source, batch_size=0)
    other = Source(2, skeletons.LSP)
    with pytest.raises(ValueError, match=r"network has 16 joints \(mpii\), exact has 14 \(lsp\)"):
        predict(exact(source), other)
