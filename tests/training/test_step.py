import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hourglass_jax import models
from hourglass_jax.kernels import platforms
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import augment, skeletons
from hourglass_jax.training import losses, optimizer
from hourglass_jax.training import step as train_step

pytestmark = pytest.mark.usefixtures("quick_compiles")

GEOMETRY = train_step.Geometry(canvas=48, margin=1.5, size=32)
MEAN = (0.5, 0.4, 0.3)
PLAIN = {}  # no augmentation
HARD = {"scale_range": (0.8, 1.2), "rotate_range": 30.0, "flip_probability": 0.5, "colour": 0.2}


class Net(nn.Module):
    """8 x 8 cells of 32 px, two stacks; `normalised` adds a batch norm."""

    joints: int = 16
    normalised: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.Conv(8, (4, 4), (4, 4), use_bias=False, dtype=self.dtype, name="conv")(image)
        if self.normalised:
            norm = functools.partial(nn.BatchNorm, momentum=0.9, dtype=self.dtype, name="norm")
            x = norm(use_running_average=not train)(x)
        maps = [nn.Conv(self.joints, (1, 1), dtype=self.dtype, name=f"stack{s}")(nn.relu(x)) for s in (0, 1)]
        return Outputs(heatmaps=tuple(m.astype(jnp.float32) for m in maps))


SGD = optax.sgd(0.5)


def make(net=None, optimiser=SGD, *, average=0.0, accumulate=1, seed=0, mask=True, augmentation=PLAIN):
    """The compiled step, a fresh state, and the loss; tests with equal arguments share them."""
    options = tuple(augmentation.items())
    return _made(net or Net(), optimiser, average, accumulate, seed, mask, options)


@functools.cache
def _made(net, optimiser, average, accumulate, seed, mask, augmentation):
    loss = functools.partial(
        losses.on_heatmaps, size=32, sigma=1.0, kind="mean_squared_error", mask_unlabelled=mask
    )
    step = train_step.make(
        net,
        optimiser,
        geometry=GEOMETRY,
        flip_order=skeletons.MPII.flip,
        seed=seed,
        mean=MEAN,
        augmentation=dict(augmentation),
        loss=loss,
        average_decay=average,
        accumulate=accumulate,
    )
    init = functools.partial(train_step.init, net, optimiser, seed=1, size=32, average=average > 0)
    return jax.jit(step), init(), loss


def batch_of(seed=0, b=8):
    """Noise; image and canvas have the same frame: 200 px * 0.16 * margin 1.5 = 48 px around (24, 24)."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (b, 48, 48, 3), np.uint8),
        "joints": rng.uniform(10, 38, (b, 16, 2)).astype(np.float32),
        "visible": rng.integers(0, 3, (b, 16)).astype(np.uint8),
        "center": np.full((b, 2), 24, np.float32),
        "scale": np.full(b, 0.16, np.float32),
    }


def inputs_of(batch):
    """The network's input without augmentation: the middle 32 px, minus the mean."""
    images = batch["image"][:, 8:40, 8:40].astype(np.float32) / 255 - np.array(MEAN, np.float32)
    return images, batch["joints"] - 8


def close(a, b, rtol=1e-5, atol=1e-6):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol, atol, err_msg=jax.tree_util.keystr(path))


def by_hand(net, loss, params, batch_stats, part):
    """Gradient, new statistics and loss of a part, without the step."""
    (value, new), gradient = _gradient(net, loss)(params, batch_stats, *inputs_of(part), part["visible"])
    return gradient, new, value


@functools.cache
def _gradient(net, loss):
    def value(params, batch_stats, images, joints, visible):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, new = net.apply(variables, images, train=True, mutable=["batch_stats"])
        return loss(outputs, joints, visible)[0], new.get("batch_stats", {})

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def test_step_is_one_gradient_step_on_the_plain_crop():
    step, state, loss = make()
    batch = batch_of()
    new, metrics = step(state, batch)
    gradient, batch_stats, value = by_hand(Net(), loss, state.params, state.batch_stats, batch)
    # 0.5 is the learning rate. Without augmentation the input is the middle of the canvas, pixel by pixel.
    close(new.params, jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradient))
    close(new.batch_stats, batch_stats)
    assert int(new.step) == 1 and new.averaged is None
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)


