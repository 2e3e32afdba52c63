"""Crops: maps compared with matrices, pictures with OpenCV and SciPy, dots with their centroids."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from hourglass_jax import inference
from hourglass_jax.pose import augment, crop, heatmaps

warp = jax.jit(crop.warp, static_argnums=2)
plain = jax.jit(augment.plain, static_argnames=("size", "canvas", "margin"))
NUMPY_AND_JAX = pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])


def dot(position, *, height: int, width: int, sigma: float) -> np.ndarray:
    """(h, w, 3) uint8: a white Gaussian at a continuous (x, y); pixel i has its centre at i + 0.5."""
    x = np.arange(width) + 0.5 - position[0]
    y = np.arange(height) + 0.5 - position[1]
    bright = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * sigma**2))
    return np.repeat(np.round(255 * bright)[..., None], 3, axis=-1).astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    """(x, y), continuous, of the brightness in the first channel."""
    weight = np.asarray(image, np.float64)[..., 0]
    x, y = np.arange(weight.shape[1]) + 0.5, np.arange(weight.shape[0]) + 0.5
    return np.array([(weight * x).sum(), (weight * y[:, None]).sum()]) / weight.sum()


def about(point, zoom: float, degrees: float, target) -> np.ndarray:
    """(2, 3): enlarges and rotates about `point`, which is mapped to `target`."""
    turn = np.deg2rad(degrees)
    linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.concatenate([linear, (np.asarray(target) - linear @ point)[:, None]], axis=1)


def square_matrix(transform) -> np.ndarray:
    """(2, 3) -> (3, 3), for independent arithmetic with @ and np.linalg."""
    return np.concatenate([transform, [[0, 0, 1]]])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Maps


@NUMPY_AND_JAX
def test_maps_agree_with_homogeneous_matrices(xp):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 2, 3)).astype(np.float32)
    first[:, :, :2] += 2 * np.eye(2)  # far from singular
    points = rng.normal(size=(5, 4, 2)).astype(np.float32)
    mapped = crop.apply(xp.asarray(first), xp.asarray(points))
    both = crop.compose(xp.asarray(second), xp.asarray(first))
    back = crop.invert(xp.asarray(first))
    for i in range(5):
        one, two = square_matrix(first[i]), square_matrix(second[i])
        column = np.concatenate([points[i], np.ones((4, 1))], axis=1).T
        np.testing.assert_allclose(mapped[i], (one @ column)[:2].T, atol=1e-5)
        np.testing.assert_allclose(both[i], (two @ one)[:2], atol=1e-5)
        np.testing.assert_allclose(back[i], np.linalg.inv(one)[:2], rtol=1e-4, atol=1e-4)


@NUMPY_AND_JAX
def test_square_maps_its_corners_and_middle_by_hand(xp):
    # 4 px around (10, 20) onto 8 cells: x' = 2 x - 16, y' = 2 y - 36.
    transform = crop.square(xp.asarray([10.0, 20.0]), xp.asarray(4.0), 8)
    np.testing.assert_array_equal(transform, [[2, 0, -16], [0, 2, -36]])
    corners = xp.asarray([[8.0, 18.0], [10.0, 20.0], [12.0, 22.0]])
    np.testing.assert_array_equal(crop.apply(transform, corners), [[0, 0], [4, 4], [8, 8]])


@NUMPY_AND_JAX
def test_canvas_is_margin_times_200_scale_pixels_wide(xp):
    # scale 0.5, margin 1.5: 150 px of the picture on 300 px of canvas, so everything doubles.
    center, scale = xp.asarray([[100.0, 50.0], [0.0, 0.0]]), xp.asarray([0.5, 1.0])
    transform = crop.canvas_from_image(center, scale, canvas=300, margin=1.5)
    np.testing.assert_allclose(transform[0], [[2, 0, 150 - 200], [0, 2, 150 - 100]], rtol=1e-6)
    np.testing.assert_allclose(transform[1], [[1, 0, 150], [0, 1, 150]], rtol=1e-6)


def test_input_from_canvas_by_hand():
    # The middle 64 px of a canvas of 96 (margin 1.5) on 32 px: x' = (x - 16) / 2.
    transform = crop.input_from_canvas(canvas=96, margin=1.5, size=32)
    np.testing.assert_array_equal(transform, [[0.5, 0, -8], [0, 0.5, -8]])
    assert transform.dtype == np.float32
    # The middle of 7 px is 3.5: 7 / 1.75 = 4 px around it onto 2 cells are halved, 3.5 -> 1.
    odd = crop.input_from_canvas(canvas=7, margin=1.75, size=2)
    np.testing.assert_allclose(odd, [[0.5, 0, -0.75], [0, 0.5, -0.75]])


def test_picture_to_canvas_to_input_to_heatmap_and_back_is_exact():
    rng = np.random.default_rng(1)
    center, scale = rng.uniform(0, 2000, (20, 2)), rng.uniform(0.1, 8, 20)
    offset = rng.uniform(-1, 1, (20, 14, 2)) * 100 * scale[:, None, None]
    joints = center[:, None] + offset  # anywhere in the nominal crop
    # In float32, as in training.
    place = crop.canvas_from_image(
        *(jnp.asarray(a, jnp.float32) for a in (center, scale)), canvas=384, margin=1.5
    )
    on_canvas = crop.apply(place, jnp.asarray(joints, jnp.float32))
    reduce = jnp.asarray(crop.input_from_canvas(canvas=384, margin=1.5, size=256))
    on_input = crop.apply(reduce, on_canvas)
    relative = offset / (100 * scale[:, None, None])  # -1 ... 1 over the nominal crop
    np.testing.assert_allclose(on_input, 128 + 128 * relative, atol=2e-3)
    on_cells = on_input / 4
    back = inference.image_joints(np.asarray(on_cells) * 4, center, scale, size=256)
    assert back.dtype == np.float64
    # A canvas pixel is up to 6 px of the picture here; float32 resolves it to about 1e-4.
    np.testing.assert_allclose(back, joints, atol=2e-3)
    np.testing.assert_allclose(back[scale < 2], joints[scale < 2], atol=1e-3)


def test_image_joints_keeps_leading_axes_and_uses_each_persons_crop():
    joints = np.random.default_rng(2).uniform(0, 64, (3, 2, 5, 2))  # b s k 2
    center, scale = np.array([[10, 20], [0, 0], [300, 5]]), np.array([0.32, 1.0, 3.2])
    mapped = inference.image_joints(joints, center, scale, size=64)
    for i, stack in np.ndindex(3, 2):
        # 64 input px are 200 scale px of the picture.
        expected = center[i] + (joints[i, stack] - 32) * (200 * scale[i] / 64)
        np.testing.assert_allclose(mapped[i, stack], expected)


# Cutting, on the host


def test_cut_by_the_identity_is_pixel_exact():
    image = noise(40, 40)
    np.testing.assert_array_equal(crop.cut(image, np.eye(2, 3), 40), image)


def test_cut_by_whole_pixels_copies_them_and_is_black_outside():
    image = noise(30, 50)
    expected = np.zeros((40, 40, 3), np.uint8)
    expected[7:37, :28] = image[:, 22:]  # x' = x - 22, y' = y + 7
    np.testing.assert_array_equal(crop.cut(image, [[1, 0, -22], [0, 1, 7]], 40), expected)


@pytest.mark.parametrize("shift", [(1000, 0), (-1000, 0), (0, 1000), (0, -1000), (-51, 31)])
@pytest.mark.parametrize("zoom", [0.25, 1.0, 3.0])
def test_a_cut_outside_the_picture_is_black(shift, zoom):
    image = np.full((30, 50, 3), 255, np.uint8)
    view = crop.square(np.array([25.0, 15.0]) + shift, np.array(2.0 / zoom), 2)
    assert not crop.cut(image, view, 2).any()


@pytest.mark.parametrize("side", [1e6, 1e12, 1e38, 1e300, np.inf])
def test_a_cut_of_an_extreme_view_ends(side):
    image = np.full((30, 50, 3), 99, np.uint8)
    with np.errstate(all="ignore"):
        seen = crop.cut(image, crop.square(np.array([25.0, 15.0]), np.array(side), 8), 8)
    assert seen.shape == (8, 8, 3)


@pytest.mark.parametrize("zoom", [0.11, 0.3, 0.5, 0.93, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_cut_puts_a_dot_at_its_mapped_place(zoom, degrees):
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(6):
        place = np.array([150, 110]) + rng.uniform(-3, 3, 2)
        image = dot(place, height=220, width=300, sigma=max(1.5, 2 / zoom))
        target = rng.uniform(28, 36, 2)
        transform = about(place + rng.uniform(-1, 1, 2), zoom, degrees, target)
        expected = crop.apply(transform, place[None])[0]
        errors.append(centroid(crop.cut(image, transform, 64)) - expected)
    # A systematic error of half a pixel would be 0.5 * zoom in the picture, or 0.5 in the result.
    assert np.abs(errors).max() < 0.04
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02


def test_shrinking_averages_instead_of_aliasing():
    # Stripes of one pixel, shrunk to a tenth, are grey; bilinear sampling alone gives a moire.
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::2] = 255
    small = crop.cut(image, crop.square(np.full(2, 200.0), np.array(330.0), 33), 33)
    # A cell may be 10.1 px wide and have slightly more white than black.
    np.testing.assert_allclose(small, 127.5, atol=2)


def test_shrinking_keeps_a_constant_picture_constant_up_to_its_border():
    image = np.full((317, 211, 3), 200, np.uint8)
    side = 300.0
    small = crop.cut(image, crop.square(np.array([105.5, 158.5]), np.array(side), 30), 30)
    # The picture spans x from 15 - 10.55 = 4.45 to 25.55 cells, and all of y.
    np.testing.assert_array_equal(small[:, 5:25], 200)
    np.testing.assert_array_equal(small[:, :4], 0)
    np.testing.assert_array_equal(small[:, 26:], 0)
    # Total brightness: 21.1 cells of each row.
    np.testing.assert_allclose(small[..., 0].astype(float).sum(1), 200 * 21.1, rtol=0.005)


@pytest.mark.parametrize(
    ("zoom", "degrees", "allowed"),
    # The averaged blocks start at the corner of the view: results are equal except for that phase.
    [(1.0, 0, 1), (2.3, 0, 1), (1.4, 30, 1), (0.5, 0, 2), (0.31, 0, 3), (0.4, 20, 3)],
)
def test_cutting_reads_only_the_view_and_gives_the_same_as_reading_all(monkeypatch, zoom, degrees, allowed):
    smooth = cv2.GaussianBlur(noise(700, 900, seed=4).astype(np.float32), (0, 0), 8)
    image = np.clip((smooth - 127.5) * 12 + 127.5, 0, 255).astype(np.uint8)
    transform = about(np.array([430.3, 340.8]), zoom, degrees, (32, 32))
    clipped = crop.cut(image, transform, 64).astype(int)
    monkeypatch.setattr(crop, "_clip_to_view", lambda image, transform, *_: (image, transform))
    whole = crop.cut(image, transform, 64).astype(int)
    assert np.abs(clipped - whole).max() <= allowed
    assert whole.std() > 10  # there is something to compare


def _ideal(image, view, size):
    """Pillow's Lanczos resampling of a view without rotation, with black around the picture."""
    left, top, right, bottom = crop.apply(crop.invert(view), np.array([[0.0, 0], [size, size]])).ravel()
    room = 8 + int(max(image.shape[:2]))
    framed = cv2.copyMakeBorder(image, room, room, room, room, cv2.BORDER_CONSTANT)
    box = (left + room, top + room, right + room, bottom + room)
    return np.asarray(Image.fromarray(framed).resize((size, size), Image.Resampling.LANCZOS, box=box))


