"""Augmentation: joints follow the pixels, draws have Newell's distributions and depend only on the key."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.pose import augment

CANVAS, MARGIN, SIZE = 72, 1.5, 48  # a canvas pixel is an input pixel
GEOMETRY = dict(canvas=CANVAS, margin=MARGIN, size=SIZE)
# Joint 0 right, joint 1 left, joint 2 in the middle; each is drawn in the channel of its number.
FLIP = np.array([1, 0, 2])
JOINTS = np.array([[28.3, 30.9], [45.6, 33.2], [37.1, 46.7]], np.float32)


NEUTRAL = dict(
    scale_normal=(0.0, 0.0),
    scale_range=(1.0, 1.0),
    rotate_normal=(0.0, 0.0),
    rotate_probability=1.0,
    rotate_range=0.0,
    shear=0.0,
    flip_probability=0.0,
    colour=0.0,
)
B = 12  # most tests share one shape, because compiling takes the time


@functools.partial(jax.jit, static_argnames=GEOMETRY)
def compiled(key, images, joints, visible, options, **geometry):
    return augment.augment(key, images, joints, visible, flip_order=FLIP, **geometry, **options)


def run(key, images, joints, visible, geometry=GEOMETRY, **options):
    """`augment.augment`, jit-compiled as in training."""
    options = NEUTRAL | options
    results = compiled(jax.random.key(key), images, joints, visible, options, **geometry)
    return [np.asarray(result) for result in results]


def dots() -> np.ndarray:
    """(B, canvas, canvas, 3) uint8: a Gaussian dot of 2 px at joint j in channel j."""
    grid = np.arange(CANVAS) + 0.5
    line = np.exp(-((grid - JOINTS[..., None]) ** 2) / (2 * 2.0**2))  # joints (x, y) cells
    image = np.einsum("kx,ky->yxk", line[:, 0], line[:, 1])
    return np.tile(np.round(255 * image).astype(np.uint8), (B, 1, 1, 1))


def centroids(images: np.ndarray) -> np.ndarray:
    """(b, channels, 2): continuous (x, y) of each channel's brightness."""
    grid = np.arange(images.shape[1]) + 0.5
    total = images.sum(axis=(1, 2))
    x = np.einsum("byxc,x->bc", images, grid) / total
    y = np.einsum("byxc,y->bc", images, grid) / total
    return np.stack([x, y], axis=-1)


def drawn_maps(n: int, key: int = 0, **options):
    """n draws: the maps (n, 2, 3), computed from three joints, and the flags of the first two."""
    corners = np.tile(np.array([[0, 0], [1, 0], [0, 1]], np.float32), (n, 1, 1))
    images = np.zeros((n, 2, 2, 3), np.uint8)
    visible = np.tile(np.array([1, 2, 0], np.uint8), (n, 1))
    geometry = dict(canvas=2, margin=1.0, size=2)
    _, joints, visible = run(key, images, corners, visible, geometry, **options)
    flipped = visible[:, 0] == 2
    joints = np.where(flipped[:, None, None], joints[:, FLIP], joints)
    origin, x, y = joints[:, 0], joints[:, 1], joints[:, 2]
    return np.stack([x - origin, y - origin, origin], axis=-1), flipped


def zooms(maps):
    return np.sqrt(np.abs(np.linalg.det(maps[:, :, :2])))


def degrees(maps):
    return np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 1, 1]))


# The map


def test_jittered_by_hand():
    # Twice as large, a quarter turn: a point right of the middle (36, 36) comes below it (24, 24),
    # which is clockwise on the screen.
    options = dict(canvas=CANVAS, margin=MARGIN, size=SIZE)
    one, off = jnp.ones(1), jnp.zeros(1, bool)
    turned = augment.jittered(zoom=2 * one, angle=one * jnp.pi / 2, shear=0 * one, flipped=off, **options)
    np.testing.assert_allclose(turned[0] @ jnp.array([39.0, 36, 1]), [24, 30], atol=1e-4)
    # The shear adds half of y to x: 4 px below the middle goes 2 px to the right, mirrored: left.
    for flipped, x in [(False, 26), (True, 22)]:
        sheared = augment.jittered(
            zoom=one, angle=0 * one, shear=one / 2, flipped=jnp.array([flipped]), **options
        )
        np.testing.assert_allclose(sheared[0] @ jnp.array([36.0, 40, 1]), [x, 28], atol=1e-4)


def test_jittered_shears_first_then_turns_then_mirrors():
    zoom, angle, shear = 1.3, 0.4, 0.25
    cos, sin = math.cos(angle), math.sin(angle)
    mirror = np.array([[-1, 0], [0, 1]])
    linear = mirror @ (zoom * np.array([[cos, -sin], [sin, cos]])) @ np.array([[1, shear], [0, 1]])
    values = (jnp.array([value]) for value in (zoom, angle, shear, True))
    drawn = dict(zip(("zoom", "angle", "shear", "flipped"), values, strict=True))
    result = augment.jittered(**drawn, canvas=10, margin=2.0, size=10)[0]  # an input pixel is half one
    np.testing.assert_allclose(result[:, :2], 2 * linear, rtol=1e-5)
    np.testing.assert_allclose(result @ jnp.array([5.0, 5, 1]), [5, 5], atol=1e-5)


