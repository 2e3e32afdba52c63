"""The attention-aided multi-resolution network: its equations, its tasks and their training."""

import dataclasses
import functools
import json
import re
import shutil
from unittest import mock

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import newell as newells_config
from configs import selvam as config
from hourglass_jax import Predictor, inference, models, train
from hourglass_jax.models import layers, selvam
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import skeletons
from hourglass_jax.training import phases

pytestmark = pytest.mark.usefixtures("quick_compiles")
SMALL = {"joints": 3, "stacks": 2, "width": 8, "depth": 1, "attention_width": 4}
SWITCHES = ("global_attention", "heatmap_attention", "multi_resolution_attention")
ALL = selvam.Model(**SMALL, **dict.fromkeys(SWITCHES, True), show_features=True)
BASELINE = selvam.Model(**SMALL, global_attention=False)
IMAGE = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)  # 4 cells, 2 below


@pytest.fixture(scope="module")
def variables():
    """Variables of ALL, without zeros and ones; the attention counts as learnt."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(ALL.init, jax.random.key(0), IMAGE)
    values = jax.tree.map(lambda leaf: random.uniform(0.05, 0.4, leaf.shape).astype(np.float32), shapes)
    # Kernels have both signs; the others are positive, because variances must be.
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: random.normal(scale=0.3, size=x.shape).astype(np.float32) if x.ndim > 1 else x,
        values["params"],
    )
    return {"params": params, "batch_stats": {**values["batch_stats"], "attention_learnt": np.float32(1)}}


@pytest.fixture(scope="module")
def seen(variables):
    """The outputs, (inputs, output) of every module by path, and the activity."""
    calls = {}

    def note(call, arguments, options, context):
        calls["/".join(context.module.path)] = arguments, (output := call(*arguments, **options))
        return output

    with nn.intercept_methods(note):
        outputs, reported = ALL.apply(variables, IMAGE, mutable=["activity"])
    return outputs, calls, reported


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# The equations


def test_a_mask_is_the_sigmoid_of_a_convolution():
    mask, x = selvam.Mask(nn.Conv), IMAGE[:1, :4, :4, :2]
    fresh = mask.init(jax.random.key(0), x)
    close(mask.apply(fresh, x), np.full((1, 4, 4, 1), 1 / (1 + np.exp(-3.0))))  # near one, everywhere
    kernel = np.random.default_rng(2).normal(size=(3, 3, 2, 1)).astype(np.float32)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    logit = [
        [(padded[i : i + 3, j : j + 3] * kernel[..., 0]).sum() - 0.5 for j in range(4)] for i in range(4)
    ]
    params = {"logit": {"kernel": kernel, "bias": np.array([-0.5])}}
    close(mask.apply({"params": params}, x)[0, :, :, 0], 1 / (1 + np.exp(-np.array(logit))))


def test_attend_by_hand():
    x = np.array([[1.0, 2.0], [-3.0, 4.0]]).reshape(1, 2, 1, 2)  # two cells of two channels
    mask = np.array([0.5, 0.0]).reshape(1, 2, 1, 1)
    np.testing.assert_array_equal(selvam.attend(x, mask).reshape(2, 2), [[1.5, 3.0], [-3.0, 4.0]])


def test_equation_2_the_network_gets_the_image_times_its_mask(seen):
    outputs, calls, _ = seen
    mask = outputs.attention["global"]
    assert mask.shape == (2, 16, 16, 1) and mask.min() > 0 and mask.max() < 1 and np.ptp(mask) > 0.05
    (image,), made = calls["global_attention"]
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(made, mask)
    close(calls["stem_conv"][0][0], IMAGE * np.asarray(mask))


def test_equations_3_and_4_the_next_stack_gets_the_weighted_heatmap(seen):
    outputs, calls, _ = seen
    for s in range(2):
        x, mask = (np.asarray(v) for v in (outputs.heatmaps[s], outputs.attention[f"stack{s + 1}_heatmap"]))
        assert x.shape == mask.shape == (2, 4, 4, 1) and np.ptp(mask) > 1e-3
        np.testing.assert_array_equal(calls[f"stack{s}_attention"][0][0], x)
        y = calls["stack0_remap_heatmap"][0][0] if s == 0 else calls["refinement"][0][0][..., -1:]
        close(y, x * mask + x)


def test_equations_5_to_7_masks_from_the_way_down_weight_the_way_up(seen):
    outputs, calls, _ = seen
    for s in range(2):
        mrn = f"stack{s}_mrn"
        down = calls[f"{mrn}/level0_skip0"][0][0]  # 4 cells
        np.testing.assert_array_equal(calls[f"{mrn}/level0_attention"][0][0], down)
        mask = np.asarray(outputs.attention[f"stack{s + 1}_resolution4"])
        np.testing.assert_array_equal(calls[f"{mrn}/level0_attention"][1], mask)
        above = np.repeat(np.repeat(calls[f"{mrn}/level0_up0"][1], 2, axis=1), 2, axis=2)
        y = above * mask + above
        close(calls[mrn][1][-1], y + np.asarray(calls[f"{mrn}/level0_skip0"][1]))
        # At the lowest resolution there is no skip branch.
        mask = np.asarray(outputs.attention[f"stack{s + 1}_resolution2"])
        np.testing.assert_array_equal(
            calls[f"{mrn}/bottom0_attention"][0][0], calls[f"{mrn}/level0_down0"][1]
        )
        x = np.asarray(calls[f"{mrn}/bottom0"][1])
        close(calls[f"{mrn}/level0_up0"][0][0], x * mask + x)


def test_maps_are_named_and_in_0_1(seen):
    stacks = ("heatmap", "resolution2", "resolution4", "down2", "down4", "up2", "up4")
    names = {"global", *(f"stack{s}_{kind}" for s in (1, 2) for kind in stacks)}
    assert set(seen[0].attention) == names
    for mask in seen[0].attention.values():
        assert mask.dtype == jnp.float32 and mask.min() >= 0 and mask.max() <= 1


def test_figure_8_shows_the_features_of_the_way_down_and_up(seen):
    outputs, calls, _ = seen
    down, up = calls["stack0_mrn/level0_skip0"][0][0], calls["stack0_mrn"][1][-1]
    for side, features in (("down", down), ("up", up)):
        mean = np.abs(np.asarray(features)).mean(axis=-1, keepdims=True)
        close(outputs.attention[f"stack1_{side}4"], mean / mean.max(axis=(1, 2), keepdims=True))
    assert (selvam.strength(jnp.zeros((1, 2, 2, 3))) == 0).all()


def test_activity_is_the_sum_of_the_convolutions_mean_squares(seen):
    _, calls, reported = seen
    shared = ("conv", "norm", "conv0", "conv1", "conv2", "norm0", "norm1", "norm2", "skip", "logit", "mask")
    others = (
        "attention",
        "hourglass",
        "mrn",
        "heatmap",
        "features",
        "refinement",
        "coordinates",
        "stem_norm",
    )
    of_units = {
        path: np.asarray(output)
        for path, (_, output) in calls.items()
        if path and not path.endswith(others) and path != "stem_conv"
        if path.rpartition("/")[2] not in shared
        or path.startswith("refinement/conv0")
        and path.count("/") == 1
    }
    # In each stack 3 at the level, the bottom and the last one; the front unit, the refinement's one, and the
    # global mask's 4 and its first.
    assert len(of_units) == 2 * 5 + 1 + 1 + 5, sorted(of_units)
    expected = sum(np.square(output).mean() for output in of_units.values())
    (total,) = reported["activity"]["mean_squares"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert "activity" not in jax.eval_shape(ALL.init, jax.random.key(0), IMAGE)


# Masks of one, before the attention is trained


def without(tree, name="attention"):
    return {k: without(v) if isinstance(v, dict) else v for k, v in tree.items() if name not in k}


def masks(outputs):
    """The attention without Figure 8's maps."""
    return {k: np.asarray(v) for k, v in outputs.attention.items() if "_up" not in k and "_down" not in k}


