"""The stacked hourglass and its parts: published sizes, and the values that each part computes."""

import functools

import conftest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wiring

from configs import newell as config
from hourglass_jax import inference, models
from hourglass_jax.kernels import convolution
from hourglass_jax.models import layers
from hourglass_jax.network import Network
from hourglass_jax.pose import heatmaps, skeletons
from hourglass_jax.training import losses

# Trainable parameters for 16 joints: Newell's released Torch model, and the public PyTorch port.
PARAMETERS = {
    ("newell", 1): 3_426_448,
    ("newell", 2): 6_570_400,
    ("newell", 8): 25_434_112,
    ("port", 1): 3_586_960,
    ("port", 2): 6_730_912,
    ("port", 8): 25_594_624,
}
SMALL = dict(joints=3, stacks=2, width=8, depth=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(model, image, seed=1):
    """Variables without default values, so that scales, shifts, means and variances all matter."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if kind == "kernel" else 0.3
        return (spread * rng.normal(size=leaf.shape)).astype(np.float32)

    _, shapes = conftest.shapes_of(model, image)
    return jax.tree_util.tree_map_with_path(draw, shapes)


IMAGE = normal(2, 16, 16, 3, seed=2)


@functools.cache
def small_variables():
    return randomised(models.build("newell", **SMALL), IMAGE)


@functools.partial(jax.jit, static_argnames=("train", "dtype"))
def run(variables, image, train=False, dtype="float32"):
    """The small network's heatmaps and new statistics. Most tests share this program."""
    model = models.build("newell", dtype=dtype, **SMALL)
    outputs, new = model.apply(variables, image, train=train, mutable=["batch_stats"])
    return outputs.heatmaps, new["batch_stats"]


# Published sizes


@pytest.mark.parametrize(("stem", "stacks"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(stem, stacks):
    model = models.build("newell", joints=16, stacks=stacks, stem=stem)
    _, variables = conftest.shapes_of(model, jnp.zeros((1, 64, 64, 3)))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == PARAMETERS[stem, stacks]


# Figure 8, for 16 joints. Compared with the paper's two stacks hg lacks one lin, 256*256+256 + 2*256 =
# 66,304, one layer of heatmaps, 256*16+16 = 4,112, and the remaps, 256*256+256 + 16*256+256 = 70,144: 140,560
# in all. Its stem has three units more, 128 -> 128 twice, (256 + 128*64+64) + (128 + 9*64*64+64) + (128 +
# 64*128+128) = 54,016, and 256 -> 256, (512 + 256*128+128) + (256 + 9*128*128+128) + (256 + 128*256+256) =
# 214,528: 322,560.
# hg_int has a norm and a layer of heatmaps for 8, 16 and 32 cells: 3 * (512 + 4,112) = 13,872.
FIGURE_8 = {
    "hg_stacked_int": 6_570_400,
    "hg_stacked": 6_570_400,
    "hg_stacked_add": 6_570_400,
    "hg": 6_570_400 - 140_560 + 322_560,
    "hg_int": 6_570_400 - 140_560 + 322_560 + 13_872,
    "flic": 3_426_448,
    # The network of the text, by hand for two stacks. A unit i -> o with h = o / 2: norms 2 (i + h + h),
    # convolutions i h + h, 9 h h + h, h o + o, and i o + o on the skip if i and o differ: 64 -> 128
    # 58,112; 128 -> 128 54,016; 128 -> 256 230,912; 256 -> 256 214,528; 384 -> 256 329,728; 256 -> 512
    # 920,576; 512 -> 512 855,040. Stem: 9,408 + 64 + 128 + 58,112 + 2 * 54,016 + 230,912 = 406,656.
    # A level: skip 2 * 214,528 + 920,576, down 3 * 214,528, up 855,040: 2,848,256. Hourglass: 4 of them and
    # 920,576 at the bottom: 12,313,600; 2 * (329,728 - 214,528) more where 384 features come in: 12,544,000.
    # 1x1 with its norm: 512 -> 512 263,680, 512 -> 256 131,840. First stack: 12,313,600 + 263,680 + 131,840 +
    # 256*16+16 = 12,713,232. Remaps to 384: 16*384+384 + 384*384+384 = 154,368.
    # Last stack: 12,544,000 + 2 * 263,680 + 512*16+16 = 13,079,568.
    "text": 406_656 + 12_713_232 + 154_368 + 13_079_568,
}
assert FIGURE_8["text"] == 26_353_824


@pytest.mark.parametrize("variant", config.VARIANTS)
def test_the_networks_of_figure_8_have_their_parameters(variant):
    model = models.build(joints=16, **config.get_config(f"variant={variant}").model)
    _, variables = conftest.shapes_of(model, jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == FIGURE_8[variant]


def test_the_network_of_the_text_doubles_its_features_before_upsampling():
    model, calls = models.build("newell", **SMALL, design="text"), {}

    def note(call, arguments, options, context):
        output = call(*arguments, **options)
        if context.method_name == "__call__":
            calls["/".join(context.module.path)] = output
        return output

    with nn.intercept_methods(note):
        outputs = jax.eval_shape(functools.partial(model.init_with_output, jax.random.key(0)), IMAGE)[0]
    assert [maps.shape for maps in outputs.heatmaps] == [(2, 4, 4, SMALL["joints"])] * SMALL["stacks"]
    width = SMALL["width"]
    up = {name: x.shape[-1] for name, x in calls.items() if name.endswith(("_up0", "bottom0", "skip0_2"))}
    assert set(up.values()) == {2 * width} and len(up) == SMALL["stacks"] * (1 + 2 * SMALL["depth"])
    assert calls["stack0_remap_features"].shape[-1] == width + width // 2  # with the pooled stem
    with pytest.raises(ValueError, match="model.design='text' has no other units"):
        jax.eval_shape(model.clone(units=2).init, jax.random.key(0), IMAGE)
    with pytest.raises(ValueError, match="model.design='paper' is unknown; choose from hg, text"):
        jax.eval_shape(model.clone(design="paper").init, jax.random.key(0), IMAGE)


def test_heatmaps_are_a_quarter_of_the_input_in_each_stack():
    model = models.build("newell", joints=14, stacks=2)
    image = jnp.zeros((1, 256, 192, 3))  # not square
    outputs, _ = conftest.shapes_of(model, image)
    assert [maps.shape for maps in outputs.heatmaps] == [(1, 64, 48, 14)] * 2


# Convolution, pooling, upsampling


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("window", [1, 3])
def test_convolutions_are_laxs_with_their_gradients(window, strides):
    x, kernel, weight = normal(2, 6, 4, 5), normal(window, window, 5, 3, seed=1), normal(3, seed=2)
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def total(convolve, x, kernel):
        y = convolve(x, kernel, strides, "SAME", **options)
        return jnp.sum(jnp.sin(y) * weight), y

    gradients = []
    for convolve in (convolution.plain, jax.lax.conv_general_dilated):
        gradient = jax.value_and_grad(total, argnums=(1, 2), has_aux=True)
        gradients.append(jax.jit(gradient, static_argnums=0)(convolve, x, kernel))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *gradients)


def test_a_pointwise_convolution_is_a_matrix_product_with_a_bias():
    conv, _ = layers.parts(train=False, dtype=jnp.float32)
    x, kernel, bias = normal(2, 3, 4, 5), normal(5, 6, seed=1), normal(6, seed=2)
    params = {"kernel": kernel[None, None], "bias": bias}
    np.testing.assert_allclose(conv(6, (1, 1)).apply({"params": params}, x), x @ kernel + bias, atol=1e-5)


def test_max_pool_is_flaxs_with_its_gradient():
    x, weight = normal(2, 6, 4, 3), normal(2, 3, 2, 3, seed=1)
    reference = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    for pool in (layers.max_pool, reference):
        np.testing.assert_array_equal(pool(x), x.reshape(2, 3, 2, 2, 2, 3).max(axis=(2, 4)))
    ours, theirs = (jax.grad(lambda x, p=p: jnp.sum(p(x) * weight))(x) for p in (layers.max_pool, reference))
    np.testing.assert_array_equal(ours, theirs)


def test_upsample_repeats_each_cell_twice_in_both_directions():
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(layers.upsample(x), x.repeat(2, axis=1).repeat(2, axis=2))


# Batch norm


def test_batch_norm_has_torchs_momentum_and_epsilon():
    x = 3 + 2 * normal(4, 5, 5, 2)
    _, norm = layers.parts(train=True, dtype=jnp.float32)
    variables = norm().init(jax.random.key(0), x)
    y, new = norm().apply(variables, x, mutable=["batch_stats"])
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    # Running values start at 0 and 1; Torch's momentum 0.1 adds a tenth of the new values.
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * variance, rtol=1e-5)

    # With a variance of 0 only the epsilon remains: 1 / sqrt(1e-5) = 316.23.
    _, norm = layers.parts(train=False, dtype=jnp.float32)
    still = {"mean": np.zeros(2, np.float32), "var": np.zeros(2, np.float32)}
    y = norm().apply({"params": variables["params"], "batch_stats": still}, np.ones((1, 1, 1, 2)))
    np.testing.assert_allclose(y, 316.227766, rtol=1e-5)


# The residual unit


def convolved_by_loops(x, kernel, bias):
    """Stride 1, zeros outside, as in Torch (cross-correlation)."""
    b, h, w, _ = x.shape
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    y = np.zeros((b, h, w, kernel.shape[3]))
    for i, j in np.ndindex(kernel.shape[:2]):
        y += padded[:, i : i + h, j : j + w] @ kernel[i, j]
    return y + bias


def unit_by_loops(x, params, stats):
    y = x
    for i in range(3):
        norm, moments, conv = params[f"norm{i}"], stats[f"norm{i}"], params[f"conv{i}"]
        y = (y - moments["mean"]) / np.sqrt(moments["var"] + 1e-5) * norm["scale"] + norm["bias"]
        y = convolved_by_loops(np.maximum(y, 0), conv["kernel"], conv["bias"])
    if "skip" in params:
        x = convolved_by_loops(x, params["skip"]["kernel"], params["skip"]["bias"])
    return x + y


@pytest.mark.parametrize("width_in", [4, 6])
def test_the_residual_unit_agrees_with_loops(width_in):
    conv, norm = layers.parts(train=False, dtype=jnp.float32)
    unit = layers.Unit(6, conv, norm)
    x = normal(2, 5, 4, width_in)
    variables = randomised(unit, x)
    expected = unit_by_loops(x.astype(np.float64), variables["params"], variables["batch_stats"])
    np.testing.assert_allclose(jax.jit(unit.apply)(variables, x), expected, atol=1e-5)
    # If the width does not change, the skip is the input itself.
    assert ("skip" in variables["params"]) == (width_in != 6)


# The hourglass


class Doubled(nn.Module):
    """Replaces a unit, to compute the hourglass by hand."""

    def __call__(self, x):
        return 2 * x


class Negated(nn.Module):
    def __call__(self, x):
        return -x


def test_the_hourglass_adds_skips_to_upsampled_features_by_hand():
    x = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]], np.float32)
    coarse, fine = layers.Hourglass(2, Doubled, skip=Negated).apply({}, x[None, :, :, None])
    # Pooled (5, 7, 13, 15), doubled on the way down: level 1 is (10, 14, 26, 30); its maximum 30,
    # doubled down, at the bottom and up, is 240. Coarse: 240 minus level 1.
    level1 = np.array([[10, 14], [26, 30]])
    np.testing.assert_array_equal(coarse[0, :, :, 0], 240 - level1)
    # Fine: this, doubled and repeated, minus the input.
    expected = (2 * (240 - level1)).repeat(2, axis=0).repeat(2, axis=1) - x
    np.testing.assert_array_equal(fine[0, :, :, 0], expected)


