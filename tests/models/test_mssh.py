"""The multi-scale stacked hourglass: scales, blocks, Algorithm 1, targets, evaluation and training."""

import functools
import types

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wiring

from configs import mssh as config
from hourglass_jax import devices, inference, models, train
from hourglass_jax.models import layers, mssh, newell
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network, network_of
from hourglass_jax.pose import heatmaps
from hourglass_jax.pose.skeletons import LSP, Skeleton
from hourglass_jax.training import losses

pytestmark = pytest.mark.usefixtures("quick_compiles")

SMALL = {"joints": 3, "stacks": 3, "width": 8, "depth": 1, "strides": (8, 4, 2)}  # 2, 4 and 8 cells
IMAGE = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)


def shapes(model, image=IMAGE):
    """Shapes of outputs and parameters; nothing is computed."""
    outputs, variables = conftest.shapes_of(model, image)
    return outputs, variables["params"]


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(module, x):
    """Variables without zeros and ones, so that every offset and scale matters."""
    rng = np.random.default_rng(1)
    _, variables = conftest.shapes_of(module, x)
    params = jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype("f"), variables["params"])
    stats = jax.tree.map(lambda s: np.full(s.shape, 0.5, "f"), variables["batch_stats"])
    return {"params": params, "batch_stats": stats}


# Blocks (3.3)


def parts():
    return layers.parts(train=False, dtype=jnp.float32)


# By hand for 8 channels, 2 in each branch: norms 2 (8 + 2 + 2 + 2 + 4) = 36, two 1x1 of 8*2+2 = 36, three
# 3x3 of 9*2*2+2 = 114, linear 4*8+8 = 40: 226. From 4 channels: the first norm has 8 less, the 1x1 4*2+2 each
# 16 less together, and a skip of 4*8+8 = 40 more: 242. The residual unit: see test_chu.py.
@pytest.mark.parametrize(
    ("block", "same", "wider"), [("inception_a", 226, 242), ("inception_b", 226, 242), ("residual", 256, 272)]
)
def test_parameters_of_each_block(block, same, wider):
    unit = mssh.BLOCKS[block](8, *parts())
    for channels, count in ((8, same), (4, wider)):
        x = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
        assert size(shapes(unit, x)[1]) == count


def test_every_block_is_tested():
    mark = test_parameters_of_each_block.pytestmark[0]
    assert {case[0] for case in mark.args[1]} == set(mssh.BLOCKS)