def doubled(params):
    """Baseline weights that include the effect of a mask of one on x: 2 x (equations 4 and 6)."""

    def double(path, leaf):
        path = "/".join(key.key for key in path)
        if "up0/norm" in path or "bottom0/conv1" in path or path == "stack0_remap_heatmap/kernel":
            return 2 * leaf
        if path == "refinement/conv0/conv/kernel":
            return np.concatenate([leaf[:, :, :-1], 2 * leaf[:, :, -1:]], axis=2)
        return leaf

    return jax.tree_util.tree_map_with_path(double, params)


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_one_until_the_attention_is_trained(variables, training):
    model = ALL.clone(trained=("pose",))
    fresh = {**variables, "batch_stats": {**variables["batch_stats"], "attention_learnt": np.float32(0)}}
    outputs, changed = model.apply(fresh, IMAGE, training, mutable=["batch_stats"])
    assert all((mask == 1).all() for mask in masks(outputs).values())
    assert changed["batch_stats"]["attention_learnt"] == 0
    plain = {"params": doubled(without(variables["params"])), "batch_stats": without(fresh["batch_stats"])}
    expected, _ = BASELINE.apply(plain, IMAGE, training, mutable=["batch_stats"])
    for got, wanted in zip(outputs.heatmaps, expected.heatmaps, strict=True):
        close(got, wanted)
    close(outputs.coordinates, expected.coordinates)