def test_a_fresh_state_is_the_models_without_running_the_model():
    net, sgd = Net(), optax.sgd(0.5)
    init = functools.partial(train_step.init, net, sgd, seed=1, size=32, average=True)
    state, expected = init(), net.init(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    for variables in ({"params": state.params, "batch_stats": state.batch_stats}, state.averaged):
        close(variables, expected, rtol=0, atol=0)
    assert state.averaged["params"]["conv"]["kernel"] is not state.params["conv"]["kernel"]
    assert "conv_general" not in str(jax.make_jaxpr(init)())


def test_losses_of_the_stacks_sum_to_the_loss():
    step, state, _ = make()
    _, metrics = step(state, batch_of())
    stacks = [metrics["loss_stack1"], metrics["loss_stack2"]]
    assert "loss_stack3" not in metrics and abs(stacks[0] - stacks[1]) > 1e-3
    np.testing.assert_allclose(sum(stacks), metrics["loss"], rtol=1e-6)


def test_running_statistics_are_those_of_the_whole_batch():
    step, state, _ = make()
    new, _ = step(state, batch_of())
    images, _ = inputs_of(batch_of())
    # A convolution of 4 x 4 px with stride 4 is a matrix product of the patches.
    patches = images.reshape(8, 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48)
    features = patches.astype(np.float64) @ np.asarray(state.params["conv"]["kernel"]).reshape(48, 8)
    statistics = new.batch_stats["norm"]
    # Momentum 0.9, starting from 0 and 1.
    np.testing.assert_allclose(statistics["mean"], 0.1 * features.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * features.var(axis=0), rtol=1e-4)


def test_accumulation_averages_the_gradients_of_its_parts():
    step, state, loss = make(accumulate=2)
    batch = batch_of()
    new, metrics = step(state, batch)
    gradients, values, batch_stats = [], [], state.batch_stats
    for part in (0, 1):  # every second example, so that each device keeps its own
        half = {name: value[part::2] for name, value in batch.items()}
        gradient, batch_stats, value = by_hand(Net(), loss, state.params, batch_stats, half)
        gradients.append(gradient)
        values.append(value)
    expected = jax.tree.map(lambda p, a, b: p - 0.5 * (a + b) / 2, state.params, *gradients)
    close(new.params, expected)
    close(new.batch_stats, batch_stats)  # updated by one part after the other
    np.testing.assert_allclose(metrics["loss"], np.mean(values), rtol=1e-5)
    stacks = metrics["loss_stack1"] + metrics["loss_stack2"]
    np.testing.assert_allclose(stacks, metrics["loss"], rtol=1e-5)


def test_accumulation_equals_the_whole_batch_if_nothing_depends_on_the_part():
    # Without batch norm and with equal weights of all joints, the mean of means is the mean.
    net = Net(normalised=False)
    whole, state, _ = make(net, mask=False)
    parts, _, _ = make(net, mask=False, accumulate=4)
    a, b = whole(state, batch_of()), parts(state, batch_of())
    close(a[0].params, b[0].params)
    np.testing.assert_allclose(a[1]["loss"], b[1]["loss"], rtol=1e-5)


def test_accumulation_that_does_not_divide_is_refused():
    step, state, _ = make(accumulate=3)
    with pytest.raises(ValueError, match=r"train.accumulate=3 does not divide a batch of 8"):
        step(state, batch_of())


def test_the_average_follows_the_parameters_by_its_formula():
    step, state, _ = make(average=0.15)
    average = jax.device_get(state.averaged)
    np.testing.assert_array_equal(average["params"]["conv"]["kernel"], state.params["conv"]["kernel"])
    # min(0.15, (1 + t) / (10 + t)): 1 / 10, 2 / 11 -> 0.15, 0.15
    for number, decay in enumerate((0.1, 0.15, 0.15)):
        state, _ = step(state, batch_of(number))
        new = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda a, n, d=decay: d * a + (1 - d) * np.asarray(n), average, new)
        close(state.averaged, average)
    assert state.variables is state.averaged
    difference = np.abs(average["params"]["conv"]["kernel"] - state.params["conv"]["kernel"])
    assert difference.max() > 1e-4  # so that the two differ