def _difference(a, b) -> float:
    """The difference in dB of the peak: 20 log10(255 / root mean square)."""
    return 20 * np.log10(255 / np.sqrt(np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("zoom", [0.12, 0.21, 0.26, 0.34, 0.36, 0.45, 0.6, 0.9])
def test_a_cut_is_near_an_ideal_resampling(zoom):
    # Detail as in photographs: the amplitude decreases with the frequency.
    rng = np.random.default_rng(5)
    layers = [cv2.resize(rng.normal(0, 2**i, (360 >> i, 640 >> i, 3)), (640, 360)) for i in range(6)]
    image = np.clip(128 + sum(layers), 0, 255).astype(np.uint8)
    view = crop.square(np.array([300.3, 170.2]), np.array(96 / zoom), 96)
    ideal = _ideal(image, view, 96)
    difference = _difference(crop.cut(image, view, 96), ideal)
    assert difference > 40
    if zoom < 0.3:  # here bilinear sampling alone skips most pixels
        half = np.array([[1, 0, 0.5], [0, 1, 0.5]])
        plain = crop.compose(crop.invert(half), crop.compose(view, half))
        assert difference > 6 + _difference(cv2.warpAffine(image, plain, (96, 96)), ideal)


@pytest.mark.parametrize(
    ("center", "degrees", "shape"),
    [
        ((500, 200), 0, (104, 104)),
        ((500, 200), 45, (146, 146)),  # the corners lie 70.7 px from the middle
        ((-500, 200), 0, (104, 1)),
        ((5000, 200), 0, (104, 1)),
        ((500, -900), 0, (1, 104)),
        ((500, 9000), 0, (1, 104)),
    ],
)
def test_a_cut_reads_the_view_and_two_pixels_around(center, degrees, shape):
    image = np.zeros((400, 1000, 3), np.uint8)
    turned = cv2.getRotationMatrix2D((25, 25), degrees, 1.0)
    view = crop.compose(turned, crop.square(np.array(center, float), np.float64(100), 50))
    assert crop._clip_to_view(image, view, 50, 2)[0].shape == (*shape, 3)


def test_the_cost_of_a_cut_depends_on_the_view_only():
    seen = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            seen.append(super().__getitem__(key).shape)
            return super().__getitem__(key)

    image = np.zeros((3000, 4000, 3), np.uint8).view(Watched)
    crop.cut(image, crop.square(np.array([2000.0, 1500.0]), np.array(100.0), 64), 64)
    # 100 px and at least the neighbours that interpolation reads.
    assert 100 <= seen[0][0] <= 106 and 100 <= seen[0][1] <= 106


# Warping, on the device


def canvases() -> np.ndarray:
    return np.stack([noise(40, 40, seed) for seed in range(4)])


def four(transform) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(transform, jnp.float32), (4, 2, 3))


def test_warp_by_the_identity_is_pixel_exact():
    np.testing.assert_array_equal(warp(canvases(), four(np.eye(2, 3)), 32), canvases()[:, :32, :32])


def test_warp_by_whole_pixels_copies_them_and_is_black_outside():
    expected = np.zeros((4, 32, 32, 3), np.float32)
    expected[:, 5:, :26] = canvases()[:, :27, 14:]  # x' = x - 14, y' = y + 5
    np.testing.assert_array_equal(warp(canvases(), four([[1, 0, -14], [0, 1, 5]]), 32), expected)


def warps() -> np.ndarray:
    """Four maps of 40 px onto 32: smaller; larger and rotated; over the border; sheared."""
    sheared = np.array([[0.9, 0.3, -7.0], [0.05, 0.8, 2.0]])
    others = [(0.8, 0, (16, 16)), (1.9, -35, (17.3, 15.1)), (1.0, 140, (27, 9))]
    middle = np.array([20.0, 20.0])
    maps = [about(middle, zoom, degrees, target) for zoom, degrees, target in others]
    return np.stack([*maps, sheared]).astype(np.float32)


def test_warp_agrees_with_scipy_and_each_image_has_its_own_map():
    images = canvases()
    warped = warp(images, warps(), 32)
    assert warped.dtype == jnp.float32
    half = np.array([0.5, 0.5])
    for image, transform, result in zip(images, warps(), warped, strict=True):
        inverse = np.linalg.inv(square_matrix(transform))[:2]
        # SciPy counts (row, column) and from pixel centres: both orders reversed, half a pixel off.
        linear = inverse[::-1, :2][:, ::-1]
        offset = inverse[::-1, 2] + linear @ half - half
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[..., channel].astype(np.float64), linear, offset, (32, 32),
                order=1, mode="grid-constant",
            )  # fmt: skip
            np.testing.assert_allclose(result[..., channel], expected, atol=0.02)


