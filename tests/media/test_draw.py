"""Drawing: the places and colours of joints and limbs."""

import cv2
import numpy as np
import pytest

from hourglass_jax.media import draw
from hourglass_jax.pose.skeletons import MPII, Skeleton

PAIR = Skeleton(
    name="pair",
    joints=("right_hand", "left_hand", "navel"),
    flip_pairs=((0, 1),),
    limbs=((0, 2), (1, 2)),
    parts=(("Hand", (0, 1)),),
)
BLACK = np.zeros((100, 120, 3), np.uint8)


def drawn(joints, flags=(True, True, True), image=BLACK, skeleton=PAIR):
    return draw.skeleton(image, np.array(joints, float), np.array(flags), skeleton)


def test_right_is_orange_left_is_blue_and_between_is_green():
    assert draw.side_colour(("right_knee",)) == draw.side_colour(("right_hip", "pelvis")) == draw.RIGHT
    assert draw.side_colour(("left_knee", "left_hip")) == draw.side_colour(("left_hip", "neck")) == draw.LEFT
    assert draw.side_colour(("pelvis", "thorax")) == draw.MIDDLE
    assert draw.side_colour(("right_hip", "left_hip")) == draw.MIDDLE
    red, green, blue = draw.RIGHT
    assert red > green > blue and draw.LEFT[2] > draw.LEFT[0]  # RGB, not BGR


def test_joints_and_limbs_have_their_sides_colour_at_their_place():
    image = drawn([[20.5, 30.5], [100.5, 30.5], [60.5, 80.5]])
    assert tuple(image[30, 20]) == draw.RIGHT and tuple(image[30, 100]) == draw.LEFT
    assert tuple(image[80, 60]) == draw.MIDDLE
    # The limbs' middles: (40, 55) and (80, 55).
    # Smoothed lines are blended, which rounds.
    np.testing.assert_allclose(image[55, 40], draw.RIGHT, atol=3)
    np.testing.assert_allclose(image[55, 80], draw.LEFT, atol=3)
    assert not image[:20].any() and not image[:, :10].any() and not image[:, 115:].any()


def test_a_joint_is_drawn_around_its_continuous_position():
    for place in ([60.0, 50.0], [60.5, 50.5], [60.25, 49.75]):
        image = drawn([place] * 3, (False, False, True)).astype(float).sum(-1)
        x, y = np.arange(120) + 0.5, np.arange(100) + 0.5
        centroid = [(image * x).sum(), (image * y[:, None]).sum()] / image.sum()
        # An error of half a pixel would be a wrong convention; OpenCV's small discs are within a tenth.
        np.testing.assert_allclose(centroid, place, atol=0.13)


def test_the_image_itself_is_not_changed():
    image = BLACK.copy()
    assert drawn([[20, 30], [100, 30], [60, 80]], image=image).any()
    assert not image.any()


def test_joints_not_drawn_or_not_finite_hide_their_limbs():
    joints = [[20.5, 30.5], [100.5, 30.5], [60.5, 80.5]]
    for image in (
        drawn(joints, (False, True, True)),
        drawn([[np.nan, 30], *joints[1:]]),
        drawn([[20, np.inf], *joints[1:]]),
    ):
        assert not image[:, :50].any()
        np.testing.assert_allclose(image[55, 80], draw.LEFT, atol=3)
    for empty in (drawn(joints, (False,) * 3), drawn(np.full((3, 2), np.nan))):
        np.testing.assert_array_equal(empty, BLACK)


def test_limbs_are_drawn_towards_joints_outside_the_image():
    image = drawn([[20.5, 30.5], [-2979.5, 30.5], [420.5, 30.5]], (True, False, True))
    np.testing.assert_allclose(image[30, 100], draw.RIGHT, atol=3)
    assert not image[:15].any() and not image[45:].any()


def test_lines_grow_with_the_person():
    joints = np.array([[20.5, 30.5], [100.5, 30.5], [60.5, 80.5]])
    shares = []
    for zoom in (8, 16):
        image = np.zeros((100 * zoom, 120 * zoom, 3), np.uint8)
        shares.append(draw.skeleton(image, zoom * joints, np.ones(3, bool), PAIR).any(-1).mean())
    np.testing.assert_allclose(shares[1], shares[0], rtol=0.15)


def test_all_of_a_person_is_drawn():
    joints = np.stack([np.linspace(10, 110, 16), np.linspace(90, 10, 16)], axis=-1)
    image = draw.skeleton(BLACK, joints, np.ones(16, bool), MPII)
    colours = {tuple(image[int(y), int(x)]) for x, y in joints}
    assert colours == {draw.RIGHT, draw.LEFT, draw.MIDDLE}


# Heatmaps


