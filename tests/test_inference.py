"""The test-time protocol: pyramids in one frame."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import inference
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.network import Network
from hourglass_jax.pose import crop, heatmaps
from hourglass_jax.pose.skeletons import Skeleton

pytestmark = pytest.mark.usefixtures("quick_compiles")

SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
nominal = jax.jit(inference.nominal, static_argnums=1)
merged = jax.jit(inference.merged, static_argnums=1, static_argnames="released")
TWO = Skeleton("two", ("right", "left"), ((0, 1),), (), (("All", (0, 1)),))


def gaussian(place, sigma, size):
    line = np.arange(size) + 0.5 - np.asarray(place)[:, None]
    x, y = np.exp(-(line**2) / (2 * sigma**2))
    return np.outer(y, x).astype(np.float32)[None, :, :, None]


def centroid(values):
    values = np.asarray(values, np.float64)[0, :, :, 0]
    grid = np.arange(len(values)) + 0.5
    return np.array([(values.sum(0) * grid).sum(), (values.sum(1) * grid).sum()]) / values.sum()


@pytest.mark.parametrize("scale", SCALES)
def test_a_view_is_mapped_to_its_place(scale):
    # In the nominal crop at (76.4, 83.7) of 160 cells; a view shows it `scale` times farther from (80, 80).
    # Wide enough that neither the sampling nor the border moves the centroid.
    place = np.array([76.4, 83.7])
    view = gaussian(80 + scale * (place - 80), 9.0 * scale, size=160)
    found = np.asarray(nominal(view, scale))
    np.testing.assert_allclose(centroid(found), place, atol=1e-5)
    # Linear between cells: at most 1/8 of the second derivative, 1 / (9 scale)^2, in x and in y.
    np.testing.assert_allclose(found, gaussian(place, 9.0, size=160), atol=2 / 8 / (9 * scale) ** 2 + 1e-6)


def test_resampling_is_exact_on_slopes_and_agrees_with_the_map_of_points():
    # Half of a view of scale 1.6 of 10 x 12 cells: cell (x, y) holds 2 x - 3 y of its own place.
    scale = 1.6
    y, x = np.mgrid[:10, :12] + 0.5
    found = np.asarray(nominal((2 * x - 3 * y)[None, :, :, None].astype(np.float32), scale))
    view_x, view_y = 6 + scale * (x - 6), 5 + scale * (y - 5)
    # There is no slope beyond the centres of the outermost cells.
    inner = (view_x >= 0.5) & (view_x <= 11.5) & (view_y >= 0.5) & (view_y <= 9.5)
    assert inner.sum() == 6 * 6  # x from 3 to 8, y from 2 to 7
    np.testing.assert_allclose(found[0, :, :, 0][inner], (2 * view_x - 3 * view_y)[inner], atol=1e-5)
    outside = (view_x < 0) | (view_x > 12) | (view_y < 0) | (view_y > 10)
    assert outside.any() and not found[0, :, :, 0][outside].any()


def test_cells_average_the_views_that_see_them():
    # Two views with 1 and 3 everywhere. The view with scale 2 sees the middle half: (1 + 3) / 2 there, 1
    # elsewhere.
    views = np.stack([np.full((8, 8, 1), 1.0), np.full((8, 8, 1), 3.0)])
    (maps,), _, attention = merged(Outputs((views,), None, {"a": 2 * views}), (1.0, 2.0))
    expected = np.ones((1, 8, 8, 1))
    expected[:, 2:6, 2:6] = 2
    np.testing.assert_allclose(maps, expected, rtol=1e-6)
    np.testing.assert_allclose(attention["a"], 2 * expected, rtol=1e-6)
    # No view sees the border: 0, not 0 / 0.
    (maps,), _, _ = merged(Outputs((views,)), (2.0, 2.0))
    np.testing.assert_allclose(maps[0, :, :, 0], np.where(expected[0, :, :, 0] == 2, 2, 0), rtol=1e-6)


def test_coordinates_are_averaged_in_the_nominal_crop():
    # 0.5 + (0.3 - 0.5) / 0.8 = 0.25 and 0.5 + (0.3 - 0.5) / 1.25 = 0.34: 0.295; 0.5 + 0.4 / 0.8 = 1, 0.82.
    outputs = Outputs((np.zeros((2, 4, 4, 1)),), np.tile(np.array([[0.3, 0.9]]), (2, 1, 1)))
    np.testing.assert_allclose(merged(outputs, (0.8, 1.25)).coordinates, [[[0.295, 0.91]]], rtol=1e-6)


class Dots(nn.Module):
    """Replaces a network: the first two channels as heatmaps of 16 and 32 cells, or centroids."""

    coordinates: bool = False

    @nn.compact
    def __call__(self, image, train=False):
        b, n = image.shape[:2]
        stacks = tuple(image.reshape(b, c, n // c, c, n // c, 3).mean(axis=(2, 4))[..., :2] for c in (16, 32))
        if not self.coordinates:
            return Outputs(stacks)
        grid = (jnp.arange(n) + 0.5) / n
        shares = image[..., :2] / image[..., :2].sum(axis=(1, 2), keepdims=True)
        x, y = jnp.einsum("byxk,x->bk", shares, grid), jnp.einsum("byxk,y->bk", shares, grid)
        return Outputs((stacks[-1].max(axis=-1, keepdims=True),), jnp.stack([x, y], axis=-1))


@pytest.fixture(scope="module")
def spots():
    """Canvases (3, 96, 96, 3) uint8 with a spot per joint, and its places (3, 2, 2) in canvas pixels."""
    places = np.random.default_rng(0).uniform(30, 66, (3, 2, 2))
    line = np.arange(96) + 0.5 - places[..., None]
    x, y = np.moveaxis(np.exp(-(line**2) / (2 * 4.0**2)), 2, 0)
    canvases = np.zeros((3, 96, 96, 3), np.uint8)
    canvases[..., :2] = np.round(250 * np.einsum("nkx,nky->nyxk", x, y))
    return canvases, places


@pytest.mark.parametrize(
    ("decode", "flip", "coordinates"),
    [
        ("quarter", True, False),
        ("dark", False, False),
        ("soft_argmax", False, False),
        ("quarter", True, True),
    ],
)
def test_a_pyramid_finds_the_same_as_one_view(spots, decode, flip, coordinates):
    canvases, places = spots
    network = Network(Dots(coordinates), TWO, 64, (0.0, 0.0, 0.0), 2.0, logits=False)
    # The canvas of 96 px shows 1.5 times the nominal crop: 64 px of it are the input's, one to one.
    truth = places - 16
    if flip:  # a flipped picture's sides are swapped, as are these colours: both spots count half
        canvases = np.concatenate([canvases[..., :1], canvases[..., :1], canvases[..., 2:]], axis=-1)
        truth = truth[:, [0, 0]]
    for scales in ((1.0,), (0.7, 1.0, 1.2)):
        estimate = inference.Estimator(
            network, canvas=96, margin=1.5, flip=flip, scales=scales, decode=decode
        )
        joints, scores, seen = jax.jit(estimate)({}, canvases)
        stacks = 1 if coordinates else 2
        assert (
            joints.shape == (3, stacks, 2, 2)
            and scores.shape == (3, stacks, 2)
            and len(seen["heatmaps"]) == 3
        )
        error = np.abs(np.asarray(joints) - truth[:, None]).max(axis=(0, 2, 3))
        # Of a cell of 4 and of 2 px: a quarter and what the stack's coarse cells blur; else a small share.
        limits = np.array([1.5] if coordinates else ([1.3, 0.8] if decode == "quarter" else [0.8, 0.3]))
        assert (error < limits).all(), (scales, error)


def test_one_scale_is_the_plain_protocol_without_extra_cost(spots):
    canvases, _ = spots
    network = Network(Dots(), TWO, 64, (0.0, 0.0, 0.0), 2.0, logits=False)
    programs = [
        jax.jit(inference.Estimator(network, canvas=96, margin=1.5, flip=True, **options)).lower({}, canvases)
        for options in ({}, {"scales": [1.0]}, {"scales": (1.0, 1.0)})
    ]
    texts = [program.as_text() for program in programs]
    assert texts[0] == texts[1] != texts[2]
    twice = programs[2].compile()({}, canvases)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), programs[0].compile()({}, canvases), twice
    )


def test_a_pyramid_as_released_clips_and_counts_every_view():
    # Two views of 4 x 4 cells; at scale 2 a view covers the middle 2 x 2 cells of the nominal crop.
    plain, large = np.full((4, 4, 1), -2.0), np.full((4, 4, 1), 6.0)
    plain[1, 1] = 4
    outputs = Outputs(heatmaps=(jnp.array([plain, large], jnp.float32),))
    seen, released = (
        np.asarray(merged(outputs, (1.0, 2.0), released=r).heatmaps[0])[0, ..., 0] for r in (False, True)
    )
    assert seen[0, 0] == -2 and released[0, 0] == 0
    np.testing.assert_allclose([seen[1, 1], seen[1, 2]], [(4 + 6) / 2, (-2 + 6) / 2], rtol=1e-5)
    np.testing.assert_allclose([released[1, 1], released[1, 2]], [(4 + 6) / 2, 6 / 2], rtol=1e-5)
    plain[0, 0] = 8  # only the first view sees it
    outputs = Outputs(heatmaps=(jnp.array([plain, large], jnp.float32),))
    for r, expected in ((False, 8), (True, 4)):
        maps = merged(outputs, (1.0, 2.0), released=r).heatmaps[0]
        assert maps[0, 0, 0, 0] == expected


def test_the_papers_crops_are_factors_of_the_nominal_one(spots):
    canvases, places = spots
    network = Network(Dots(), TWO, 64, (0.0, 0.0, 0.0), 2.0, logits=False)
    for name, low, high in (("chu", 0.7, 1.2), ("tang", 0.8, 1.3)):
        protocol = Protocol.named(name)
        options = protocol.estimator_options() | {"flip": False}
        estimate = inference.Estimator(network, canvas=96, margin=1.5, **options)
        views = np.asarray(jax.jit(estimate.views)(canvases)).reshape(3, 6, 64, 64, 3)
        # The crop of factor f spans 64 f px of the canvas, about its middle (48, 48).
        for view, factor in ((0, low), (5, high)):
            y, x = np.unravel_index(views[0, view, ..., 0].argmax(), (64, 64))
            np.testing.assert_allclose([x + 0.5, y + 0.5], (places[0, 0] - 48) / factor + 32, atol=1)
        assert protocol.flip and protocol.released and protocol.name == name
    assert Protocol.named("newell").scales == (1.0,) and not Protocol.named("selvam").flip
    with pytest.raises(ValueError, match="evaluate.protocol='best' is unknown; choose newell, chu, tang"):
        Protocol.named("best")


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_invalid_scales_are_refused(scales):
    network = Network(Dots(), TWO, 64, (0.0, 0.0, 0.0), 2.0, logits=False)
    with pytest.raises(ValueError, match="must be one or more numbers from 0.1 to 10"):
        inference.Estimator(network, canvas=96, margin=1.5, flip=False, scales=scales)


def test_the_crop_of_a_scale_is_its_inverse_share_of_the_nominal_crop():
    # Scale 1.25 of a canvas of 96 px and margin 1.5: 64 / 1.25 = 51.2 px, from 22.4 to 73.6.
    view = crop.input_from_canvas(canvas=96, margin=1.5 * 1.25, size=64)
    np.testing.assert_allclose(crop.apply(view, np.array([[22.4, 73.6]])), [[0, 64]], atol=1e-5)


def test_a_wrong_decoding_is_refused_before_anything_runs():
    network = Network(Dots(), TWO, 64, (0.0, 0.0, 0.0), 2.0, logits=False)
    with pytest.raises(ValueError, match="decode='best' is unknown"):
        inference.Estimator(network, canvas=96, margin=1.5, flip=False, decode="best")
    assert heatmaps.check_method("dark") is None
