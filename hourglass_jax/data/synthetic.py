"""Drawn people: pictures with exact joints, made from a seed, for trials without any data set.

A figure is a small 3D skeleton of rotating bones. It is posed, seen from a random side,
projected orthographically and painted from far to near. Every painted pixel carries the number
of the body part it shows in a fourth channel, so occlusion is read off the finished picture.

Axes of the 3D part: x to the right of the picture, y up, z towards the viewer; lengths in
metres. A person's own axes are x to the person's left, y up, z forward, so that a turn of zero
faces the viewer.
"""

import argparse
import bisect
import operator
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hourglass_jax import console, files
from hourglass_jax.media import draw
from hourglass_jax.pose import skeletons

# Part numbers, as written to the fourth channel. Left parts follow the right ones.
_NOTHING, _CHEST, _HIPS, _HEAD, _NECK = range(5)
_UPPER_ARM, _FOREARM, _HAND, _THIGH, _SHIN, _FOOT = 5, 7, 9, 11, 13, 15
_SOMETHING_ELSE = 17

# One row per bone: node it ends at, node it starts from, frame it turns with, its vector (m),
# and by how much a small child's is shorter (children's heads are nearly as large as adults').
# Nodes 0-15 are MPII's joints; 16, 17 the finger tips and 18, 19 the toes, right then left.
_BONES = np.array(
    [
        (6, 6, 1, 0, 0, 0, 0),
        (2, 6, 1, -0.10, 0, 0, 0.35),
        (3, 6, 1, 0.10, 0, 0, 0.35),
        (1, 2, 8, 0, -0.43, 0, 0.45),
        (4, 3, 10, 0, -0.43, 0, 0.45),
        (0, 1, 9, 0, -0.41, 0, 0.45),
        (5, 4, 11, 0, -0.41, 0, 0.45),
        (7, 6, 2, 0, 0.50, 0, 0.35),
        (8, 7, 3, 0, 0.10, 0.01, 0.35),
        (9, 8, 3, 0, 0.285, 0, 0.12),
        (12, 7, 2, -0.185, -0.045, 0, 0.40),
        (13, 7, 2, 0.185, -0.045, 0, 0.40),
        (11, 12, 4, 0, -0.29, 0, 0.42),
        (14, 13, 6, 0, -0.29, 0, 0.42),
        (10, 11, 5, 0, -0.26, 0, 0.42),
        (15, 14, 7, 0, -0.26, 0, 0.42),
        (16, 10, 5, 0, -0.10, 0, 0.35),
        (17, 15, 7, 0, -0.10, 0, 0.35),
        (18, 0, 12, 0, -0.045, 0.15, 0.35),
        (19, 5, 13, 0, -0.045, 0.15, 0.35),
    ]
)
_BONES = _BONES[np.argsort(_BONES[:, 0])]
_BONE_FRAMES = _BONES[:, 2].astype(int)


def _ancestry(parents: np.ndarray) -> np.ndarray:
    """(nodes, nodes) matrix of 0 and 1: which bones lead from the pelvis to each node."""
    matrix = np.eye(len(parents), dtype=np.float32)
    for node in range(len(parents)):
        above = int(parents[node])
        while above != int(parents[above]):
            matrix[node, above] = 1
            above = int(parents[above])
    return matrix


_ANCESTRY = _ancestry(_BONES[:, 1])

# Frames: 0 picture, 1 pelvis, 2 chest, 3 head, 4-7 arms, 8-11 legs, 12-13 feet.
_FRAME_PARENTS = (0, 0, 1, 2, 2, 4, 2, 6, 1, 8, 1, 10, 9, 11)


class _Poses(NamedTuple):
    shares: list[float]  # running sums, all but the last one
    angles: np.ndarray  # (poses, 2, 4)


def _poses(*rows: tuple[float, ...]) -> _Poses:
    table = np.array(rows)
    return _Poses(np.cumsum(table[:-1, 0]).tolist(), table[:, 1:].reshape(-1, 2, 4))