def test_warp_agrees_with_opencv():
    images = canvases().astype(np.float32)
    half = square_matrix(np.array([[1, 0, 0.5], [0, 1, 0.5]]))
    for image, transform, result in zip(images, warps(), warp(images, warps(), 32), strict=True):
        centred = np.linalg.inv(half) @ square_matrix(transform) @ half
        expected = cv2.warpAffine(image, centred[:2], (32, 32), flags=cv2.INTER_LINEAR)
        # OpenCV may round positions to 1/32 px; neighbouring pixels of noise differ by up to 255.
        np.testing.assert_allclose(result, expected, atol=255 * 2 / 64)
        assert np.abs(result - expected).mean() < 0.8


def test_warp_keeps_the_range_of_float_images():
    images = np.full((4, 40, 40, 3), -3.25, np.float32)
    np.testing.assert_array_equal(warp(images, four(np.eye(2, 3)), 32), images[:, :32, :32])


def test_cut_and_warp_agree_where_they_do_the_same():
    warped = np.asarray(warp(canvases(), warps(), 32))
    for i in (1, 2):  # without shear, and not shrinking
        assert np.abs(crop.cut(canvases()[i], warps()[i], 32) - warped[i]).mean() < 1


# The four frames together


@pytest.fixture(scope="module")
def journeys():
    """Dots at random places of pictures, cut to canvases and warped to inputs, as in evaluation."""
    rng = np.random.default_rng(5)
    canvas, margin, size, count = 96, 1.5, 64, 240
    canvases, places, centers, scales = [], [], [], []
    for _ in range(count):
        zoom = np.exp(rng.uniform(np.log(0.2), np.log(3)))  # canvas pixels per picture pixel
        scale = canvas / (zoom * margin * 200)
        center = rng.uniform(130, 170, 2)
        # Up to 60 % of the way from the middle of the crop to its side.
        place = center + rng.uniform(-0.6, 0.6, 2) * 100 * scale
        image = dot(place, height=300, width=300, sigma=2.5 / zoom)
        if not 12 / zoom < min(*place, *(300 - place)):
            continue  # the picture's border cuts the dot, so that its centroid is not its place
        transform = crop.canvas_from_image(center, np.array(scale), canvas=canvas, margin=margin)
        canvases.append(crop.cut(image, transform, canvas))
        places.append(place), centers.append(center), scales.append(scale)
    inputs = plain(np.stack(canvases), size=size, canvas=canvas, margin=margin)
    return np.asarray(inputs), np.stack(places), np.stack(centers), np.stack(scales)


