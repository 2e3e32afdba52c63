"""Draws skeletons, heatmaps, attention and contact sheets. Images are (h, w, 3) uint8 RGB."""

import colorsys
import itertools
import os
import pathlib
import re
from collections.abc import Sequence

import cv2
import numpy as np

from hourglass_jax import files
from hourglass_jax.pose.skeletons import Skeleton

RIGHT, LEFT, MIDDLE = (255, 120, 40), (60, 150, 255), (120, 220, 90)  # the person's own sides
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # of pictures, as OpenCV writes them
_ATTENTION = 160  # px, side of an attention map's tile; wide enough for its name


def side_colour(joint_names: tuple[str, ...]) -> tuple[int, int, int]:
    """Orange for the person's right side, blue for the left, green for the middle."""
    sides = {name.split("_")[0] for name in joint_names} & {"right", "left"}
    return {frozenset({"right"}): RIGHT, frozenset({"left"}): LEFT}.get(frozenset(sides), MIDDLE)


def person_colour(number: int) -> tuple[int, int, int]:
    """A colour for each person; consecutive hues are a golden section apart and easy to distinguish."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def skeleton(
    image: np.ndarray,
    joints: np.ndarray,
    drawn: np.ndarray,
    skeleton: Skeleton,
    *,
    colour: tuple[int, int, int] | None = None,
    lines: bool = True,
    points: bool = True,
    labels: bool = False,
) -> np.ndarray:
    """Draws limbs and joints on a copy of the image.

    Args:
      image: (h, w, 3) uint8.
      joints: (k, 2) px of this image.
      drawn: (k,) bool, which joints to draw; a limb is drawn if both its ends are.
      skeleton: the joint set.
      colour: RGB for all lines and points; None for the colours of the sides.
      lines, points, labels: whether to draw limbs, joints and the joints' names.
    """
    image = image.copy()
    drawn = drawn & np.isfinite(joints).all(axis=-1)
    known = joints[drawn]
    if not len(known):
        return image
    # Lines scale with the person, but stay visible in the whole picture; the limit depends on the area, so
    # that it suits panoramas, too.
    least = 0.1 * np.sqrt(np.prod(image.shape[:2]))
    extent = np.clip(np.ptp(known, axis=0).max(), least, max(image.shape[:2]))
    width = max(1, round(extent / 60))
    # Small people get no outline: it would hide them.
    passes = [(width + 2 * max(1, width // 2), True)] * bool(extent >= 100) + [(width, False)]
    for width_, outline in passes:
        for a, b in skeleton.limbs if lines else ():
            if drawn[a] and drawn[b]:
                own = colour or side_colour((skeleton.joints[a], skeleton.joints[b]))
                _line(image, joints[a], joints[b], (255, 255, 255) if outline else own, width_)
        for joint in np.flatnonzero(drawn) if points else ():
            own = colour or side_colour((skeleton.joints[joint],))
            _disc(image, joints[joint], width_, (255, 255, 255) if outline else own)
    for joint in np.flatnonzero(drawn) if labels else ():
        own = colour or side_colour((skeleton.joints[joint],))
        _text(image, skeleton.joints[joint], joints[joint] + 2 * width, own, extent)
    return image


def box(image: np.ndarray, box, colour: tuple[int, int, int], title: str = "") -> np.ndarray:
    """Draws a box (x, y, width, height) in px on a copy of the image, with a title at its first corner."""
    image, (x, y, width, height) = image.copy(), np.asarray(box, float)
    first, second = np.array([x, y]), np.array([x + width, y + height])
    thick = max(1, round(max(width, height) / 150))
    cv2.rectangle(image, _fixed(first), _fixed(second), colour, thick, cv2.LINE_AA, shift=4)
    if title:
        _text(image, title, first + (3, 12), colour, max(width, height))
    return image


def heatmap(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Overlays a map (h', w') in [0, 1] on a darkened copy of the image."""
    values = cv2.resize(np.clip(values, 0, 1).astype(np.float32), image.shape[1::-1])
    colours = cv2.applyColorMap((255 * values).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.addWeighted(image, 0.4, cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), 0.8, 0)


