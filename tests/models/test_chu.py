"""Multi-context attention: sizes, receptive fields and equations, compared with direct forms."""

import functools

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import chu as config
from hourglass_jax import models
from hourglass_jax.models import chu, layers, newell
from hourglass_jax.transforms import shared_units

SMALL = {"joints": 3, "stacks": 2, "width": 8, "depth": 2, "window": 3}
IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)  # 8 and 4 cells in the top-down pass


def variant_fields(variant, **fields):
    """The model's fields of a config's variant, in a small form."""
    model = config.get_config(f"variant={variant},width=8").model.to_dict()
    return {key: value for key, value in model.items() if key != "name"} | SMALL | fields


def shapes(model, image=IMAGE):
    """Shapes of outputs and parameters; nothing is computed."""
    outputs, variables = conftest.shapes_of(model, image)
    return outputs, variables["params"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(variables):
    """Variables without zeros and ones, so that every offset and scale matters."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * random.normal(size=leaf.shape), variables)


# By hand, for 8 channels (4 inside a unit), 3 joints, depth 2 and windows of 3 cells.
# Unit 8 -> 8: norms 2 (8 + 4 + 4) = 32, convolutions 8*4+4 + 9*4*4+4 + 4*8+8 = 224: 256.
# Stem: 7*7*3*2+2 = 296, norm 4; units 2 -> 4: 12 + (2*2+2 + 9*2*2+2 + 2*4+4) + skip 12 = 80,
#   4 -> 4: 16 + (4*2+2 + 38 + 12) = 76, 4 -> 8: 24 + (4*4+4 + 148 + 40) + skip 40 = 272: 728.
# Stack: 7 units of the hourglass and one after it 2048, lin 72 and norm 16, heatmaps 8*3+3 = 27: 2163.
# Between two stacks: 8*8+8 + 3*8+8 = 104.
BASELINE = 728 + 2 * 2163 + 104
# A map: 9*8+1 for the unary term, 9 for the window. One from the last features with their norm, 8 + 8, and
# one refined, per stack.
MS = BASELINE + 2 * (16 + 2 * (73 + 9))
# P: norms 2 (8 + 8) and two convolutions 9*8*8+8, at two levels in two stacks.
HRU = MS + 2 * 2 * (32 + 2 * 584)
MR = HRU + 2 * (16 + 73 + 9)  # one more resolution per stack
FULL = MR + (3 - 1) * (73 + 9)  # three parts instead of one refined map, in the second stack
# Depth 2: no skip branch has an HRU. Stem: 7*7*3*2+2, 4; units 2 -> 2: 8 + (3 + 10 + 4) = 25 twice, 2 -> 4:
# 80, 4 -> 4: 76 twice, 4 -> 8: 272: 854. Stack 1: 7 units 1792; three 1x1 with norms 3 * (72 + 16); a refined
# map 9*8+1 + 9+1 = 83; scores 27; the heatmaps' remap 32: 2198. Stack 2: 7 units 1792; 1x1 to 16 features
# with a norm 8*16+16 + 32, and another 16*16+16 + 32; a refined map and 3 parts 4 * (9*16+1 + 9+1); scores
# 3*16 and 3 biases: 2943.
RELEASE = 854 + 2198 + 2943
SOFTMAX = FULL - (3 + 5) * 9  # no windows: 2 resolutions and 1 or 3 maps


@pytest.mark.parametrize(
    ("variant", "derived", "count"),
    [
        ("baseline", BASELINE, 5158),
        ("ms", MS, 5518),
        ("ms_hru", HRU, 10318),
        ("ms_hru_mr", MR, 10514),
        ("full", FULL, 10678),
        ("softmax", SOFTMAX, 10606),
        ("release", RELEASE, 5995),
    ],
)
def test_parameters_of_each_variant(variant, derived, count):
    outputs, params = shapes(models.build("chu", **variant_fields(variant)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == derived == count
    assert [maps.shape for maps in outputs.heatmaps] == [(1, 8, 8, 3)] * 2


def test_the_released_network_has_the_parameters_of_its_lua():
    """Layer by layer as in `hg-attention.lua`, for 8 stacks of 256 features, 16 joints and windows of 11."""

    def unit(i, o):
        h = o // 2
        convolutions = i * h + h + 9 * h * h + h + h * o + o
        return 2 * (i + h + h) + convolutions + (i * o + o if i != o else 0)

    def lin(i, o):
        return i * o + o + 2 * o

    def maps(width, count):
        return count * (9 * width + 1 + 11 * 11 + 1)

    pooled = unit(256, 256) + 2 * (2 * 256 + 9 * 256 * 256 + 256)  # a hourglass residual unit
    skips = 4 * unit(256, 256) + 3 * pooled  # levels 4 to 1 have three, two, one and one units
    hourglass = skips + (4 + 4 + 1) * unit(256, 256)
    stem = (
        7 * 7 * 3 * 64 + 64 + 2 * 64 + 2 * unit(64, 64) + unit(64, 128) + 2 * unit(128, 128) + unit(128, 256)
    )
    between = lin(256, 256) + 16 * 256 + 256
    count = stem + 8 * hourglass + 7 * (2 * lin(256, 256) + maps(256, 1) + 256 * 16 + 16 + between)
    count += 3 * maps(256, 16)  # stacks 5 to 7
    count += lin(256, 512) + lin(512, 512) + maps(512, 1) + maps(512, 16) + 512 * 16 + 16
    model = models.build(joints=16, **config.get_config("variant=release").model)
    _, params = shapes(model, np.zeros((1, 64, 64, 3), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count == 58_312_088
    units = [name for name in params["stack0_hourglass"] if "skip" in name]
    pools = [name for name in units if "pool_conv0" in params["stack0_hourglass"][name]]
    assert pools == ["level0_skip0_1", "level0_skip0_2", "level1_skip0_1"] and len(units) == 7


def test_released_attention_starts_from_the_raw_unary_term_with_a_bias():
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    unary = normal(1, 5, 5, 2)
    crf = chu.Crf(2, lambda *_, **__: lambda x: x, window=3, released=True)  # x is the unary term
    windows, bias = normal(3, 3, 2, seed=1), np.array([0.5, -1], np.float32)
    maps, _ = crf.apply({"params": {"windows": windows, "window_bias": bias}}, unary)
    q = unary
    for _ in range(3):
        q = sigmoid(unary + windowed_sum(q, windows) + bias)
    np.testing.assert_allclose(maps, q, atol=1e-5)


def test_baseline_is_the_stacked_hourglass():
    _, ours = shapes(chu.Model(**variant_fields("baseline")))
    _, newells = shapes(newell.Model(joints=3, stacks=2, width=8, depth=2))
    assert jax.tree.structure(ours) == jax.tree.structure(newells)
    assert jax.tree.leaves(ours) == jax.tree.leaves(newells)


def test_every_variant_is_tested():
    mark = test_parameters_of_each_variant.pytestmark[0]
    assert {case[0] for case in mark.args[1]} == set(config.VARIANTS)


def seen_by(make, rows, columns):
    """The first and last row and column of the inputs that a unit's outputs at some cells depend on."""
    conv, norm = layers.parts(train=False, dtype=jnp.float32)
    unit = make(16, conv, norm)
    x = normal(32, 16, 16, 16)  # many people and channels: a maximum has one source, a ReLU may be off
    variables = randomised(jax.jit(unit.init)(jax.random.key(0), x[:1]))

    def value(x, row, column):
        return jnp.sum(unit.apply(variables, x)[:, row, column] ** 2)

    gradients = jax.jit(jax.vmap(jax.grad(value), (None, 0, 0)))(x, np.array(rows), np.array(columns))
    found = []
    for gradient in gradients:
        cells = np.argwhere(np.abs(gradient).max(axis=(0, 3)) > 0)
        (top, left), (bottom, right) = cells.min(axis=0).tolist(), cells.max(axis=0).tolist()
        assert len(cells) == (bottom + 1 - top) * (right + 1 - left)  # without gaps
        found.append((top, bottom, left, right))
    return found


def test_receptive_fields():
    """4.2: a unit sees 3x3 cells, an hourglass unit 10x10."""
    rows, columns = (6, 6, 7, 8), (6, 7, 6, 9)
    expected = [(r - 1, r + 1, c - 1, c + 1) for r, c in zip(rows, columns, strict=True)]
    assert seen_by(layers.Unit, rows, columns) == expected
    # Cells 6 and 7 are pooled to cell 3; two 3x3 windows see cells 1 to 5 there, which are 2 to 11 before
    # the pool. So an even cell sees 4 back and 5 ahead, an odd one 5 back and 4 ahead.
    expected = [(2, 11, 2, 11), (2, 11, 2, 11), (2, 11, 2, 11), (4, 13, 4, 13)]
    assert seen_by(chu.HourglassUnit, rows, columns) == expected


def test_hourglass_units_are_only_on_the_skip_branches():
    _, params = shapes(chu.Model(**variant_fields("full")))
    for name, place in params["stack0_hourglass"].items():
        assert ("pool_conv0" in place) == name.endswith("_skip0")


def windowed_sum(maps, windows):
    """sum_k w_lk phi(k), cell by cell (equation 7), with zero padding."""
    b, h, w, m = maps.shape
    n = len(windows)
    padded = np.pad(maps, ((0, 0), (n // 2, n // 2), (n // 2, n // 2), (0, 0)))
    out = np.zeros_like(maps)
    for row in range(h):
        for column in range(w):
            for p in range(m):
                window = padded[:, row : row + n, column : column + n, p]
                out[:, row, column, p] = np.sum(window * windows[:, :, p], axis=(1, 2))
    return out


@pytest.mark.parametrize("window", [1, 3, 11])
def test_correlate_is_a_grouped_convolution(window):
    maps, windows = normal(2, 6, 7, 3), normal(window, window, 3, seed=1)
    np.testing.assert_allclose(chu.correlate(maps, windows), windowed_sum(maps, windows), atol=1e-5)


def test_three_steps_of_mean_field():
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    conv, _ = layers.parts(train=False, dtype=jnp.float32)
    x = normal(2, 5, 6, 4)
    crf = chu.Crf(2, conv, window=3)
    variables = randomised(jax.jit(crf.init)(jax.random.key(0), x))
    kernel, bias = (np.asarray(variables["params"]["unary"][name]) for name in ("kernel", "bias"))

    unary = np.zeros((2, 5, 6, 2)) + bias
    for map_ in range(2):
        for channel in range(4):
            term = windowed_sum(x[..., channel : channel + 1], kernel[:, :, channel, map_ : map_ + 1])
            unary[..., map_] += term[..., 0]
    q = sigmoid(unary)
    for _ in range(3):
        q = sigmoid(unary + windowed_sum(q, np.asarray(variables["params"]["windows"])))

    maps, weights = crf.apply(variables, x)
    np.testing.assert_allclose(maps, q, atol=1e-5)
    np.testing.assert_array_equal(maps, weights)


def test_softmax_sums_to_one_and_its_weights_have_mean_one():
    conv, _ = layers.parts(train=False, dtype=jnp.float32)
    x = normal(2, 4, 6, 5)
    (maps, weights), variables = jax.jit(chu.Softmax(3, conv).init_with_output)(jax.random.key(1), x)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), np.ones((2, 3)), rtol=1e-5)  # equation 4
    np.testing.assert_allclose(weights.mean(axis=(1, 2)), np.ones((2, 3)), rtol=1e-5)
    s = variables["params"]["unary"]
    logits = convolve(x, s["kernel"], s["bias"])
    ratio = maps[0, 1, 2] / maps[0, 3, 5]
    np.testing.assert_allclose(ratio, np.exp(logits[0, 1, 2] - logits[0, 3, 5]), rtol=1e-4)


def convolve(x, kernel, bias=0.0):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers) + bias


def direct_crf(params, x, p):
    """Map p of a CRF."""
    unary = convolve(x, params["unary"]["kernel"][..., p : p + 1], params["unary"]["bias"][p])
    window = params["windows"][:, :, None, p : p + 1]
    q = jax.nn.sigmoid(unary)
    for _ in range(3):
        q = jax.nn.sigmoid(unary + convolve(q, window))
    return q


def direct_head(params, f, features, *, stats, parts):
    """Equations 9 to 13 as they are printed, with a copy of the features for each joint."""
    total = 0
    for level, x in enumerate(reversed(features)):
        norm, stat = params[f"level{level}_norm"], stats[f"level{level}_norm"]
        x = (x - stat["mean"]) / jnp.sqrt(stat["var"] + 1e-5) * norm["scale"] + norm["bias"]
        phi = direct_crf(params[f"level{level}"], jnp.maximum(x, 0), 0)
        total += jnp.repeat(jnp.repeat(phi, 2**level, axis=1), 2**level, axis=2)
    h1 = f * total  # 9
    heatmaps = []
    for p in range(params["bias"].shape[0]):
        phi = direct_crf(params["parts"], h1, p) if parts else direct_crf(params["refined"], h1, 0)
        h2 = h1 * phi  # 10, 12
        heatmaps.append(convolve(h2, params["scores"]["kernel"][..., p : p + 1], params["bias"][p]))  # 13
    return jnp.concatenate(heatmaps, axis=-1)


@pytest.mark.parametrize("parts", [False, True])
def test_head_is_equations_9_to_13_without_copies(parts):
    conv, norm = layers.parts(train=False, dtype=jnp.float32)
    head = chu.Head(3, parts, conv, norm, functools.partial(chu.Crf, conv=conv, window=5))
    coarse, fine, f = normal(2, 4, 4, 6), normal(2, 8, 8, 6, seed=1), normal(2, 8, 8, 6, seed=2)
    target = normal(2, 8, 8, 3, seed=3)
    variables = randomised(jax.jit(head.init)(jax.random.key(0), f, (coarse, fine)))
    stats = variables["batch_stats"]

    def value(compute):
        def loss(params, f, features):
            maps = compute(params, f, features)
            return jnp.mean((maps - target) ** 2), maps

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(
            variables["params"], f, (coarse, fine)
        )

    def factored(params, f, features):
        return head.apply({"params": params, "batch_stats": stats}, f, features)[0]

    (_, ours), gradients = value(factored)
    (_, direct), expected = value(functools.partial(direct_head, stats=stats, parts=parts))
    assert ours.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(ours, direct, atol=2e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6, rtol=1e-4), gradients, expected)