def test_units_per_place_are_applied_one_after_the_other():
    x = np.ones((1, 2, 2, 1), np.float32)
    # Three places with two units on the main path, 2^6, and 2^2 on the skip branch.
    (y,) = layers.Hourglass(1, Doubled, units=2).apply({}, x)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), 64 + 4))


@pytest.mark.parametrize("shape", [(12, 16), (16, 12)])
def test_an_hourglass_says_which_size_it_cannot_halve(shape):
    message = f"depth 3 .*{shape[0]} x {shape[1]} cells are not divisible by 8"
    with pytest.raises(ValueError, match=message):
        layers.Hourglass(3, Doubled).apply({}, jnp.zeros((1, *shape, 1)))


@pytest.mark.parametrize("size", [6, 66, 250])
def test_the_model_says_which_image_size_it_cannot_take(size):
    # 66 px are 33 cells after the first convolution: the stem's pooling cannot halve them. With 6 px,
    # 3 cells, it would use the last one twice, without an error.
    model = models.build("newell", joints=3, stacks=1, width=8, depth=1)
    with pytest.raises(ValueError, match="divisible"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


# The model


def test_the_first_convolution_pads_as_torch_does():
    # Torch's 7x7/2 with padding 3: output cell i is centred on pixel 2 i.
    conv, norm = layers.parts(train=False, dtype=jnp.float32)
    stem = layers.Stem(8, conv, norm, functools.partial(layers.Unit, conv=conv, norm=norm))
    image = normal(1, 8, 8, 3)
    variables = randomised(stem, image)
    catch = dict(capture_intermediates=lambda module, _: module.name == "conv", mutable="intermediates")
    _, caught = jax.jit(lambda variables, image: stem.apply(variables, image, **catch))(variables, image)
    result = caught["intermediates"]["conv"]["__call__"][0]
    kernel, bias = variables["params"]["conv"]["kernel"], variables["params"]["conv"]["bias"]
    expected = convolved_by_loops(image.astype(np.float64), kernel, bias)[:, ::2, ::2]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_each_stack_depends_only_on_previous_ones():
    variables = small_variables()

    def changed(name):
        params = dict(variables["params"])
        params[name] = jax.tree.map(lambda p: 1.5 * p + 0.1, params[name])
        return run({**variables, "params": params}, IMAGE)[0]

    before, _ = run(variables, IMAGE)
    for name in ("stack1_heatmaps", "stack1_hourglass"):
        after = changed(name)
        np.testing.assert_array_equal(after[0], before[0])
        assert np.abs(after[1] - before[1]).max() > 1e-2
    # Figure 4: heatmaps and features of a stack reach the next one.
    for name in ("stack0_remap_heatmaps", "stack0_remap_features"):
        after = changed(name)
        np.testing.assert_array_equal(after[0], before[0])
        assert np.abs(after[1] - before[1]).max() > 1e-2
    # A stack's input does, too, even if both of these are cut.
    params = dict(variables["params"])
    for name in ("stack0_remap_heatmaps", "stack0_remap_features"):
        params[name] = jax.tree.map(np.zeros_like, params[name])
    cut = {**variables, "params": params}
    one, two = (run(cut, image)[0][1] for image in (IMAGE, IMAGE + 0.5))
    assert np.abs(one - two).max() > 1e-2


def test_the_last_stack_has_no_remaps():
    remaps = {name for name in small_variables()["params"] if "remap" in name}
    assert remaps == {"stack0_remap_features", "stack0_remap_heatmaps"}


def test_evaluation_neither_mixes_the_batch_nor_changes_statistics():
    variables = small_variables()
    both, stats = run(variables, IMAGE)
    exchanged, _ = run(variables, np.stack([IMAGE[0], 3 - IMAGE[1]]))
    for one, two in zip(both, exchanged, strict=True):
        np.testing.assert_allclose(one[0], two[0], atol=1e-5)
        assert np.abs(one[1] - two[1]).max() > 1e-2
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])