def test_the_image_is_untouched_by_a_global_mask_of_one(variables):
    fresh = {**variables, "batch_stats": {**variables["batch_stats"], "attention_learnt": np.float32(0)}}
    plain = {name: without(tree) for name, tree in variables.items()}
    outputs, expected = selvam.Model(**SMALL).apply(fresh, IMAGE), BASELINE.apply(plain, IMAGE)
    np.testing.assert_array_equal(outputs.coordinates, expected.coordinates)


def test_training_the_attention_activates_the_masks(variables):
    fresh = {**variables, "batch_stats": {**variables["batch_stats"], "attention_learnt": np.float32(0)}}
    apply = ALL.clone(trained=("attention",)).apply
    outputs, changed = apply(fresh, IMAGE, True, mutable=["batch_stats"])
    assert changed["batch_stats"]["attention_learnt"] == 1
    assert all(mask.max() < 1 for mask in masks(outputs).values())
    held = without(changed["batch_stats"])  # the pose's norms work as in evaluation
    assert jax.tree.all(jax.tree.map(np.array_equal, held, without(fresh["batch_stats"])))


# Outputs and labels


# By hand, for 256 channels. A 3x3 convolution with its norm: 9*256*256 + 3*256 = 590,592.
# Stack: 13 of them, two 1x1 2*65,792, the heatmap 257: 7,809,537. Between two: 65,792 + 512.
# Stem: 7*7*3*64+64, norm 128, residual unit 64 -> 256 206,208: 215,808.
# Refinement: 9*257*256 + 3*256 = 592,896, three more, and 4*4*256*32+32 = 131,104: 2,495,776.
PLAIN = 2 * 7_809_537 + 66_304 + 215_808 + 2_495_776
# With only the heatmap: no 1x1 between the stacks, and one channel enters two convolutions of the second
# stack and the first one of the refinement.
ALONE = PLAIN - 66_304 - 2 * 9 * 255 * 256 - 9 * 256 * 256
# 32 channels: 9*3*32 + 3*32, 13 * (9*32*32 + 3*32), and the mask 9*32+1.
GLOBAL = 960 + 13 * 9_312 + 289
# Masks: of one channel 9+1, of 256 channels 9*256+1 at 64, 32, 16, 8 and 4 cells.
MASKS = {"baseline": 0, "global": GLOBAL, "heatmap": 2 * 10, "multi_resolution": 2 * 5 * 2_305}