@pytest.mark.parametrize(("stacks", "with_parts"), [(1, {1}), (2, {2}), (3, {2, 3}), (8, {5, 6, 7, 8})])
def test_parts_are_in_the_second_half_of_the_stacks(stacks, with_parts):
    outputs, params = shapes(chu.Model(**variant_fields("full", stacks=stacks, width=4)))
    expected = {}
    for s in range(1, stacks + 1):
        expected |= {f"stack{s}_resolution4": (1, 4, 4, 1), f"stack{s}_resolution8": (1, 8, 8, 1)}
        kind, maps = ("parts", 3) if s in with_parts else ("refined", 1)
        expected[f"stack{s}_{kind}"] = (1, 8, 8, maps)
    assert {name: phi.shape for name, phi in outputs.attention.items()} == expected
    # Each stack has its own attention (5.2.3).
    assert {f"stack{s}_head" for s in range(stacks)} <= set(params)


def test_paper_network_attends_at_8_to_64_cells():
    fields = variant_fields("full", depth=4, stacks=1, width=4)
    outputs, _ = shapes(chu.Model(**fields), jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))
    names = [f"stack1_{name}" for name in ("resolution8", "resolution16", "resolution32", "resolution64")]
    assert set(outputs.attention) == {*names, "stack1_parts"}