def test_a_heatmap_is_brightest_in_the_middle_of_its_cell():
    values = np.zeros((25, 30), np.float32)
    values[10, 20] = 1  # of 4 x 4 px: its middle is (82, 42)
    result = draw.heatmap(BLACK, values).astype(float).sum(-1)
    excess = result - result.min()
    x, y = np.arange(120) + 0.5, np.arange(100) + 0.5
    centroid = [(excess * x).sum(), (excess * y[:, None]).sum()] / excess.sum()
    np.testing.assert_allclose(centroid, [82, 42], atol=0.05)


def test_a_heatmap_darkens_the_image_where_it_is_empty_and_takes_any_values():
    image = np.full((10, 10, 3), 200, np.uint8)
    empty = draw.heatmap(image, np.zeros((5, 5)))
    np.testing.assert_allclose(empty, 0.4 * 200, atol=4)  # inferno starts near black
    np.testing.assert_array_equal(draw.heatmap(image, np.full((5, 5), -3.0)), empty)
    full = draw.heatmap(image, np.ones((5, 5), np.float16))
    np.testing.assert_array_equal(draw.heatmap(image, np.full((5, 5), 7.0)), full)
    # Inferno ends at (252, 255, 164), light yellow with blue lowest, over 0.4 * 200.
    np.testing.assert_allclose(full[5, 5], np.minimum(80 + 0.8 * np.array([252, 255, 164]), 255), atol=2)


# Attention


def test_an_attention_map_is_scaled_by_its_own_maximum():
    map_ = np.random.default_rng(0).uniform(0.1, 1, (5, 6, 1))
    map_[2, 3] = 1.0
    expected = draw.heatmap(BLACK, map_[..., 0])
    np.testing.assert_array_equal(draw.attention(BLACK, map_), expected)
    # A softmax over 64 x 64 cells has values of about 1 / 4096.
    np.testing.assert_allclose(draw.attention(BLACK, map_ / 4096).astype(int), expected, atol=1)
    # A faint second map is as bright as the first, at its own place.
    both = np.concatenate([map_, np.zeros_like(map_)], axis=-1)
    both[0, 0, 1] = 1e-3
    assert draw.attention(BLACK, both)[5, 5].sum() > 1.5 * expected[5, 5].sum()
    np.testing.assert_array_equal(draw.attention(BLACK, 0 * map_), draw.heatmap(BLACK, 0 * map_[..., 0]))


def test_an_attention_sheet_has_a_row_for_each_stack_in_order(monkeypatch):
    names, titled = [], draw.titled
    monkeypatch.setattr(draw, "titled", lambda image, text: names.append(text) or titled(image, text))
    one, three = np.full((4, 4, 1), 0.25), np.full((2, 2, 3), 0.5)
    maps = {"stack10_parts": three, "stack2_resolution16": one, "stack2_resolution8": one, "global": one}
    sheet = draw.attention_sheet(BLACK, maps)
    expected = [
        "",
        "global 0.25",
        "",
        "stack2_resolution8 0.25",
        "stack2_resolution16 0.25",
        "",
        "stack10_parts 0.5",
    ]
    assert names == expected
    assert sheet.shape[0] % 3 == 0 and sheet.shape[1] == 3 * 164  # three rows; the longest has three tiles
    assert (sheet[: sheet.shape[0] // 3, 2 * 164 :] == 255).all()  # the first row has two tiles
    names.clear()
    wide = draw.attention_sheet(BLACK, maps, PAIR.joints)
    assert wide.shape[1] == 4 * 164 and names[-3:] == [f"{joint} 0.5" for joint in PAIR.joints]


# Sheets and files


def test_titled_keeps_the_image_below_a_band_with_text():
    image = np.full((50, 240, 3), 7, np.uint8)
    result = draw.titled(image, "PCK 90")
    np.testing.assert_array_equal(result[-50:], image)
    band = result[:-50]
    assert band.max() == 255 and band.min() < 100 and band.shape[1] == 240
    assert not np.array_equal(band, draw.titled(image, "PCK 91")[:-50])


def test_sheet_fills_rows_and_leaves_the_rest_white():
    images = [np.full((6, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = draw.sheet(images, columns=2)
    assert sheet.shape == (2 * (6 + 4), 2 * (4 + 4), 3)
    np.testing.assert_array_equal(sheet[2:8, 2:6], 10)
    np.testing.assert_array_equal(sheet[2:8, 10:14], 20)
    np.testing.assert_array_equal(sheet[12:18, 2:6], 30)
    sheet[2:8, 2:6] = sheet[2:8, 10:14] = sheet[12:18, 2:6] = 255
    assert (sheet == 255).all()
    assert len(images) == 3  # the caller's list is not changed


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        draw.sheet([], 3)


@pytest.mark.parametrize(("name", "off"), [("a.png", 0), ("a", 0), ("a.jpg", 6)])
def test_saved_pictures_read_back_in_their_colours(tmp_path, name, off):
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0], image[..., 1] = 250, 120  # orange; blue where R and B are confused
    draw.save(tmp_path / "new" / name, image)
    encoded = np.frombuffer((tmp_path / "new" / name).read_bytes(), np.uint8)
    again = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(again.astype(int), image.astype(int), atol=off)