# Joints follow the pixels


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(scale_normal=(0.25, 0.5)),
        dict(scale_range=(0.8, 1.4)),
        dict(rotate_normal=(30.0, 60.0), rotate_probability=0.7),
        dict(rotate_range=180.0),
        dict(shear=0.4),
        dict(flip_probability=0.5),
        dict(scale_normal=(0.25, 0.5), rotate_normal=(30.0, 60.0), shear=0.3, flip_probability=0.5),
    ],
    ids=lambda options: "+".join(options) or "plain",
)
def test_joints_follow_the_pixels(options):
    visible = np.tile(np.array([1, 0, 2], np.uint8), (B, 1))
    images, joints, flags = run(3, dots(), np.tile(JOINTS, (B, 1, 1)), visible, **options)
    found = centroids(images)
    flipped = flags[:, 0] == 0  # the right joint has the flag of the left one
    assert flipped.any() == ("flip_probability" in options)
    assert not flipped.all()
    # In a flipped picture the left joint is where the drawn right one is now.
    expected = np.where(flipped[:, None, None], found[:, FLIP], found)
    np.testing.assert_allclose(joints, expected, atol=0.05)
    np.testing.assert_allclose((joints - expected).mean(axis=0), 0, atol=0.02)
    # Joints have moved, from one example to the next, except in the plain crop.
    moved = np.ptp(found, axis=0).max()
    assert moved > 1 if options else moved == 0


def test_flip_reverses_pixels_and_swaps_sides_and_flags():
    visible = np.tile(np.array([1, 0, 2], np.uint8), (B, 1))
    tiled = np.tile(JOINTS, (B, 1, 1))
    straight, kept, _ = run(0, dots(), tiled, visible)
    mirrored, joints, flags = run(0, dots(), tiled, visible, flip_probability=1.0)
    np.testing.assert_allclose(mirrored, straight[:, :, ::-1], atol=1e-5)
    # x' = 48 - x in the input; the canvas's middle 48 px are the input: x - 12.
    np.testing.assert_allclose(kept, tiled - 12, atol=1e-4)
    left_then = [48 - (45.6 - 12), 33.2 - 12]
    np.testing.assert_allclose(joints[:, 0], [left_then] * B, atol=1e-4)
    np.testing.assert_array_equal(flags, [[0, 1, 2]] * B)
    assert flags.dtype == np.uint8


def test_scale_and_turn_keep_the_middle_in_place():
    middle = np.full((B, 3, 2), CANVAS / 2, np.float32)
    visible = np.ones((B, 3), np.uint8)
    everything = dict(scale_normal=(0.25, 0.5), rotate_range=90.0, shear=0.3, flip_probability=0.5)
    _, joints, _ = run(1, dots(), middle, visible, **everything)
    np.testing.assert_allclose(joints, SIZE / 2, atol=1e-4)


# What is drawn


def test_neutral_options_give_exactly_the_plain_crop():
    images = np.random.default_rng(0).integers(0, 256, (B, CANVAS, CANVAS, 3), dtype=np.uint8)
    result, _, _ = run(5, images, np.tile(JOINTS, (B, 1, 1)), np.ones((B, 3), np.uint8))
    plain = jax.jit(lambda images: augment.plain(images, **GEOMETRY))(images)
    np.testing.assert_array_equal(result, plain)
    # With this geometry the plain crop copies the canvas's middle.
    np.testing.assert_allclose(plain, images[:, 12:60, 12:60] / 255.0, atol=1e-6)


def test_scale_is_newells_clipped_log_normal():
    n = 20_000
    maps, _ = drawn_maps(n, scale_normal=(0.25, 0.5))
    exponent = -np.log2(zooms(maps))  # of the crop's size
    assert exponent.min() >= -0.5 - 1e-5 and exponent.max() <= 0.5 + 1e-5
    # 4.55 % of a normal distribution lie beyond two deviations, 2.275 % on each side; the
    # tolerance is four deviations of such a share: 4 sqrt(0.02275 * 0.977 / 20000) = 0.0042.
    assert abs((exponent > 0.5 - 1e-4).mean() - 0.02275) < 0.0042
    assert abs((exponent < -0.5 + 1e-4).mean() - 0.02275) < 0.0042
    # Half of a normal distribution lies within 0.6745 deviations: 4 sqrt(0.25 / 20000) = 0.014.
    assert abs((np.abs(exponent) < 0.6745 * 0.25).mean() - 0.5) < 0.014
    assert abs(np.median(exponent)) < 4 * 1.2533 * 0.25 / math.sqrt(n)
    np.testing.assert_allclose(degrees(maps), 0, atol=1e-3)