def test_without_an_average_evaluation_uses_the_parameters():
    _, state, _ = make()
    assert state.averaged is None
    assert state.variables == {"params": state.params, "batch_stats": state.batch_stats}


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_gradient_is_clipped_before_the_optimiser(clip_norm):
    rmsprop = optimizer.transformation(lambda step: 1e-3, name="rmsprop", clip_norm=clip_norm)
    step, state, _ = make(optimiser=rmsprop)
    new, metrics = step(state, batch_of())
    assert metrics["gradient_norm"] > 0.05  # reported before clipping
    # The only state of RMSprop that has changed: 0.01 * gradient^2.
    squares = sum(float(x.sum()) for x in jax.tree.leaves(new.optimizer) if x.ndim)
    expected = clip_norm or metrics["gradient_norm"]
    np.testing.assert_allclose(np.sqrt(squares / 0.01), expected, rtol=1e-4)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32():
    adam = optimizer.transformation(lambda step: 1e-3, name="adam")
    step, state, _ = make(Net(dtype=jnp.bfloat16), adam, average=0.15)
    new, metrics = step(state, batch_of())
    kinds = {x.dtype for x in jax.tree.leaves(new)}
    assert kinds == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}  # int32: the counts of steps
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {jnp.dtype(jnp.float32)}
    plain, state, _ = make(average=0.15)  # the first loss does not depend on the optimiser
    loss = plain(state, batch_of())[1]["loss"]
    # bfloat16 has 8 bits: a relative error of 2^-9 for each number.
    assert metrics["loss"] != loss
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-2)


def test_bfloat16_hourglass_keeps_float32():
    model = models.build("newell", joints=16, dtype="bfloat16", stacks=1, width=4, depth=1)
    adam = optimizer.transformation(lambda step: 1e-3, name="adam")
    shapes = jax.eval_shape(lambda: train_step.init(model, adam, seed=0, size=32, average=True))
    assert {x.dtype.name for x in jax.tree.leaves(shapes)} == {"float32", "int32"}
    inside = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))
    variables = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    program = str(inside(variables, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)))
    convolutions = [line for line in program.splitlines() if "conv_general_dilated[" in line]
    assert convolutions and all(":bf16[" in line for line in convolutions)


def test_unlabelled_joints_are_left_out_if_masked_and_have_a_zero_target_otherwise():
    batch = batch_of()
    moved = batch | {"joints": np.where(batch["visible"][..., None] > 0, batch["joints"], 20)}
    images, joints = inputs_of(batch)
    shown = batch["visible"] > 0
    values = {}
    for mask in (True, False):
        step, state, _ = make(mask=mask)
        new, metrics = step(state, batch)
        other, again = step(state, _float32(moved))
        close(new.params, other.params, rtol=0, atol=0)  # their positions are not used
        values[mask] = float(metrics["loss"])
        assert values[mask] == float(again["loss"])
    # By hand: the targets' maps, and zeros for joints that are not labelled.
    outputs, _ = Net().apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
    )
    cells = np.arange(8) + 0.5
    distance = cells - joints[..., None] / 4  # b k (x, y) cells
    line = np.exp(-(distance**2) / 2) * (np.abs(distance) <= 3)
    targets = np.einsum("bkx,bky->byxk", line[:, :, 0] * shown[..., None], line[:, :, 1])
    errors = [((np.asarray(maps) - targets) ** 2).mean(axis=(1, 2)) for maps in outputs.heatmaps]
    np.testing.assert_allclose(values[False], sum(e.mean() for e in errors), rtol=1e-4)
    np.testing.assert_allclose(values[True], sum(e[shown].mean() for e in errors), rtol=1e-4)


def _float32(batch):
    return batch | {"joints": batch["joints"].astype(np.float32)}


def test_a_flipped_batch_has_flipped_images_and_swapped_sides():
    order = skeletons.MPII.flip
    batch = batch_of()
    mirrored = batch | {
        "image": batch["image"][:, :, ::-1],
        "joints": (np.array([48, 0]) + np.array([-1, 1]) * batch["joints"])[:, order].astype(np.float32),
        "visible": batch["visible"][:, order],
    }
    flip, state, _ = make(augmentation={"flip_probability": 1.0})
    plain, _, _ = make()
    a, b = flip(state, batch), plain(state, mirrored)
    close(a[0].params, b[0].params)
    np.testing.assert_allclose(a[1]["loss"], b[1]["loss"], rtol=1e-5)


