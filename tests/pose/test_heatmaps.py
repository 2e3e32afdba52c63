"""Heatmaps: Gaussians and quarter cells compared with loops, and round trips from joints to maps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import config_base
from hourglass_jax.pose import heatmaps

render = jax.jit(heatmaps.render, static_argnames=("size", "sigma", "window", "at_cell"))
decode = jax.jit(heatmaps.decode, static_argnames="method")


def rendered_by_loops(joints, shown, size, sigma):
    maps = np.zeros((len(joints), size, size, joints.shape[1]))
    for b, y, x, k in np.ndindex(maps.shape):
        dx, dy = x + 0.5 - joints[b, k, 0], y + 0.5 - joints[b, k, 1]
        if shown[b, k] and max(abs(dx), abs(dy)) <= 3 * sigma:
            maps[b, y, x, k] = math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    return maps


def decoded_by_loops(maps):
    """Newell's released evaluation, in continuous cells; the border is checked for each axis."""
    b, h, w, k = maps.shape
    joints, scores = np.zeros((b, k, 2)), np.zeros((b, k))
    for i, j in np.ndindex(b, k):
        one = maps[i, :, :, j]
        y, x = np.unravel_index(np.argmax(one), one.shape)
        joints[i, j], scores[i, j] = (x + 0.5, y + 0.5), one[y, x]
        if 0 < x < w - 1:
            joints[i, j, 0] += 0.25 * np.sign(one[y, x + 1] - one[y, x - 1])
        if 0 < y < h - 1:
            joints[i, j, 1] += 0.25 * np.sign(one[y + 1, x] - one[y - 1, x])
    return joints, scores


def single(values) -> jnp.ndarray:
    """(h, w) -> (1, h, w, 1)."""
    return jnp.asarray(values, jnp.float32)[None, :, :, None]


# Rendering


def test_render_agrees_with_loops():
    rng = np.random.default_rng(0)
    joints = rng.uniform(-6, 14, (3, 6, 2)).astype(np.float32)  # inside and outside of 8 cells
    shown = rng.random((3, 6)) < 0.8
    for sigma in (1.0, 1.5):
        maps = render(joints, shown, size=8, sigma=sigma)
        expected = rendered_by_loops(joints.astype(np.float64), shown, 8, sigma)
        np.testing.assert_allclose(maps, expected, atol=1e-6)


# The row through the peak, from the joint's cell outwards: exp(-d^2 / (2 sigma^2)).
ROWS = {
    "ports": [1, 0.60653, 0.13534, 0.01111, 0],
    "torch": [1, 0.84937, 0.52045, 0.23006, 0],  # image.gaussian(7): sigma 0.25 * 7
    "text": [1, 0.80074, 0.41111, 0.13534, 0.02857, 0],
}


@pytest.mark.parametrize("name", ROWS)
def test_targets_of_the_text_and_of_the_released_codes(name):
    c = config_base.base()
    config_base.targets(c, name)
    options = {key: c.loss[key] for key in ("sigma", "window", "at_cell")}
    # The text centres on the joint itself; the released codes on its cell, wherever the joint lies in it.
    joint = [[8.5, 7.5]] if name == "text" else [[8.9, 7.1]]
    maps = render(jnp.array([joint]), jnp.ones((1, 1), bool), size=16, **options)[0, :, :, 0]
    n = len(ROWS[name])
    np.testing.assert_allclose(maps[7, 8 : 8 + n], ROWS[name], atol=1e-5)
    np.testing.assert_allclose(maps[7 : 7 + n, 8], ROWS[name], atol=1e-5)
    np.testing.assert_allclose(maps[7, 9 - n : 9], ROWS[name][::-1], atol=1e-5)


def test_reduced_targets_keep_the_largest_of_each_block():
    targets = np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2)
    np.testing.assert_array_equal(heatmaps.reduce(targets, 2)[0, :, :, 1], [[11, 15], [27, 31]])
    with pytest.raises(ValueError, match="4 x 4 cells cannot be reduced to 3 x 3"):
        heatmaps.reduce(targets, 3)


def test_peak_is_one_in_the_middle_of_a_cell_and_neighbours_by_hand():
    # x = 4.5 is the centre of column 4, y = 2.5 that of row 2.
    maps = render(jnp.array([[[4.5, 2.5]]]), jnp.ones((1, 1), bool), size=8, sigma=1.0)[0, :, :, 0]
    assert maps[2, 4] == 1
    np.testing.assert_allclose(maps[2, 5], math.exp(-1 / 2), rtol=1e-6)
    np.testing.assert_allclose(maps[4, 3], math.exp(-(1 + 4) / 2), rtol=1e-6)
    # Three cells off is three sigma, and in; four cells off is out.
    np.testing.assert_allclose(maps[2, 7], math.exp(-9 / 2), rtol=1e-6)
    assert maps[2, 0] == 0 and maps[2, 1] > 0
    assert maps[6, 4] == 0 and maps[5, 4] > 0


