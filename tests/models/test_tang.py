"""The part-based branching network: the paper's sizes, and what each branch sees and makes."""

import json
from unittest import mock

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wiring

from configs import tang as config
from hourglass_jax import models
from hourglass_jax.models import groups as part_groups
from hourglass_jax.models import layers, tang
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import flops

SMALL = {"joints": 4, "stacks": 2, "width": 16, "depth": 1, "branch_width": 6}
IMAGE = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
TWO = ((2, 0), (3, 1))  # groups of a small network, not in the joints' order


class Small:
    """A small network of 4 joints with random parameters, its heatmaps and their gradients.

    Its units are `wiring.Point`s.
    """

    def __init__(self, **fields):
        self.model = tang.Model(**{**SMALL, **fields})
        rng = np.random.default_rng(0)
        with mock.patch.object(layers, "Unit", wiring.Point):
            _, shapes = conftest.shapes_of(self.model, IMAGE)
        params = jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype("f"), shapes["params"])
        stats = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, "f"), shapes["batch_stats"])
        self.variables = {"params": params, "batch_stats": stats}
        self._run = jax.jit(jax.grad(self._chosen, has_aux=True))
        self._image = rng.normal(0, 1, IMAGE.shape).astype("f")

    def _chosen(self, params, stats, image, weights):
        with mock.patch.object(layers, "Unit", wiring.Point):
            maps = self.model.apply({"params": params, "batch_stats": stats}, image).heatmaps
        return sum((m * w).sum() for m, w in zip(maps, weights, strict=True)), maps

    def heatmaps(self, **changed):
        """(stacks, b, h, w, 4), with some of the modules' parameters changed."""
        return np.stack(self._gradients({}, changed)[1])

    def influences(self, stack, joint, **changed):
        """The modules whose parameters one heatmap of one stack depends on."""
        gradients, _ = self._gradients({(stack, joint): 1.0}, changed)
        return {
            name
            for name, module in gradients.items()
            if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(module))
        }

    def _gradients(self, chosen, changed):
        weights = np.zeros((self.model.stacks, 4), "f")
        for place, weight in chosen.items():
            weights[place] = weight
        params = {**self.variables["params"], **changed}
        return self._run(params, self.variables["batch_stats"], self._image, weights)

    def zero(self, name):
        return {name: jax.tree.map(np.zeros_like, self.variables["params"][name])}


@pytest.fixture(scope="module")
def shared():
    return Small(groups=TWO)


@pytest.fixture(scope="module")
def specific():
    return Small(groups=TWO, onward="specific")


# The paper's numbers in Figure 5 and Table 6: millions of parameters and, where given, GFLOPs.
@pytest.mark.parametrize(
    ("arguments", "millions", "gflops", "exact"),
    [
        ("variant=data5,stacks=3", "10.23", 29.11, 10_225_648),
        ("variant=data5,stacks=3,branch_depth=2", "10.43", 30.77, None),
        ("variant=data5,stacks=3,branch_width=32", None, 26.84, None),
        ("variant=data5,stacks=3,branch_width=128", "11.08", 36.08, None),
        ("variant=data8,stacks=3", "10.50", None, None),
        ("variant=each,stacks=3", "11.22", 37.20, None),
        ("variant=body,stacks=3", None, 29.84, None),
        ("variant=overlapping,stacks=3", "10.23", 29.11, None),
        ("variant=deep_baseline,stacks=3", "10.42", 30.75, None),
        ("variant=data5,stacks=8", "26.69", None, 26_686_848),
        ("variant=deep_baseline,stacks=8", "27.22", None, None),
    ],
)
def test_sizes_are_the_papers(arguments, millions, gflops, exact):
    c = config.get_config(f"{arguments},dataset=mpii")
    found_flops, count = flops.of_model(models.build(joints=16, **c.model), 256)
    if millions:
        assert f"{count / 1e6:.2f}" == millions
    if gflops:
        np.testing.assert_allclose(found_flops / 1e9, gflops, rtol=0.01)
    if exact:
        assert count == exact