@pytest.mark.parametrize(("attention", "masks"), [*MASKS.items(), ("all", sum(MASKS.values()))])
def test_parameters_of_each_variant(attention, masks):
    model = models.build(joints=16, **config.get_config(f"attention={attention}").model)
    params = conftest.shapes_of(model, jnp.zeros((1, 256, 256, 3)))[1]["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PLAIN + masks
    assert (PLAIN, PLAIN + GLOBAL) == (18_396_962, 18_519_267)  # as the README says


def test_the_next_stack_may_get_only_the_heatmap():
    model = models.build(joints=16, **config.get_config("attention=baseline,heatmap_alone=true").model)
    calls = {}

    def note(call, arguments, options, context):
        if context.method_name == "__call__":
            calls["/".join(context.module.path)] = arguments
        return call(*arguments, **options)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == ALONE
    assert calls["stack1_mrn"][0].shape == calls["refinement"][0].shape == (1, 64, 64, 1)


def test_leaky_relu_has_the_configs_slope_everywhere():
    model = models.build(joints=16, **config.get_config("attention=all,slope=0.3,width=16,size=64").model)
    found = []

    def note(call, arguments, options, context):
        if hasattr(context.module, "activation"):
            found.append((context.module.path, context.module.activation))
        return call(*arguments, **options)

    with nn.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    np.testing.assert_allclose([activation(-2.0) for _, activation in found], -0.6, rtol=1e-6)
    assert len(found) > 40
    assert ("stem_unit",) in {path for path, _ in found}
    # Networks trained before this field existed have Newell's ReLU there.
    assert selvam.leaky(selvam.Model().stem_slope)(-2.0) == 0


@pytest.mark.parametrize("scale, moved", [(1.0, 3.5), (256**-0.5, 0.22)])
def test_adams_first_step_moves_the_coordinates_by_the_scale(scale, moved):
    # 4 x 4 cells with 256 features with a mean of 0.85: 1e-3 * 4096 * 0.85 = 3.5 crops, or a 16th of that.
    features = np.random.default_rng(0).uniform(0, 1.7, (1, 4, 4, 256)).astype(np.float32)
    refine = selvam.Refinement(2, 0, nn.Conv, scale)
    variables = refine.init(jax.random.key(0), features)

    def loss(v):
        return jnp.sum((refine.apply(v, features) - 0.9) ** 2)

    adam = optax.adam(1e-3)
    updates, _ = adam.update(jax.grad(loss)(variables), adam.init(variables))
    after = refine.apply(optax.apply_updates(variables, updates), features)
    np.testing.assert_allclose(after, np.full((1, 2, 2), 0.5 + moved), rtol=0.02)


def test_coordinates_of_an_older_network_stay_with_another_scale():
    old, new = selvam.Model(), selvam.Model(coordinate_scale=0.125)
    features = np.random.default_rng(0).normal(size=(2, 2, 2, 8)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)

    def coordinates(model, kernel):
        refine = selvam.Refinement(2, 0, nn.Conv, model.coordinate_scale)
        dense = {"kernel": kernel, "bias": np.full(4, 0.5, np.float32)}
        return refine.apply({"params": {"coordinates": dense}}, features)

    name = "params/refinement/coordinates/kernel"
    adopted = new.adopt(old, {name: kernel, "params/stem_conv/bias": np.ones(2)})
    np.testing.assert_allclose(coordinates(new, adopted[name]), coordinates(old, kernel), rtol=1e-5)
    np.testing.assert_array_equal(adopted["params/stem_conv/bias"], np.ones(2))


def test_coordinates_start_in_the_middle_of_the_crop():
    unit = functools.partial(selvam.Conv, 4, *layers.parts(train=False, dtype=jnp.float32), nn.relu)
    refine = selvam.Refinement(3, 1, unit, 1.0)
    coordinates, _ = refine.init_with_output(jax.random.key(0), IMAGE)
    np.testing.assert_array_equal(coordinates, np.full((2, 3, 2), 0.5))


def test_without_attention_there_are_no_masks():
    outputs, fresh = jax.eval_shape(BASELINE.init_with_output, jax.random.key(0), IMAGE)
    assert [maps.shape for maps in outputs.heatmaps] == [(2, 4, 4, 1)] * 2
    assert outputs.attention is None and "attention_learnt" not in fresh["batch_stats"]


def test_bfloat16_gives_float32_outputs_and_statistics():
    model = ALL.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    outputs, changed = jax.eval_shape(
        lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]), shapes, IMAGE
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
    assert changed["batch_stats"] == shapes["batch_stats"]


def test_every_parameter_and_statistic_has_its_task():
    shapes = jax.eval_shape(ALL.init, jax.random.key(0), IMAGE)
    tasks = phases.labels(ALL, shapes["params"]), phases.labels(ALL, shapes["batch_stats"])
    assert set(jax.tree.leaves(tasks[0])) == set(ALL.tasks)
    pose = jax.eval_shape(BASELINE.init, jax.random.key(0), IMAGE)
    for tree, collection in zip(tasks, ("params", "batch_stats"), strict=True):
        assert jax.tree.leaves(tree).count("pose") == len(jax.tree.leaves(pose[collection]))
        assert set(jax.tree.leaves(without(tree))) == {"pose"}
    assert tasks[1]["attention_learnt"] == "attention"