def test_a_joint_between_cells_gives_equal_values_in_both():
    maps = render(jnp.array([[[4.0, 4.0]]]), jnp.ones((1, 1), bool), size=8, sigma=1.0)[0, :, :, 0]
    np.testing.assert_allclose(maps[3:5, 3:5], math.exp(-0.25), rtol=1e-6)
    np.testing.assert_allclose(maps, maps[::-1, ::-1], rtol=1e-6)


def test_joints_not_shown_or_far_outside_have_an_empty_map():
    joints = jnp.array([[[4.0, 4.0], [-3.0, 4.0], [4.0, 11.0], [-2.4, 4.5]]])
    shown = jnp.array([[False, True, True, True]])
    maps = render(joints, shown, size=8, sigma=1.0)
    assert not maps[..., :3].any()
    # 2.9 sigma to the left of the first column's centre: the Gaussian's tail is in the map.
    np.testing.assert_allclose(maps[0, 4, 0, 3], math.exp(-(2.9**2) / 2), rtol=1e-5)
    assert not maps[0, :, 1:, 3].any()


# Decoding


def test_decode_agrees_with_loops_on_noise():
    maps = np.random.default_rng(1).normal(size=(4, 5, 7, 6)).astype(np.float32)  # not square
    joints, scores = decode(maps)
    expected, expected_scores = decoded_by_loops(maps)
    np.testing.assert_array_equal(joints, expected)
    np.testing.assert_array_equal(scores, expected_scores.astype(np.float32))
    assert joints.dtype == scores.dtype == jnp.float32


def test_decode_by_hand():
    values = np.zeros((4, 5))
    values[2, 1], values[2, 2], values[1, 1] = 0.9, 0.2, 0.1
    joints, scores = decode(single(values))
    # Column 1 and a quarter to the right, row 2 and a quarter up.
    np.testing.assert_allclose(joints[0, 0], [1.75, 2.25])
    np.testing.assert_allclose(scores[0, 0], 0.9)


def test_equal_neighbours_cause_no_shift():
    values = np.zeros((5, 5))
    values[2, 2], values[2, 1], values[2, 3] = 1, 0.5, 0.5
    np.testing.assert_array_equal(decode(single(values))[0][0, 0], [2.5, 2.5])


@pytest.mark.parametrize(
    ("cell", "expected"),
    # At a border only the other axis is refined; in it, the higher neighbour is below or to the right.
    [
        ((0, 0), (0.5, 0.5)),
        ((0, 2), (2.75, 0.5)),
        ((3, 0), (0.5, 3.75)),
        ((4, 4), (4.5, 4.5)),
        ((4, 2), (2.75, 4.5)),
        ((2, 4), (4.5, 2.75)),
    ],
)
def test_border_cells_are_not_refined_across_the_border(cell, expected):
    y, x = np.mgrid[:5, :5]
    values = 0.01 * (x + y)  # brighter to the right and below
    values[cell] = 1
    np.testing.assert_allclose(decode(single(values))[0][0, 0], expected)


def test_a_constant_map_gives_its_first_cell_and_its_value():
    joints, scores = decode(single(np.full((6, 6), 0.25)))
    np.testing.assert_array_equal(joints[0, 0], [0.5, 0.5])
    assert scores[0, 0] == 0.25


def test_a_map_of_nan_gives_a_place_in_the_map_and_the_score_nan():
    values = np.zeros((2, 6, 6, 1), np.float32)
    values[0] = np.nan
    values[1, 3, 4], values[1, 1, 1] = np.nan, 1
    joints, scores = decode(values)
    assert np.isfinite(joints).all() and (joints >= 0).all() and (joints <= 6).all()
    assert np.isnan(scores).all()  # a broken network must not look confident


def test_decode_takes_bfloat16():
    maps = np.random.default_rng(2).normal(size=(2, 6, 6, 3)).astype(jnp.bfloat16)
    joints, scores = decode(maps)
    expected, _ = decoded_by_loops(maps.astype(np.float32))
    np.testing.assert_array_equal(joints, expected)
    assert scores.dtype == jnp.float32


# There and back


