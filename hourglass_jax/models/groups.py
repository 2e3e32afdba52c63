"""Groups of related parts (Tang and Wu 2019, 3.1): tuples of joint indices that together cover all joints."""

from hourglass_jax.pose import skeletons
from hourglass_jax.pose.skeletons import Skeleton

Groups = tuple[tuple[int, ...], ...]

_RIGHT_ARM, _LEFT_ARM = ("right_wrist", "right_elbow"), ("left_elbow", "left_wrist")
_RIGHT_LEG, _LEFT_LEG = ("right_ankle", "right_knee"), ("left_knee", "left_ankle")
_HIPS = ("right_hip", "left_hip", "pelvis")
_HEAD = ("thorax", "upper_neck", "neck", "head_top")  # LSP's neck stands for MPII's upper neck
_SHOULDERS = ("right_shoulder", "left_shoulder")

# Joints by name. Joints that a skeleton lacks are left out (LSP has no pelvis and no thorax).
NAMED = {
    # 3.1: parts that are connected in nature.
    "body": (
        *(_HEAD, ("left_wrist", "left_elbow", "left_shoulder")),
        *(("right_wrist", "right_elbow", "right_shoulder"), _LEFT_LEG, _RIGHT_LEG, _HIPS),
    ),
    # `hourglass groups` finds these in MPII for 2, 5 and 8 groups. The five are the paper's Figure 2b.
    # The eight depend on the seed; these are the most frequent, and the only ones that are symmetric.
    "data2": (_HIPS, (*_RIGHT_LEG, *_LEFT_LEG, *_HEAD, *_RIGHT_ARM, *_SHOULDERS, *_LEFT_ARM)),
    "data5": ((*_RIGHT_LEG, *_LEFT_LEG), _HIPS, (*_HEAD, *_SHOULDERS), _RIGHT_ARM, _LEFT_ARM),
    "data8": (
        *(_RIGHT_LEG, _HIPS, _LEFT_LEG, _HEAD),
        *(_RIGHT_ARM, ("right_shoulder",), ("left_shoulder",), _LEFT_ARM),
    ),
    # 4.3: each shoulder also joins the group of its arm.
    "overlapping": (
        *((*_RIGHT_LEG, *_LEFT_LEG), _HIPS, (*_HEAD, *_SHOULDERS)),
        *((*_RIGHT_ARM, "right_shoulder"), ("left_shoulder", *_LEFT_ARM)),
    ),
}


def named(name: str, skeleton: Skeleton) -> Groups:
    """The groups of that name for a joint set: those of `NAMED`, or "each", one group per joint.

    Raises:
      ValueError: an unknown name, or a skeleton with joints that are in no group.
    """
    if name == "each":
        return tuple((joint,) for joint in range(len(skeleton)))
    if name not in NAMED:
        raise ValueError(f"There are no groups {name!r}; choose from {', '.join(NAMED)}, each.")
    if strange := set(skeleton.joints) - {joint for group in NAMED[name] for joint in group}:
        raise ValueError(
            f"The groups {name!r} do not know {', '.join(sorted(strange))} of the joint set "
            f"{skeleton.name!r}; give model.groups as joint indices."
        )
    index = {joint: i for i, joint in enumerate(skeleton.joints)}
    groups = (tuple(sorted(index[j] for j in group if j in index)) for group in NAMED[name])
    return tuple(group for group in groups if group)


def default(joints: int) -> Groups:
    """The paper's five groups in the joint order of MPII (16 joints) or LSP (14).

    Raises:
      ValueError: another number of joints.
    """
    known = {len(skeleton): skeleton for skeleton in (skeletons.MPII, skeletons.LSP)}
    if joints not in known:
        raise ValueError(
            f"There are no part groups for {joints} joints; give model.groups as joint indices, "
            "for instance ((0, 1), (2, 3))."
        )
    return named("data5", known[joints])


def check(groups, joints: int) -> None:
    """Raises ValueError unless the groups cover all of `joints` joints, and no others."""
    for group in groups:
        if not group or len(set(group)) < len(group):
            raise ValueError(f"The part group {tuple(group)} is empty or names a joint twice.")
    held = {joint for group in groups for joint in group}
    if unknown := held - set(range(joints)):
        raise ValueError(
            f"The part groups name joint {_listed(unknown)}; there are joints 0 to {joints - 1}."
        )
    if missing := set(range(joints)) - held:
        raise ValueError(f"The part groups leave out joint {_listed(missing)} of {joints}.")


def _listed(joints):
    return ", ".join(map(str, sorted(joints)))
