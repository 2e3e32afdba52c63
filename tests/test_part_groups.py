"""Groups of related parts: mutual information by hand, and the paper's groups from MPII's annotations."""

import gzip
import json
import pathlib

import cv2
import numpy as np
import pytest

from hourglass_jax import part_groups
from hourglass_jax.models import groups as named_groups
from hourglass_jax.pose import skeletons

SHARED = pathlib.Path(__file__).parents[2] / "shared/data/mpii/mpii_annotations.json.gz"
needs_mpii = pytest.mark.skipif(not SHARED.exists(), reason="needs MPII's annotations in ../shared")

# Figure 2b, as MPII's joint indices.
FIVE = ((0, 1, 4, 5), (2, 3, 6), (7, 8, 9, 12, 13), (10, 11), (14, 15))


@pytest.fixture(scope="module")
def mpii_information():
    return part_groups.mutual_information(part_groups.cells(*part_groups.read_mpii(SHARED)))


def blocks(*sizes):
    """An affinity of 1 within and 0.1 between groups of these sizes."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(label[:, None] == label, 1.0, 0.1) * ~np.eye(len(label), dtype=bool)


def person(joints, **fields):
    place = {"objpos": [100.0, 200.0], "scale_provided": 1.5}
    listed = {"img_paths": "a.jpg", "annolist_index": 1.0, "people_index": 1.0}
    return {"joint_self": joints, **place, **listed, **fields}


def scattered(count):
    """MPII's list with people whose joints lie anywhere in their boxes."""
    places = np.random.default_rng(0).uniform(1, 300, (count, 16, 2))
    return [person([[x, y, 1.0] for x, y in joints]) for joints in places.tolist()]


def write(path, value):
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    return path


def run(capsys, *flags):
    code = part_groups.main([str(flag) for flag in flags])
    return code, capsys.readouterr()


def test_cells_of_hand_made_places():
    # A box of 200 * 1.6 = 320 px has 20 px per cell; its corner is (100, 200) - 160 = (-60, 40).
    joints = [[-60, 40], [-41, 40], [-39, 40], [-60, 61], [100, 200], [259.9, 359.9], [-61, 39], [9e9, 39]]
    found = part_groups.cells(np.array([joints]), np.array([[100, 200]]), np.array([1.6]))
    # Row by row: (0, 0), (0, 0), (1, 0), (0, 1), (8, 8), the last; outside, the nearest cell.
    np.testing.assert_array_equal(found, [[0, 0, 1, 16, 8 * 16 + 8, 255, 0, 15]])


def test_cells_do_not_change_with_the_persons_size_and_place():
    rng = np.random.default_rng(0)
    joints, center, scale = rng.uniform(-60, 60, (5, 16, 2)), np.zeros((5, 2)), np.full(5, 0.6)
    moved = part_groups.cells(3 * joints + 70, center + 70, 3 * scale)
    np.testing.assert_array_equal(moved, part_groups.cells(joints, center, scale))


def test_mutual_information_of_known_variables():
    coin, die = np.divmod(np.arange(12), 6)  # all pairs of faces of a coin and a die, once each
    variables = np.stack([coin, die, die, (die * 5 + 3) % 6, die % 2, die * 2 + coin], axis=1)
    information = part_groups.mutual_information(variables)
    log = np.log
    np.testing.assert_allclose(information, information.T)
    np.testing.assert_allclose(  # entropies
        np.diag(information), [log(2), log(6), log(6), log(6), log(2), log(12)], rtol=1e-12
    )
    assert abs(information[0, 1]) < 1e-12  # independent
    np.testing.assert_allclose(information[1, 2], log(6))  # identical
    np.testing.assert_allclose(information[1, 3], log(6))  # one to one
    np.testing.assert_allclose(information[1, 4], log(2))  # a function of the die: its own entropy
    np.testing.assert_allclose(information[0, 5], log(2))
    np.testing.assert_allclose(information[1, 5], log(6))


def test_mutual_information_of_a_noisy_copy():
    # p(0, 0) = p(1, 1) = 3/8, p(0, 1) = p(1, 0) = 1/8, marginals 1/2.
    pairs = np.array([[0, 0]] * 3 + [[0, 1]] + [[1, 0]] + [[1, 1]] * 3)
    expected = 2 * 3 / 8 * np.log((3 / 8) / (1 / 4)) + 2 * 1 / 8 * np.log((1 / 8) / (1 / 4))
    np.testing.assert_allclose(part_groups.mutual_information(pairs)[0, 1], expected, rtol=1e-12)


