"""Painting a figure: limbs, clothes and head as filled outlines, from far to near.

The fourth channel of every painted pixel holds the number of the body part that it shows, so that the
finished picture shows which parts are occluded.
"""

import operator
from dataclasses import dataclass

import cv2
import numpy as np

from hourglass_jax.data.synthetic.figure import SKULL_AXES, Figure

# Part numbers in the fourth channel. A left part follows the right one.
NOTHING, CHEST, HIPS, HEAD, NECK = range(5)
UPPER_ARM, FOREARM, HAND, THIGH, SHIN, FOOT = 5, 7, 9, 11, 13, 15
SOMETHING_ELSE = 17

# Round limbs: part, start node, end node, radii at both (m); neck, then right and left ones.
_LIMBS = np.array(
    [(NECK, 7, 8, 0.055, 0.052)]
    + [
        (part + side, nodes[2 * side], nodes[2 * side + 1], near, far)
        for part, nodes, near, far in (
            (UPPER_ARM, (12, 11, 13, 14), 0.064, 0.050),
            (FOREARM, (11, 10, 14, 15), 0.050, 0.038),
            (HAND, (10, 16, 15, 17), 0.042, 0.040),
            (THIGH, (2, 1, 3, 4), 0.096, 0.066),
            (SHIN, (1, 0, 4, 5), 0.066, 0.044),
            (FOOT, (0, 18, 5, 19), 0.054, 0.044),
        )
        for side in (0, 1)
    ]
)
_LIMB_CLOTH = np.array((0, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 3, 3))  # none, shirt, trousers, shoes
_LIMB_COVERS = np.array((0, 1, 1, 2, 2, 0, 0, 3, 3, 4, 4, 5, 5))  # index into `cover` of _limb_layers
_ALL_LIMBS = np.arange(len(_LIMBS))
_LIMB_STARTS, _LIMB_ENDS = _LIMBS[:, 1].astype(int), _LIMBS[:, 2].astype(int)

# Head parts as ellipsoids in the head's own axes, in head lengths above the upper neck: colour
# (see `_head_layers`), centre, half axes. The face stands out from the skull, so that one table
# gives the front (face), the side (profile with a nose) and the back (hair only).
_HEAD_PARTS = np.array(
    [
        (0, 0, 0.50, 0, *SKULL_AXES),
        (1, 0, 0.40, 0.20, 0.32, 0.39, 0.21),
        (1, -0.37, 0.42, 0.02, 0.05, 0.10, 0.07),
        (1, 0.37, 0.42, 0.02, 0.05, 0.10, 0.07),
        (2, -0.15, 0.50, 0.38, 0.085, 0.085, 0.04),
        (2, 0.15, 0.50, 0.38, 0.085, 0.085, 0.04),
        (3, -0.15, 0.49, 0.42, 0.05, 0.06, 0.02),
        (3, 0.15, 0.49, 0.42, 0.05, 0.06, 0.02),
        (4, 0, 0.21, 0.37, 0.13, 0.04, 0.03),
        (5, 0, 0.36, 0.43, 0.05, 0.08, 0.06),
        (0, 0, 0.10, -0.17, 0.40, 0.50, 0.24),  # long hair
        (0, 0, 0.68, -0.46, 0.17, 0.17, 0.17),  # bun
    ]
)

# The shirt's balls: distance from the spine in shoulder widths, height in trunk lengths,
# radius in double trunk lengths.
_TRUNK_BALLS = (
    np.array((0.86, -0.86, 0.62, -0.62, 0.45, -0.45, 0.5, -0.5)),
    np.array((0.90, 0.90, 0.70, 0.70, 0.32, 0.32, 0.06, 0.06)),
    np.array((0.058, 0.058, 0.108, 0.108, 0.096, 0.096, 0.098, 0.098)),
)

# Details on the front of a shirt: heights in trunk lengths, half axes in metres.
_FRONTS = (
    [(h, (0.018, 0.018, 0.012)) for h in (0.15, 0.35, 0.55, 0.75)],  # buttons
    [(0.48, (0.014, 0.21, 0.012))],  # zip
    [(0.62, (0.034, 0.17, 0.012)), (0.88, (0.04, 0.03, 0.012))],  # tie
    [(0.62, (0.085, 0.075, 0.012))],  # print
)