# Coordinates to joints


class Two(nn.Module):
    """Gives one result for a picture that is bright on the left, and another one for all others."""

    def __call__(self, image, train=False):
        bright = (image[:, 0, 0, 0] > image[:, 0, -1, 0])[:, None, None]
        left, right = (
            jnp.array([[0.2, 0.4], [0.7, 0.5], [0.5, 0.1]]),
            jnp.array([[0.4, 0.6], [0.9, 0.3], [0.5, 0.3]]),
        )
        maps = jnp.zeros((image.shape[0], 4, 4, 1)).at[:, 1, 0, 0].set(jnp.where(bright[:, 0, 0], 0.8, 0.4))
        return Outputs((maps,), jnp.where(bright, left, right))


THREE = skeletons.Skeleton("three", ("right", "left", "middle"), ((0, 1),), (), ())
NETWORK = Network(Two(), THREE, size=8, mean=(0.0, 0.0, 0.0), sigma=1.0, logits=False)
BRIGHT = np.tile(np.linspace(255, 0, 8).astype(np.uint8)[None, None, :, None], (1, 8, 1, 3))


def test_coordinates_are_pixels_and_their_scores_are_the_heatmaps_values_there():
    estimate = inference.Estimator(NETWORK, canvas=8, margin=1.0, flip=False)
    joints, scores, seen = jax.jit(estimate)({}, BRIGHT)
    close(joints, [[[[1.6, 3.2], [5.6, 4.0], [4.0, 0.8]]]])  # one prediction: (b, 1, k, 2)
    close(scores, [[[0.8, 0, 0]]])  # the first lies in the cell of row 1, column 0
    assert seen["heatmaps"].shape == (1, 4, 4, 1) and seen["attention"] == {}


def test_flip_averages_with_the_flipped_pictures_coordinates():
    # Flipped: right (0.4, 0.6), left (0.9, 0.3), middle (0.5, 0.3). Flipped back and sides swapped:
    # right (0.1, 0.3), left (0.6, 0.6), middle (0.5, 0.3).
    outputs = NETWORK.outputs({}, BRIGHT / 255.0, flip=True)
    close(outputs.coordinates, [[[0.15, 0.35], [0.65, 0.55], [0.5, 0.2]]])
    expected = np.zeros((1, 4, 4, 1))
    expected[0, 1, [0, 3], 0] = 0.4, 0.2  # (0.8 + 0) / 2 and (0 + 0.4) / 2
    close(outputs.heatmaps[0], expected)


# The training


def tiny():
    """The paper's training on four people without augmentation; rounds of 20 steps."""
    c = config.get_config("attention=all,stacks=1,width=8,dataset=synthetic,size=32")
    c.model.update(depth=1, attention_width=4)
    c.data.update(examples=(4, 4), variety=0.0, canvas=48)
    c.augment.update(scale_normal=(0.0, 0.0), rotate_normal=(0.0, 0.0), flip_probability=0.0, colour=0.0)
    c.train.update(batch_size=4, steps=22, average_decay=0.9, tensorboard=False, pictures=1)
    c.train.phases = (("pose", 8.0), ("attention", 8.0), ("pose+attention", 4.0))
    c.optimizer.warmup_steps = 0
    c.train.update(log_every=2, save_every=4, keep_latest=6)
    c.evaluate.update(batch_size=4, flip=False)
    return c


def states_of(workdir):
    """The states after each step of a training, as {"pose": {...}, "attention": {...}} of all leaves."""
    write, states = train._Lines.write, {}

    def writing(lines, step, state):
        states[step] = by_task(jax.device_get(state))
        write(lines, step, state)

    with mock.patch.object(train._Lines, "write", writing):
        train.train(tiny(), workdir)
    return states


def by_task(state):
    leaves = {task: {} for task in ALL.tasks}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, step=None)):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        task = "attention" if "attention" in text else "pose"
        leaves[task][text] = np.array(leaf)  # a copy: the next step reuses the memory
    return leaves


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("selvam")


@pytest.fixture(scope="module")
def states(workdir, quick_compiles):
    """The states of a training in `workdir`."""
    return states_of(workdir)


def moved(states, task, first, last):
    """The leaves of a task that differ bitwise between two steps, and the number of leaves."""
    before, after = states[first][task], states[last][task]
    assert before.keys() == after.keys() and len(before) > 30
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}, len(before)


