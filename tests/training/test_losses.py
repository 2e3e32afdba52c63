"""Losses against values by hand and NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose.skeletons import Skeleton
from hourglass_jax.training import losses

cross_entropy = jax.jit(losses.cross_entropy)  # one program; each operation alone would be compiled, too


def gaussian(x, y, cells):
    """(cells, cells): a Gaussian of sigma 1, cut off at 3, from the formula."""
    line = np.arange(cells) + 0.5
    dx, dy = line[None] - x, line[:, None] - y
    return np.exp(-(dx**2 + dy**2) / 2) * (np.abs(dx) <= 3) * (np.abs(dy) <= 3)


def test_mean_squared_error_by_hand():
    maps, targets = np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3))
    maps[0, 0, 0] = [1, 2, 4]  # squared, over 4 cells: 0.25, 1, 4
    targets[0, 1, 1, 0] = 3  # and 9 / 4 more: 2.5
    all_three = losses.mean_squared_error(maps, targets, jnp.ones((1, 3)))
    np.testing.assert_allclose(all_three, (2.5 + 1 + 4) / 3)
    # Without the last joint the mean is over two.
    two = losses.mean_squared_error(maps, targets, jnp.array([[1.0, 1, 0]]))
    np.testing.assert_allclose(two, (2.5 + 1) / 2)


def test_cross_entropy_by_hand():
    # Four cells; the softmax of (log 1, log 2, log 3, log 4) is (1, 2, 3, 4) / 10.
    logits = np.log([1.0, 2, 3, 4]).reshape(1, 2, 2, 1) + 7  # a constant does not matter
    targets = np.array([0.5, 0, 0, 1.5]).reshape(1, 2, 2, 1)  # q = (1/4, 0, 0, 3/4)
    loss = cross_entropy(logits, targets, jnp.ones((1, 1)))
    expected = -(0.25 * math.log(0.1) + 0.75 * math.log(0.4))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    # Only an eighth of a Gaussian at the border may be inside: its sum is 0.25, and q is the same.
    loss = cross_entropy(logits, targets / 8, jnp.ones((1, 1)))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_entropy_of_a_flat_map_is_the_logarithm_of_its_cells():
    targets = gaussian(3.2, 4.4, 8)[None, :, :, None]
    loss = cross_entropy(np.zeros((1, 8, 8, 1)), targets, jnp.ones((1, 1)))
    np.testing.assert_allclose(loss, math.log(64), rtol=1e-6)


def test_gradient_of_the_cross_entropy_is_softmax_minus_target():
    logits = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    targets = np.stack([gaussian(1, 2, 4), 2 * gaussian(3, 3, 4)], axis=-1)[None].astype(np.float32)
    gradient = jax.jit(jax.grad(losses.cross_entropy))(logits, targets, jnp.ones((1, 2)))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=(1, 2), keepdims=True)
    share = targets / targets.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(gradient, (softmax - share) / 2, atol=1e-6)  # the mean over two joints


def test_cross_entropy_leaves_out_joints_without_a_target_or_weight():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 4, 4, 4)).astype(np.float32)
    # The second joint is not there, the third is 2.9 cells outside of the corner: its sum, 0.0002, is less
    # than a tenth.
    targets = [gaussian(1, 2, 4), np.zeros((4, 4)), gaussian(-2.4, -2.4, 4), gaussian(2, 2, 4)]
    targets = np.stack(targets, axis=-1)[None].astype(np.float32)
    assert 0 < targets[..., 2].sum() < 0.1
    value, gradient = jax.jit(jax.value_and_grad(losses.cross_entropy))(
        logits, targets, jnp.array([[1.0, 1, 1, 0]])
    )
    alone = cross_entropy(logits[..., :1], targets[..., :1], jnp.ones((1, 1)))
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    assert not np.asarray(gradient)[..., 1:].any() and np.asarray(gradient)[..., 0].all()


@pytest.mark.parametrize("kind", losses.KINDS)
def test_nothing_to_learn_is_zero_with_a_zero_gradient(kind):
    maps = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype(np.float32)
    targets, weights = np.zeros_like(maps), jnp.zeros((2, 3))
    value, gradient = jax.jit(jax.value_and_grad(losses.KINDS[kind]))(maps, targets, weights)
    assert value == 0 and not gradient.any()


# All stacks


JOINTS = np.array([[[10.0, 22.0], [30.5, 3.0], [0.0, 0.0]]], np.float32)  # px of 32
VISIBLE = np.array([[1, 2, 0]], np.uint8)


def stacks():
    """Two stacks of 8 and 16 cells."""
    rng = np.random.default_rng(3)
    maps = tuple(rng.normal(size=(1, n, n, 3)).astype(np.float32) for n in (8, 16))
    return Outputs(heatmaps=maps)


def squared_errors():
    """(2, 3): mean over cells of (map - target)^2, by stack and joint."""
    rows = []
    for maps in stacks().heatmaps:
        n = maps.shape[1]
        x, y = JOINTS[0].T * n / 32
        targets = [gaussian(x[k], y[k], n) * (VISIBLE[0, k] > 0) for k in range(3)]
        rows.append([((maps[0, :, :, k] - targets[k]) ** 2).mean() for k in range(3)])
    return np.array(rows)


@pytest.mark.parametrize("mask", [True, False])
def test_stacks_of_any_size_are_compared_with_the_same_joints_and_summed(mask):
    # jit, as in training
    on_heatmaps = jax.jit(
        lambda outputs: losses.on_heatmaps(
            outputs, JOINTS, VISIBLE, size=32, sigma=1.0, kind="mean_squared_error", mask_unlabelled=mask
        )
    )
    total, per_stack = on_heatmaps(stacks())
    # Unmasked, the joint that is not labelled counts with its zero target (Newell 5.3).
    expected = squared_errors()[:, : 2 if mask else 3].mean(axis=1)
    np.testing.assert_allclose(per_stack, expected, rtol=1e-5)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)


def test_smaller_maps_can_be_compared_with_the_reduced_target():
    zeros = Outputs(heatmaps=tuple(np.zeros((1, n, n, 3), np.float32) for n in (8, 16)))
    per_stack = []
    for reduce_targets in (False, True):
        options = {"kind": "mean_squared_error", "mask_unlabelled": True, "reduce_targets": reduce_targets}
        on_heatmaps = functools.partial(losses.on_heatmaps, size=32, sigma=1.0, **options)
        per_stack.append(jax.jit(on_heatmaps)(zeros, JOINTS, VISIBLE)[1])
    joints = JOINTS[0].T / 2  # 16 cells
    full = np.stack([gaussian(x, y, 16) for x, y in joints.T[:2]])
    reduced = full.reshape(2, 8, 2, 8, 2).max(axis=(2, 4))
    # If the maps are all zero, the error is the target's mean square.
    np.testing.assert_allclose(per_stack[1], [(reduced**2).mean(), (full**2).mean()], rtol=1e-5)
    np.testing.assert_allclose(per_stack[0][1], per_stack[1][1], rtol=1e-6)
    assert per_stack[0][0] > 1.5 * per_stack[1][0]  # a sigma of one coarse cell is broader


def test_a_labelled_joint_outside_of_the_input_keeps_its_zero_target():
    outside = np.array([[[-40.0, 10.0]]], np.float32)
    maps = np.full((1, 8, 8, 1), 0.5, np.float32)
    options = {"size": 32, "sigma": 1.0, "kind": "mean_squared_error", "mask_unlabelled": True}
    on_heatmaps = jax.jit(functools.partial(losses.on_heatmaps, **options))
    total, _ = on_heatmaps(Outputs(heatmaps=(maps,)), outside, np.ones((1, 1)))
    np.testing.assert_allclose(total, 0.25)


# Coordinates


def test_coordinates_error_by_hand():
    coordinates = np.array([[[0.5, 0.5], [0.25, 0.75]], [[0.0, 1.0], [9.0, 9.0]]])
    targets = np.array([[[0.5, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.0, 0.0]]])
    # Person 1: 0.25, and 0.0625 + 0.0625; person 2: 0.25 + 0.25, and a joint that is not labelled.
    value = jax.jit(losses.coordinates_error)(coordinates, targets, np.array([[1, 1], [1, 0]]))
    np.testing.assert_allclose(value, (0.25 + 0.125 + 0.5) / 2)


def test_the_sum_of_squared_kernels_leaves_out_biases_and_norms():
    conv = {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([10.0])}
    params = {"a": {"conv": conv, "norm": {"scale": jnp.ones(3)}}, "b": {"kernel": jnp.array([3.0])}}
    assert losses.sum_of_squared_kernels(params) == 1 + 4 + 9


def test_one_heatmap_has_a_gaussian_at_every_labelled_joint():
    on_coordinates = losses.named(
        kind="coordinates", size=32, sigma=1.0, mask_unlabelled=False, heatmap_weight=3.0
    )
    joints = np.array([[[10.0, 22.0], [14.0, 22.0], [30.0, 4.0]]], np.float32)  # px of 32; 8 cells
    visible = np.array([[1, 2, 0]])
    # Cells (2.5, 5.5), (3.5, 5.5): a peak is 1 although the next peak is one cell away (their sum is 1.61).
    target = np.maximum(gaussian(2.5, 5.5, 8), gaussian(3.5, 5.5, 8))
    assert target[5, 2] == target[5, 3] == 1
    coordinates = joints / 32 + np.array([[[0.5, 0.0], [0.0, 0.25], [7.0, 7.0]]])
    outputs = Outputs((target[None, :, :, None], np.zeros((1, 8, 8, 1))), coordinates)
    value, per_stack = jax.jit(on_coordinates)(outputs, joints, visible)
    np.testing.assert_allclose(per_stack, [0, (target**2).mean()], atol=1e-7)
    np.testing.assert_allclose(value, 0.25 + 0.0625 + 3 * (target**2).mean(), rtol=1e-6)


def test_named_makes_the_loss_that_a_config_names():
    options = {"size": 32, "sigma": 1.0, "mask_unlabelled": True, "heatmap_weight": 1.0}
    value, _ = jax.jit(losses.named(kind="mean_squared_error", **options))(stacks(), JOINTS, VISIBLE)
    np.testing.assert_allclose(value, squared_errors()[:, :2].mean(axis=1).sum(), rtol=1e-5)
    with pytest.raises(ValueError, match="'huber' is unknown; choose from .*cross_entropy, coordinates"):
        losses.named(kind="huber", **options)


def test_a_loss_that_does_not_fit_the_outputs_is_refused():
    options = {"size": 32, "sigma": 1.0, "mask_unlabelled": True, "heatmap_weight": 1.0}
    one = Outputs((np.zeros((1, 8, 8, 1)),), np.zeros((1, 3, 2)))
    for kind in losses.KINDS:
        with pytest.raises(ValueError, match="1 for 3 joints.*loss.kind='coordinates'"):
            losses.named(kind=kind, **options)(one, JOINTS, VISIBLE)
    with pytest.raises(ValueError, match="a model that regresses them"):
        losses.named(kind="coordinates", **options)(stacks(), JOINTS, VISIBLE)


def test_joints_that_are_left_out_do_not_count():
    options = {"size": 32, "sigma": 1.0, "heatmap_weight": 1.0, "kind": "mean_squared_error"}
    loss = losses.named(**options, mask_unlabelled=False)
    skeleton = Skeleton("three", ("head", "ankle", "hand"), (), (), ())
    assert losses.indices(skeleton, ("hand", "ankle")) == (2, 1)
    without = jax.jit(losses.without(loss, losses.indices(skeleton, ("ankle",))))
    value, per_stack = without(stacks(), JOINTS, VISIBLE)
    expected = squared_errors()[:, [0, 2]].mean(axis=1)  # the other one is not labelled, but counts
    np.testing.assert_allclose(per_stack, expected, rtol=1e-5)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-5)
    assert losses.without(loss, ()) is loss and losses.without(None, (1,)) is None
    with pytest.raises(ValueError, match="'three' has no foot; it has head, ankle, hand"):
        losses.indices(skeleton, ("foot",))