SKINS = np.array(
    [(246, 214, 190), (232, 190, 158), (208, 158, 120), (170, 118, 82), (122, 80, 56), (84, 56, 42)]
)
_HAIRS = np.array([(28, 22, 20), (62, 40, 26), (110, 70, 36), (190, 150, 80), (140, 138, 136), (120, 48, 26)])

_WHITE, _BLACK = np.full(3, 240), np.full(3, 25)
_EDGE, _EDGE_SHADE = 0.011, 0.62  # darker edges of limbs and clothes, metres
_TRUNK_SHADES = np.array([[_EDGE_SHADE], [1], [_EDGE_SHADE], [1]])

_SHIFT = 4  # binary places of the fixed-point coordinates given to OpenCV
_RING = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_RING = np.stack([np.cos(_RING), np.sin(_RING)]).astype(np.float32)
_HALF = np.linspace(-1, 1, 9, dtype=np.float32)


@dataclass(frozen=True)
class View:
    """The map from metres to pixels: origin + scale * (x, -y); `own` marks the annotated person."""

    origin: np.ndarray
    scale: float
    own: bool

    def flat(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) pixels."""
        return self.origin + points[..., :2] * (self.scale, -self.scale)

    def layers(self, depths, colours, parts, polygons) -> list[tuple]:
        """Polygons to paint, as (depth, colour with part number, fixed-point polygon)."""
        rgba = np.empty((len(polygons), 4))
        rgba[:, :3] = colours
        rgba[:, 3] = parts if self.own else SOMETHING_ELSE
        return list(zip(np.asarray(depths).tolist(), rgba.tolist(), polygons, strict=True))


# Shapes.


def fixed(points: np.ndarray) -> np.ndarray:
    """Continuous pixels -> OpenCV's fixed point, where whole numbers are the centres of pixels."""
    return np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)


def capsules(starts, ends, start_radii, end_radii, edge: float = 0.0) -> np.ndarray:
    """(n, 2), (n, 2), (n,), (n,) pixels -> outlines (2, n, 18, 2) of tapered round strokes, first
    widened by `edge` pixels, then as they are."""
    along = ends - starts
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-3)
    heading = np.arctan2(along[:, 1], along[:, 0])[:, None]
    # Where the common tangents touch the two circles.
    touch = np.arccos(np.clip((start_radii - end_radii) / length, -0.98, 0.98))[:, None]
    angles = np.empty((len(starts), 2, len(_HALF)), np.float32)
    angles[:, 0] = heading + touch * _HALF
    angles[:, 1] = heading + np.pi + (np.pi - touch) * _HALF
    rays = np.empty((*angles.shape, 2), np.float32)
    np.cos(angles, out=rays[..., 0])
    np.sin(angles, out=rays[..., 1])
    outlines = np.empty((2, *rays.shape), np.float32)
    for half, (middles, radii) in enumerate(((ends, end_radii), (starts, start_radii))):
        outlines[1, :, half] = rays[:, half] * radii[:, None, None] + middles[:, None]
    outlines[0] = outlines[1] + edge * rays
    return fixed(outlines).reshape(2, len(starts), -1, 2)


def ellipsoids(view: View, centres, axes: np.ndarray) -> np.ndarray:
    """(n, 3) centres and (n, 3, 3) half axes as columns, metres -> (n, 16, 2) outlines."""
    flat = axes[:, :2] * view.scale
    flat[:, 1] *= -1
    # The outline of a projected ellipsoid is the image of a circle under a root of A A^T.
    a = (flat[:, 0] ** 2).sum(1)
    b = (flat[:, 0] * flat[:, 1]).sum(1)
    c = (flat[:, 1] ** 2).sum(1)
    first = np.sqrt(a)
    second = np.sqrt(np.maximum(c - b * b / a, 1e-6))
    x = first[:, None] * _RING[0]
    y = (b / first)[:, None] * _RING[0] + second[:, None] * _RING[1]
    return fixed(view.flat(centres)[:, None] + np.stack([x, y], -1))


def hulls(view: View, centres: np.ndarray, radii: np.ndarray, edge: float) -> list[np.ndarray]:
    """Tight cloth around balls: (n, 3), (n,) metres -> outlines (m, 1, 2), widened and as they are."""
    middles = view.flat(centres)[:, None]
    return [
        cv2.convexHull(fixed(middles + (view.scale * wide)[:, None, None] * _RING.T).reshape(-1, 2))
        for wide in (radii + edge, radii)
    ]