def test_frozen_tasks_do_not_change_by_a_bit(states):
    """Parameters, batch statistics, averages and the optimiser's state of the task."""
    assert moved(states, "attention", 4, 8)[0] == set()
    assert moved(states, "pose", 8, 16)[0] - {"optimizer/1/count"} == set()
    # Steps 21 and 22 belong to the second round's first phase, in which the masks do not change.
    assert moved(states, "attention", 20, 22)[0] == set()


@pytest.mark.parametrize(
    ("task", "first", "last"),
    [("pose", 4, 8), ("attention", 8, 12), ("pose", 16, 20), ("attention", 16, 20), ("pose", 20, 22)],
)
def test_trained_tasks_move(states, task, first, last):
    names, _ = moved(states, task, first, last)
    still = states[first][task].keys() - names
    # A norm cancels the biases of the convolutions before it: their gradient is zero.
    assert all(re.search(r"(conv\d?/bias|attention_learnt)$", name) for name in still)
    assert any(name.startswith("optimizer") for name in names)


def test_the_attention_counts_as_learnt_from_its_first_phase_on(states):
    values = {step: state["attention"]["batch_stats/attention_learnt"] for step, state in states.items()}
    assert {*range(2, 23, 2)} <= set(values)
    assert values == {step: int(step > 8) for step in values}


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_each_phase_lowers_the_loss_and_each_round_the_learning_rate(workdir, states):
    lines = [line for line in metrics_of(workdir) if "loss" in line]
    loss = {line["step"]: line["loss"] for line in lines}  # the mean of two steps
    assert loss[8] < 0.5 * loss[2]
    assert loss[16] < loss[10]
    assert loss[20] < loss[18]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    np.testing.assert_allclose([rates[2], rates[20], rates[22]], [1e-3, 1e-3, 1e-4], rtol=1e-5)


def test_resuming_within_a_phase_gives_the_same_bits_after_the_next_phase(workdir, states, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    for step in (16, 20, 22):
        shutil.rmtree(again / "checkpoints" / str(step))
    resumed = states_of(again)  # from step 12, in the attention's phase
    assert min(resumed) > 12 and {14, 16, 18, 20, 22} <= set(resumed)
    for task, leaves in states[22].items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(resumed[22][task][name], leaf, err_msg=name)


def test_a_trained_network_finds_joints_in_pictures(workdir, states):
    predictor = Predictor(workdir, batch_size=2)
    picture = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    result = predictor(picture)
    assert result.joints.shape == (1, 16, 2) and np.isfinite(result.joints).all()
    assert result.scores.shape == (1, 16) and result.scores.min() >= 0 and result.scores.max() <= 1


def test_a_parameter_without_a_task_is_refused(tmp_path, monkeypatch):
    label = selvam.Model.label
    stray = staticmethod(lambda path: None if path[0] == "stem_unit" else label(path))
    monkeypatch.setattr(selvam.Model, "label", stray)
    with pytest.raises(ValueError, match="gives stem_unit/.* no task"):
        train.train(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_phases_need_a_model_with_tasks(tmp_path):
    c = newells_config.get_config("stacks=1,width=8,dataset=synthetic,size=32")
    c.model.depth = 1
    c.train.phases = (("pose", 1.0),)
    with pytest.raises(ValueError, match="newell has no tasks"):
        train.train(c, tmp_path / "run")


# The config


@pytest.mark.parametrize("attention", config.VARIANTS)
def test_config_switches_the_masks_on(attention):
    c = config.get_config(f"attention={attention},stacks=3")
    assert [c.model[switch] for switch in SWITCHES] == list(config.VARIANTS[attention])
    assert (c.model.stacks, c.train.batch_size, c.optimizer.name, c.loss.kind) == (
        3,
        30,
        "adam",
        "coordinates",
    )
    plan = phases.plan(c.train.phases, epoch=10.0)
    order = [plan.trained(0), plan.trained(200), plan.trained(300), plan.trained(500)]
    everything = [("pose",), ("attention",), ("pose", "attention"), ("pose",)]
    assert order == ([None] * 4 if attention == "baseline" else everything)


def test_config_refuses_an_unknown_attention():
    with pytest.raises(ValueError, match="choose from baseline, global, .*all"):
        config.get_config("attention=local")