def attention(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Overlays the maximum of non-negative attention maps (h', w', m) on a darkened copy of the image.

    Each map is scaled by its own maximum, because softmax maps, whose cells sum to 1, peak far below 1.
    """
    maps = np.asarray(maps, np.float32)
    peaks = np.maximum(maps.max(axis=(0, 1)), np.finfo(np.float32).tiny)
    return heatmap(image, (maps / peaks).max(axis=-1))


def attention_sheet(image: np.ndarray, maps: dict[str, np.ndarray], joints: Sequence[str] = ()) -> np.ndarray:
    """One row per stack: the image, then each attention map on the image, titled with its name and maximum.

    Args:
      image: (h, w, 3) uint8.
      maps: (h', w', m) in [0, 1] by name, for instance "stack1_refined"; m is 1, or one for each joint.
      joints: names of the joints, to draw one tile per joint instead of one for all.
    """
    image = cv2.resize(image, (_ATTENTION, _ATTENTION), interpolation=cv2.INTER_AREA)
    rows = []
    for _, names in itertools.groupby(sorted(maps, key=_in_order), key=lambda name: name.split("_")[0]):
        rows.append([titled(image, "")])
        for name in names:
            one_each = len(joints) > 1 and maps[name].shape[-1] == len(joints)
            titles = joints if one_each else [name]
            for title, of_title in zip(titles, np.split(maps[name], len(titles), axis=-1), strict=True):
                rows[-1].append(titled(attention(image, of_title), f"{title} {of_title.max():.2g}"))
    columns = max(map(len, rows))
    blank = np.full_like(rows[0][0], 255)
    return sheet([tile for row in rows for tile in row + [blank] * (columns - len(row))], columns)


def _in_order(name):
    """Sort key: stack2_... before stack10_..., and a stack's maps from coarse to fine."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def titled(image: np.ndarray, text: str) -> np.ndarray:
    """Adds a line of text above the image."""
    size = max(0.35, image.shape[1] / 480)
    height = round(30 * size)
    band = np.full((height, image.shape[1], 3), 255, np.uint8)
    cv2.putText(band, text, (3, round(0.75 * height)), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1,
                cv2.LINE_AA)  # fmt: skip
    return np.concatenate([band, image])


def sheet(images: list[np.ndarray], columns: int) -> np.ndarray:
    """Arranges images of equal size in rows of `columns`, with white gaps."""
    if not images:
        raise ValueError("A contact sheet needs at least one image.")
    images = [np.pad(i, ((2, 2), (2, 2), (0, 0)), constant_values=255) for i in images]
    blank = np.full_like(images[0], 255)
    images += [blank] * (-len(images) % columns)
    rows = [np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)]
    return np.concatenate(rows)


def save(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes a picture atomically, in the format of its extension."""
    suffix = pathlib.PurePath(path).suffix or ".png"
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    files.write(path, data.tobytes())


def _text(image, text, place, colour, extent):
    x, y = (int(value) for value in np.clip(place, -(2**15), 2**15))
    size = float(np.clip(extent / 600, 0.3, 1.5))
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _line(image, start, end, colour, width):
    cv2.line(image, _fixed(start), _fixed(end), colour, width, cv2.LINE_AA, shift=4)


def _disc(image, centre, radius, colour):
    cv2.circle(image, _fixed(centre), radius * 16, colour, -1, cv2.LINE_AA, shift=4)


def _fixed(point) -> tuple[int, int]:
    """Converts a continuous position to OpenCV's fixed point, where pixel centres are whole numbers."""
    x, y = np.clip(np.round((point - 0.5) * 16), -(2**20), 2**20)
    return int(x), int(y)
