"""The part-based branching network: the paper's sizes, and what each branch sees and makes."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tang as config
from hourglass_jax import models, part_groups
from hourglass_jax.data import skeletons
from hourglass_jax.models import tang

SMALL = {"joints": 4, "stacks": 2, "width": 16, "depth": 1, "branch_width": 6}
TWO = ((2, 0), (3, 1))  # groups of a small network, not in the joints' order


def flops(jaxpr) -> int:
    """Of the convolutions and matrix products of a traced function; a multiply-add counts as two."""
    total = 0
    for equation in jaxpr.eqns:
        out, inputs = equation.outvars[0].aval, [variable.aval for variable in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * out.size * math.prod(inputs[1].shape[:-1])  # HWIO
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out.size * math.prod(inputs[0].shape[i] for i in contracted)
        inner = [value for value in equation.params.values() if hasattr(value, "eqns")]
        inner += [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
        total += sum(map(flops, inner))
    return total


def traced(model, size=256):
    """The model's trainable parameters, GFLOPs and heatmap shapes; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = jax.make_jaxpr(model.init_with_output, return_shape=True)
    jaxpr, (outputs, variables) = init(jax.random.key(0), image)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return count, flops(jaxpr) / 1e9, [maps.shape for maps in outputs.heatmaps]


@pytest.fixture(scope="module")
def image():
    return jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def small(**fields):
    return tang.Model(**{**SMALL, "groups": TWO, **fields})


def initialised(model, image):
    """Variables with random scales and offsets, so that no unit is dead or symmetric."""
    variables = jax.jit(model.init)(jax.random.key(0), image)
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return {**variables, "params": jax.tree.unflatten(tree, noisy)}


def influences(model, variables, image, stack, joint):
    """Top-level modules whose parameters one heatmap of one stack depends on."""

    def one(params):
        return model.apply({**variables, "params": params}, image).heatmaps[stack][..., joint].sum()

    gradients = jax.jit(jax.grad(one))(variables["params"])
    return {
        name
        for name, module in gradients.items()
        if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(module))
    }


# The paper's figures: Figure 5 and Table 6, millions of parameters and GFLOPs, where it states them.
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
    count, found_gflops, shapes = traced(models.create(joints=16, **c.model))
    assert shapes == [(1, 64, 64, 16)] * c.model.stacks
    if millions:
        assert f"{count / 1e6:.2f}" == millions
    if gflops:
        np.testing.assert_allclose(found_gflops, gflops, rtol=0.01)
    if exact:
        assert count == exact


def test_stem_scales_with_the_width():
    _, stem = jax.eval_shape(small(width=32).init_with_output, jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    kernels = {name: p["kernel"].shape for name, p in stem["params"]["stem"].items() if "conv" in name}
    assert kernels == {"conv0": (3, 3, 3, 8), "conv1": (3, 3, 8, 8), "conv2": (3, 3, 8, 8)}
    units = [stem["params"]["stem"][f"unit{i}"]["conv2"]["kernel"].shape[-1] for i in range(3)]
    assert units == [16, 16, 32]


def test_merge_orders_joints_and_averages_overlaps():
    first, second = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2, 2))
    first[0, 0] = [[1, 2, 3], [10, 20, 30]]  # two cells; joints 2, 0 and 3
    second[0, 0] = [[5, 7], [50, 70]]  # joints 1 and 2
    merged = tang.merge(((2, 0, 3), (1, 2)), [first, second], 4)
    np.testing.assert_allclose(merged[0, 0], [[2, 5, (1 + 7) / 2, 3], [20, 50, (10 + 70) / 2, 30]])


@pytest.mark.parametrize("groups", [TWO, ((2, 0, 1), (3, 1))], ids=["disjoint", "overlapping"])
def test_heatmaps_come_from_their_groups_branches_alone(image, groups):
    model = small(stacks=1, groups=groups)
    variables = initialised(model, image)
    for joint in range(4):
        found = influences(model, variables, image, stack=0, joint=joint)
        branches = {f"stack0_branch{i}" for i, group in enumerate(groups) if joint in group}
        assert {name for name in found if "branch" in name} == branches
        assert {"stem", "stack0_hourglass", "stack0_unit", "stack0_lin"} <= found


def test_a_branchs_last_layer_makes_the_heatmaps_in_the_groups_order(image):
    model = small(stacks=1)
    variables = initialised(model, image)
    before = model.apply(variables, image).heatmaps[0]
    variables["params"]["stack0_branch1"]["heatmaps"]["bias"] += jnp.array([3.0, 5.0])  # joints 3 and 1
    after = model.apply(variables, image).heatmaps[0]
    change = (after - before).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(change, [0, 5, 0, 3], atol=1e-5)