def fill(picture: np.ndarray, polygon: np.ndarray, colour) -> None:
    cv2.fillConvexPoly(picture, polygon, colour, cv2.LINE_AA, _SHIFT)


# People.


@dataclass(frozen=True)
class Look:
    """Colours (3,) and cuts of a person's skin, hair and clothes."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    detail: np.ndarray
    sleeves: float  # 0 none, 1 to the elbow, 2 to the wrist
    legs: float  # 0 none, 1 to the knee, 2 to the ankle
    skirt: bool
    long_hair: bool
    bun: bool
    stripes: int
    front: int


def tones(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours between grey and saturated."""
    numbers = rng.random((count, 4), np.float32)
    return (170 * numbers[:, :3] + 195 * numbers[:, 3:] - 55).clip(0, 255)


def random_look(rng: np.random.Generator) -> Look:
    colours = tones(rng, 4)
    kinds = rng.random(9)
    skin = SKINS[int(kinds[0] * len(SKINS))] * (0.92 + 0.12 * kinds[1])
    style, stripes = kinds[2], kinds[3]
    similar = np.abs(colours[3] - colours[0]).sum() < 150
    return Look(
        skin=skin,
        # Few people are bald: from behind, only their clothes would distinguish front and back.
        hair=skin * 0.93 if style > 0.95 else _HAIRS[int(kinds[4] * len(_HAIRS))],
        shirt=colours[0],
        trousers=colours[1],
        shoes=colours[2] * 0.6,
        detail=(colours[0] + 128) % 256 if similar else colours[3],
        sleeves=(0.15, 0.55, 0.65, 2, 2, 2)[int(kinds[5] * 6)],
        legs=(0.45, 0.8, 1.5, 2, 2, 2)[int(kinds[6] * 6)],
        skirt=bool(kinds[7] < 0.12),
        long_hair=bool(style < 0.3),
        bun=bool(0.3 < style < 0.4),
        stripes=int(stripes * 12) if stripes < 0.5 else 0,
        front=int(kinds[8] * len(_FRONTS)),
    )


def _limb_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """The skin of every limb, and over it the sleeve or trouser leg, each with a darker edge."""
    starts, ends = figure.nodes[_LIMB_STARTS], figure.nodes[_LIMB_ENDS]
    cover = np.array((0, look.sleeves, look.sleeves - 1, look.legs, look.legs - 1, 1))
    cover = np.minimum(np.maximum(cover, 0), 1)[_LIMB_COVERS]
    # First all limbs, then the cloth over limbs that are partly covered.
    some = np.flatnonzero((cover > 0) & (cover < 1))
    limbs, count = np.concatenate([_ALL_LIMBS, some]), len(_LIMBS)
    reach, extra, clothed = np.ones(len(limbs)), np.zeros(len(limbs)), cover[limbs] == 1
    reach[count:], extra[count:], clothed[count:] = cover[some], 0.008, True
    radii = _LIMBS[limbs, 3:5] * (0.5 + 0.5 * figure.girth) * (figure.standing / 1.7) ** 0.7
    near, far = radii[:, 0] + extra, radii[:, 0] + reach * (radii[:, 1] - radii[:, 0]) + extra
    stops = starts[limbs] + reach[:, None] * (ends - starts)[limbs]
    outlines = capsules(
        *(view.flat(starts[limbs]), view.flat(stops)),
        *(view.scale * near, view.scale * far, view.scale * _EDGE),
    )
    depths = (0.5 * (starts[:, 2] + ends[:, 2]) + 0.03)[limbs]
    cloth = np.array((look.skin, look.shirt, look.trousers, look.shoes))
    colours = cloth[_LIMB_CLOTH[limbs] * clothed]
    # Nearer limbs are brighter, which shows which of two crossing limbs is in front.
    light = np.minimum(np.maximum(1 + 0.5 * (depths - figure.nodes[6, 2]), 0.75), 1.2)
    colours = np.minimum(colours * light[:, None], 255)
    depths, parts = depths + extra, _LIMBS[limbs, 0]
    edges = view.layers(depths, colours * _EDGE_SHADE, parts, outlines[0])
    return edges + view.layers(depths + 1e-4, colours, parts, outlines[1])