def test_networks_without_other_resolutions_and_without_attention():
    outputs, _ = shapes(chu.Model(**variant_fields("ms")))
    kinds = ("resolution8", "refined")
    assert set(outputs.attention) == {f"stack{s}_{kind}" for s in (1, 2) for kind in kinds}
    assert shapes(chu.Model(**variant_fields("baseline")))[0].attention is None


def test_bfloat16_leaves_outputs_float32_and_maps_in_range():
    model = chu.Model(**variant_fields("full", stacks=1, depth=1, dtype=jnp.bfloat16))
    image = normal(2, 32, 32, 3)
    _, variables = conftest.shapes_of(model, image)
    # All values are positive, because variances must be.
    variables = jax.tree.map(lambda leaf: 0.3 * np.abs(normal(*leaf.shape)), variables)
    outputs = jax.jit(model.apply)(variables, image)
    for maps in (*outputs.heatmaps, *outputs.attention.values()):
        assert maps.dtype == jnp.float32 and np.isfinite(maps).all()
    for phi in outputs.attention.values():
        assert phi.min() >= 0 and phi.max() <= 1


def memory(model, image):
    """Bytes that the gradient of a squared error needs while it runs, as XLA reports them."""

    def loss(variables, image):
        outputs, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return sum(jnp.sum(maps**2) for maps in outputs.heatmaps)

    _, variables = conftest.shapes_of(model, image)
    compiled = jax.jit(jax.grad(shared_units.share(loss))).lower(variables, image).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_within_one_and_a_half_times_the_hourglass(quick_compiles):
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    fields = {"joints": 16, "stacks": 1, "width": 128, "depth": 1}  # its one stack has part attention
    ours, hourglass = memory(chu.Model(**fields), image), memory(newell.Model(**fields), image)
    assert ours < 1.5 * hourglass
    # A copy of the features for each joint, cells x channels x bytes x people, would not fit.
    assert ours + 16 * 16**2 * 128 * 4 * 2 > 1.5 * hourglass


def test_unknown_values_are_named():
    with pytest.raises(ValueError, match="'crv' is unknown; choose from crf, softmax, none"):
        shapes(chu.Model(**variant_fields("full", attention="crv")))
    with pytest.raises(ValueError, match="variant='hp' is unknown; choose from baseline, ms"):
        config.get_config("variant=hp")


@pytest.mark.parametrize(
    ("dataset", "epochs", "milestones"), [("lspet", 60, (46, 58)), ("mpii", 130, (100, 125))]
)
def test_config_has_the_papers_schedule(dataset, epochs, milestones):
    c = config.get_config(f"dataset={dataset}")
    assert (c.train.epochs, c.optimizer.milestones) == (epochs, milestones)
    assert (c.optimizer.name, c.optimizer.learning_rate, c.optimizer.factor) == ("rmsprop", 2.5e-4, 0.1)
    assert (c.augment.scale_range, c.augment.rotate_range) == ((0.75, 1.25), 30.0)
    assert (c.model.stacks, c.model.width, c.model.depth, c.model.window) == (8, 256, 4, 11)