def test_scale_range_is_uniform_and_above_one_enlarges():
    maps, _ = drawn_maps(20_000, scale_range=(0.7, 1.3))
    zoom = zooms(maps)
    assert 0.7 - 1e-5 <= zoom.min() < 0.701 and 1.299 < zoom.max() <= 1.3 + 1e-5
    share, _ = np.histogram(zoom, bins=np.linspace(0.7, 1.3, 7), density=False)
    # 4 sqrt(20000 * 1/6 * 5/6) = 211
    np.testing.assert_allclose(share, 20_000 / 6, atol=211)


def test_rotation_is_newells_in_two_of_five_images():
    n = 20_000
    maps, _ = drawn_maps(n, rotate_normal=(30.0, 60.0), rotate_probability=0.4)
    angle = degrees(maps)
    turned = np.abs(angle) > 1e-3
    assert abs(turned.mean() - 0.4) < 4 * math.sqrt(0.24 / n)
    assert np.abs(angle).max() <= 60 + 1e-3
    # 2.275 % of the 8000 rotated ones lie on each limit: 4 sqrt(0.0222 / 8000) = 0.0067.
    for limited in (angle > 60 - 1e-2, angle < -60 + 1e-2):
        assert abs(limited[turned].mean() - 0.02275) < 0.0067
    # Half are within 0.6745 deviations, 20.2 degrees: 4 sqrt(0.25 / 8000) = 0.022.
    assert abs((np.abs(angle[turned]) < 0.6745 * 30).mean() - 0.5) < 0.023
    assert abs((angle[turned] > 0).mean() - 0.5) < 0.023
    np.testing.assert_allclose(zooms(maps), 1, atol=1e-5)


def test_rotate_range_and_shear_are_uniform_within_their_bounds():
    maps, _ = drawn_maps(20_000, rotate_range=30.0)
    shares, _ = np.histogram(degrees(maps), bins=np.linspace(-30, 30, 7))
    np.testing.assert_allclose(shares, 20_000 / 6, atol=211)
    maps, _ = drawn_maps(20_000, shear=0.4)
    shares, _ = np.histogram(maps[:, 0, 1], bins=np.linspace(-0.4, 0.4, 7))
    np.testing.assert_allclose(shares, 20_000 / 6, atol=211)
    np.testing.assert_allclose(maps[:, 1, 1], 1, atol=1e-5)  # y stays


def test_draws_do_not_depend_on_each_other():
    maps, flipped = drawn_maps(
        20_000, scale_normal=(0.25, 0.5), rotate_normal=(30.0, 60.0), flip_probability=0.5
    )
    assert abs(flipped.mean() - 0.5) < 4 * math.sqrt(0.25 / 20_000)
    drawn = np.stack([np.log2(zooms(maps)), degrees(maps), flipped])
    # The correlation of 20000 independent pairs has a deviation of 0.007.
    np.testing.assert_allclose(np.corrcoef(drawn), np.eye(3), atol=0.028)


def test_colour_scales_each_channel_uniformly_and_clips():
    b = 2000
    images = np.full((b, 2, 2, 3), 200, np.uint8)
    joints, visible = np.zeros((b, 3, 2), np.float32), np.ones((b, 3), np.uint8)
    result, _, _ = run(0, images, joints, visible, dict(canvas=2, margin=1.0, size=2), colour=0.4)
    np.testing.assert_array_equal(result, np.broadcast_to(result[:, :1, :1], result.shape))
    values = result[:, 0, 0]
    # 200 / 255 = 0.784, times 0.6 ... 1.4 is 0.471 ... 1.098; from 1.275 on, 5/32 of them, it is 1.
    assert 0.4705 < values.min() < 0.475 and values.max() == 1
    assert abs((values == 1).mean() - 5 / 32) < 4 * math.sqrt(5 / 32 * 27 / 32 / (3 * b))
    factors = values / (200 / 255)
    assert abs((factors < 1).mean() - 0.5) < 4 * math.sqrt(0.25 / (3 * b))
    correlation = np.corrcoef(factors.T)
    np.testing.assert_allclose(correlation, np.eye(3), atol=4 / math.sqrt(b))


def test_the_key_decides():
    everything = dict(scale_normal=(0.25, 0.5), rotate_normal=(30.0, 60.0), flip_probability=0.5, colour=0.4)
    arguments = dots(), np.tile(JOINTS, (B, 1, 1)), np.ones((B, 3), np.uint8)
    first, again, other = (run(key, *arguments, **everything) for key in (7, 7, 8))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(first[1] - other[1]).max() > 1
    # Two examples of a batch have different draws, too.
    assert np.abs(first[1][0] - first[1][1]).max() > 1


def test_float_and_byte_canvases_give_the_same(optimized):
    images = dots()
    arguments = np.tile(JOINTS, (B, 1, 1)), np.ones((B, 3), np.uint8)
    options = dict(rotate_range=30.0, colour=0.2)
    one, _, _ = run(0, images, *arguments, **options)
    two, _, _ = run(0, images.astype(np.float32), *arguments, **options)
    np.testing.assert_array_equal(one, two)
