"""Groups of related parts (Tang and Wu 2019, 3.1), computed from annotations.

    python -m hourglass_jax.part_groups --annotations=mpii_annotations.json.gz --groups=5 --output=groups

A group is a tuple of joint indices; groups may overlap, and together they cover all joints. The command reads
MPII's public json and needs scikit-learn, and matplotlib for the picture.
"""

import argparse
import collections
import io
import sys
import warnings

import numpy as np

from hourglass_jax import console, copies, files
from hourglass_jax.data.datasets import mpii_annotations
from hourglass_jax.models.groups import Groups
from hourglass_jax.pose import skeletons
from hourglass_jax.pose.skeletons import Skeleton

LATTICE = 16  # cells per side; coarse, because 16,992 people are few for the 256**2 cells of a pair
SEEDS = 20  # the command tries so many, to show whether the groups depend on the seed


def cells(joints: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The joints' cells on a lattice over the person's box; joints outside get the nearest cell.

    Args:
      joints: (n, k, 2) image pixels.
      center: (n, 2) centres of the people, image pixels.
      scale: (n,) heights of the people / 200 px; the box is a square of 200 * scale px.

    Returns:
      (n, k) int, 0 to LATTICE**2 - 1, row by row.
    """
    share = (joints - center[:, None]) / (200 * scale)[:, None, None] + 0.5
    x, y = np.moveaxis(np.clip(np.floor(LATTICE * share), 0, LATTICE - 1).astype(int), -1, 0)
    return LATTICE * y + x


def mutual_information(cells: np.ndarray) -> np.ndarray:
    """I(m, n) = sum over cells of p(l_m, l_n) log(p(l_m, l_n) / (p(l_m) p(l_n))) (equation 1).

    Args:
      cells: (n, k) int from 0, one row per person; the probabilities are relative frequencies.

    Returns:
      (k, k) nats, symmetric; the diagonal is each part's entropy.
    """
    persons, parts = cells.shape
    size = cells.max() + 1
    information = np.zeros((parts, parts))
    for m in range(parts):
        for n in range(m + 1):
            count = np.bincount(cells[:, m] * size + cells[:, n], minlength=size**2)
            joint = count.reshape(size, size) / persons
            apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
            seen = joint > 0  # p log p is 0 for p = 0
            value = np.sum(joint[seen] * np.log(joint[seen] / apart[seen]))
            information[m, n] = information[n, m] = value
    return information


def affinity(information: np.ndarray) -> np.ndarray:
    """The matrix of Figure 2a: (k, k) with a diagonal of 0, the other entries scaled to [0, 1].

    Raises:
      ValueError: all pairs have the same information, for instance because there is only one person.
    """
    pairs = ~np.eye(len(information), dtype=bool)
    low, high = information[pairs].min(), information[pairs].max()
    if high - low < 1e-9:
        raise ValueError("All pairs of joints have the same information; more people are needed.")
    return np.where(pairs, (information - low) / (high - low), 0.0)


def cluster(affinity: np.ndarray, groups: int, seed: int = 0) -> Groups:
    """Spectral clustering of parts, in the order of their first joints.

    Args:
      affinity: (k, k) in [0, 1], symmetric.
      groups: number of groups, 2 to k.
      seed: seed of k-means, which runs ten times and keeps the best result.

    Raises:
      ValueError: the number of groups is out of range.
    """
    parts = len(affinity)
    if not 2 <= groups <= parts:
        raise ValueError(f"{groups} groups of {parts} joints are not possible; choose 2 to {parts}.")
    if groups == parts:
        return tuple((joint,) for joint in range(parts))
    from sklearn.cluster import SpectralClustering  # an optional extra

    method = SpectralClustering(groups, affinity="precomputed", n_init=10, random_state=seed)
    with warnings.catch_warnings():
        # With few people the graph is not connected; the command shows how many seeds agree on the groups.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        labels = method.fit_predict(affinity)
    return tuple(sorted(tuple(np.flatnonzero(labels == label).tolist()) for label in set(labels)))


def read_mpii(path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people in MPII's annotations (see `mpii_annotations.read`) who have all 16 joints.

    Returns:
      joints (n, 16, 2) and centers (n, 2) in image pixels, scales (n,).

    Raises:
      FileNotFoundError, ValueError: no such file, or not one of MPII's; the message is one line.
    """
    people = [person for person in mpii_annotations.read(path) if person.visible.all() and person.scale > 0]
    if not people:
        raise ValueError(f"{path} has no person with all {len(skeletons.MPII)} joints.")
    return (
        np.array([person.joints for person in people]),
        np.array([person.center for person in people]),
        np.array([person.scale for person in people]),
    )


def picture(affinity: np.ndarray, groups: Groups, skeleton: Skeleton):
    """Figure 2 of the paper, the matrix and the coloured skeleton, as a matplotlib figure.

    Args:
      affinity: (k, k) in [0, 1].
      groups: disjoint groups; the matrix is drawn in their order.
      skeleton: MPII's or LSP's.
    """
    import matplotlib  # an optional extra
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    colours = 10 if len(groups) <= 10 else 20
    palette = list(map(tuple, matplotlib.colormaps[f"tab{colours}"](np.arange(colours)).tolist()))
    names = [_short(name) for name in skeleton.joints]
    order = [joint for group in groups for joint in group]
    colour = {joint: palette[i] for i, group in enumerate(groups) for joint in group}

    figure = Figure(figsize=(12, 6.2), dpi=110)
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.12)
    matrix, body = figure.subplots(1, 2, width_ratios=(1.3, 1))
    image = matrix.imshow(affinity[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(image, ax=matrix, shrink=0.8, label="0 and 1: the least and the most related pair")
    matrix.plot(range(len(order)), range(len(order)), "x", color="0.75", ms=8)  # the diagonal has no pairs
    for axis, angle in ((matrix.xaxis, 90), (matrix.yaxis, 0)):
        axis.set_ticks(range(len(order)), [names[joint] for joint in order], rotation=angle)
        axis.set_tick_params(length=0)
        for label, joint in zip(axis.get_ticklabels(), order, strict=True):
            label.set(color=colour[joint], fontweight="bold")
    start = -0.5
    for group in groups:
        frame = {"fill": False, "lw": 3, "ec": colour[group[0]], "clip_on": False, "zorder": 3}
        matrix.add_patch(Rectangle((start, start), len(group), len(group), **frame))
        start += len(group)
    matrix.set_title("Mutual information of the parts' places")

    place = np.array([_POSE[name][:2] for name in skeleton.joints])
    for a, b in skeleton.limbs:
        style = {"color": colour[a], "lw": 7} if colour[a] == colour[b] else {"color": "0.82", "lw": 4}
        body.plot(*place[[a, b]].T, zorder=1, **style)
    body.scatter(*place.T, s=320, c=[colour[joint] for joint in range(len(names))], zorder=2)
    for name, full in zip(names, skeleton.joints, strict=True):
        x, y, *aside = _POSE[full]
        text = {"textcoords": "offset points", "va": "center", "fontsize": 11}
        text["ha"] = {-1: "right", 0: "center", 1: "left"}[np.sign(aside[0])]
        body.annotate(name, (x, y), xytext=aside, **text)
    body.set_title(f"{len(groups)} groups of related parts")
    body.set(aspect="equal", xlim=(-0.78, 0.78), ylim=(1.72, -0.08))
    body.axis("off")
    return figure


_SIDE = {  # m, places of the left joints of a person who faces the viewer; y down
    "ankle": (0.19, 1.63),
    "knee": (0.17, 1.26),
    "hip": (0.15, 0.90),
    "shoulder": (0.22, 0.40),
    "elbow": (0.38, 0.63),
    "wrist": (0.52, 0.87),
}
_POSE = {  # place in m, then the label's offset from it, in points
    **{f"left_{name}": (x, y, 16, 0) for name, (x, y) in _SIDE.items()},
    **{f"right_{name}": (-x, y, -16, 0) for name, (x, y) in _SIDE.items()},
    **{"head_top": (0, 0, 16, 0), "upper_neck": (0, 0.22, 16, 0), "neck": (0, 0.30, 16, 0)},
    **{"thorax": (0, 0.40, 0, -22), "pelvis": (0, 0.84, 0, -24)},
}


def main(arguments: list[str] | None = None) -> int:
    """Groups MPII's joints as the flags say; returns the exit code of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m hourglass_jax.part_groups",
        description="Groups body parts by the mutual information of their places (Tang and Wu 2019).",
    )
    parser.add_argument("--annotations", required=True, help="MPII's public json, .json or .json.gz")
    parser.add_argument("--groups", type=int, default=5, help="how many, 2 to 16 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clustering (default: %(default)s)")
    parser.add_argument("--output", help="folder for part_groups.png and part_groups.json")
    flags = parser.parse_args(arguments)
    return console.run(_main, flags)


def _main(flags: argparse.Namespace) -> None:
    skeleton = skeletons.MPII
    if not 2 <= flags.groups <= len(skeleton):
        raise ValueError(f"--groups={flags.groups} is out of range; choose 2 to {len(skeleton)}.")
    joints, center, scale = read_mpii(copies.fetched(flags.annotations))
    information = mutual_information(cells(joints, center, scale))
    scaled = affinity(information)
    names = skeleton.joints

    print(f"{len(joints):,} people with all {len(skeleton)} joints. The most related parts:")
    pairs = [(m, n) for m in range(len(names)) for n in range(m)]
    for m, n in sorted(pairs, key=lambda pair: -scaled[pair])[:10]:
        print(f"  {information[m, n]:.4f} nats ({scaled[m, n]:.2f})  {_short(names[n])} - {_short(names[m])}")

    groups = cluster(scaled, flags.groups, flags.seed)
    found = collections.Counter(cluster(scaled, flags.groups, seed) for seed in range(SEEDS))
    print(f"{len(groups)} groups, found with {found[groups]} of {SEEDS} seeds:")
    for group in groups:
        print(f"  {', '.join(_short(names[joint]) for joint in group)}")
    print(f"For a network: --config.model.groups='{groups}'")

    if flags.output:
        folder = files.path(flags.output)
        buffer = io.BytesIO()
        picture(scaled, groups, skeleton).savefig(buffer, format="png")
        files.write(folder / "part_groups.png", buffer.getvalue())
        results = {"joints": names, "groups": groups, "mutual_information": information}
        files.write_json(folder / "part_groups.json", results)
        print(f"Wrote part_groups.png and part_groups.json to {folder}.")


def _short(name: str) -> str:
    """ "right_ankle" as "r ankle"."""
    return name.replace("right_", "r ").replace("left_", "l ").replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
