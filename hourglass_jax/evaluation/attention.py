"""The share of a network's attention on the person, and the share that chance would place there."""

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax.pose import crop


def boxes(
    joints: jax.Array, visible: jax.Array, center: jax.Array, scale: jax.Array, *, margin: float = 0.1
) -> jax.Array:
    """The box around each person's labelled joints, in the frame of the nominal crop.

    Args:
      joints: (b, k, 2) px of the picture; visible: (b, k) flags, labelled above 0.
      center, scale: (b, 2) px and (b,), place and size of the crop.
      margin: fraction of the box's longer side that is added on each side, because joints lie inside the
        body.

    Returns:
      (b, 4) x0, y0, x1, y1 in [0, 1] of the crop; nan for people with fewer than two labelled joints.
    """
    places = crop.apply(crop.square(center, scale * crop.REFERENCE, 1), joints)
    shown = (visible > 0)[..., None]
    low = jnp.min(jnp.where(shown, places, jnp.inf), axis=1)
    high = jnp.max(jnp.where(shown, places, -jnp.inf), axis=1)
    more = margin * jnp.max(high - low, axis=1, keepdims=True)
    corners = jnp.clip(jnp.concatenate([low - more, high + more], axis=1), 0.0, 1.0)
    return jnp.where(shown.sum(axis=(1, 2))[:, None] > 1, corners, jnp.nan)


def share(maps: jax.Array, box: jax.Array) -> jax.Array:
    """The share of a map's sum within a box, averaged over the maps of a person.

    Args:
      maps: (b, h, w, m), not negative.
      box: (b, 4) of `boxes`; a cell counts by the part of it that the box covers.

    Returns:
      (b,) in [0, 1], for a uniform map the box's share of the area; nan without a box, or for an empty map.
    """
    covered = []
    for axis, cells in ((1, maps.shape[1]), (0, maps.shape[2])):  # y, x
        edges = jnp.arange(cells)
        low, high = box[:, axis, None] * cells, box[:, axis + 2, None] * cells
        covered.append(jnp.clip(jnp.minimum(high, edges + 1) - jnp.maximum(low, edges), 0.0, 1.0))
    maps = maps.astype(jnp.float32)
    inside = jnp.einsum("byxm,by,bx->bm", maps, *covered, precision="highest")
    return jnp.mean(inside / maps.sum(axis=(1, 2)), axis=-1)


def shares(attention: dict[str, jax.Array], people: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`share` of every map by name, and "area": the share of a uniform map, which is chance.

    Args:
      attention: maps (b, h, w, m) of the nominal crop by name.
      people: "joints", "visible", "center" and "scale" of `boxes`.
    """
    box = boxes(*(people[name] for name in ("joints", "visible", "center", "scale")))
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    return {name: share(maps, box) for name, maps in attention.items()} | {"area": width * height}


def summary(found: dict[str, np.ndarray]) -> dict | None:
    """Means in per cent of the `shares` (n,) of n people: {"people", "chance", "mean" of the maps, "maps": by
    name}; None if no person has a box."""
    known = np.isfinite(found["area"])
    if not known.any():
        return None
    # An empty map has no share.
    kept = {name: values[known & np.isfinite(values)] for name, values in found.items()}
    means = {name: 100.0 * float(np.mean(values)) for name, values in kept.items() if len(values)}
    chance = means.pop("area")
    return {
        "people": int(known.sum()),
        "chance": chance,
        "mean": float(np.mean(list(means.values()))) if means else None,
        "maps": means,
    }