def test_a_dot_comes_back_from_the_input_without_bias(journeys):
    inputs, places, centers, scales = journeys
    assert len(places) > 100
    found = np.stack([centroid(image) for image in inputs])[:, None]
    back = inference.image_joints(found, centers, scales, size=64)[:, 0]
    unit = scales[:, None] * 200 / 64  # picture pixels per input pixel
    error = (back - places) / unit
    assert np.abs(error).mean() < 0.01
    assert np.abs(error.mean(axis=0)).max() < 0.005
    # Also in pixels of the picture, if an input pixel is not larger than one of these.
    fine = unit[:, 0] <= 1
    assert fine.sum() > 20 and np.abs((back - places)[fine]).mean() < 0.02


def test_a_joint_comes_back_from_rendered_heatmaps_without_bias(journeys):
    inputs, places, centers, scales = journeys
    # The joint is found in the input's pixels, so that cut and warp are tested, too.
    joints = np.stack([centroid(image) for image in inputs])[:, None].astype(np.float32)
    maps = heatmaps.render(joints / 4, np.ones((len(joints), 1), bool), size=16, sigma=1.0)
    unit = scales[:, None] * 200 / 64 * 4  # picture pixels per cell

    def errors(cells):
        back = inference.image_joints(np.asarray(cells) * 4, centers, scales, size=64)[:, 0]
        return (back - places) / unit

    centroids = np.stack([centroid(m) for m in np.asarray(maps)])[:, None]
    # 0.002 cells: rounding of the dot's bytes, and the Gaussian's end at 3 sigma (below).
    assert np.abs(errors(centroids)).mean() < 0.01
    decoded, _ = heatmaps.decode(maps)
    error = errors(decoded)
    # Decoding resolves quarters of a cell: 0.125 off on average, at most 0.25, and without bias.
    assert np.abs(error).max() < 0.26
    deviation = 0.25 / np.sqrt(3) / np.sqrt(len(error))  # of the mean of such errors
    assert np.abs(error.mean(axis=0)).max() < 3 * deviation
