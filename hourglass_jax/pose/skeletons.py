"""Joint sets: names, sides, limbs and the groups that the papers' tables report.

A skeleton is data: the pipeline, the losses, the tables and the drawings all read it from here, and a
checkpoint carries its own, so that a network for another joint set needs no new code.
"""

import dataclasses

import numpy as np

Stick = tuple[tuple[int, ...], tuple[int, ...]]
_SAME = {"neck": "upper_neck"}  # LSP's neck is where MPII's upper neck is, not its thorax


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """One joint set of K joints, person-centric ("left" is the person's own left) unless noted otherwise.

    Attributes:
      name: short name, as in configs.
      joints: K joint names in the order of the arrays.
      flip_pairs: index pairs that are swapped when the image is flipped.
      limbs: index pairs that are drawn as lines.
      parts: rows of the papers' tables: title -> the joints that are pooled in that row.
      torso: two joints whose distance normalises PCK, or None.
      sticks: rows of the papers' tables of PCP: title -> limbs; each end of a limb is the mean of the
        joints that it lists.
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    torso: tuple[int, int] | None = None
    sticks: tuple[tuple[str, tuple[Stick, ...]], ...] = ()

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def flip(self) -> np.ndarray:
        """(K,) int: joint k of the flipped image is joint flip[k] of the original."""
        order = np.arange(len(self.joints))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return order

    def places_in(self, other: "Skeleton") -> np.ndarray:
        """(K,) int: the index of each joint in another joint set, by name; -1 if that has no such joint."""
        places = {_SAME.get(name, name): i for i, name in enumerate(other.joints)}
        found = np.array([places.get(_SAME.get(name, name), -1) for name in self.joints])
        if (found < 0).all():
            raise ValueError(f"The joint sets {self.name!r} and {other.name!r} have no joint in common.")
        return found

    def to_dict(self) -> dict:
        """A plain dictionary for json; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> "Skeleton":
        pairs = {name: tuple(map(tuple, fields[name])) for name in ("flip_pairs", "limbs")}
        parts = tuple((title, tuple(joints)) for title, joints in fields["parts"])
        torso = tuple(fields["torso"]) if fields["torso"] else None
        # Checkpoints saved before PCP existed have no sticks.
        sticks = [(title, tuple(_stick(*ends) for ends in row)) for title, row in fields.get("sticks", ())]
        rows = {"parts": parts, "sticks": tuple(sticks)}
        skeleton = cls(fields["name"], tuple(fields["joints"]), **pairs, **rows, torso=torso)
        skeleton._check()
        return skeleton

    def _check(self) -> None:
        """Raises ValueError unless titles are text, joints have distinct names and indices exist."""
        names = [self.name, *self.joints, *(title for title, _ in (*self.parts, *self.sticks))]
        if not all(isinstance(name, str) and name.isprintable() for name in names):
            raise ValueError("a name in the joint set is not one printable line")
        if not self.joints or len(set(self.joints)) < len(self.joints):
            raise ValueError("a joint set needs joints with distinct names")
        rows = [*self.flip_pairs, *self.limbs, self.torso or (0, 0), *(joints for _, joints in self.parts)]
        rows += [end for _, limbs in self.sticks for limb in limbs for end in limb]
        pairs = [*self.flip_pairs, *self.limbs, self.torso or (0, 0)]
        known = set(range(len(self)))
        if not all(known.issuperset(row) for row in rows) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"a joint set of {len(self)} joints has an unknown index or a wrong pair")


def _stick(start, end) -> Stick:
    return tuple(start), tuple(end)


MPII = Skeleton(
    name="mpii",
    joints=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist"),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    limbs=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
    ),
    # Pelvis and thorax are left out of the table and of its mean, as in MPII's own evaluation.
    parts=(
        *(("Head", (8, 9)), ("Sho", (12, 13)), ("Elb", (11, 14)), ("Wri", (10, 15))),
        *(("Hip", (2, 3)), ("Knee", (1, 4)), ("Ank", (0, 5))),
    ),
    torso=(3, 12),
)

LSP = Skeleton(
    name="lsp",
    joints=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    limbs=(
        *((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 12), (12, 9)),
        *((9, 10), (10, 11), (12, 13), (2, 8), (3, 9)),
    ),
    parts=(
        *(("Head", (12, 13)), ("Sho", (8, 9)), ("Elb", (7, 10)), ("Wri", (6, 11))),
        *(("Hip", (2, 3)), ("Knee", (1, 4)), ("Ank", (0, 5))),
    ),
    # The released LSP evaluation: left hip to right shoulder.
    torso=(3, 8),
    # As in the released LSP evaluation: the torso goes from the mean of the shoulders to that of the hips.
    sticks=(
        ("Torso", (((8, 9), (2, 3)),)),
        ("U.Leg", (((2,), (1,)), ((3,), (4,)))),
        ("L.Leg", (((1,), (0,)), ((4,), (5,)))),
        ("U.Arm", (((8,), (7,)), ((9,), (10,)))),
        ("Forearm", (((7,), (6,)), ((10,), (11,)))),
        ("Head", (((12,), (13,)),)),
    ),
)

# Observer-centric, unlike the sets above: the left shoulder is always on the picture's right, also for people
# seen from behind.
FLIC = Skeleton(
    name="flic",
    joints=(
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
        *("left_hip", "right_hip", "left_eye", "right_eye", "nose"),
    ),
    flip_pairs=((0, 3), (1, 4), (2, 5), (6, 7), (8, 9)),
    limbs=(
        *((0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (6, 7), (0, 6), (3, 7)),
        *((8, 10), (9, 10), (0, 10), (3, 10)),
    ),
    parts=(("Shoulder", (0, 3)), ("Elbow", (1, 4)), ("Wrist", (2, 5))),
    torso=(6, 3),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (MPII, LSP, FLIC)}
