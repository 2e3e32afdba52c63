"""Does Learning Specific Features for Related Parts Help Human Pose Estimation? (Tang and Wu 2019)"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import groups as part_groups
from hourglass_jax.models import layers
from hourglass_jax.models.layers import Part
from hourglass_jax.models.outputs import Outputs

HEADS = ("branches", "linear", "unit")
ONWARD = ("shared", "specific")


class Stem(nn.Module):
    """Image to features at a quarter of the resolution, with small windows at the full one (3.2)."""

    width: int
    conv: Part
    norm: Part
    unit: Part

    @nn.compact
    def __call__(self, x):
        x = self._conv3(x, 0)  # 256 px, C/4
        x = layers.max_pool(x)
        x = self._conv3(self._conv3(x, 1), 2)  # 128 px
        x = self.unit(self.width // 2, name="unit0")(x)
        x = layers.max_pool(x)
        x = self.unit(self.width // 2, name="unit1")(x)  # 64 cells
        return self.unit(self.width, name="unit2")(x)

    def _conv3(self, x, index):
        x = self.conv(self.width // 4, (3, 3), name=f"conv{index}")(x)
        return nn.relu(self.norm(name=f"norm{index}")(x))


class Branch(nn.Module):
    """One part group's own layers: 1x1 to W channels, D units, 1x1 to the group's heatmaps (3.2).

    Returns the specific features (b, r, r, W) and the heatmaps (b, r, r, joints).
    """

    joints: int
    width: int  # W
    units: int  # D
    conv: Part
    norm: Part
    unit: Part

    @nn.compact
    def __call__(self, x):
        x = self.conv(self.width, (1, 1), name="lin")(x)
        x = nn.relu(self.norm(name="lin_norm")(x))
        for i in range(self.units):
            x = self.unit(self.width, name=f"unit{i}")(x)
        return x, self.conv(self.joints, (1, 1), name="heatmaps")(x)


class Model(nn.Module):
    """S part-based branching networks in a row: a shared trunk, a branch for each part group (Figure 4).

    __call__(image, train): image (b, h, w, 3) float, normalised; h and w divisible by 4 * 2**depth.
    Returns `Outputs` with S heatmaps (b, h/4, w/4, joints) float32.
    """

    joints: int = 16
    stacks: int = 8
    width: int = 256
    depth: int = 4  # of the hourglass: 64 cells -> 4
    # Joint indices by group; groups may overlap. Empty: the paper's five groups (Figure 2b), for MPII's 16
    # joints and LSP's 14.
    groups: Sequence[Sequence[int]] = ()
    branch_width: int = 64  # W
    branch_depth: int = 1  # D
    onward: str = "shared"  # the features that the next stack gets; or "specific" (3.3)
    # The layers from the trunk's features to heatmaps. The baselines of Figure 5c are "linear", only a 1x1
    # convolution, and "unit", one more residual unit before it.
    head: str = "branches"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Outputs:
        groups = self._groups()
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        unit = functools.partial(layers.Unit, conv=conv, norm=norm)
        full = functools.partial(unit, self.width)
        point = functools.partial(conv, kernel_size=(1, 1))
        branch = functools.partial(
            Branch, width=self.branch_width, units=self.branch_depth, conv=conv, norm=norm, unit=unit
        )

        x = Stem(self.width, conv, norm, unit, name="stem")(image.astype(self.dtype))
        heatmaps = []
        for s in range(self.stacks):
            # Trunk: features that are shared by all parts.
            shared = layers.Hourglass(self.depth, full, name=f"stack{s}_hourglass")(x)[-1]
            shared = full(name=f"stack{s}_unit")(shared)
            shared = point(self.width, name=f"stack{s}_lin")(shared)
            shared = nn.relu(norm(name=f"stack{s}_lin_norm")(shared))

            # Branches: one per part group; a baseline has one head for all parts.
            if self.head == "branches":
                made = [branch(len(g), name=f"stack{s}_branch{i}")(shared) for i, g in enumerate(groups)]
                specific = jnp.concatenate([features for features, _ in made], axis=-1)  # G * W
                maps = merge(groups, [maps for _, maps in made], self.joints)
            else:
                specific = full(name=f"stack{s}_head")(shared) if self.head == "unit" else shared
                maps = point(self.joints, name=f"stack{s}_heatmaps")(specific)
            heatmaps.append(layers.at_least_float32(maps))

            if s + 1 < self.stacks:  # Figure 4: orange line, shared, or green line, specific
                y = shared if self.onward == "shared" else specific
                y = point(self.width, name=f"stack{s}_remap_features")(y)
                x = x + y + point(self.width, name=f"stack{s}_remap_heatmaps")(maps)
        return Outputs(heatmaps=tuple(heatmaps))

    def _groups(self):
        for name, value, known in (("head", self.head, HEADS), ("onward", self.onward, ONWARD)):
            if value not in known:
                raise ValueError(f"model.{name}={value!r} is unknown; choose from {', '.join(known)}.")
        if self.head != "branches":
            return ()
        groups = self.groups or part_groups.default(self.joints)
        part_groups.check(groups, self.joints)
        return groups


def merge(groups, maps, joints: int) -> jax.Array:
    """The heatmaps of all groups in the joints' order; a joint of several groups gets their mean (4.3).

    Args:
      groups: joint indices by group; together they cover all joints.
      maps: by group, (b, h, w, joints of the group).
      joints: K.

    Returns:
      (b, h, w, K).
    """
    found = [[] for _ in range(joints)]
    for group, of_group in zip(groups, maps, strict=True):
        for channel, joint in enumerate(group):
            found[joint].append(of_group[..., channel])
    return jnp.stack([sum(several) / len(several) for several in found], axis=-1)