def test_stem_scales_with_the_width():
    model = tang.Model(**{**SMALL, "groups": TWO, "width": 32})
    stem = conftest.shapes_of(model, IMAGE)[1]["params"]["stem"]
    kernels = [stem[f"conv{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(3, 3, 3, 8), (3, 3, 8, 8), (3, 3, 8, 8)]
    assert [stem[f"unit{i}"]["conv2"]["kernel"].shape[-1] for i in range(3)] == [16, 16, 32]


def test_merge_orders_joints_and_averages_overlaps():
    first, second = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2, 2))
    first[0, 0] = [[1, 2, 3], [10, 20, 30]]  # two cells; joints 2, 0 and 3
    second[0, 0] = [[5, 7], [50, 70]]  # joints 1 and 2
    merged = tang.merge(((2, 0, 3), (1, 2)), [first, second], 4)
    np.testing.assert_allclose(merged[0, 0], [[2, 5, (1 + 7) / 2, 3], [20, 50, (10 + 70) / 2, 30]])


TRUNK = {"stem", "stack0_hourglass", "stack0_unit", "stack0_lin", "stack0_lin_norm"}


def test_heatmaps_come_only_from_the_trunk_and_their_groups_branch(shared):
    for joint, group in ((0, 0), (1, 1), (2, 0), (3, 1)):
        assert shared.influences(0, joint) == TRUNK | {f"stack0_branch{group}"}


def test_heatmaps_of_overlapping_groups_come_from_all_their_branches():
    network = Small(groups=((2, 0, 1), (3, 1)), stacks=1)
    for joint, groups in ((0, {0}), (1, {0, 1}), (2, {0}), (3, {1})):
        assert network.influences(0, joint) == TRUNK | {f"stack0_branch{group}" for group in groups}


def test_a_branch_makes_its_heatmaps_in_the_groups_order(shared):
    branch = shared.variables["params"]["stack0_branch1"]
    heatmaps = {**branch["heatmaps"], "bias": branch["heatmaps"]["bias"] + np.array([3, 5], "f")}
    after = shared.heatmaps(stack0_branch1={**branch, "heatmaps": heatmaps})[0]
    change = after - shared.heatmaps()[0]  # the group is (3, 1)
    np.testing.assert_allclose(change, np.broadcast_to([0, 5, 0, 3], change.shape), atol=1e-4)


def test_the_next_stack_gets_the_heatmaps_of_all_groups(shared):
    found = shared.influences(1, 0, **shared.zero("stack0_remap_features"))
    assert {"stack0_branch0", "stack0_branch1", "stack0_remap_heatmaps", "stack1_branch0"} <= found
    assert "stack1_branch1" not in found
    last = {name for name in shared.variables["params"] if name.startswith("stack1_remap")}
    assert not last  # it has no next stack


def test_the_next_stack_gets_shared_features_without_the_branches(shared):
    found = shared.influences(1, 0, **shared.zero("stack0_remap_heatmaps"))
    assert {"stack0_lin", "stack0_remap_features"} <= found  # the orange line of Figure 4
    assert not {name for name in found if name.startswith("stack0_branch")}
    assert shared.variables["params"]["stack0_remap_features"]["kernel"].shape == (1, 1, 16, 16)


def test_the_next_stack_gets_specific_features_of_every_branch(specific):
    found = specific.influences(1, 0, **specific.zero("stack0_remap_heatmaps"))
    assert {"stack0_branch0", "stack0_branch1", "stack0_remap_features"} <= found  # the green line
    both_widths = 2 * SMALL["branch_width"]
    kernel = specific.variables["params"]["stack0_remap_features"]["kernel"]
    assert kernel.shape == (1, 1, both_widths, 16)
    without = {**specific.zero("stack0_remap_heatmaps"), **specific.zero("stack0_remap_features")}
    found = specific.influences(1, 0, **without)
    assert "stem" in found and "stack0_lin" not in found  # the identity is left