def test_affinity_scales_the_pairs_and_removes_the_diagonal():
    information = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 5.0], [2.0, 5.0, 9.0]])
    scaled = part_groups.affinity(information)
    np.testing.assert_allclose(scaled, [[0, 0, 0.25], [0, 0, 1], [0.25, 1, 0]])


def test_affinity_of_one_person_is_refused():
    with pytest.raises(ValueError, match="more people"):
        part_groups.affinity(part_groups.mutual_information(np.arange(16)[None]))


def test_clusters_are_the_blocks_in_order():
    pytest.importorskip("sklearn")
    affinity = blocks(3, 2, 4)
    mixed = np.array([4, 8, 1, 0, 6, 2, 7, 3, 5])  # joint i of the result is joint mixed[i]
    found = part_groups.cluster(affinity[np.ix_(mixed, mixed)], 3)
    assert found == ((0, 7), (1, 4, 6, 8), (2, 3, 5))


def test_clusters_as_many_as_joints_are_single_joints():
    assert part_groups.cluster(blocks(2, 2), 4) == ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize("groups", [-1, 0, 1, 5])
def test_cluster_refuses_numbers_out_of_range(groups):
    with pytest.raises(ValueError, match="choose 2 to 4"):
        part_groups.cluster(blocks(2, 2), groups)


def test_named_groups_are_the_papers():
    assert named_groups.named("data5", skeletons.MPII) == FIVE
    body = named_groups.named("body", skeletons.MPII)
    assert body == ((7, 8, 9), (13, 14, 15), (10, 11, 12), (4, 5), (0, 1), (2, 3, 6))
    overlapping = named_groups.named("overlapping", skeletons.MPII)
    assert overlapping == (*FIVE[:3], (10, 11, 12), (13, 14, 15))


def test_named_groups_of_lsp_have_no_pelvis_and_no_thorax():
    # LSP: 0-5 legs from right to left, 6-8 right wrist to shoulder, 9-11 left shoulder to wrist, neck, head.
    five = named_groups.named("data5", skeletons.LSP)
    assert five == ((0, 1, 4, 5), (2, 3), (8, 9, 12, 13), (6, 7), (10, 11))
    body = named_groups.named("body", skeletons.LSP)
    assert body == ((12, 13), (9, 10, 11), (6, 7, 8), (4, 5), (0, 1), (2, 3))


@pytest.mark.parametrize("skeleton", [skeletons.MPII, skeletons.LSP], ids=lambda s: s.name)  # whole bodies
@pytest.mark.parametrize("name", [*named_groups.NAMED, "each"])
def test_named_groups_cover_all_joints_and_are_symmetric(name, skeleton):
    groups = named_groups.named(name, skeleton)
    named_groups.check(groups, len(skeleton))
    mirrored = {frozenset(skeleton.flip[list(group)].tolist()) for group in groups}
    assert mirrored == {frozenset(group) for group in groups}
    assert len(groups) == {"body": 6, "data2": 2, "data8": 8, "each": len(skeleton)}.get(name, 5)


def test_named_refuses_unknown_names_and_foreign_joints():
    with pytest.raises(ValueError, match="choose from body, .*each"):
        named_groups.named("data9", skeletons.MPII)
    nose = skeletons.Skeleton("face", ("nose", "pelvis"), (), (), ())
    with pytest.raises(ValueError, match="do not know nose of the joint set 'face'"):
        named_groups.named("data5", nose)


def test_default_groups_depend_on_the_number_of_joints():
    assert named_groups.default(16) == FIVE
    assert named_groups.default(14) == named_groups.named("data5", skeletons.LSP)
    with pytest.raises(ValueError, match="no part groups for 11 joints"):
        named_groups.default(11)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (((0, 1), (3,)), "leave out joint 2 of 4"),
        (((0, 1), (2, 3, 4)), "name joint 4; there are joints 0 to 3"),
        (((0, 1, 2), (3, -1)), "name joint -1;"),
        (((0, 1), (), (2, 3)), "empty"),
        (((0, 1, 1), (2, 3)), "twice"),
    ],
)
def test_check_names_the_joint_that_is_wrong(groups, message):
    with pytest.raises(ValueError, match=message):
        named_groups.check(groups, 4)