@pytest.mark.parametrize("onward", tang.ONWARD)
def test_what_goes_on_to_the_next_stack(image, onward):
    """With the heatmaps' remap at zero, branches of stack 0 reach stack 1 by the green line only."""
    model = small(onward=onward)
    variables = initialised(model, image)
    remap = variables["params"]["stack0_remap_heatmaps"]
    variables["params"]["stack0_remap_heatmaps"] = jax.tree.map(jnp.zeros_like, remap)
    found = influences(model, variables, image, stack=1, joint=0)
    earlier = {name for name in found if name.startswith("stack0_branch")}
    assert earlier == ({"stack0_branch0", "stack0_branch1"} if onward == "specific" else set())
    kernel = variables["params"]["stack0_remap_features"]["kernel"]
    assert kernel.shape == (1, 1, {"shared": 16, "specific": 2 * 6}[onward], 16)


def test_stacks_are_wired_as_in_figure_4(image):
    model = small()
    variables = initialised(model, image)
    first = influences(model, variables, image, stack=0, joint=0)
    assert not any("stack1" in name or "remap" in name for name in first)
    second = influences(model, variables, image, stack=1, joint=0)  # heatmaps of all groups go on
    assert {"stack0_branch0", "stack0_branch1", "stack1_branch0"} <= second
    assert "stack1_branch1" not in second
    assert "stack1_remap_features" not in variables["params"]  # the last stack hands nothing on


def test_the_second_stack_gets_the_sum_of_three(image):
    """Without both remaps what is left is the first stack's own input (identity)."""
    model = small()
    variables = initialised(model, image)
    for name in ("stack0_remap_features", "stack0_remap_heatmaps"):
        variables["params"][name] = jax.tree.map(jnp.zeros_like, variables["params"][name])
    for item in ("params", "batch_stats"):  # twice the same network
        stacks = variables[item]
        copies = {k.replace("stack0", "stack1"): v for k, v in stacks.items() if k.startswith("stack0")}
        variables[item] = {**stacks, **{k: v for k, v in copies.items() if k in stacks}}
    one, two = model.apply(variables, image).heatmaps
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "unit"])
def test_baselines_have_no_branches(image, head):
    model = small(head=head, groups=(), onward="shared")
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    names = set(variables["params"])
    assert not any("branch" in name for name in names)
    assert ("stack0_head" in names) == (head == "unit")
    assert variables["params"]["stack0_heatmaps"]["kernel"].shape == (1, 1, 16, 4)


def test_training_moves_the_statistics_and_bfloat16_gives_float32_heatmaps(image):
    model = small(stacks=1, dtype=jnp.bfloat16)
    variables = jax.jit(model.init)(jax.random.key(0), image)
    outputs, changed = model.apply(variables, image, train=True, mutable=["batch_stats"])
    assert outputs.heatmaps[0].dtype == jnp.float32 and outputs.heatmaps[0].shape == (2, 4, 4, 4)
    for old, new in zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed), strict=True):
        assert np.abs(np.asarray(old) - np.asarray(new)).max() > 0


def test_groups_from_a_checkpoints_json_make_the_same_network(image):
    fields = json.loads(json.dumps({**SMALL, "groups": TWO}))  # lists in place of tuples
    model = models.create("tang", **fields)
    variables = initialised(small(), image)
    expected = small().apply(variables, image).heatmaps[1]
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, image).heatmaps[1], expected)


def test_groups_left_out_are_the_papers():
    for skeleton in (skeletons.MPII, skeletons.LSP):
        model = tang.Model(joints=len(skeleton), stacks=1, width=16, depth=1)
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))["params"]
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
def test_wrong_fields_are_answered(image, fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**fields).init, jax.random.key(0), image)


@pytest.mark.parametrize(("dataset", "joints"), [("lspet", 14), ("lsp", 14), ("mpii", 16), ("synthetic", 16)])
@pytest.mark.parametrize("variant", config.VARIANTS)
def test_configs_groups_fit_the_dataset(variant, dataset, joints):
    c = config.get_config(f"variant={variant},dataset={dataset},width=16,stacks=1")
    model = models.create(joints=joints, **c.model)
    assert model.head == config.BASELINES.get(variant, "branches")
    if model.head == "branches":
        part_groups.check(model.groups, joints)


def test_config_states_the_papers_training():
    c = config.get_config()
    assert (c.train.batch_size, c.train.epochs, c.optimizer.milestones) == (16, 250, (170, 220))
    assert (c.optimizer.name, c.optimizer.learning_rate, c.optimizer.factor) == ("rmsprop", 2.5e-4, 0.1)
    assert (c.augment.scale_range, c.augment.rotate_range, c.augment.shear) == ((0.75, 1.25), 30, 0.5)
    assert (c.model.stacks, c.model.branch_width, c.model.branch_depth) == (8, 64, 1)


def test_config_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="choose from body, .*deep_baseline"):
        config.get_config("variant=data6")
