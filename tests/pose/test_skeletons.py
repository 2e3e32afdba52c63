"""Joint sets: the orders of the published files, and symmetry."""

import json
import re

import numpy as np
import pytest

from hourglass_jax.pose import skeletons
from hourglass_jax.pose.skeletons import FLIC, LSP, MPII, SKELETONS, Skeleton

BOTH = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
ORDERS = {  # as in the published annotation files; r and l are the person's own sides
    "mpii": "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top "
    "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist",
    "lsp": "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder "
    "l_shoulder l_elbow l_wrist neck head_top",
    "flic": "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip r_hip l_eye r_eye nose",
}
FLIPS = {
    "mpii": [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10],
    "lsp": [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13],
    "flic": [3, 4, 5, 0, 1, 2, 7, 6, 9, 8, 10],
}


def mirrored_name(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"right": f"left_{rest}", "left": f"right_{rest}"}.get(side, name)


@BOTH
def test_joints_have_the_order_of_the_published_files(skeleton):
    short = ORDERS[skeleton.name].split()
    full = [re.sub("^r_", "right_", re.sub("^l_", "left_", name)) for name in short]
    assert list(skeleton.joints) == full
    assert len(skeleton) == {"mpii": 16, "lsp": 14, "flic": 11}[skeleton.name]


@BOTH
def test_flip_is_the_published_permutation_and_undoes_itself(skeleton):
    np.testing.assert_array_equal(skeleton.flip, FLIPS[skeleton.name])
    np.testing.assert_array_equal(skeleton.flip[skeleton.flip], np.arange(len(skeleton)))


@BOTH
def test_flip_swaps_left_and_right_names_and_leaves_the_middle(skeleton):
    for joint, name in enumerate(skeleton.joints):
        assert skeleton.joints[skeleton.flip[joint]] == mirrored_name(name)


@BOTH
def test_limbs_are_symmetric(skeleton):
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert len(limbs) == len(skeleton.limbs)
    assert limbs == {frozenset(skeleton.flip[list(limb)].tolist()) for limb in skeleton.limbs}


@BOTH
def test_limbs_connect_all_joints(skeleton):
    reached = {0}
    for _ in skeleton.joints:
        reached |= {joint for limb in skeleton.limbs if reached & set(limb) for joint in limb}
    assert reached == set(range(len(skeleton)))


@BOTH
def test_parts_pool_each_joint_once_with_its_other_side(skeleton):
    pooled = [joint for _, joints in skeleton.parts for joint in joints]
    assert len(pooled) == len(set(pooled)) == {"mpii": 14, "lsp": 14, "flic": 6}[skeleton.name]
    for _, joints in skeleton.parts:
        assert set(skeleton.flip[list(joints)].tolist()) == set(joints)


@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["mpii", "lsp"])
def test_the_papers_tables_have_14_joints(skeleton):
    pooled = {joint for _, joints in skeleton.parts for joint in joints}
    left_out = {skeleton.joints[joint] for joint in set(range(len(skeleton))) - pooled}
    # The papers' MPII tables use 14 of the 16 joints.
    assert left_out == {"mpii": {"pelvis", "thorax"}, "lsp": set()}[skeleton.name]


@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["mpii", "lsp"])
def test_parts_have_the_joints_of_their_titles(skeleton):
    words = dict(Head="head", Sho="shoulder", Elb="elbow", Wri="wrist", Hip="hip", Knee="knee")
    words["Ank"] = "ankle"
    assert [title for title, _ in skeleton.parts] == list(words)
    for title, joints in skeleton.parts:
        names = [skeleton.joints[joint] for joint in joints]
        if title == "Head":  # head top and neck, in MPII's evaluation and in LSP's
            assert sorted(name.split("_")[-1] for name in names) == ["neck", "top"]
        else:
            assert sorted(names) == [f"left_{words[title]}", f"right_{words[title]}"]


@BOTH
def test_torso_is_left_hip_to_right_shoulder(skeleton):
    assert [skeleton.joints[joint] for joint in skeleton.torso] == ["left_hip", "right_shoulder"]


@BOTH
def test_json_brings_back_an_equal_skeleton(skeleton):
    again = Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict())))
    assert again == skeleton
    assert hash(again) == hash(skeleton)  # only tuples, so that it may be a static argument


def test_json_keeps_the_absence_of_a_torso():
    pair = Skeleton("pair", ("left_eye", "right_eye"), ((0, 1),), ((0, 1),), (("Eyes", (0, 1)),))
    assert Skeleton.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair


def test_skeletons_are_found_by_their_own_name():
    assert skeletons.SKELETONS == {"mpii": MPII, "lsp": LSP, "flic": FLIC}


@BOTH
def test_sticks_are_symmetric(skeleton):
    for _, row in skeleton.sticks:
        mirrored = [tuple(tuple(sorted(skeleton.flip[list(end)].tolist())) for end in s) for s in row]
        assert sorted(mirrored) == sorted(row)


def test_a_skeleton_that_was_saved_without_sticks_has_none():
    fields = {name: value for name, value in LSP.to_dict().items() if name != "sticks"}
    assert Skeleton.from_dict(fields).sticks == ()