def test_decoding_rendered_joints_is_within_a_quarter_of_a_cell_and_unbiased():
    n, size = 4000, 12
    joints = np.random.default_rng(3).uniform(0.5, size - 0.5, (1, n, 2)).astype(np.float32)
    maps = render(joints, np.ones((1, n), bool), size=size, sigma=1.0)
    found, scores = decode(maps)
    error = np.asarray(found - joints)[0]
    # Away from the border the decoded place is 0.25 from the cell's centre, and the joint between 0 and
    # 0.5 on the same side; in the outermost cells it is the centre.
    cells = np.floor(joints[0])
    inner = (cells > 0) & (cells < size - 1)
    assert np.abs(error[inner]).max() <= 0.25 + 1e-5
    assert np.abs(error).max() <= 0.5 + 1e-5
    # |error| is uniform in 0 ... 0.25: mean 0.125, deviation of the error 0.25 / sqrt(3) = 0.144.
    assert abs(np.abs(error[inner]).mean() - 0.125) < 4 * 0.0722 / math.sqrt(inner.sum())
    assert abs(error[inner].mean()) < 4 * 0.144 / math.sqrt(inner.sum())
    # The value at the nearest centre, at most (0.5, 0.5) off: between e^-0.25 and 1.
    offset = cells + 0.5 - joints[0]
    np.testing.assert_allclose(scores[0], np.exp(-(offset**2).sum(-1) / 2), rtol=1e-4)
    assert scores.min() >= math.exp(-0.25) - 1e-4


def test_the_centroid_of_a_rendered_joint_is_the_joint():
    n, size = 500, 16
    joints = np.random.default_rng(4).uniform(5, 11, (1, n, 2)).astype(np.float32)
    maps = np.asarray(render(joints, np.ones((1, n), bool), size=size, sigma=1.0), np.float64)
    grid = np.arange(size) + 0.5
    total = maps.sum(axis=(1, 2))
    x = np.einsum("byxk,x->bk", maps, grid) / total
    y = np.einsum("byxk,y->bk", maps, grid) / total
    error = np.stack([x, y], axis=-1) - joints
    # The limit at 3 sigma removes a cell on one side: at most 3 * 0.0111 / 2.5 = 0.0133 of a cell.
    assert np.abs(error).max() < 0.0134
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.001


def test_flipped_maps_give_flipped_joints():
    joints = np.random.default_rng(5).uniform(0, 9, (1, 300, 2)).astype(np.float32)
    maps = render(joints, np.ones((1, 300), bool), size=9, sigma=1.0)
    found, _ = decode(maps)
    mirrored, _ = decode(maps[:, :, ::-1])
    np.testing.assert_allclose(mirrored[..., 0], 9 - found[..., 0])
    np.testing.assert_allclose(mirrored[..., 1], found[..., 1])


def test_the_value_at_a_place_is_its_cells_and_zero_outside():
    maps = np.arange(1.0, 13).reshape(1, 3, 4, 1)
    inside = {(0, 0): 1, (3.99, 2.99): 12, (0.5, 1.2): 5, (1, 0): 2}
    outside = dict.fromkeys([(4, 0), (0, 3), (-0.01, 0), (0, -0.01), (-5, 9)], 0)
    places = jnp.array([[*inside, *outside]], jnp.float32)
    found = heatmaps.value_at(jnp.asarray(maps), places)
    np.testing.assert_array_equal(found[0], [*inside.values(), *outside.values()])


# Cross-entropy's maps


def test_from_logits_is_the_softmax_times_a_gaussians_sum():
    logits = np.random.default_rng(6).normal(size=(2, 5, 4, 3)).astype(np.float32)
    share = np.exp(logits) / np.exp(logits).sum(axis=(1, 2), keepdims=True)
    maps = jax.jit(lambda x: heatmaps.from_logits(x, sigma=1.5))(logits)
    np.testing.assert_allclose(maps, np.minimum(share * 2 * math.pi * 2.25, 1), rtol=1e-5)
    assert (np.asarray(maps) == 1).any()  # the clipping at 1 is tested


def test_perfect_logits_give_the_targets_back():
    x, y = np.meshgrid(np.arange(16) + 0.5, np.arange(16) + 0.5)
    exponent = -((x - 7.3) ** 2 + (y - 8.1) ** 2) / 2
    maps = heatmaps.from_logits(single(exponent + 40), sigma=1.0)  # a constant does not matter
    np.testing.assert_allclose(maps[0, :, :, 0], np.exp(exponent), atol=1e-5)


def test_logits_sharper_than_their_target_are_cut_off_at_one():
    values = np.full((8, 8), -100.0)
    values[3, 5] = 100
    maps = heatmaps.from_logits(single(values), sigma=1.0)
    assert maps[0, 3, 5, 0] == 1 and float(maps.sum()) == 1


# The other decodings


