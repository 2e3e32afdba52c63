"""A figure: a 3D skeleton of rotating bones in a random pose.

Axes: x to the right of the picture, y up, z towards the viewer; lengths in metres. A person's own axes are x
to the person's left, y up, z forward, so that a turn of zero faces the viewer.
"""

import bisect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# One row per bone: end node, start node, frame in which it is fixed, vector (m), and the factor by which a
# small child's is shorter (children's heads are nearly as large as adults').
# Nodes 0-15 are MPII's joints; 16, 17 the finger tips and 18, 19 the toes, right then left.
BONES = np.array(
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
BONES = BONES[np.argsort(BONES[:, 0])]
_BONE_FRAMES = BONES[:, 2].astype(int)


def _ancestry(parents: np.ndarray) -> np.ndarray:
    """(nodes, nodes) matrix of 0 and 1: the bones that lead from the pelvis to each node."""
    matrix = np.eye(len(parents), dtype=np.float32)
    for node in range(len(parents)):
        above = int(parents[node])
        while above != int(parents[above]):
            matrix[node, above] = 1
            above = int(parents[above])
    return matrix


_ANCESTRY = _ancestry(BONES[:, 1])

# Frames: 0 picture, 1 pelvis, 2 chest, 3 head, 4-7 arms, 8-11 legs, 12-13 feet.
_FRAME_PARENTS = (0, 0, 1, 2, 2, 4, 2, 6, 1, 8, 1, 10, 9, 11)


class _Poses(NamedTuple):
    shares: list[float]  # running sums, without the last one
    angles: np.ndarray  # (poses, 2, 4)


def _poses(*rows: tuple[float, ...]) -> _Poses:
    table = np.array(rows)
    return _Poses(np.cumsum(table[:-1, 0]).tolist(), table[:, 1:].reshape(-1, 2, 4))


# Poses in degrees: share, then (flexion, abduction, outward twist, knee or elbow) of one side
# and of the other. A random number decides which of them is the right side.
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
# Flexion is a negative rotation about x; abduction and twist have opposite signs on the right side.
_MIRROR = np.array(((-1.0, -1, -1, 1), (-1, 1, 1, 1)))
_ARM_SPREAD, _LEG_SPREAD = np.array((13.0, 9, 14, 14)), np.array((9.0, 4, 8, 8))
# Joint limits: an elbow or a knee never bends beyond straight.
_ARM_LIMITS = np.array(((-55.0, 2, -80, 0), (175, 110, 85, 145)))
_LEG_LIMITS = np.array(((-35.0, 0, -10, 0), (115, 45, 30, 140)))

# Half axes of the skull in head lengths.
SKULL_AXES = np.array((0.375, 0.50, 0.40))


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
        return self.bones[9, 1] * SKULL_AXES


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
    """(14, 3) degrees about x, z, y of every frame relative to its parent frame."""
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
    """Forward kinematics: (14, 3) degrees and (20,) factors on the bones' lengths -> a figure."""
    local = rotations(angles)
    frames = local.copy()
    for frame in range(1, len(frames)):
        np.matmul(frames[_FRAME_PARENTS[frame]], local[frame], out=frames[frame])
    bones = BONES[:, 3:6] * lengths[:, None]
    vectors = (frames[_BONE_FRAMES] @ bones[:, :, None])[..., 0]
    return Figure(_ANCESTRY @ vectors, frames, bones, girth)


def random_figure(rng: np.random.Generator, variety: float = 1.0) -> Figure:
    """A child or an adult, thin or stout, in a random pose, seen from a random side."""
    angles = random_angles(rng, variety)
    young, build, stout = rng.random(3)
    child = max(0.0, young - 0.75) * 4 * build
    jitter = 1 + 0.04 * rng.standard_normal(len(BONES))
    jitter[[3, 4, 5, 13, 14, 15, 17, 19]] = jitter[[2, 1, 0, 12, 11, 10, 16, 18]]  # left equals right
    return build_figure(angles, jitter * (1 - child * BONES[:, 6]), 0.85 + 0.45 * stout**1.5)


def head_box(figure: Figure) -> np.ndarray:
    """Width and height in metres of the upright box around the head's ellipsoid."""
    return 2 * np.linalg.norm(figure.frames[3, :2] * figure.head_axes, axis=1)