def test_augmentation_is_a_function_of_seed_and_step():
    step, state, value_of = make(augmentation=HARD)
    batch, place = batch_of(), {"size": 32, "canvas": 48, "margin": 1.5, "flip_order": skeletons.MPII.flip}
    augmented = jax.jit(functools.partial(augment.augment, **place, **HARD))

    def of(seed, number):
        """By hand, from the key that (seed, step) gives."""
        key = jax.random.fold_in(jax.random.key(seed), number)
        return augmented(key, batch["image"], batch["joints"], batch["visible"])

    another = train_step.preparation(
        geometry=GEOMETRY, flip_order=skeletons.MPII.flip, mean=MEAN, augmentation=HARD, seed=1
    )
    prepare, seen = jax.jit(another), []
    forward = jax.jit(functools.partial(Net().apply, train=True, mutable=["batch_stats"]))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    for number in (0, 1):
        images, joints, visible = of(0, number)
        outputs, _ = forward(variables, images - np.array(MEAN, np.float32))
        loss = step(state.replace(step=jnp.int32(number)), batch)[1]["loss"]
        np.testing.assert_allclose(loss, value_of(outputs, joints, visible)[0], rtol=1e-4)
        seen += [images, of(1, number)[0]]
        np.testing.assert_allclose(prepare(number, batch)[0], seen[-1] - np.array(MEAN), atol=1e-5)
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(seen, 2))
    assert step(state.replace(step=jnp.int32(1)), batch)[1]["loss"] == loss


def test_state_is_donated_to_the_compiled_step():
    from hourglass_jax import devices

    mesh = devices.mesh()
    plain, state, _ = make(average=0.15)
    expected, _ = plain(state, batch_of())
    state = jax.device_put(jax.tree.map(np.asarray, state), devices.replicated(mesh))  # a copy
    new, _ = train_step.compiled(plain.__wrapped__, mesh)(state, devices.put_batch(batch_of(), mesh))
    # Memory for one state, not for two: the old one is deleted, and the new one is correct.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    close(new.params, expected.params)


class Active(Net):
    """Reports an activity of 2 + 3."""

    @nn.compact
    def __call__(self, image, train=False):
        for value in (2.0, 3.0):
            self.sow("activity", "mean_squares", jnp.float32(value))
        return super().__call__(image, train)


def test_activity_is_added_to_the_loss_and_measures_to_the_metrics():
    net, optimiser = Active(normalised=False), optax.sgd(0.5)
    loss = functools.partial(
        losses.on_heatmaps, size=32, sigma=1.0, kind="mean_squared_error", mask_unlabelled=True
    )
    options = {"geometry": GEOMETRY, "flip_order": skeletons.MPII.flip, "seed": 0, "mean": MEAN}
    options |= {"augmentation": PLAIN, "loss": loss}
    state = train_step.init(net, optimiser, seed=1, size=32, average=False)
    batch = batch_of()

    def measure(outputs, joints, visible):
        return {"labelled": jnp.mean(visible > 0)}

    plain = train_step.make(net, optimiser, **options)
    active = train_step.make(net, optimiser, **options, activity_weight=0.1, measure=measure)
    both = jax.jit(lambda state, batch: (plain(state, batch)[1], active(state, batch)[1]))(state, batch)
    np.testing.assert_allclose(both[1]["loss"], both[0]["loss"] + 0.5, rtol=1e-6)
    np.testing.assert_allclose(both[1]["labelled"], np.mean(batch["visible"] > 0), rtol=1e-6)
    silent = train_step.make(Net(), optimiser, **options, activity_weight=0.1)
    with pytest.raises(ValueError, match="loss.activity_weight: .*reports no activity; set it to 0"):
        jax.eval_shape(silent, train_step.init(Net(), optimiser, seed=1, size=32, average=False), batch)


def test_the_gradient_norm_has_a_form_for_each_platform():
    tree = {"kernel": jnp.full((2, 3), 2.0), "other": jnp.full((2, 3), 1.0), "bias": jnp.array([3.0, 4.0])}
    norms = [platforms.on(platform, train_step._norm)(tree) for platform in ("cpu", "gpu", "tpu")]
    np.testing.assert_allclose(norms, np.sqrt(6 * 4 + 6 + 25), rtol=1e-6)
