"""A scene: a figure in front of a background, sometimes with another person or an obstacle, as a photo."""

import bisect

import cv2
import numpy as np

from hourglass_jax.data.synthetic.figure import Figure, head_box, random_figure
from hourglass_jax.data.synthetic.painting import (
    CHEST,
    FOOT,
    FOREARM,
    HAND,
    HEAD,
    HIPS,
    NECK,
    SHIN,
    SKINS,
    SOMETHING_ELSE,
    THIGH,
    UPPER_ARM,
    Look,
    View,
    capsules,
    fill,
    fixed,
    paint_person,
    random_look,
    tones,
)

# The parts that adjoin a joint: if one of them is on top at the joint's pixel, the joint is visible.
_ADJOINING = np.zeros((16, SOMETHING_ELSE + 1), bool)
for _right, _left, *_parts in (
    (0, 5, SHIN, FOOT),
    (1, 4, THIGH, SHIN),
    (2, 3, THIGH),
    (10, 15, FOREARM, HAND),
    (11, 14, UPPER_ARM, FOREARM),
    (12, 13, UPPER_ARM),
):
    _ADJOINING[_right, _parts] = True
    _ADJOINING[_left, [part + 1 for part in _parts]] = True
_ADJOINING[6, [HIPS, CHEST, THIGH, THIGH + 1]] = True
_ADJOINING[7, [CHEST, NECK, UPPER_ARM, UPPER_ARM + 1]] = True
_ADJOINING[8, [NECK, HEAD]] = True
_ADJOINING[9, HEAD] = True
# Hips and shoulders also lie in the trunk, and both thighs' tops are one seat.
_TRUNK_JOINTS = np.array((2, 3, 12, 13))
_TRUNK_PARTS = np.zeros((4, SOMETHING_ELSE + 1), bool)
_TRUNK_PARTS[:2, [CHEST, HIPS, THIGH, THIGH + 1]] = True
_TRUNK_PARTS[2:, CHEST] = True

_AROUND = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(-1, 2)


def place(rng, figure: Figure, size: int, margin: float, variety: float) -> tuple[View, np.ndarray]:
    """Places the figure in the middle; also returns the picture's bounds, (2, 2) px, low and high x, y."""
    flat = figure.nodes[:, :2] * (1, -1)
    box = np.stack([flat.min(0), flat.max(0)])
    span = max((box[1] - box[0]).max(), 0.8 * figure.standing) + 0.04
    ends, side, cut, factor = rng.random(4)
    shown = np.array([[-np.inf] * 2, [np.inf] * 2])
    if ends < 0.17 * variety:
        # The picture's edge cuts the person or is close by; the box is then that of the visible part.
        end, axis = ((1, 1), (1, 0), (0, 0), (0, 1))[bisect.bisect((0.5, 0.7, 0.9), side)]
        edge = box[end, axis] + (0.36 - 0.72 * cut) * span * (1 if end else -1)
        box[:, axis] = np.clip(box[:, axis], *((-np.inf, edge) if end else (edge, np.inf)))
        shown[end, axis] = edge
    scale = 0.8 * size / margin / span * (0.92 + 0.16 * factor)
    shift = 0.025 * size / margin * rng.standard_normal(2).clip(-2, 2)
    origin = size / 2 + shift - scale * box.mean(0)
    return View(origin, scale, True), np.clip(origin + scale * shown, 0, size)