# Poses in degrees: share, then (flexion, abduction, outward twist, knee or elbow) of one side
# and of the other. Which of the two is the right side is drawn, so the table is left-right free.
_LEG_POSES = _poses(
    (0.32, 0, 5, 8, 4, 0, 5, 8, 4),  # standing
    (0.20, 26, 3, 3, 10, -20, 3, 3, 22),  # walking
    (0.12, 62, 3, 0, 80, -22, 3, 0, 60),  # running
    (0.10, 82, 12, 5, 84, 82, 12, 5, 84),  # sitting
    (0.08, 78, 10, 5, 14, -4, 4, 5, 8),  # kicking
    (0.08, 70, 10, 8, 76, -24, 6, 5, 26),  # lunging
    (0.05, 90, 20, 15, 105, 90, 20, 15, 105),  # squatting
    (0.05, 2, 28, 15, 6, 2, 28, 15, 6),  # legs apart
)
_ARM_POSES = _poses(
    (0.24, 2, 14, 0, 14, 2, 14, 0, 14),  # hanging
    (0.20, 34, 12, -4, 40, -32, 12, -4, 24),  # swinging
    (0.10, 42, 12, -18, 95, -40, 12, -12, 90),  # running
    (0.10, 160, 14, 0, 22, 160, 14, 0, 22),  # both up
    (0.08, 0, 84, 0, 14, 0, 84, 0, 14),  # spread
    (0.07, -15, 45, -75, 95, -15, 45, -75, 95),  # hands on the hips
    (0.04, 35, 8, -55, 100, 35, 8, -55, 100),  # folded
    (0.08, 0, 85, 75, 80, 2, 12, 0, 14),  # waving
    (0.06, 78, 8, 0, 20, 78, 8, 0, 20),  # reaching forward
    (0.03, -30, 18, -50, 55, -30, 18, -50, 55),  # behind the back
)
# Turning forward is a negative turn about x; to the sides and outwards the right side mirrors.
_MIRROR = np.array(((-1.0, -1, -1, 1), (-1, 1, 1, 1)))
_ARM_SPREAD, _LEG_SPREAD = np.array((13.0, 9, 14, 14)), np.array((9.0, 4, 8, 8))
# Joint limits: an elbow or a knee never bends past straight.
_ARM_LIMITS = np.array(((-55.0, 2, -80, 0), (175, 110, 85, 145)))
_LEG_LIMITS = np.array(((-35.0, 0, -10, 0), (115, 45, 30, 140)))

# Round limbs: part, start node, end node, radii at both (m); neck, then right and left ones.
_LIMBS = np.array(
    [(_NECK, 7, 8, 0.055, 0.052)]
    + [
        (part + side, nodes[2 * side], nodes[2 * side + 1], near, far)
        for part, nodes, near, far in (
            (_UPPER_ARM, (12, 11, 13, 14), 0.064, 0.050),
            (_FOREARM, (11, 10, 14, 15), 0.050, 0.038),
            (_HAND, (10, 16, 15, 17), 0.042, 0.040),
            (_THIGH, (2, 1, 3, 4), 0.096, 0.066),
            (_SHIN, (1, 0, 4, 5), 0.066, 0.044),
            (_FOOT, (0, 18, 5, 19), 0.054, 0.044),
        )
        for side in (0, 1)
    ]
)
_LIMB_CLOTH = np.array((0, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 3, 3))  # none, shirt, trousers, shoes
_LIMB_COVERS = np.array((0, 1, 1, 2, 2, 0, 0, 3, 3, 4, 4, 5, 5))  # which of the cuts covers it
_ALL_LIMBS = np.arange(len(_LIMBS))
_LIMB_STARTS, _LIMB_ENDS = _LIMBS[:, 1].astype(int), _LIMBS[:, 2].astype(int)