def rendered(joints, size=16, sigma=1.0):
    joints = jnp.asarray(joints, jnp.float32)[None]
    return render(joints, jnp.ones(joints.shape[:2], bool), size=size, sigma=sigma)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_dark_finds_the_peak_of_a_gaussian(sigma):
    joints = np.random.default_rng(7).uniform(6, 12, (400, 2))
    found, scores = decode(rendered(joints, 18, sigma), method="dark", sigma=sigma)
    # Its logarithm is a parabola, blurred or not; the error comes from the limit of targets at 3 sigma.
    assert np.abs(found[0] - joints).max() < 0.02
    np.testing.assert_array_equal(scores, decode(rendered(joints, 18, sigma))[1])
    # This holds for faint maps, too, of a network that is not confident.
    faint, _ = decode(1e-6 * rendered(joints, 18, sigma), method="dark", sigma=sigma)
    assert np.abs(faint[0] - joints).max() < 0.02


def test_dark_follows_a_slanted_peak():
    # Without the mixed derivative the slant would cause an error: H = -[[0.5, 0.2], [0.2, 0.4]].
    x, y = np.meshgrid(np.arange(15) + 0.5, np.arange(15) + 0.5)
    dx, dy = x - 7.8, y - 7.3
    values = np.exp(-(0.5 * dx**2 + 0.4 * dx * dy + 0.4 * dy**2) / 2)
    found, _ = decode(single(values), method="dark", sigma=1.0)
    np.testing.assert_allclose(found[0, 0], [7.8, 7.3], atol=1e-3)


def test_dark_keeps_the_quarter_where_there_is_no_peak():
    ramp = np.tile(np.exp(np.arange(9.0)), (9, 1))  # rises to the border, where a neighbour is missing
    flat = np.zeros((9, 9))
    # Two cells far apart, blurred by sigma 3: the peak lies between them, more than a cell from either.
    apart = np.zeros((9, 9))
    apart[4, 1], apart[4, 6], apart[3, 1] = 1, 0.99, 0.5
    # A single cell in a valley in one direction, or in both, whose blurred form has no peak.
    y, x = np.abs(np.mgrid[-6:7, -6:7])
    valleys = [np.where((from_it >= 2) & (from_it <= 4), 0.9, 0) for from_it in (y, x, np.maximum(x, y))]
    for valley in valleys:
        valley[6, 6], valley[6, 7], valley[5, 6] = 1, 0.2, 0.1
    for values, sigma in ((ramp, 1.0), (flat, 1.0), (apart, 3.0), *((valley, 1.0) for valley in valleys)):
        maps = single(values)
        found, _ = decode(maps, method="dark", sigma=sigma)
        np.testing.assert_array_equal(found, decode(maps)[0])


def test_soft_argmax_is_the_mean_position_by_hand():
    values = np.zeros((9, 9))
    values[4, 4], values[4, 5], values[1, 4], values[4, 3] = 0.6, 0.3, 0.1, -0.2
    values[4, 8] = 0.5  # four cells away, beyond 3 sigma
    found, scores = decode(single(values), method="soft_argmax")  # sigma is 1 by default
    # x: 0.3 of a mass of 1 is one cell to the right; y: 0.1 is three cells up; values below 0 have no mass.
    np.testing.assert_allclose(found[0, 0], [4.5 + 0.3, 4.5 - 0.3], rtol=1e-6)
    assert scores[0, 0] == np.float32(0.6)
    empty, _ = decode(single(np.zeros((5, 5))), method="soft_argmax", sigma=1.0)
    np.testing.assert_array_equal(empty[0, 0], [0.5, 0.5])


def test_soft_argmax_of_a_rendered_joint_is_the_joint():
    joints = np.random.default_rng(8).uniform(5, 11, (400, 2))
    found, _ = decode(rendered(joints), method="soft_argmax", sigma=1.0)
    # The target and the window end at 3 sigma, around different places: at most 0.02 of a cell.
    assert np.abs(found[0] - joints).max() < 0.02


@pytest.mark.parametrize("method", heatmaps.METHODS)
def test_every_decoding_commutes_with_a_flip(method):
    joints = np.random.default_rng(9).uniform(0, 9, (100, 2))
    maps = rendered(joints, 9)
    found, _ = decode(maps, method=method, sigma=1.0)
    mirrored, _ = decode(maps[:, :, ::-1], method=method, sigma=1.0)
    np.testing.assert_allclose(mirrored[..., 0], 9 - found[..., 0], atol=1e-4)
    np.testing.assert_allclose(mirrored[..., 1], found[..., 1], atol=1e-4)


def test_argmax_is_the_middle_of_the_largest_cell():
    values = np.zeros((5, 6))
    values[3, 4], values[3, 3] = 0.9, 0.8  # the neighbour does not matter
    found, scores = decode(single(values), method="argmax")
    np.testing.assert_allclose(found, [[[4.5, 3.5]]])
    np.testing.assert_allclose(scores, [[0.9]])


def test_unknown_decodings_are_refused():
    with pytest.raises(
        ValueError, match="decode='udp' is unknown; choose from quarter, argmax, dark, soft_argmax"
    ):
        decode(rendered([[3, 3]]), method="udp")