def test_training_uses_and_averages_the_statistics_of_the_batch():
    variables = small_variables()
    _, new = run(variables, IMAGE, train=True)
    exchanged, _ = run(variables, np.stack([IMAGE[0], 3 - IMAGE[1]]), train=True)
    assert np.abs(exchanged[0][0] - run(variables, IMAGE, train=True)[0][0][0]).max() > 1e-2
    # The first norm follows the first convolution: 0.9 of the old value plus 0.1 of the batch's.
    conv = variables["params"]["stem"]["conv"]
    y = convolved_by_loops(IMAGE.astype(np.float64), conv["kernel"], conv["bias"])[:, ::2, ::2]
    old, new = variables["batch_stats"]["stem"]["norm"], new["stem"]["norm"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * y.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * y.var(axis=(0, 1, 2)), atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_statistics_and_is_close():
    low = models.build("newell", dtype="bfloat16", **SMALL)
    for leaf in jax.tree.leaves(conftest.shapes_of(low, IMAGE)[1]):
        assert leaf.dtype == jnp.float32
    train = functools.partial(run, train=True, dtype="bfloat16")
    _, stats = jax.eval_shape(train, small_variables(), IMAGE)
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {np.dtype("float32")}
    precise, _ = run(small_variables(), IMAGE)
    rounded, _ = run(small_variables(), IMAGE, dtype="bfloat16")
    for exact, close in zip(precise, rounded, strict=True):
        assert close.dtype == jnp.float32
        error = np.abs(exact - close).mean() / np.abs(exact).mean()
        # bfloat16 has 8 bits, a step of 0.4 %, in dozens of layers; near 0 would mean "not used".
        assert 1e-3 < error < 0.05


# Figure 8


@pytest.fixture
def points(monkeypatch):
    monkeypatch.setattr(layers, "Unit", wiring.Point)


def test_supervision_of_each_stack_of_the_last_one_or_of_the_sum_of_all(quick_compiles):
    variables = randomised(models.build("newell", **SMALL), IMAGE)
    cut = jax.tree.map(np.zeros_like, variables["params"]["stack0_remap_heatmaps"])
    params = variables["params"] | {"stack0_remap_heatmaps": cut}  # no heatmap reaches the next stack

    def loss(params, supervision):
        model = models.build("newell", supervision=supervision, **SMALL)
        maps = model.apply(variables | {"params": params}, IMAGE).heatmaps
        return sum(jnp.sum(m**2) for m in maps), maps

    @jax.jit
    def run(params):
        gradient = jax.grad(loss, has_aux=True)
        return {kind: gradient(params, kind) for kind in ("stacks", "last", "sum")}

    found = run(params)
    gradients, maps = ({kind: pair[i] for kind, pair in found.items()} for i in (0, 1))
    one, two = maps["stacks"]
    for kind, expected in (("last", two), ("sum", one + two)):
        np.testing.assert_allclose(maps[kind][0], expected, atol=1e-5)
        assert len(maps[kind]) == 1
    first = {kind: gradient["stack0_heatmaps"] for kind, gradient in gradients.items()}
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(first["last"]))
    assert all((jnp.abs(leaf) > 0).all() for leaf in jax.tree.leaves((first["stacks"], first["sum"])))
    # The features still get a gradient, through the second stack.
    assert all((jnp.abs(leaf) > 0).any() for leaf in jax.tree.leaves(gradients["last"]["stack0_hourglass"]))
    # d/db of (a + b + c)^2 is the same for the biases of both.
    second = gradients["sum"]["stack1_heatmaps"]["bias"]
    np.testing.assert_allclose(first["sum"]["bias"], second, rtol=1e-4)


