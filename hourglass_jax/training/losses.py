"""Losses on heatmaps and coordinates: functions from arrays to a number."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import heatmaps
from hourglass_jax.pose.skeletons import Skeleton


def mean_squared_error(maps: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The papers' loss: the mean over cells and joints of (map - target)^2.

    Args:
      maps, targets: (b, h, w, k).
      weights: (b, k), a weight of 0 leaves a joint out; the mean is over the other joints.
    """
    error = jnp.mean((maps - targets) ** 2, axis=(1, 2))  # b k
    return jnp.sum(error * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Spatial cross-entropy: -sum_cells q log softmax(logits), q = target / sum(target).

    Training leaves the plateau of the all-zero map much sooner than with the squared error, whose targets
    cover less than one per cent of the cells. The cross-entropy is not defined for joints without a target:
    those (not labelled, or outside of the input) are left out.

    Args:
      logits, targets: (b, h, w, k), targets >= 0.
      weights: (b, k).
    """
    b, h, w, k = logits.shape
    log_share = jax.nn.log_softmax(logits.reshape(b, h * w, k), axis=1)
    targets = targets.reshape(b, h * w, k)
    total = jnp.sum(targets, axis=1)  # b k
    # If less than a tenth of a cell's peak is inside the input, there is no position to learn.
    weights = weights * (total > 0.1)
    error = -jnp.sum(targets * log_share, axis=1) / jnp.maximum(total, 0.1)
    return jnp.sum(error * weights) / jnp.maximum(jnp.sum(weights), 1.0)


KINDS = {"mean_squared_error": mean_squared_error, "cross_entropy": cross_entropy}


def coordinates_error(coordinates: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_joints |coordinates - target|^2 (Selvam and Mishra, equation 8), averaged over people.

    Args:
      coordinates, targets: (b, k, 2).
      weights: (b, k), a weight of 0 leaves a joint out.
    """
    error = jnp.sum((coordinates - targets) ** 2, axis=-1)  # b k
    return jnp.mean(jnp.sum(error * weights, axis=-1))


def sum_of_squared_kernels(params: dict) -> jax.Array:
    """The sum of the squares of all kernels' values; biases and norms are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return jnp.asarray(sum(jnp.sum(leaf**2) for path, leaf in leaves if path[-1].key == "kernel"))


def relative_errors(maps: jax.Array, targets: jax.Array) -> jax.Array:
    """Each joint's sum of squared errors, divided by the energy of its target, sum(target^2), and limited to
    less than 1.

    MSSH's equations 4 and 5 need losses in [0, 1), which its equation 2, a plain sum, does not give. Here a
    perfect map has the error 0, and an empty map is at the limit. Targets with less energy than a single cell
    at its peak (joints that are not labelled, or outside of the input) count with the energy of such a cell.

    Args:
      maps, targets: (b, h, w, k).

    Returns:
      (b, k) in [0, 0.999].
    """
    energy = jnp.maximum(jnp.sum(targets**2, axis=(1, 2)), 1.0)
    return jnp.minimum(jnp.sum((maps - targets) ** 2, axis=(1, 2)) / energy, 0.999)


def adaptive_weights(errors: jax.Array, counted: jax.Array, *, limit: bool = True) -> jax.Array:
    """MSSH's Algorithm 1: a joint weighs more in a stack, the worse the previous stacks found it.

        w_1i = 1 / K,  L_j = sum_i w_ji L_ji,  beta_j = L_j / (1 - L_j),  w_(j+1)i ~ w_ji beta_j^(1 - L_ji)

    The sentence below equation 6 states the opposite. Equations 3 to 6 and the rest of section 4 agree with
    the line above, but only for beta < 1, as in AdaBoost, which stops at a loss of one half. With `limit`
    this function stops there too: the weights then stay unchanged. Without `limit` it is the algorithm as
    printed, in which the easier joints gain weight if a person's mean error is above one half.

    Args:
      errors: (s, b, k) in [0, 1), first stack first; for instance `relative_errors`.
      counted: (b, k) bool (or 0 and 1): the joints that count; the others have weight 0. K is the number of
        joints that count.
      limit: beta is at most 1.

    Returns:
      (s, b, k) weights whose sum over the joints is 1, or 0 if no joint counts. Each picture has its own
      weights; no gradient passes through them.
    """
    counted = counted.astype(jnp.float32)
    weights = [counted / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1.0)]
    for of_stack in jax.lax.stop_gradient(errors)[:-1]:
        loss = jnp.sum(weights[-1] * of_stack, axis=-1, keepdims=True)  # b 1, equation 3
        # If every joint is found, beta is 0, and so is every weight before the weights are normalised. At the
        # other end `relative_errors` stops at 0.999: 1 - loss stays positive and beta below a thousand.
        beta = jnp.clip(loss / (1 - loss), 1e-6, 1.0 if limit else 1e3)  # equation 5
        raw = weights[-1] * beta ** (1 - of_stack)
        total = jnp.sum(raw, axis=-1, keepdims=True)  # equation 6
        weights.append(raw / jnp.where(total > 0, total, 1.0))  # equation 4
    return jnp.stack(weights)


def moved_people(weights: jax.Array, counted: jax.Array) -> jax.Array:
    """The share, in [0, 1], of people with a joint whose weight in some stack differs from the first stack's.

    Args:
      weights: (s, b, k) from `adaptive_weights`.
      counted: (b, k), see `adaptive_weights`; people without a joint that counts are left out.
    """
    counted = counted.astype(jnp.float32)
    moved = jnp.any(jnp.abs(weights - weights[0]) > 1e-3 * weights[0], axis=(0, 2))  # b
    people = jnp.any(counted > 0, axis=-1)
    return jnp.sum(moved & people) / jnp.maximum(jnp.sum(people), 1)


def heatmap_targets(
    outputs: Outputs,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    sigma: float,
    kind: str,
    window: int = 0,
    at_cell: bool = False,
    reduce_targets: bool = False,
    occluded_amplitude: float = 1.0,
) -> list[jax.Array]:
    """The target (b, h, w, k) of each stack; for the arguments see `on_heatmaps`."""
    if kind == "cross_entropy" and occluded_amplitude < 0:
        raise ValueError(
            f"loss.occluded_amplitude={occluded_amplitude} makes negative targets, which a cross-entropy "
            "cannot have; choose loss.kind=mean_squared_error or an amplitude of 0 or more."
        )
    shown = visible > 0
    amplitude = jnp.where(visible == 1, occluded_amplitude, 1.0)[:, None, None]  # b 1 1 k
    last = outputs.heatmaps[-1].shape[1]
    targets = []
    for maps in outputs.heatmaps:
        if maps.shape[-1] != joints.shape[1]:
            raise ValueError(
                f"loss.kind={kind!r} needs one heatmap for each joint; the model makes {maps.shape[-1]} for "
                f"{joints.shape[1]} joints. One heatmap for all joints needs loss.kind='coordinates'."
            )
        cells = maps.shape[1]
        drawn = last if reduce_targets and cells < last else cells
        gaussians = heatmaps.render(
            joints * (drawn / size), shown, size=drawn, sigma=sigma, window=window, at_cell=at_cell
        )
        targets.append((gaussians if drawn == cells else heatmaps.reduce(gaussians, cells)) * amplitude)
    return targets


def counted_joints(visible: jax.Array, *, mask_unlabelled: bool) -> jax.Array:
    """(b, k) bool, the joints whose error counts; for the arguments see `on_heatmaps`."""
    return visible > 0 if mask_unlabelled else visible >= 0


def stack_errors(outputs: Outputs, targets: list[jax.Array], *, kind: str, sigma: float) -> jax.Array:
    """(s, b, k) in [0, 0.999]: `relative_errors` of every stack; logits are first turned into heatmaps."""
    maps = outputs.heatmaps
    if kind == "cross_entropy":
        maps = [heatmaps.from_logits(m, sigma=sigma) for m in maps]
    return jnp.stack([relative_errors(*pair) for pair in zip(maps, targets, strict=True)])


def on_heatmaps(
    outputs: Outputs,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    sigma: float,
    kind: str,
    mask_unlabelled: bool,
    window: int = 0,
    at_cell: bool = False,
    reduce_targets: bool = False,
    occluded_amplitude: float = 1.0,
    sum_over_cells: bool = False,
    adaptive: bool = False,
    adaptive_limit: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """The sum over all stacks of each stack's loss, with the same joints as targets (Newell 3.2).

    Args:
      outputs: `models.outputs.Outputs`.
      joints: (b, k, 2) input pixels.
      visible: (b, k) signed flags: 0 for a joint that is not labelled, 1 for an occluded one; -1 for a joint
        that the dataset does not have, which never counts.
      size: side of the input, px.
      sigma: of the targets, in cells; in a stack with smaller maps it covers more of the input.
      window, at_cell: of the targets, see `heatmaps.render`.
      reduce_targets: compare maps that are smaller than the last stack's with the last stack's target,
        reduced to their size (Newell 4.2, "a downsampled version of the ground truth").
      kind: a name in `KINDS`.
      mask_unlabelled: leave out joints that are not labelled; otherwise their target is zero.
      occluded_amplitude: amplitude of an occluded joint's target (MSSH, equation 1).
      sum_over_cells: weight stacks of different sizes as MSSH's equation 2 does, a sum over cells; the unit
        is the mean over maps of a quarter of the input. The cross-entropy is always a sum over cells.
      adaptive: weight each stack's joints by the errors of the previous stacks, see `adaptive_weights`.
      adaptive_limit: the argument `limit` of `adaptive_weights`.

    Returns:
      the sum over stacks, and each stack's loss (s,).
    """
    logits = kind == "cross_entropy"
    targets = heatmap_targets(
        outputs,
        joints,
        visible,
        size=size,
        sigma=sigma,
        kind=kind,
        window=window,
        at_cell=at_cell,
        reduce_targets=reduce_targets,
        occluded_amplitude=occluded_amplitude,
    )
    counted = counted_joints(visible, mask_unlabelled=mask_unlabelled)
    weights = [counted.astype(jnp.float32)] * len(targets)
    if adaptive:
        errors = stack_errors(outputs, targets, kind=kind, sigma=sigma)
        # Multiply by the number of joints: equal weights then give the loss without weights.
        weights = adaptive_weights(errors, counted, limit=adaptive_limit) * weights[0].sum(-1, keepdims=True)

    per_stack = []
    for maps, target, weight in zip(outputs.heatmaps, targets, weights, strict=True):
        value = KINDS[kind](maps, target, weight)
        if sum_over_cells and not logits:
            value *= (maps.shape[1] / (size / 4)) ** 2
        per_stack.append(value)
    return functools.reduce(jnp.add, per_stack), jnp.stack(per_stack)


def on_coordinates(
    outputs: Outputs,
    joints: jax.Array,
    visible: jax.Array,
    *,
    size: int,
    sigma: float,
    heatmap_weight: float,
    window: int = 0,
    at_cell: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The loss of coordinates plus that of heatmaps with a Gaussian at every joint (Selvam and Mishra 3).

    Args:
      outputs: `models.outputs.Outputs` with coordinates; its heatmaps have one channel.
      joints: (b, k, 2) input pixels.
      visible: (b, k) flags; a joint that is not labelled (0), or that the dataset does not have (-1), does
        not count and has no Gaussian: one map for all joints cannot leave single joints out.
      size: side of the input, px.
      sigma: of the targets, in cells.
      heatmap_weight: weight of the heatmaps' mean squared errors.
      window, at_cell: of the targets, see `heatmaps.render`.

    Returns:
      the weighted sum, and the loss of each stack's heatmaps (s,).
    """
    if outputs.coordinates is None:
        raise ValueError("loss.kind='coordinates' needs a model that regresses them, for instance selvam.")
    shown = visible > 0
    per_stack = []
    for maps in outputs.heatmaps:
        cells = maps.shape[1]
        each = heatmaps.render(
            joints * (cells / size), shown, size=cells, sigma=sigma, window=window, at_cell=at_cell
        )
        # The maximum keeps each peak at 1 and in place, also if joints are close; a sum would not.
        target = jnp.max(each, axis=-1, keepdims=True)
        per_stack.append(mean_squared_error(maps, target, jnp.ones((maps.shape[0], 1))))
    error = coordinates_error(outputs.coordinates, joints / size, shown.astype(jnp.float32))
    return error + heatmap_weight * sum(per_stack), jnp.stack(per_stack)


def named(
    *,
    kind: str,
    size: int,
    sigma: float,
    heatmap_weight: float,
    window: int = 0,
    at_cell: bool = False,
    **on_joints,
) -> Callable[[Outputs, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The loss that `config.loss` names: (outputs, joints, visible) -> (value, value of each stack).

    Args:
      kind: a name in `KINDS`, or "coordinates".
      size: side of the input, px.
      sigma, window, at_cell: of the targets, see `heatmaps.render`.
      heatmap_weight: see `on_coordinates`.
      **on_joints: the other options of `on_heatmaps`.
    """
    targets = {"size": size, "sigma": sigma, "window": window, "at_cell": at_cell}
    if kind == "coordinates":
        return functools.partial(on_coordinates, heatmap_weight=heatmap_weight, **targets)
    if kind not in KINDS:
        known = ", ".join([*KINDS, "coordinates"])
        raise ValueError(f"loss.kind={kind!r} is unknown; choose from {known}.")
    return functools.partial(on_heatmaps, kind=kind, **targets, **on_joints)


def indices(skeleton: Skeleton, names: Sequence[str]) -> tuple[int, ...]:
    """The indices of the named joints, for `without`.

    Raises:
      ValueError: the skeleton lacks a name; the message lists the names that it has.
    """
    if unknown := sorted(set(names) - set(skeleton.joints)):
        raise ValueError(
            f"loss.leave_out: the joint set {skeleton.name!r} has no {', '.join(unknown)}; it has "
            f"{', '.join(skeleton.joints)}."
        )
    return tuple(skeleton.joints.index(name) for name in names)


def without(function: Callable | None, joints: Sequence[int]) -> Callable | None:
    """A loss, or a `measure`, that ignores some joints: they do not count and have no target.

    Their heatmaps get no gradient from the loss. With one stack this equals training a network without them
    (Tang and Wu 4.3, "removing ankles from the tasks"); with more stacks their channels are still passed from
    stack to stack, as features that the network is free to learn.
    """
    if function is None or not joints:
        return function
    left_out = jnp.asarray(joints)

    def without_joints(outputs, positions, visible):
        return function(outputs, positions, jnp.asarray(visible, jnp.int32).at[:, left_out].set(-1))

    return without_joints


def measure(
    *, kind: str, size: int, sigma: float, mask_unlabelled: bool, adaptive: bool = False, **options
) -> Callable[[Outputs, jax.Array, jax.Array], dict[str, jax.Array]] | None:
    """The numbers that a training logs together with the loss of these options.

    Returns:
      (outputs, joints, visible) -> numbers by name; None if there is nothing to log.

    With `adaptive` the number is `moved_people`: while it is 0, the adaptive weights have no effect.
    """
    if not adaptive or kind not in KINDS:
        return None
    names = ("window", "at_cell", "reduce_targets", "occluded_amplitude")
    of_targets = {name: options[name] for name in names if name in options}

    def numbers(outputs, joints, visible):
        targets = heatmap_targets(outputs, joints, visible, size=size, sigma=sigma, kind=kind, **of_targets)
        counted = counted_joints(visible, mask_unlabelled=mask_unlabelled)
        errors = stack_errors(outputs, targets, kind=kind, sigma=sigma)
        weights = adaptive_weights(errors, counted, limit=options.get("adaptive_limit", True))
        return {"moved_people": moved_people(weights, counted)}

    return numbers