def _trunk_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """Shirt and trousers or a skirt, as cloth around balls on the spine and the hips."""
    nodes, girth = figure.nodes, figure.girth
    length, shoulder, hip = figure.bones[7, 1], figure.bones[13, 0], figure.bones[3, 0]
    size = 2 * length * girth
    across, up, thick = _TRUNK_BALLS
    across = across * shoulder * (1, 1, 1, 1, girth, girth, girth, girth)
    balls = nodes[6] + np.stack([across, up * length], 1) @ figure.frames[2].T[:2]
    shirt = hulls(view, balls, thick * size, _EDGE)
    seat = nodes[[2, 3, 2, 3]]
    seat[2:] += 0.2 * length * figure.frames[1][:, 1]
    wide, low = np.full(4, 0.105 * size), nodes[6, 2] - 0.02
    if look.skirt:
        flare = np.array([[-0.25], [0.25]]) * hip * figure.frames[1][:, 0]
        hem = nodes[[2, 3]] + 0.7 * (nodes[[1, 4]] - nodes[[2, 3]]) + flare
        seat, wide = np.concatenate([seat, hem]), np.append(wide, (0.085 * size,) * 2)
        low = max(low, 0.5 * (nodes[[1, 4], 2] + nodes[[2, 3], 2]).max() + 0.035)
    depth = 0.5 * (nodes[6, 2] + nodes[7, 2])
    return view.layers(
        (depth, depth + 1e-4, low, low + 1e-4),
        np.stack([look.shirt, look.shirt, look.trousers, look.trousers]) * _TRUNK_SHADES,
        (CHEST, CHEST, HIPS, HIPS),
        shirt + hulls(view, seat, wide, _EDGE),
    )


def _print_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """Stripes around the shirt; neckline, buttons and the like on its front only."""
    frame, length = figure.frames[2], figure.bones[7, 1]
    front = 0.22 * length * figure.girth
    ring = (0.72 * figure.bones[13, 0], 0.016, 0.9 * front)
    rows = [(0, 0, h * length, 0, *ring) for h in (np.arange(look.stripes) + 1) * 0.15]
    rows.append((1, 0, 0.97 * length, 0.4 * front, 0.055, 0.07, 0.05))
    rows += [(2, 0, h * length, front, *axes) for h, axes in _FRONTS[look.front]]
    rows = np.array(rows)
    outlines = ellipsoids(view, figure.nodes[6] + rows[:, 1:4] @ frame.T, frame * rows[:, None, 4:7])
    # Just above the shirt, or below it when the person is seen from behind.
    above = np.where((rows[:, 0] == 0) | (frame[2, 2] > 0), 3e-4, -3e-4)
    depths = 0.5 * (figure.nodes[6, 2] + figure.nodes[7, 2]) + above + 1e-6 * np.arange(len(rows))
    colours = np.stack([look.trousers, look.skin, look.detail])[rows[:, 0].astype(int)]
    return view.layers(depths, colours, CHEST, outlines)


def _head_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """Skull, face and hair; the far side of the head is painted first."""
    frame, length = figure.frames[3], figure.bones[9, 1]
    parts = _HEAD_PARTS[[True] * 10 + [look.long_hair, look.bun]]
    offsets = parts[:, 1:4] @ frame.T
    axes = frame * (parts[:, None, 4:7] * length)
    outlines = ellipsoids(view, figure.nodes[8] + length * offsets, axes)
    palette = np.stack([look.hair, look.skin, _WHITE, _BLACK, look.skin * 0.5, look.skin * 0.8])
    # Depths within the head are compressed, so that no arm is painted between skull and nose.
    depths = 0.5 * (figure.nodes[8, 2] + figure.nodes[9, 2]) + 0.04 + 0.02 * offsets[:, 2]
    # A face seen from the side is not yet behind the skull.
    depths[1] += 0.0012
    return view.layers(depths, palette[parts[:, 0].astype(int)], HEAD, outlines)


def paint_person(picture: np.ndarray, figure: Figure, look: Look, view: View) -> None:
    """Paint from far to near onto a (height, width, 4) picture."""
    layers = _limb_layers(figure, look, view) + _trunk_layers(figure, look, view)
    layers += _print_layers(figure, look, view) + _head_layers(figure, look, view)
    for _, colour, polygon in sorted(layers, key=operator.itemgetter(0)):
        fill(picture, polygon, colour)