def of_resolutions():
    model = models.build("newell", joints=3, stacks=1, width=8, depth=2, supervision="resolutions")
    return model, randomised(model, IMAGE)


def test_supervised_resolutions_come_from_coarse_to_fine(points):
    model, variables = of_resolutions()

    def value(params, index):
        return jnp.sum(model.apply(variables | {"params": params}, IMAGE).heatmaps[index] ** 2)

    coarse, fine = jax.jit(lambda p: [jax.grad(value)(p, i) for i in (0, 1)])(variables["params"])

    def reached(gradient):
        return {
            name for name in gradient if any((jnp.abs(g) > 0).any() for g in jax.tree.leaves(gradient[name]))
        }

    # 2 x 2 cells, from the hourglass before its last addition; 4 x 4, which do not depend on the others.
    assert reached(coarse) == {"stem", "stack0_hourglass", "stack0_lower0_norm", "stack0_lower0_heatmaps"}
    names = {f"stack0_{name}" for name in ("hourglass", "unit0", "lin", "lin_norm", "heatmaps")}
    assert reached(fine) == {"stem", *names}
    assert not reached(coarse["stack0_hourglass"]) & {"level0_skip0", "level0_up0"}
    assert "level1_up0" in reached(coarse["stack0_hourglass"])


def test_each_resolution_has_its_loss_and_its_joints_in_evaluation(points):
    model, variables = of_resolutions()
    skeleton = skeletons.Skeleton("three", ("right", "left", "middle"), ((0, 1),), (), ())
    network = Network(model, skeleton, 16, (0.0, 0.0, 0.0), 1.0, logits=False)
    canvases = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    estimate = inference.Estimator(network, canvas=16, margin=1.0, flip=False)
    loss = losses.named(
        kind="mean_squared_error", size=16, sigma=1.0, heatmap_weight=1.0, mask_unlabelled=False
    )

    @jax.jit
    def run(variables, canvases):
        outputs = model.apply(variables, canvases / np.float32(255))
        decoded = [heatmaps.decode(maps) for maps in outputs.heatmaps]
        _, per_stack = loss(
            outputs, jnp.full((2, 3, 2), -50.0), jnp.full((2, 3), 2)
        )  # far outside: no target
        return estimate(variables, canvases), outputs, decoded, per_stack

    (joints, scores, seen), outputs, decoded, per_stack = run(variables, canvases)
    assert [maps.shape for maps in outputs.heatmaps] == [(2, 2, 2, 3), (2, 4, 4, 3)]
    assert seen["heatmaps"].shape == (2, 4, 4, 3)
    for s, px in enumerate((8, 4)):  # px of the input per cell
        cells, values = decoded[s]
        np.testing.assert_allclose(joints[:, s], px * cells, atol=1e-3)
        np.testing.assert_allclose(scores[:, s], values, rtol=1e-3)
    np.testing.assert_allclose(per_stack, [jnp.mean(maps**2) for maps in outputs.heatmaps], rtol=1e-5)


def test_an_unknown_supervision_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'all' is unknown; choose from stacks, last, sum, resolutions"):
        jax.eval_shape(models.build("newell", supervision="all", **SMALL).init, jax.random.key(0), IMAGE)


# Wrong names


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("newel", {}, ["'newel'", "newell"]),
        ("layers", {}, ["'layers'", "newell"]),
        ("newell", {"dtype": "float16"}, ["'float16'", "float32", "bfloat16"]),
        ("newell", {"widht": 8}, ["widht", "depth", "stacks", "stem", "units", "width"]),
        ("newell", {"parent": 1, "depth": 2}, ["parent", "width"]),
    ],
)
def test_wrong_names_are_refused_with_the_known_ones(name, options, known):
    with pytest.raises(ValueError) as error:
        models.build(name, joints=3, **options)
    assert all(word in str(error.value) for word in known)
    assert "layers" not in str(error.value).split(";")[-1]


def test_an_unknown_stem_is_refused_with_the_known_ones():
    model = models.build("newell", stem="torch", **SMALL)
    with pytest.raises(ValueError, match="'torch'.*newell.*port"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