def test_read_keeps_the_persons_with_all_joints(tmp_path):
    full = [[float(i + 1), 0.0, 1.0] for i in range(16)]  # one coordinate of 0 is a place
    missing = [*full[:15], [0.0, 0.0, 0.0]]
    people = [person(full), person(missing), person(full, scale_provided=2.0)]
    for path in (tmp_path / "people.json.gz", tmp_path / "people.json"):
        text = json.dumps(people).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        joints, center, scale = part_groups.read_mpii(path)
        np.testing.assert_array_equal(joints, [np.array(full)[:, :2]] * 2)
        np.testing.assert_array_equal(center, [[100, 200]] * 2)
        np.testing.assert_array_equal(scale, [1.5, 2.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as json"),
        (b"joints", "not readable as json"),
        (gzip.compress(b"[]" * 99, mtime=0)[:-9], "not readable as json"),  # the time is in the test's name
        (b"[]", "is not MPII's json"),
        (b"3", "is not MPII's json"),
        (b'{"images": []}', "is not MPII's json"),
        (json.dumps([person([[1.0, 1.0, 1.0]] * 14)]).encode(), "is not MPII's json"),
        (json.dumps([person([[0.0, 0.0, 0.0]] * 16)]).encode(), "no person with all 16 joints"),
        (json.dumps([person([[1.0, 1.0, 1.0]] * 16)]).encode(), "more people are needed"),
    ],
)
def test_the_command_reports_bad_files_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "annotations"
    path.write_bytes(content)
    code, printed = run(capsys, "--annotations", path)
    assert code == 1 and printed.err.startswith("Error: ") and message in printed.err
    assert printed.err.count("\n") == 1


def test_the_command_reports_missing_files_and_bad_numbers_in_one_line(tmp_path, capsys):
    code, printed = run(capsys, "--annotations", tmp_path / "none.json")
    assert code == 1 and printed.err == f"Error: There is no file {tmp_path / 'none.json'}.\n"
    path = write(tmp_path / "people.json.gz", scattered(3))
    for groups in (1, 17):
        code, printed = run(capsys, "--annotations", path, "--groups", groups)
        assert code == 1
        assert printed.err == f"Error: --groups={groups} is out of range; choose 2 to 16.\n"


def test_command_draws_and_writes_what_it_prints(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    path = write(tmp_path / "people.json.gz", scattered(40))
    output = tmp_path / "made" / "here"
    code, printed = run(capsys, "--annotations", path, "--groups", 4, "--output", output)
    assert code == 0 and "40 people with all 16 joints" in printed.out
    results = json.loads((output / "part_groups.json").read_text())
    assert sorted(sum(results["groups"], [])) == list(range(16))
    assert str(tuple(map(tuple, results["groups"]))) in printed.out
    information = np.array(results["mutual_information"])
    assert f"{np.max(information - 99 * np.eye(16)):.4f} nats (1.00)" in printed.out

    picture = cv2.imread(str(output / "part_groups.png"))
    assert picture.shape == (682, 1320, 3)
    colours = {tuple(pixel) for pixel in picture[::3, ::3].reshape(-1, 3).tolist()}
    for blue_green_red in ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214)):
        assert blue_green_red in colours  # one for each group


@needs_mpii
def test_mutual_information_of_mpii(mpii_information):
    """The figures of ../shared/data/README.md, in nats."""
    for m, n, expected in (
        *((0, 1, 1.4167), (0, 5, 1.1078), (1, 4, 1.0649), (2, 3, 1.1300), (2, 6, 1.7465)),
        *((7, 8, 1.9460), (10, 15, 0.8629)),
    ):
        np.testing.assert_allclose(mpii_information[m, n], expected, atol=5e-5)
    pairs = mpii_information[~np.eye(16, dtype=bool)]
    np.testing.assert_allclose([pairs.min(), pairs.max()], [0.3626, 1.9460], atol=5e-5)


@needs_mpii
def test_groups_of_mpii_are_those_of_figure_2b_with_every_seed(mpii_information):
    pytest.importorskip("sklearn")
    affinity = part_groups.affinity(mpii_information)
    for seed in range(10):
        assert part_groups.cluster(affinity, 5, seed) == FIVE
    two = part_groups.cluster(affinity, 2)
    assert set(two) == set(named_groups.named("data2", skeletons.MPII))
    eight = {frozenset(part_groups.cluster(affinity, 8, seed)) for seed in range(10)}
    assert frozenset(named_groups.named("data8", skeletons.MPII)) in eight