def background(rng: np.random.Generator, size: int, variety: float) -> np.ndarray:
    """(size, size, 4) clutter: soft colours, coarse grain, a floor, boxes, limb-like strokes."""
    coarse, grain, roughness, horizon, boxes, strokes = rng.random(6)
    coarse, grain = 2 + int(6 * coarse), 12 + int(36 * grain)
    boxes, strokes = int(6 * variety * boxes), int(variety * (3 + 9 * strokes))
    colours = np.zeros((2 + coarse**2 + boxes + strokes, 4), np.float32)
    colours[:, :3] = tones(rng, len(colours))
    soft = 0.6 * colours[0] + 0.4 * colours[2 : 2 + coarse**2].reshape(coarse, coarse, 4)
    soft = cv2.resize(soft, (grain, grain))
    soft[..., :3] += (4 + 50 * roughness**2) * rng.random((grain, grain, 3), np.float32)
    picture = cv2.resize(np.minimum(soft, 255).astype(np.uint8), (size, size))
    floor = picture[int(size * (0.5 + horizon)) :]
    # Half of the horizons are below the picture: no floor.
    if floor.size:
        cv2.addWeighted(floor, 0.4, np.full_like(floor, colours[1]), 0.6, 0, floor)
    shapes = _clutter(rng, size, boxes, strokes)
    colours = colours[len(colours) - len(shapes) :]
    # Some strokes have the colours of skin, so that a stroke in such a colour is not always an arm.
    colours[len(colours) - strokes // 3 :, :3] = SKINS[rng.integers(0, len(SKINS), strokes // 3)]
    for shape, colour in zip(shapes, colours.tolist(), strict=True):
        fill(picture, shape, colour)
    return picture


def _clutter(rng: np.random.Generator, size: int, boxes: int, strokes: int) -> list[np.ndarray]:
    """Outlines of rotated boxes, then of strokes that are tapered like limbs."""
    shapes = [
        _box((size * x, size * y), (0.4 * size * width, 0.4 * size * height), 30 * turn)
        for x, y, width, height, turn in rng.random((boxes, 5)).tolist()
    ]
    if not strokes:
        return shapes
    numbers = size * rng.random((6, strokes))
    starts = numbers[:2].T
    ends = starts + 0.6 * (numbers[2:4].T - 0.5 * size)
    return shapes + list(capsules(starts, ends, *(0.004 * size + 0.026 * numbers[4:]))[1])


def _box(middle, extent, degrees: float) -> np.ndarray:
    return fixed(cv2.boxPoints((middle, extent, degrees)))


def obstacle(rng: np.random.Generator, picture: np.ndarray, side: float) -> None:
    """Paint a box, a pole or leaves in front of a part of the person."""
    size = len(picture)
    kind, turn, away, width, height = rng.random(5)
    bearing = 2 * np.pi * turn
    reach = side * (0.15 + 0.25 * away)
    middle = size / 2 + reach * np.cos(bearing), size / 2 + reach * np.sin(bearing)
    colour = (*tones(rng, 1)[0].tolist(), SOMETHING_ELSE)
    if kind < 0.4:
        shapes = [_box(middle, (side * (0.1 + 0.2 * width), side * (0.1 + 0.15 * height)), 9 * away)]
    elif kind < 0.7:
        shapes = [_box(middle, (side * (0.03 + 0.04 * width), 2.5 * size), 16 * (height - 0.5))]
    else:
        leaves = np.array(middle) + 0.08 * side * rng.standard_normal((14, 2))
        radii = side * (0.02 + 0.03 * rng.random(14))
        shapes = capsules(leaves, leaves, radii, radii)[1]
    for shape in shapes:
        fill(picture, shape, colour)


def develop(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """(size, size, 4) -> (size, size, 3): uneven light, contrast, blur and grain of a camera."""
    size = len(picture)
    rgb = cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB)
    bright, contrast, shift, soft, grain = rng.random(5)
    light = 128 * (0.75 + 0.4 * bright) + 40 * (rng.random((3, 3, 3)) - 0.5)
    light = cv2.resize(light.astype(np.uint8), (size, size))
    rgb = cv2.multiply(rgb, light, scale=1 / 128)
    sigma = size * (0.002 + 0.006 * max(0.0, soft - 0.5))
    kernel = 2 * int(np.ceil(1.5 * sigma)) + 1
    rgb = cv2.GaussianBlur(rgb, (kernel, kernel), sigma)
    noise = np.frombuffer(rng.bytes(rgb.size), np.uint8).reshape(rgb.shape)
    contrast, level = 0.65 + 0.5 * contrast, 16 * grain**2
    offset = 128 * (1 - contrast) - level + 40 * (shift - 0.5)
    return cv2.addWeighted(rgb, contrast, noise, level / 128, offset)


def _bystander(rng: np.random.Generator, view: View, side: float) -> tuple[Figure, Look, View]:
    """Another person to the left or to the right, rarely close enough to cover much."""
    beside, above, larger = rng.random(3)
    away = side * (0.32 + 0.3 * abs(2 * beside - 1)) * (1 if beside < 0.5 else -1)
    origin = view.origin + (away, side * 0.2 * (above - 0.5))
    scale = view.scale * (0.8 + 0.3 * larger)
    return random_figure(rng), random_look(rng), View(origin, scale, False)


def visibility(picture: np.ndarray, figure: Figure, joints: np.ndarray) -> np.ndarray:
    """(16,) uint8: 2 where a part that adjoins the joint is on top at (16, 2) pixels, else 1."""
    places = joints.copy()
    # The top of the head lies on an edge, so the visibility of the head is read below it.
    places[9] += 0.25 * (joints[8] - joints[9])
    around = np.floor(places).astype(int)[:, None] + _AROUND
    column, row = np.clip(around, 0, len(picture) - 1).transpose(2, 0, 1)
    on_top = np.minimum(picture[row, column, 3], SOMETHING_ELSE)
    adjoining = _ADJOINING[np.arange(16)[:, None], on_top]
    # The trunk shows a hip or a shoulder unless that one lies on its far side.
    depths, middle = figure.nodes[_TRUNK_JOINTS, 2], figure.nodes[[6, 6, 7, 7], 2]
    near = depths - middle > -0.92 * np.abs(figure.bones[_TRUNK_JOINTS, 0])
    trunk = _TRUNK_PARTS[np.arange(4)[:, None], on_top[_TRUNK_JOINTS]]
    adjoining[_TRUNK_JOINTS] |= trunk & near[:, None]
    # Require several of nine pixels, because part numbers are blended at smooth edges.
    return np.where(adjoining.sum(1) > 3, 2, 1).astype(np.uint8)


def draw_example(rng: np.random.Generator, size: int, margin: float, variety: float = 1.0) -> dict:
    """Picture, joints, flags and head size; every length grows with `size`."""
    side = size / margin
    figure, look = random_figure(rng, variety), random_look(rng)
    view, shown = place(rng, figure, size, margin, variety)
    company, order, covered = rng.random(3)
    other = _bystander(rng, view, side) if company < 0.2 * variety else None
    picture = background(rng, size, variety)
    if other and order < 0.75:
        paint_person(picture, *other)
    paint_person(picture, figure, look, view)
    if other and order >= 0.75:
        paint_person(picture, *other)
    if covered < 0.09 * variety:
        obstacle(rng, picture, side)
    joints = view.flat(figure.nodes[:16])
    visible = visibility(picture, figure, joints)
    image = develop(rng, picture)
    outside = ((joints < shown[0]) | (joints >= shown[1])).any(1)
    joints[outside], visible[outside] = 0, 0
    # A crop is black outside its picture.
    (left, top), (right, bottom) = np.rint(shown).astype(int)
    image[:top], image[bottom:], image[:, :left], image[:, right:] = 0, 0, 0, 0
    head_size = 0.6 * view.scale * np.linalg.norm(head_box(figure))
    return {"image": image, "joints": joints, "visible": visible, "head_size": head_size}