# Head parts as ellipsoids in the head's own axes, in head lengths above the upper neck: colour
# (see `_head_layers`), centre, half axes. The face leans out of the skull, so that one table
# gives the front (face), the side (profile with a nose) and the back (hair only).
_SKULL_AXES = np.array((0.375, 0.50, 0.40))
_HEAD_PARTS = np.array(
    [
        (0, 0, 0.50, 0, *_SKULL_AXES),
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

# The shirt's balls: how far from the spine in shoulder widths, how far up in trunk lengths,
# radius in trunk lengths over two.
_TRUNK_BALLS = (
    np.array((0.86, -0.86, 0.62, -0.62, 0.45, -0.45, 0.5, -0.5)),
    np.array((0.90, 0.90, 0.70, 0.70, 0.32, 0.32, 0.06, 0.06)),
    np.array((0.058, 0.058, 0.108, 0.108, 0.096, 0.096, 0.098, 0.098)),
)

# What the front of a shirt shows: heights in trunk lengths, half axes in metres.
_FRONTS = (
    [(h, (0.018, 0.018, 0.012)) for h in (0.15, 0.35, 0.55, 0.75)],  # buttons
    [(0.48, (0.014, 0.21, 0.012))],  # zip
    [(0.62, (0.034, 0.17, 0.012)), (0.88, (0.04, 0.03, 0.012))],  # tie
    [(0.62, (0.085, 0.075, 0.012))],  # print
)

# Which parts adjoin a joint: seeing one of them at the joint's pixel is seeing the joint.
_ADJOINING = np.zeros((16, _SOMETHING_ELSE + 1), bool)
for _right, _left, *_parts in (
    (0, 5, _SHIN, _FOOT),
    (1, 4, _THIGH, _SHIN),
    (2, 3, _THIGH),
    (10, 15, _FOREARM, _HAND),
    (11, 14, _UPPER_ARM, _FOREARM),
    (12, 13, _UPPER_ARM),
):
    _ADJOINING[_right, _parts] = True
    _ADJOINING[_left, [part + 1 for part in _parts]] = True
_ADJOINING[6, [_HIPS, _CHEST, _THIGH, _THIGH + 1]] = True
_ADJOINING[7, [_CHEST, _NECK, _UPPER_ARM, _UPPER_ARM + 1]] = True
_ADJOINING[8, [_NECK, _HEAD]] = True
_ADJOINING[9, _HEAD] = True
# Hips and shoulders also lie in the trunk, and both thighs' tops are one seat.
_TRUNK_JOINTS = np.array((2, 3, 12, 13))
_TRUNK_PARTS = np.zeros((4, _SOMETHING_ELSE + 1), bool)
_TRUNK_PARTS[:2, [_CHEST, _HIPS, _THIGH, _THIGH + 1]] = True
_TRUNK_PARTS[2:, _CHEST] = True

_SKINS = np.array(
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
_AROUND = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(-1, 2)


@dataclass(frozen=True)
class Figure:
    """A posed body seen from one side.

    Attributes:
        nodes: (20, 3) metres; the 16 joints, finger tips, toes.
        frames: (14, 3, 3) rotations; columns are the body part's left, up and forward.
        bones: (20, 3) metres; every bone's vector in its own frame.
        girth: thickness of limbs and trunk, 1 on average.
    """

    nodes: np.ndarray
    frames: np.ndarray
    bones: np.ndarray
    girth: float

    @property
    def standing(self) -> float:
        """Height from the soles to the top of the head when upright, metres."""
        return float(np.abs(self.bones[[0, 1, 7, 8, 9, 18], 1]).sum())

    @property
    def head_axes(self) -> np.ndarray:
        """(3,) half axes of the head's ellipsoid, metres."""
        return self.bones[9, 1] * _SKULL_AXES


@dataclass(frozen=True)
class View:
    """Where metres land: pixel = origin + scale * (x, -y); `own` marks the annotated person."""

    origin: np.ndarray
    scale: float
    own: bool

    def flat(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) pixels."""
        return self.origin + points[..., :2] * (self.scale, -self.scale)

    def layers(self, depths, colours, parts, polygons) -> list[tuple]:
        """Things to paint, as (depth, colour with part number, fixed-point polygon)."""
        rgba = np.empty((len(polygons), 4))
        rgba[:, :3] = colours
        rgba[:, 3] = parts if self.own else _SOMETHING_ELSE
        return list(zip(np.asarray(depths).tolist(), rgba.tolist(), polygons, strict=True))


# ------------------------------------------------------------------------------------ figure


def rotations(degrees: np.ndarray) -> np.ndarray:
    """(n, 3) angles about x, z, y -> (n, 3, 3) matrices Rx @ Rz @ Ry."""
    radians = np.deg2rad(degrees.T)
    (cx, cz, cy), (sx, sz, sy) = np.cos(radians), np.sin(radians)
    matrices = np.array(
        (
            (cz * cy, -sz, cz * sy),
            (cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
            (sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
        )
    )
    return matrices.transpose(2, 0, 1)


def _limb_angles(rng, poses, spread, limits, mixed: float, variety: float) -> np.ndarray:
    """(2, 4) degrees of the right and the left limb: about x, z, y, then knee or elbow."""
    first, second, mixing, swap = rng.random(4).tolist()
    # The first two rows of the tables are the plain poses.
    first, second = (u * (poses.shares[1] * (1 - variety) + variety) for u in (first, second))
    one = bisect.bisect(poses.shares, first)
    other = bisect.bisect(poses.shares, second) if mixing < mixed else one
    sides = poses.angles[(one, other), (0, 1)] + spread * rng.standard_normal((2, 4))
    sides = np.minimum(np.maximum(sides, limits[0]), limits[1])
    return (sides[::-1] if swap < 0.5 else sides) * _MIRROR


def random_angles(rng: np.random.Generator, variety: float = 1.0) -> np.ndarray:
    """(14, 3) degrees about x, z, y of every frame within the frame it hangs on."""
    arms = _limb_angles(rng, _ARM_POSES, _ARM_SPREAD, _ARM_LIMITS, 0.4, variety)
    legs = _limb_angles(rng, _LEG_POSES, _LEG_SPREAD, _LEG_LIMITS, 0.0, variety)
    yaw, bent, tilted, bend = rng.random(4).tolist()
    sway = rng.standard_normal(9).tolist()
    # Half of the people are seen from behind; side views grow with the variety.
    turn = 180 * (yaw < 0.5) + 180 * variety * (2 * yaw % 1 - 0.5)
    # Lifted thighs pull the trunk forward, as when squatting or running.
    lean = 35 + 40 * bend if bent < 0.10 * variety else -0.12 * float(legs[0, 0] + legs[1, 0])
    angles = np.zeros((14, 3))
    angles[:4] = (
        (0, sway[0] * (35 if tilted < 0.12 * variety else 4), 0),
        (6 + 5 * sway[1], 0, turn),
        (lean + 5 * sway[2], 5 * sway[3], 10 * sway[4]),
        (10 * sway[5] - 0.4 * lean, 7 * sway[6], min(max(22 * sway[7], -60), 60)),
    )
    angles[4:8:2], angles[5:8:2, 0] = arms[:, :3], -arms[:, 3]
    angles[8:12:2], angles[9:12:2, 0] = legs[:, :3], legs[:, 3]
    angles[12:, 2] = -8, 8
    return angles


def build_figure(angles: np.ndarray, lengths: np.ndarray, girth: float) -> Figure:
    """Forward kinematics: (14, 3) degrees and (20,) factors on the bones -> a figure."""
    local = rotations(angles)
    frames = local.copy()
    for frame in range(1, len(frames)):
        np.matmul(frames[_FRAME_PARENTS[frame]], local[frame], out=frames[frame])
    bones = _BONES[:, 3:6] * lengths[:, None]
    vectors = (frames[_BONE_FRAMES] @ bones[:, :, None])[..., 0]
    return Figure(_ANCESTRY @ vectors, frames, bones, girth)


def random_figure(rng: np.random.Generator, variety: float = 1.0) -> Figure:
    """A child or an adult, thin or stout, in a random pose, seen from a random side."""
    angles = random_angles(rng, variety)
    young, build, stout = rng.random(3)
    child = max(0.0, young - 0.75) * 4 * build
    jitter = 1 + 0.04 * rng.standard_normal(len(_BONES))
    jitter[[3, 4, 5, 13, 14, 15, 17, 19]] = jitter[[2, 1, 0, 12, 11, 10, 16, 18]]  # left as right
    return build_figure(angles, jitter * (1 - child * _BONES[:, 6]), 0.85 + 0.45 * stout**1.5)


def head_box(figure: Figure) -> np.ndarray:
    """Width and height in metres of the upright box around the head's ellipsoid."""
    return 2 * np.linalg.norm(figure.frames[3, :2] * figure.head_axes, axis=1)


# ----------------------------------------------------------------------------------- shapes


def fixed(points: np.ndarray) -> np.ndarray:
    """Continuous pixels -> OpenCV's fixed point; its whole numbers are the pixels' centres."""
    return np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)


def capsules(starts, ends, start_radii, end_radii, edge: float = 0.0) -> np.ndarray:
    """(n, 2), (n, 2), (n,), (n,) pixels -> outlines (2, n, 18, 2) of tapered round strokes,
    widened by `edge` pixels and as they are."""
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
    """Tight cloth around balls: (n, 3), (n,) metres -> outlines (m, 1, 2), widened and plain."""
    middles = view.flat(centres)[:, None]
    return [
        cv2.convexHull(fixed(middles + (view.scale * wide)[:, None, None] * _RING.T).reshape(-1, 2))
        for wide in (radii + edge, radii)
    ]


def fill(picture: np.ndarray, polygon: np.ndarray, colour) -> None:
    cv2.fillConvexPoly(picture, polygon, colour, cv2.LINE_AA, _SHIFT)


# ----------------------------------------------------------------------------------- people


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
    """(count, 3) colours between grey and gaudy."""
    numbers = rng.random((count, 4), np.float32)
    return (170 * numbers[:, :3] + 195 * numbers[:, 3:] - 55).clip(0, 255)


def random_look(rng: np.random.Generator) -> Look:
    colours = tones(rng, 4)
    kinds = rng.random(9)
    skin = _SKINS[int(kinds[0] * len(_SKINS))] * (0.92 + 0.12 * kinds[1])
    style, stripes = kinds[2], kinds[3]
    alike = np.abs(colours[3] - colours[0]).sum() < 150
    return Look(
        skin=skin,
        # Few are bald: from behind only their clothes tell the front from the back.
        hair=skin * 0.93 if style > 0.95 else _HAIRS[int(kinds[4] * len(_HAIRS))],
        shirt=colours[0],
        trousers=colours[1],
        shoes=colours[2] * 0.6,
        detail=(colours[0] + 128) % 256 if alike else colours[3],
        sleeves=(0.15, 0.55, 0.65, 2, 2, 2)[int(kinds[5] * 6)],
        legs=(0.45, 0.8, 1.5, 2, 2, 2)[int(kinds[6] * 6)],
        skirt=bool(kinds[7] < 0.12),
        long_hair=bool(style < 0.3),
        bun=bool(0.3 < style < 0.4),
        stripes=int(stripes * 12) if stripes < 0.5 else 0,
        front=int(kinds[8] * len(_FRONTS)),
    )


def _limb_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """Skin of every limb, its sleeve or leg of cloth over it, each with a darker edge."""
    starts, ends = figure.nodes[_LIMB_STARTS], figure.nodes[_LIMB_ENDS]
    cover = np.array((0, look.sleeves, look.sleeves - 1, look.legs, look.legs - 1, 1))
    cover = np.minimum(np.maximum(cover, 0), 1)[_LIMB_COVERS]
    # First all limbs, then the cloth over those that are covered in part.
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
    # Nearer limbs are lit more: a cue to which of two crossing limbs is in front.
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
        (_CHEST, _CHEST, _HIPS, _HIPS),
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
    return view.layers(depths, colours, _CHEST, outlines)


def _head_layers(figure: Figure, look: Look, view: View) -> list[tuple]:
    """Skull, face and hair; what lies on the far side of the head is painted first."""
    frame, length = figure.frames[3], figure.bones[9, 1]
    parts = _HEAD_PARTS[[True] * 10 + [look.long_hair, look.bun]]
    offsets = parts[:, 1:4] @ frame.T
    axes = frame * (parts[:, None, 4:7] * length)
    outlines = ellipsoids(view, figure.nodes[8] + length * offsets, axes)
    palette = np.stack([look.hair, look.skin, _WHITE, _BLACK, look.skin * 0.5, look.skin * 0.8])
    # Depths within the head are squeezed so that no arm is painted between skull and nose.
    depths = 0.5 * (figure.nodes[8, 2] + figure.nodes[9, 2]) + 0.04 + 0.02 * offsets[:, 2]
    # A face seen from the side is not yet behind the skull.
    depths[1] += 0.0012
    return view.layers(depths, palette[parts[:, 0].astype(int)], _HEAD, outlines)


def paint_person(picture: np.ndarray, figure: Figure, look: Look, view: View) -> None:
    """Paint from far to near onto a (height, width, 4) picture."""
    layers = _limb_layers(figure, look, view) + _trunk_layers(figure, look, view)
    layers += _print_layers(figure, look, view) + _head_layers(figure, look, view)
    for _, colour, polygon in sorted(layers, key=operator.itemgetter(0)):
        fill(picture, polygon, colour)


# ------------------------------------------------------------------------------------ scene


def place(rng, figure: Figure, size: int, margin: float, variety: float) -> tuple[View, np.ndarray]:
    """Put the figure into the middle; where the picture ends: (2, 2) pixels, low and high x, y."""
    flat = figure.nodes[:, :2] * (1, -1)
    box = np.stack([flat.min(0), flat.max(0)])
    span = max((box[1] - box[0]).max(), 0.8 * figure.standing) + 0.04
    ends, side, cut, factor = rng.random(4)
    shown = np.array([[-np.inf] * 2, [np.inf] * 2])
    if ends < 0.17 * variety:
        # The picture ends across the person or just beyond; the box then is of the visible part.
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
    # Some strokes are of skin's colours, so that a stroke of skin is not yet an arm.
    colours[len(colours) - strokes // 3 :, :3] = _SKINS[rng.integers(0, len(_SKINS), strokes // 3)]
    for shape, colour in zip(shapes, colours.tolist(), strict=True):
        fill(picture, shape, colour)
    return picture


def _clutter(rng: np.random.Generator, size: int, boxes: int, strokes: int) -> list[np.ndarray]:
    """Outlines of turned boxes, then of strokes that are tapered as limbs are."""
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
    colour = (*tones(rng, 1)[0].tolist(), _SOMETHING_ELSE)
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
    """Another person to the left or to the right, seldom close enough to cover much."""
    beside, above, larger = rng.random(3)
    away = side * (0.32 + 0.3 * abs(2 * beside - 1)) * (1 if beside < 0.5 else -1)
    origin = view.origin + (away, side * 0.2 * (above - 0.5))
    scale = view.scale * (0.8 + 0.3 * larger)
    return random_figure(rng), random_look(rng), View(origin, scale, False)


def visibility(picture: np.ndarray, figure: Figure, joints: np.ndarray) -> np.ndarray:
    """(16,) uint8: 2 where a part that adjoins the joint is on top at (16, 2) pixels, else 1."""
    places = joints.copy()
    # The very top of the head is an edge; whether the head is seen is told from below it.
    places[9] += 0.25 * (joints[8] - joints[9])
    around = np.floor(places).astype(int)[:, None] + _AROUND
    column, row = np.clip(around, 0, len(picture) - 1).transpose(2, 0, 1)
    on_top = np.minimum(picture[row, column, 3], _SOMETHING_ELSE)
    adjoining = _ADJOINING[np.arange(16)[:, None], on_top]
    # The trunk shows a hip or a shoulder unless that one lies on its far side.
    depths, middle = figure.nodes[_TRUNK_JOINTS, 2], figure.nodes[[6, 6, 7, 7], 2]
    near = depths - middle > -0.92 * np.abs(figure.bones[_TRUNK_JOINTS, 0])
    trunk = _TRUNK_PARTS[np.arange(4)[:, None], on_top[_TRUNK_JOINTS]]
    adjoining[_TRUNK_JOINTS] |= trunk & near[:, None]
    # Several of nine pixels: at smooth edges the part numbers are blended.
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
    # Beyond the end of a picture a crop holds nothing: black.
    (left, top), (right, bottom) = np.rint(shown).astype(int)
    image[:top], image[bottom:], image[:, :left], image[:, right:] = 0, 0, 0, 0
    head_size = 0.6 * view.scale * np.linalg.norm(head_box(figure))
    return {"image": image, "joints": joints, "visible": visible, "head_size": head_size}


class SyntheticPeople:
    """Random access to drawn people; example i is a pure function of all arguments and i.

    Args:
        split: name of the split; different names never share a picture.
        examples: how many examples there are.
        seed: seed of all drawing.
        canvas: side of the square pictures in pixels.
        margin: canvas over nominal crop; the nominal crop lies in the middle.
        variety: in [0, 1], how much there is of what makes figures hard: side views, unusual and tilted
            poses, cut pictures, other people, things in front and clutter.
    """

    skeleton = skeletons.MPII
    extras: dict = {}

    def __init__(
        self,
        *,
        split: str,
        examples: int,
        seed: int = 0,
        canvas: int = 192,
        margin: float = 1.5,
        variety: float = 1.0,
    ):
        if not split:
            raise ValueError("split must be a name such as 'train', not empty")
        if examples < 1:
            raise ValueError(f"examples must be at least 1, not {examples}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, not {seed}")
        if canvas < 32:
            raise ValueError(f"canvas must be at least 32 pixels, not {canvas}")
        if not 1 <= margin <= 4:
            raise ValueError(f"margin must be between 1 and 4, not {margin}")
        if not 0 <= variety <= 1:
            raise ValueError(f"variety must be between 0 and 1, not {variety}")
        self.split, self.examples, self.seed = split, examples, seed
        self.canvas, self.margin, self.variety = canvas, margin, variety

    @property
    def name(self) -> str:
        return f"synthetic-{self.split}"

    @property
    def ids(self) -> list[str]:
        return [f"{self.name}-{index:06d}" for index in range(self.examples)]

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict:
        """Example with `image` (canvas, canvas, 3) uint8 RGB, `joints` (16, 2) pixels, `visible`
        (16,) as COCO's flags, `center` (2,), `scale`, `head_size` in pixels and `id`."""
        index = operator.index(index)
        if not 0 <= index < self.examples:
            raise IndexError(f"example {index} of {self.examples}")
        source = np.random.SeedSequence((self.seed, zlib.crc32(self.split.encode()), index))
        drawn = draw_example(
            np.random.Generator(np.random.SFC64(source)), self.canvas, self.margin, self.variety
        )
        return {
            "image": drawn["image"],
            "joints": drawn["joints"].astype(np.float32),
            "visible": drawn["visible"],
            "center": np.full(2, self.canvas / 2, np.float32),
            "scale": np.float32(self.canvas / self.margin / 200),
            "head_size": np.float32(drawn["head_size"]),
            "id": f"synthetic-{self.split}-{index:06d}",
        }


# ---------------------------------------------------------------------------------- command


def write_pictures(output: Path, count: int, *, size: int, seed: int, variety: float) -> None:
    """PNG pictures and `boxes.json` with the person's box [x, y, width, height] of each."""
    boxes = {}
    people = SyntheticPeople(split="demo", examples=count, seed=seed, canvas=size, variety=variety)
    for index in range(count):
        example = people[index]
        # The person fills four fifths of the nominal crop.
        name, side = f"{example['id']}.png", 0.8 * 200 * float(example["scale"])
        draw.save(output / name, example["image"])
        corner = (example["center"] - side / 2).tolist()
        boxes[name] = [[round(value, 2) for value in (*corner, side, side)]]
    files.write_json(output / "boxes.json", boxes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write drawn people to try a predictor on.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=8, help="number of pictures")
    parser.add_argument("--size", type=int, default=256, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--variety", type=float, default=1.0, help="how hard they are, in [0, 1]")
    options = parser.parse_args(arguments)

    def command() -> None:
        write_pictures(**vars(options))
        print(f"{options.count} pictures and boxes.json in {options.output}")

    return console.run(command)


if __name__ == "__main__":
    sys.exit(main())