def block_by_formula(x, variables, *, halved):
    """Figure 5, branch by branch, from convolutions of lax."""
    params, stats = variables["params"], variables["batch_stats"]

    def step(name, norm, x):
        if norm:
            p, s = params[norm], stats[norm]
            x = jax.nn.relu((x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"])
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers) + bias

    p, s = params["norm"], stats["norm"]
    before = jax.nn.relu((x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"])
    shallow = step("shallow_conv1", "shallow_norm1", step("shallow_conv0", None, before))
    if halved:
        before = nn.max_pool(before, (2, 2), (2, 2))
    deep = step("deep_conv1", "deep_norm1", step("deep_conv0", None, before))
    deep = step("deep_conv2", "deep_norm2", deep)
    if halved:
        deep = deep.repeat(2, axis=1).repeat(2, axis=2)
    return x + step("linear", "linear_norm", jnp.concatenate([shallow, deep], axis=-1))


@pytest.mark.parametrize("halved", [False, True])
def test_inception_resnets_are_the_figures(halved):
    unit = mssh.InceptionResnet(8, *parts(), halved=halved)
    x = normal(2, 4, 6, 8)
    variables = randomised(unit, x)
    expected = block_by_formula(x, variables, halved=halved)
    np.testing.assert_allclose(jax.jit(unit.apply)(variables, x), expected, rtol=1e-4, atol=1e-4)


# Scales (3.2)


def block_parameters(before, after):
    """Inception-resnet-A: norms, two 1x1, three 3x3, linear, skip."""
    q = after // 4
    skip = before * after + after if before != after else 0
    norms = 2 * (before + 3 * q + 2 * q)
    return norms + 2 * (before * q + q) + 3 * (9 * q * q + q) + 2 * q * after + after + skip


def test_the_papers_network():
    outputs, params = shapes(mssh.Model(joints=16), jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))
    assert [maps.shape[1] for maps in outputs.heatmaps] == [32, 32, 64, 64, 64, 128, 128, 128]
    assert {maps.shape[3] for maps in outputs.heatmaps} == {16}
    first = 7 * 7 * 3 * 64 + 64 + 2 * 64 + block_parameters(64, 128)
    middle, last = block_parameters(128, 128), block_parameters(128, 256)
    branches = (2 * middle + last) + (middle + last) + last  # strides 8, 4 and 2
    # 13 blocks in an hourglass and one after it, lin with its norm, the heatmaps.
    stack = 14 * block_parameters(256, 256) + 256 * 256 + 256 + 2 * 256 + 256 * 16 + 16
    between = 256 * 256 + 256 + 16 * 256 + 256
    assert size(params) == first + branches + 8 * stack + 7 * between == 21_750_208
    assert size(params["pre_processing"]) == first + branches


@pytest.mark.parametrize(
    ("stacks", "strides"),
    [(1, (2,)), (2, (4, 2)), (3, (8, 4, 2)), (4, (8, 4, 2, 2)), (8, (8, 8, 4, 4, 4, 2, 2, 2))],
)
def test_strides_fall_from_8_to_2_over_the_stacks(stacks, strides):
    assert mssh.Model(stacks=stacks).strides_of_stacks() == strides


@pytest.fixture
def points(monkeypatch):
    monkeypatch.setitem(mssh.BLOCKS, "inception_a", wiring.Point)


def test_lateral_connections_and_concatenation_add_their_convolutions(points):
    plain = size(shapes(mssh.Model(**SMALL))[1])
    lateral = size(shapes(mssh.Model(**SMALL, lateral=True))[1])
    assert lateral - plain == 2 * (8 * 8 + 8)  # on the two larger scales
    concatenated = size(shapes(mssh.Model(**SMALL, fusion="concatenation"))[1])
    assert concatenated - plain == 2 * (16 * 8 + 8)  # in front of all stacks but the first


def test_with_one_scale_and_residual_units_it_is_newells_network():
    fields = {"joints": 3, "stacks": 2, "width": 8, "depth": 1}
    reference, ours = newell.Model(**fields), mssh.Model(**fields, strides=[4, 4], block="residual")
    image = normal(2, 16, 16, 3)
    variables = randomised(reference, image)
    places = {"unit0": "unit", "unit1": "stride4_unit0", "unit2": "stride4_last"}

    def renamed(tree):
        stem = {places.get(name, name): value for name, value in tree["stem"].items()}
        rest = {name.replace("_unit0", "_unit"): value for name, value in tree.items() if name != "stem"}
        return {**rest, "pre_processing": stem}

    same = {kind: renamed(tree) for kind, tree in variables.items()}
    assert jax.tree.structure(same) == jax.tree.structure(randomised(ours, image))
    expected, found = jax.jit(reference.apply)(variables, image), jax.jit(ours.apply)(same, image)
    for a, b in zip(expected.heatmaps, found.heatmaps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


class Small:
    """A small network with random parameters, and the modules on which its heatmaps depend."""

    def __init__(self, **fields):
        self.model = mssh.Model(**{**SMALL, **fields})
        self.image = normal(*IMAGE.shape)
        self.variables = randomised(self.model, self.image)
        self._gradient = jax.jit(jax.grad(self._of_stack))

    def _of_stack(self, params, weights):
        maps = self.model.apply({**self.variables, "params": params}, self.image).heatmaps
        return sum((m**2).sum() * w for m, w in zip(maps, weights, strict=True))

    def branches(self, stack, *, cut=False):
        """The strides of the input branches that a stack depends on; `cut`: without previous stacks."""
        params = dict(self.variables["params"])
        for name in params if cut else ():
            if "remap" in name:
                params[name] = jax.tree.map(np.zeros_like, params[name])
        gradient = self._gradient(params, np.eye(3, dtype="f")[stack])["pre_processing"]
        seen = {
            name.split("_")[0] for name, g in gradient.items() if max(map(np.ptp, jax.tree.leaves(g))) > 0
        }
        return {int(name.removeprefix("stride")) for name in seen if name.startswith("stride")}

    def caught(self):
        """The outputs of the model's own modules."""
        catch = functools.partial(
            self.model.apply,
            capture_intermediates=lambda module, _: len(module.path) == 1,
            mutable="intermediates",
        )
        _, caught = jax.jit(catch)(self.variables, self.image)
        return {name: value["__call__"][0] for name, value in caught["intermediates"].items()}


@pytest.mark.parametrize(
    ("fields", "alone"),
    [({}, [{8}, {4}, {2}]), ({"lateral": True}, [{8}, {8, 4}, {8, 4, 2}])],
)
def test_each_stack_gets_its_own_scale_and_the_features_of_previous_stacks(fields, alone, points):
    network = Small(**fields)
    assert [network.branches(s, cut=True) for s in range(3)] == alone
    assert [network.branches(s) for s in range(3)] == [{8}, {8, 4}, {8, 4, 2}]


@pytest.mark.parametrize("fusion", mssh.FUSIONS)
def test_features_passed_on_are_enlarged_to_the_scale(fusion, points):
    network = Small(fusion=fusion, strides=(8, 8, 2))
    caught = network.caught()
    remaps = [caught[f"stack{s}_remap_features"] + caught[f"stack{s}_remap_heatmaps"] for s in (0, 1)]
    features = caught["pre_processing"]
    # The second stack has the first one's scale; the third is four times as large, and gets both sums.
    inputs = {
        1: (features[8], remaps[0]),
        2: (features[2], (remaps[0] + remaps[1]).repeat(4, 1).repeat(4, 2)),
    }
    unit = functools.partial(wiring.Point, 8, *parts())
    hourglass = jax.jit(layers.Hourglass(1, unit).apply)
    for s, (own, handed_on) in inputs.items():
        x = own + handed_on
        if fusion == "concatenation":
            fused = network.variables["params"][f"stack{s}_fusion"]
            x = np.concatenate([own, handed_on], axis=-1) @ fused["kernel"][0, 0] + fused["bias"]
        of_stack = {kind: tree[f"stack{s}_hourglass"] for kind, tree in network.variables.items()}
        expected = hourglass(of_stack, x)[-1]
        np.testing.assert_allclose(caught[f"stack{s}_hourglass"][-1], expected, rtol=1e-3, atol=1e-3)


def test_bfloat16_gives_float32_heatmaps_of_every_size():
    for fusion in mssh.FUSIONS:
        outputs, _ = shapes(models.build("mssh", **SMALL, dtype="bfloat16", fusion=fusion, lateral=True))
        assert [(m.shape, m.dtype) for m in outputs.heatmaps] == [
            ((2, n, n, 3), jnp.float32) for n in (2, 4, 8)
        ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strides": (8, 4)}, r"model.strides=\(8, 4\) must be 3 powers of two"),
        ({"strides": (2, 4, 8)}, "small features. first"),
        ({"strides": (8, 6, 2)}, "powers of two"),
        ({"strides": (4, 2, 1)}, "powers of two from 2 on"),
        ({"strides": (16, 16, 16)}, "depth 1 halves .* 1 x 1 cells"),
        ({"strides": (32, 4, 4)}, "16 x 16 px is not divisible by 32"),
        ({"block": "inception_c"}, "model.block='inception_c' is unknown; choose from inception_a, "),
        ({"fusion": "sum"}, "model.fusion='sum' is unknown; choose from addition, concatenation"),
        ({"block": "inception_b"}, "inception_b cannot halve 1 x 1 cells"),
        ({"width": 6}, "width divisible by 4"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(mssh.Model(**{**SMALL, **fields}))


# Adaptive weights (4.2)

ERRORS = np.array([[0.0, 0.1, 0.5], [0.5, 0.0, 0.25], [0.9, 0.9, 0.9]])[:, None]  # three stacks, one person


adaptive_weights = jax.jit(losses.adaptive_weights, static_argnames="limit")


def test_algorithm_1_by_hand():
    weights = adaptive_weights(ERRORS, np.ones((1, 3)))
    expected = [
        [1 / 3, 1 / 3, 1 / 3],
        # L = (0 + 0.1 + 0.5) / 3 = 0.2, beta = 0.2 / 0.8 = 1/4; (1/4)^1 = 0.25, (1/4)^0.9 = 0.287175,
        # (1/4)^0.5 = 0.5; their sum 1.037175.
        [0.25 / 1.037175, 0.287175 / 1.037175, 0.5 / 1.037175],
        # L = 0.241039 * 0.5 + 0.276882 * 0 + 0.482079 * 0.25 = 0.241039, beta = 0.241039 / 0.758961 =
        # 0.317592; 0.317592^0.5 = 0.563553, ^1 = 0.317592, ^0.75 = 0.423060; times the weights 0.135838,
        # 0.087935, 0.203948; their sum 0.427722.
        [0.135838 / 0.427722, 0.087935 / 0.427722, 0.203948 / 0.427722],
    ]
    np.testing.assert_allclose(weights[:, 0], expected, atol=3e-6)  # the last stack's errors have no effect


def random_errors(limit):
    return np.random.default_rng(0).uniform(0, limit, size=(4, 50, 7)).astype("f")


def test_harder_joints_gain_weight_and_weights_stay_normalised():
    errors, counted = random_errors(0.5), np.ones((50, 7))
    weights = np.asarray(adaptive_weights(errors, counted))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    for before, after, of_stack in zip(weights, weights[1:], errors, strict=False):
        order = np.argsort(of_stack, axis=-1)
        gain = np.take_along_axis(after / before, order, axis=-1)
        assert (np.diff(gain) > 0).all()  # in the order of the errors
        assert (gain[:, 0] < 1).all() and (gain[:, -1] > 1).all()
        assert (gain >= 0.5).all()  # none loses more than half: sum_i w_i beta^-L_i <= 2 (1 - L)


@pytest.mark.parametrize("error", [0.5, 0.7, 0.999])
def test_weights_do_not_change_from_a_mean_error_of_one_half_on(error):
    # beta >= 1 would invert the rule: the joint without an error would gain most.
    errors = np.array([[[error, error, error]], [[error + 0.0005, error, error]], [[0, 0, 0]]])
    weights = adaptive_weights(errors, np.ones((1, 3)))
    np.testing.assert_allclose(weights, np.full((3, 1, 3), 1 / 3), rtol=1e-5)


def test_the_printed_algorithm_applies_above_one_half_too():
    # L = (0.9 + 0.6 + 0.6) / 3 = 0.7, beta = 7 / 3; beta^0.1 = 1.088423, beta^0.4 = 1.403429; sum 3.895281.
    errors = np.array([[[0.9, 0.6, 0.6]], [[0, 0, 0]]])
    weights = adaptive_weights(errors, np.ones((1, 3)), limit=False)
    np.testing.assert_allclose(weights[1, 0], [0.279421, 0.360289, 0.360289], rtol=1e-5)
    lost = np.full((4, 1, 3), 0.999)  # almost the largest relative error; beta is 999
    lost[:, 0, 0] = 0
    printed = np.asarray(adaptive_weights(lost, np.ones((1, 3)), limit=False))
    assert np.isfinite(printed).all() and (printed >= 0).all()
    np.testing.assert_allclose(printed.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        adaptive_weights(ERRORS, np.ones((1, 3)), limit=False),
        adaptive_weights(ERRORS, np.ones((1, 3))),
        rtol=1e-5,
    )


def test_the_share_of_people_whose_weights_move_is_logged():
    # The first person's mean error is 0.2, the second's 0.7, the third has no joint that counts.
    errors = np.array([[[0.0, 0.1, 0.5], [0.9, 0.6, 0.6], [0.1, 0.2, 0.3]]] * 2)
    counted = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]])
    weights = adaptive_weights(errors, counted)
    np.testing.assert_allclose(losses.moved_people(weights, counted), 0.5)
    weights = adaptive_weights(errors, counted, limit=False)
    np.testing.assert_allclose(losses.moved_people(weights, counted), 1.0)
    assert losses.moved_people(weights * 0, counted * 0) == 0
    # As the train step calls it: errors 0 and 0.25, then both 0.999.
    options = config.get_config("stacks=2").loss.to_dict() | {"mask_unlabelled": True}
    del options["kernel_weight"], options["activity_weight"]
    joints, visible = np.array([[[16.0, 16.0], [10.0, 20.0]]], np.float32), np.array([[2, 2]])
    perfect = heatmaps.render(joints / 4, visible > 0, size=8, sigma=1.0)
    maps = perfect * np.array([1.0, 0.5])
    measure = jax.jit(losses.measure(size=32, **options))
    numbers = measure(Outputs((maps, maps)), joints, visible)
    np.testing.assert_allclose(numbers["moved_people"], 1.0)
    numbers = measure(Outputs((0 * maps, 0 * maps)), joints, visible)
    np.testing.assert_allclose(numbers["moved_people"], 0.0)
    assert losses.measure(size=32, **options | {"adaptive": False}) is None


@pytest.mark.parametrize("stacks, strides", [(1, (4,)), (2, (8, 2)), (3, (8, 4, 2))])
def test_few_stacks_keep_the_papers_order_of_scales(stacks, strides):
    fields = config.get_config(f"stacks={stacks},dataset=mpii").model
    assert models.build(joints=16, **fields).strides_of_stacks() == strides


def test_a_found_joint_keeps_its_weight_and_the_smallest_error_counts():
    errors = np.zeros((2, 2, 16))
    errors[0, 1, 3] = 0.04
    weights = adaptive_weights(errors, np.ones((2, 16)))
    np.testing.assert_allclose(weights[:, 0], 1 / 16, rtol=1e-5)  # with beta = 0 all weights would be 0
    # L = 0.04 / 16 = 0.0025, beta = 0.0025 / 0.9975 = 0.00250627; beta^0.96 / beta = beta^-0.04 = 1.270687.
    np.testing.assert_allclose(weights[1, 1, 3] / weights[1, 1, 0], 1.270687, rtol=1e-5)


def test_joints_that_do_not_count_have_no_weight():
    errors = np.concatenate([ERRORS, ERRORS[..., ::-1], ERRORS], axis=1)[..., [0, 1, 2, 2]]
    counted = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
    weights = adaptive_weights(errors, counted)
    np.testing.assert_allclose(weights[:, 0, :3], adaptive_weights(ERRORS, np.ones((1, 3)))[:, 0])
    np.testing.assert_array_equal(weights[:, 1:, :], [[[0, 0, 0, 0], [0, 1, 0, 0]]] * 3)
    assert not np.asarray(weights)[:, 0, 3].any()


def test_relative_errors_by_hand():
    maps, targets = np.zeros((1, 2, 2, 4)), np.zeros((1, 2, 2, 4))
    targets[0, 0, :, 0] = [1, -2]  # energy 5
    maps[0, :, 0, 0] = [1, 1]  # errors (-2)^2 + 1^2 = 5, no better than an empty map: clipped
    targets[0, 0, :, 1], maps[0, 0, :, 1] = [2, 1], [1.5, 1]  # 0.25 / 5
    targets[0, 0, 0, 2] = 0.5  # energy 0.25 counts as 1: 0.25 / 1
    maps[0, 0, 0, 3] = 0.6  # an empty target: 0.36 / 1
    np.testing.assert_allclose(losses.relative_errors(maps, targets), [[0.999, 0.05, 0.25, 0.36]], rtol=1e-6)


# The loss on a network's heatmaps: three stacks of 4, 8 and 16 cells, 32 px, two people, four joints

OPTIONS = {"size": 32, "sigma": 1.0, "mask_unlabelled": True, "kind": "mean_squared_error"}
JOINTS = np.array([[[9, 21], [17, 5], [26, 26], [0, 0]], [[3, 9], [12, 30], [20, 14], [16, 16]]], "f")
VISIBLE = np.array([[2, 1, 2, 0], [2, 2, 1, 1]])


@functools.cache
def targets(amplitude=1.0):
    a = np.where(VISIBLE == 1, amplitude, 1.0)[:, None, None]
    cells = (4, 8, 16)
    render = jax.jit(heatmaps.render, static_argnames=("size", "sigma"))
    return [np.asarray(a * render(JOINTS * n / 32, VISIBLE > 0, size=n, sigma=1.0)) for n in cells]


@functools.partial(jax.jit, static_argnames=("options",))
def _on_heatmaps(maps, visible, options):
    def total(maps):
        return losses.on_heatmaps(Outputs(heatmaps=tuple(maps)), JOINTS, visible, **dict(options))

    (value, per_stack), gradient = jax.value_and_grad(total, has_aux=True)(maps)
    return value, per_stack, gradient


def on_heatmaps(maps, visible=VISIBLE, **options):
    """The loss, those of the stacks, and the gradient with respect to the maps."""
    return _on_heatmaps(maps, visible, tuple({**OPTIONS, **options}.items()))


def noisy(scale=0.1):
    return [t + scale * normal(*t.shape, seed=i) for i, t in enumerate(targets())]


def test_losses_are_weighted_sums_over_the_joints():
    maps = noisy()
    counted = VISIBLE > 0
    squares = [np.mean((m - t) ** 2, axis=(1, 2)) for m, t in zip(maps, targets(), strict=True)]
    errors = np.stack([losses.relative_errors(*pair) for pair in zip(maps, targets(), strict=True)])
    weights = np.asarray(adaptive_weights(errors, counted))
    # Three and four joints count: a person's weights sum to its number of joints, as without weights.
    expected = [(w * [[3], [4]] * e).sum() / 7 for w, e in zip(weights, squares, strict=True)]
    total, per_stack, _ = on_heatmaps(maps, adaptive=True)
    np.testing.assert_allclose(per_stack, expected, rtol=1e-5)
    np.testing.assert_allclose(total, sum(expected), rtol=1e-5)
    plain = on_heatmaps(maps)[1]
    np.testing.assert_allclose(per_stack[0], plain[0], rtol=1e-5)  # w_1 = 1 / K
    assert (np.abs(per_stack[1:] / plain[1:] - 1) > 1e-3).all()
    alone = on_heatmaps(maps[:1], adaptive=True)[0]
    np.testing.assert_allclose(alone, plain[0], rtol=1e-5)  # no stack comes before it


def test_one_labelled_joint_in_a_batch_counts_fully():
    visible, maps = np.array([[0, 2, 0, 0], [0, 0, 0, 0]]), noisy()
    adaptive = on_heatmaps(maps, visible, adaptive=True)[1]
    np.testing.assert_allclose(adaptive, on_heatmaps(maps, visible)[1], rtol=1e-5)


@pytest.mark.parametrize("kind", losses.KINDS)
def test_no_gradient_passes_through_the_weights(kind):
    maps = noisy() if kind == "mean_squared_error" else [4 * m for m in noisy()]

    def with_constant_weights(maps):
        seen = maps if kind == "mean_squared_error" else [heatmaps.from_logits(m, sigma=1.0) for m in maps]
        errors = [losses.relative_errors(np.asarray(m), t) for m, t in zip(seen, targets(), strict=True)]
        weights = adaptive_weights(np.stack(errors), VISIBLE > 0) * np.array([[3], [4]])
        pairs = zip(targets(), weights, strict=True)
        return lambda maps: sum(losses.KINDS[kind](m, *pair) for m, pair in zip(maps, pairs, strict=True))

    ours = on_heatmaps(maps, kind=kind, adaptive=True)[2]
    expected = jax.jit(jax.grad(with_constant_weights(maps)))(maps)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", losses.KINDS)
@pytest.mark.parametrize("case", ["perfect", "empty", "huge", "mixed", "unlabelled"])
def test_values_and_gradients_are_finite_at_zero_and_at_saturation(kind, case):
    perfect, empty = targets(), [np.zeros_like(t) for t in targets()]
    maps = {
        "perfect": perfect,
        "empty": empty,
        "huge": [1e4 * t - 7e3 for t in perfect],
        "mixed": [perfect[0], empty[1], perfect[2]],
        "unlabelled": noisy(),
    }[case]
    visible = 0 * VISIBLE if case == "unlabelled" else VISIBLE
    for mask in (True, False):
        value, _, gradient = on_heatmaps(
            maps, visible, kind=kind, mask_unlabelled=mask, sum_over_cells=True, adaptive=True
        )
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradient)
        if case == "perfect" and kind == "mean_squared_error":
            assert value == 0


@pytest.mark.parametrize(("cells", "pixels"), [(4, 8.0), (8, 4.0), (16, 2.0)])
def test_sigma_is_larger_in_image_pixels_at_small_scales(cells, pixels):
    # From the target itself: its value one cell (32 / cells px) from its peak is exp(-1 / 2 sigma^2).
    joint = jnp.full((1, 1, 2), (cells / 2 + 0.5) * 32 / cells)
    maps = heatmaps.render(joint * cells / 32, jnp.ones((1, 1), bool), size=cells, sigma=1.0)[0, :, :, 0]
    middle = cells // 2
    assert maps[middle, middle] == 1
    sigma = (32 / cells) / np.sqrt(-2 * np.log(maps[middle, middle - 1]))
    np.testing.assert_allclose(sigma, pixels, rtol=1e-5)
    assert pixels == OPTIONS["sigma"] * 32 / cells
    # A stack of that size is compared with this target.
    index = (4, 8, 16).index(cells)
    empty = [np.zeros_like(t) for t in targets()]
    without = on_heatmaps([*empty[:index], targets()[index], *empty[index + 1 :]])[1]
    assert without[index] == 0 and np.count_nonzero(without) == 2


def test_summed_over_cells_all_scales_have_the_same_weight():
    maps = noisy()
    for m, t, value in zip(maps, targets(), on_heatmaps(maps, sum_over_cells=True)[1], strict=True):
        squares = np.sum((m - t) ** 2, axis=(1, 2))[VISIBLE > 0]  # equation 2
        np.testing.assert_allclose(
            value, squares.mean() / 8**2, rtol=1e-5
        )  # relative to the mean over a quarter: 8 cells
    # This does not change maps at a quarter of the input, the only ones of other systems.
    assert on_heatmaps(maps, sum_over_cells=True)[1][1] == on_heatmaps(maps)[1][1]


@pytest.mark.parametrize("amplitude", [-1.0, 0.5])
def test_occluded_joints_have_their_amplitude(amplitude):
    assert on_heatmaps(targets(amplitude), occluded_amplitude=amplitude)[0] == 0
    energy = [(np.asarray(t) ** 2).mean(axis=(1, 2))[VISIBLE == 1].sum() / 7 for t in targets()]
    wrong = on_heatmaps(targets(), occluded_amplitude=amplitude)[1]
    np.testing.assert_allclose(wrong, (1 - amplitude) ** 2 * np.array(energy), rtol=1e-5)


def test_negative_targets_have_no_cross_entropy():
    with pytest.raises(ValueError, match="occluded_amplitude=-1.*mean_squared_error"):
        on_heatmaps(targets(), kind="cross_entropy", occluded_amplitude=-1.0)
    assert np.isfinite(on_heatmaps(targets(), kind="cross_entropy", occluded_amplitude=0.0)[0])


# Evaluation


class Dots(nn.Module):
    """Replaces a network: each channel's spot of the image as heatmaps of 4, 8 and 16 cells."""

    sign: float = 1.0

    @nn.compact
    def __call__(self, image, train=False):
        b, n = image.shape[:2]
        cells = [image.reshape(b, c, n // c, c, n // c, 3).mean(axis=(2, 4)) for c in (4, 8, 16)]
        return Outputs(heatmaps=tuple(self.sign * maps for maps in cells))


COLOURS = Skeleton("colours", ("red", "green", "blue"), (), (), (("All", (0, 1, 2)),))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_stacks_of_different_sizes_are_decoded_in_image_pixels(flip, sign):
    # Pixels of the canvas of 48 px; no spot lies on the border between two cells.
    places = np.array(
        [[[13.1, 30.7], [33.3, 14.4], [26.2, 21.3]], [[21.4, 20.6], [10.7, 37.2], [37.3, 38.6]]]
    )
    line = np.arange(48) + 0.5
    spots = np.exp(-((line - places[..., None]) ** 2) / (2 * 3.0**2))  # n k (x, y) 48
    canvases = np.round(255 * np.einsum("nkx,nky->nyxk", spots[:, :, 0], spots[:, :, 1])).astype(np.uint8)
    network = Network(Dots(sign), COLOURS, 32, (0.0, 0.0, 0.0), 1.0, False, signed=sign < 0)
    estimate = inference.Estimator(network, canvas=48, margin=1.5, flip=flip)
    joints, scores, seen = jax.jit(estimate)({}, canvases)
    assert joints.shape == (2, 3, 3, 2) and scores.shape == (2, 3, 3)
    assert seen["heatmaps"].shape == (2, 16, 16, 3)
    # The crop has 200 * scale = 96 px for 32 px of the input; the canvas has the same px per cell.
    center = np.array([[100.0, 60], [50, 80]])
    truth = (places - 24) * 3 + center[:, None]
    found = inference.image_joints(np.asarray(joints), center, np.array([0.48, 0.48]), size=32)
    for stack, stride in enumerate((8, 4, 2)):
        error = np.abs(found[:, stack] - truth).max()
        assert error < 0.5 * stride * 3  # half a cell; one px of the input is 3 px of the image
    assert (np.asarray(scores) > 0.1).all()


# Config and training


@pytest.mark.parametrize(
    ("variant", "strides", "adaptive"),
    [
        ("full", (8, 4, 2), True),
        ("scales", (8, 4, 2), False),
        ("weights", (4, 4, 4), True),
        ("baseline", (4, 4, 4), False),
    ],
)
def test_variants_of_the_config(variant, strides, adaptive):
    c = config.get_config(
        f"variant={variant},stacks=3,width=8,block=residual,fusion=concatenation,lateral=true"
    )
    model = models.build(joints=14, **c.model)
    assert (model.strides_of_stacks(), c.loss.adaptive, c.loss.sum_over_cells) == (strides, adaptive, True)
    assert (model.block, model.fusion, model.lateral) == ("residual", "concatenation", True)


def test_every_variant_is_tested_and_others_are_refused():
    mark = test_variants_of_the_config.pytestmark[0]
    assert {case[0] for case in mark.args[1]} == set(config.VARIANTS)
    with pytest.raises(ValueError, match="choose from full, scales, weights, baseline"):
        config.get_config("variant=mssh")


def test_config_has_the_papers_training():
    c = config.get_config()
    assert (c.train.batch_size, c.train.epochs, c.optimizer.milestones) == (4, 220, (175, 200))
    assert (c.optimizer.name, c.optimizer.learning_rate, c.optimizer.factor) == ("rmsprop", 2.5e-4, 0.1)
    assert (c.augment.scale_range, c.augment.rotate_range) == ((0.75, 1.25), 30)
    assert (c.augment.flip_probability, c.augment.shear) == (0.5, 0)
    assert (c.model.stacks, c.model.block, c.model.fusion, c.model.lateral) == (
        8,
        "inception_a",
        "addition",
        False,
    )
    assert c.loss.occluded_amplitude == 1


def test_other_systems_keep_the_plain_loss():
    assert not {"occluded_amplitude", "sum_over_cells", "adaptive"} - set(config.common.base().loss)
    loss = config.common.base().loss
    assert (loss.occluded_amplitude, loss.sum_over_cells, loss.adaptive) == (1, False, False)


@pytest.mark.parametrize("amplitude", [1.0, -1.0])
def test_a_checkpoints_network_knows_the_sign_of_its_targets(amplitude):
    c = config.get_config("stacks=1,width=8")
    c.loss.occluded_amplitude = amplitude
    network = network_of({"config": c.to_dict(), "skeleton": LSP.to_dict()})
    assert network.signed == (amplitude < 0)
    fields = c.to_dict()
    del fields["loss"]["occluded_amplitude"]  # as in older checkpoints
    assert not network_of({"config": fields, "skeleton": LSP.to_dict()}).signed


def test_training_lowers_the_loss_of_every_stack(points):
    c = config.get_config("stacks=2,width=8,size=16")
    c.model.depth = 1
    c.optimizer.update(name="adam", learning_rate=0.01, schedule="constant", milestones=())
    c.augment.update(scale_range=(1.0, 1.0), rotate_range=0.0, colour=0.0)
    c.loss.occluded_amplitude = -1.0
    c.train.update(batch_size=2, steps=25)
    network = network_of({"config": c.to_dict(), "skeleton": LSP.to_dict()})
    mesh = devices.mesh()
    _, _, optimiser = train.make_optimizer(c, examples=2)
    source = types.SimpleNamespace(canvas=c.data.canvas, margin=c.data.margin)
    state = train.make_state(c, network, optimiser, mesh, types.SimpleNamespace(latest=None))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (2, 24, 24, 3), np.uint8),
        "joints": rng.uniform(-60, 60, (2, 14, 2)).astype("f") + 100,
        "visible": rng.integers(0, 3, (2, 14)).astype(np.uint8),
        **{"center": np.full((2, 2), 100, "f"), "scale": np.full(2, 0.7, "f")},
    }
    batch = devices.put_batch(batch, mesh)
    step = train.make_step(c, network, source, optimiser, mesh)
    history = []
    for _ in range(25):
        state, values = step(state, batch)
        history.append([float(values[f"loss_stack{s}"]) for s in (1, 2)])
        assert np.isfinite(history[-1]).all()
    assert (np.mean(history[-5:], axis=0) < 0.8 * np.mean(history[:3], axis=0)).all()
