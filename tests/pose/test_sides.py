"""Pairs of joints, found from their names."""

import pytest

from hourglass_jax.pose import sides, skeletons

# Each row: the names of one joint set, of which the first two, the next two, ... are pairs.
NAMES = [
    "LHand RHand LFoot RFoot",
    "eyeL eyeR",
    "hand.l hand.r",
    "L1 R1 L2 R2",
    "leye reye",
    "LEAR REAR",
    "KneeLeft KneeRight",
    "1_left 1_right",
    "leftWrist rightWrist LeftEar rightear",
    "main_gauche main_droite pied_gauche pied_droit",
    "linke_Hand rechte_Hand linkes_Knie rechtes_Knie linker_Fuß rechter_Fuß",
    "mano_izquierda mano_derecha pie_izq pie_der",
    "mano_sinistra mano_destra piede_sx piede_dx",
    "mão_esquerda mão_direita",
    "lewa_ręka prawa_ręka lewy_łokieć prawy_łokieć",
    "levá_ruka pravá_ruka",
    "левая_рука правая_рука левый_глаз правый_глаз",
    "vänster_hand höger_hand",
    "venstre_hånd højre_hånd",
    "sol_el sağ_el",
    "왼쪽어깨 오른쪽어깨",
    "左手 右手 左ひざ 右ひざ",
    "αριστερό_χέρι δεξί_χέρι",
    "tay_trái tay_phải",
]


@pytest.mark.parametrize("row", NAMES)
def test_pairs_of_many_languages(row):
    names = row.split()
    wanted = list(zip(names[::2], names[1::2], strict=True))
    assert sides.find([*names, "nose", "lower", "head top"]) == (wanted, [])
    assert {frozenset(pair) for pair in sides.find(names[::-1]).pairs} == set(map(frozenset, wanted))


def test_the_papers_joint_sets():
    for skeleton in skeletons.SKELETONS.values():
        found = sides.find(list(skeleton.joints)).pairs
        wanted = [(skeleton.joints[a], skeleton.joints[b]) for a, b in skeleton.flip_pairs]
        assert set(map(frozenset, found)) == set(map(frozenset, wanted))


@pytest.mark.parametrize(
    ("names", "remark"),
    [
        ("left_eye nose", "'left_eye' looks like one side, but there is no other side"),
        ("L_Hand Head", "'L_Hand' looks like one side"),
        ("hand1 hand2 head", "'hand1' and 'hand2' look like two sides: state flip_pairs"),
        ("mkono_kushoto mkono_kulia kichwa", "'mkono_kushoto' and 'mkono_kulia' look like two sides"),
    ],
)
def test_names_that_look_like_a_side_cause_a_remark(names, remark):
    pairs, (found,) = sides.find(names.split())
    assert not pairs and remark in found


def test_a_spine_is_not_a_pair_of_sides():
    assert sides.find(["spine1", "spine2", "hip_l", "hip_r"]) == ([("hip_l", "hip_r")], [])