def test_without_remaps_the_next_stack_starts_from_the_same_features(shared):
    """The sum of 3.3 keeps the stack's own input, so that two equal stacks have equal outputs."""
    params = shared.variables["params"]
    equal = {name: params[name.replace("1", "0", 1)] for name in params if name.startswith("stack1")}
    without = {**shared.zero("stack0_remap_features"), **shared.zero("stack0_remap_heatmaps")}
    first, second = shared.heatmaps(**equal, **without)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)
    assert np.abs(np.subtract(*shared.heatmaps(**equal))).max() > 0.1


@pytest.mark.parametrize("head", ["linear", "unit"])
def test_baselines_have_no_branches(head):
    params = conftest.shapes_of(tang.Model(**SMALL, head=head), IMAGE)[1]["params"]
    assert not any("branch" in name for name in params)
    assert ("stack0_head" in params) == (head == "unit")
    assert params["stack0_heatmaps"]["kernel"].shape == (1, 1, 16, 4)


def test_bfloat16_gives_float32_heatmaps_and_keeps_float32_statistics():
    model = tang.Model(**SMALL, groups=TWO, dtype=jnp.bfloat16)
    _, variables = conftest.shapes_of(model, IMAGE)
    outputs, changed = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, IMAGE
    )
    assert [(m.shape, m.dtype) for m in outputs.heatmaps] == [((2, 4, 4, 4), jnp.float32)] * 2
    assert changed["batch_stats"] == variables["batch_stats"]  # shapes and types


def test_groups_from_a_checkpoints_json_make_the_same_network():
    fields = json.loads(json.dumps({**SMALL, "groups": TWO}))  # lists instead of tuples
    restored, original = models.build("tang", **fields), tang.Model(**SMALL, groups=TWO)
    _, variables = conftest.shapes_of(original, IMAGE)
    texts = [jax.jit(model.apply).lower(variables, IMAGE).as_text() for model in (original, restored)]
    assert texts[0] == texts[1]


def test_groups_left_out_are_the_papers():
    for skeleton in (skeletons.MPII, skeletons.LSP):
        model = tang.Model(joints=len(skeleton), stacks=1, width=16, depth=1)
        params = conftest.shapes_of(model, IMAGE)[1]["params"]
        made = [params[f"stack0_branch{i}"]["heatmaps"]["bias"].size for i in range(5)]
        assert made == [len(group) for group in part_groups.named("data5", skeleton)]
        assert "stack0_branch5" not in params


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": ((0, 1), (3,))}, "leave out joint 2 of 4"),
        ({"groups": ((0, 1), (2, 3, 4))}, "name joint 4"),
        ({"groups": ()}, "no part groups for 4 joints"),
        ({"head": "deep"}, "model.head='deep' is unknown; choose from branches, linear, unit"),
        ({"onward": "both"}, "model.onward='both' is unknown; choose from shared, specific"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    model = tang.Model(**{**SMALL, "groups": TWO, **fields})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGE)


@pytest.mark.parametrize(("dataset", "joints"), [("lspet", 14), ("lsp", 14), ("mpii", 16), ("synthetic", 16)])
@pytest.mark.parametrize("variant", config.VARIANTS)
def test_configs_groups_fit_the_dataset(variant, dataset, joints):
    c = config.get_config(f"variant={variant},dataset={dataset},width=16,stacks=1")
    model = models.build(joints=joints, **c.model)
    assert model.head == config.BASELINES.get(variant, "branches")
    if model.head == "branches":
        part_groups.check(model.groups, joints)


def test_config_has_the_papers_training():
    c = config.get_config()
    assert (c.train.batch_size, c.train.epochs, c.optimizer.milestones) == (16, 250, (170, 220))
    assert (c.optimizer.name, c.optimizer.learning_rate, c.optimizer.factor) == ("rmsprop", 2.5e-4, 0.1)
    assert (c.augment.scale_range, c.augment.rotate_range, c.augment.shear) == ((0.75, 1.25), 30, 0.5)
    assert (c.model.stacks, c.model.branch_width, c.model.branch_depth) == (8, 64, 1)


def test_config_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="choose from body, .*deep_baseline"):
        config.get_config("variant=data6")
