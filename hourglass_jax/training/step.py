"""The train step: augmentation, targets, forward, backward, update and averaging in one program."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from hourglass_jax import devices
from hourglass_jax.kernels import platforms
from hourglass_jax.models import shapes
from hourglass_jax.pose import augment, crop
from hourglass_jax.training import losses, phases
from hourglass_jax.transforms import cancelled_biases, norm_groups, paired_stem, remat, shared_units, stacks

INPUTS = ("image", "joints", "visible", "center", "scale")  # the fields of a batch that a step needs


@struct.dataclass
class State:
    """The state of a training. Parameters and statistics are float32.

    `averaged` is {"params", "batch_stats"} averaged over the steps, or None.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    optimizer: optax.OptState
    averaged: dict | None

    @property
    def variables(self) -> dict:
        """The variables for evaluation: the averaged ones, if the training averages."""
        plain = {"params": self.params, "batch_stats": self.batch_stats}
        return self.averaged if self.averaged is not None else plain


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes on which the data and the step must agree, in pixels except for the margin."""

    canvas: int  # side of the stored crop
    margin: float  # side of the stored crop / side of the nominal crop
    size: int  # side of the network's input


def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    size: int,
    average: bool,
) -> State:
    """A fresh state.

    Do not jit this function: without jit, parameters of the same shape share a small program, while a single
    program for all parameters of eight stacks takes a minute to compile."""

    def draw(key):
        drawn: Any = model.init(key, jnp.zeros((1, size, size, 3)))
        return {name: drawn.get(name, {}) for name in ("params", "batch_stats")}

    variables = _without_forward(draw)(jax.random.key(seed))
    return State(
        step=jnp.zeros((), jnp.int32),
        optimizer=optimizer.init(variables["params"]),
        averaged=jax.jit(_copied)(variables) if average else None,
        **variables,
    )


def abstract(model: nn.Module, optimizer: optax.GradientTransformation, *, size: int, average: bool) -> State:
    """Shapes of the state of `init`, whose arguments these are; nothing is computed."""
    with shapes.sharing():
        return jax.eval_shape(functools.partial(init, model, optimizer, seed=0, size=size, average=average))


def _copied(tree):
    return jax.tree.map(jnp.copy, tree)


def _without_forward(init: Callable) -> Callable:
    """Like `init`, but runs only the operations on which its result depends, one by one.

    A model's initialisation runs the model. Flax's `lazy_init` leaves out only the operations that depend on
    the image: it still folds norms and sums kernels, and compiles a program for each.
    """

    def call(*args):
        closed, like = jax.make_jaxpr(init, return_shape=True)(*args)
        needed, kept = set(map(id, closed.jaxpr.outvars)), []
        for equation in reversed(closed.jaxpr.eqns):
            if any(id(v) in needed for v in equation.outvars):
                needed.update(map(id, equation.invars))
                kept.append(equation)
        jaxpr = closed.jaxpr.replace(eqns=kept[::-1])
        leaves = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    return call


def preparation(
    *,
    geometry: Geometry,
    flip_order: np.ndarray,
    mean: tuple[float, float, float],
    augmentation: dict,
    seed: int,
) -> Callable[[jax.Array, dict[str, jax.Array]], tuple[jax.Array, jax.Array, jax.Array]]:
    """Makes prepare(step, batch) -> (images, joints, visible) as the network and its loss see them.

    For the arguments see `make`. Images are (b, size, size, 3), joints (b, k, 2) in input pixels.
    """
    sizes = {"canvas": geometry.canvas, "margin": geometry.margin, "size": geometry.size}
    place = functools.partial(crop.canvas_from_image, canvas=geometry.canvas, margin=geometry.margin)

    def prepare(step, batch):
        key = jax.random.fold_in(jax.random.key(seed), step)
        joints = crop.apply(place(batch["center"], batch["scale"]), batch["joints"])
        images, joints, visible = augment.augment(
            key, batch["image"], joints, batch["visible"], flip_order=flip_order, **sizes, **augmentation
        )
        return images - jnp.asarray(mean), joints, visible

    return prepare


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    geometry: Geometry,
    flip_order: np.ndarray,
    seed: int,
    mean: tuple[float, float, float],
    augmentation: dict,
    loss: Callable,
    kernel_weight: float = 0.0,
    activity_weight: float = 0.0,
    measure: Callable | None = None,
    average_decay: float = 0.0,
    accumulate: int = 1,
    policy: str = "",
    norm_group: int = 0,
    trained: tuple[str, ...] | None = None,
) -> Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]:
    """Makes step(state, batch) -> (state, metrics), which is not jit-compiled yet. A batch needs the fields
    `INPUTS`.

    Args:
      geometry: of canvas and input.
      flip_order: see `augment`.
      seed: the random key of the augmentation comes from (seed, step).
      mean: of the channels, subtracted from images in [0, 1].
      augmentation: keyword arguments of `augment.augment`.
      loss: (outputs, joints in input pixels, visible) -> (value, value of each stack).
      kernel_weight: weight, in the loss, of the sum of the kernels' squares.
      activity_weight: weight, in the loss, of the values in the model's collection "activity".
      measure: like `loss`, but returns numbers by name, to be logged; or None.
      average_decay: of the averaged variables; 0 for no average.
      accumulate: the number of parts in which the batch goes through the network; their gradients are
        averaged. Each part has its own batch statistics.
      policy: which features the backward pass recomputes, see `remat`; "" keeps all.
      norm_group: number of examples that share batch statistics, see `norm_groups`; 0 for the whole part.
      trained: tasks of the model that the step trains, see `phases`; the variables of the others are frozen.
        None trains all.

    If its loss or gradient is not finite, a step changes only the number of the step.
    """
    tasks: dict[str, Any] = {} if trained is None else {"trained": trained}
    model = model.clone(**tasks)
    optimizer = optax.with_extra_args_support(optimizer)
    change = functools.partial(optimizer.update, **tasks)
    select = functools.partial(phases.select, model, trained)
    prepare = preparation(
        geometry=geometry, flip_order=flip_order, mean=mean, augmentation=augmentation, seed=seed
    )
    forward = _forward(model, policy, norm_group, activity=bool(activity_weight))
    objective = _objective(model, forward, select, loss, measure, kernel_weight, activity_weight)
    gradients = _gradients(objective, accumulate)

    def step(state, batch):
        with jax.named_scope("augment"):
            example = prepare(state.step, batch)
        grads, batch_stats, (value, (per_stack, measured)) = gradients(
            state.params, state.batch_stats, example
        )
        with jax.named_scope("update"):
            state, grads, batch_stats = stacks.as_rows((state, grads, batch_stats))
            new = _updated(state, grads, batch_stats, value, change, select, average_decay)
            whole = {"loss": value, "gradient_norm": _norm(grads)}
            metrics = whole | {f"loss_stack{s + 1}": v for s, v in enumerate(per_stack)} | measured
            new = _where_finite(metrics, new, state)
        return dataclasses.replace(new, step=new.step + 1), metrics

    return step


def _forward(model, policy, norm_group, *, activity: bool) -> Callable:
    """(variables, images) -> (outputs, new collections) in training, by transforms of the model."""
    mutable = ["batch_stats", "activity"] if activity else ["batch_stats"]
    forward = functools.partial(model.apply, train=True, mutable=mutable)
    forward = norm_groups.grouped(forward, norm_group)
    forward = cancelled_biases.skip(paired_stem.pair(forward))
    return shared_units.share(remat.create(forward, policy))


def _objective(model, forward, select, loss, measure, kernel_weight, activity_weight) -> Callable:
    """(params, batch_stats, examples) -> (the loss, (new statistics, (loss of each stack, measures)))."""

    def objective(params, batch_stats, part):
        images, joints, visible = part
        params = select(params, jax.lax.stop_gradient(params))
        outputs, new = forward({"params": params, "batch_stats": batch_stats}, images)
        with jax.named_scope("loss"):
            value, per_stack = loss(outputs, joints, visible)
        if kernel_weight:
            value += kernel_weight * losses.sum_of_squared_kernels(params)
        if activity_weight:
            value += activity_weight * _activity(model, new)
        measured = measure(outputs, joints, visible) if measure else {}
        return value, (new.get("batch_stats", {}), (per_stack, measured))

    return objective


def _gradients(objective, parts: int) -> Callable:
    """(params, batch_stats, examples) -> (gradients, new statistics, (the loss, its details)).

    The examples are computed in the given number of parts, one after the other."""
    gradient_of = jax.value_and_grad(objective, has_aux=True)

    def at_once(params, batch_stats, example):
        (value, (batch_stats, details)), grads = gradient_of(params, batch_stats, example)
        return grads, batch_stats, (value, details)

    def in_parts(params, batch_stats, example):
        def add(carry, part):
            grads, batch_stats = carry
            (value, (batch_stats, details)), new = gradient_of(params, batch_stats, part)
            return (jax.tree.map(jnp.add, grads, new), batch_stats), (value, details)

        start = (jax.tree.map(jnp.zeros_like, params), batch_stats)
        # In a loop, convolutions do not use the fast path of the CPU backend.
        unroll = platforms.current() == "cpu"
        (grads, batch_stats), values = jax.lax.scan(add, start, _split(example, parts), unroll=unroll)
        mean = functools.partial(jnp.mean, axis=0)
        return jax.tree.map(lambda g: g / parts, grads), batch_stats, jax.tree.map(mean, values)

    return at_once if parts == 1 else in_parts


def _updated(state: State, grads, batch_stats, value, change, select, average_decay) -> State:
    """The state after an update by the gradients; the number of the step does not change.

    change: the optimiser's update; select: see `phases.select`.
    """
    updates, optimizer_state = change(grads, state.optimizer, state.params, value=value)
    params = select(optax.apply_updates(state.params, updates), state.params)
    batch_stats = select(batch_stats, state.batch_stats)
    averaged = state.averaged
    if averaged is not None:
        # At first the average follows closely, so that it soon forgets the random start.
        decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
        new = {"params": params, "batch_stats": batch_stats}
        moved = jax.tree.map(lambda a, n: a + (1 - decay) * (n - a), averaged, new)
        averaged = {name: select(moved[name], averaged[name]) for name in moved}
    return State(state.step, params, batch_stats, optimizer_state, averaged)


def _where_finite(metrics, new: State, state: State) -> State:
    """The new state, or the previous one if the loss or the gradient is not finite.

    A non-finite step must not change the state, no matter when the host reads the metrics. Because of the
    barrier XLA computes this test once, and not again for each leaf of the state.
    """
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    finite = jax.lax.optimization_barrier(finite)
    return stacks.map_vectors(lambda n, o: jnp.where(finite, n, o), new, state)


def _activity(model, collections):
    """The sum of the values in a model's collection "activity"."""
    if not (leaves := jax.tree.leaves(collections.get("activity", {}))):
        raise ValueError(f"loss.activity_weight: {type(model).__module__} reports no activity; set it to 0.")
    return sum(leaves)


def _norm(tree):
    """The square root of the sum of all squares, with fewer sums than arrays: eight stacks have 1463 arrays.

    On CPUs vectors are first concatenated, 64 at a time: XLA compiles a sum for each array, which makes the
    step's compilation a quarter longer. On TPUs squares of the same shape are added first: every sum, however
    small, costs about 1,800 cycles.
    """
    leaves = jax.tree.leaves(tree)
    if platforms.current() == "tpu":
        squares = collections.defaultdict(list)
        for x in leaves:
            squares[x.shape, x.dtype].append(x * x)
        return jnp.sqrt(sum(jnp.sum(functools.reduce(jnp.add, of_shape)) for of_shape in squares.values()))
    if platforms.current() != "cpu":
        return optax.tree.norm(tree)
    vectors = [x for x in leaves if x.ndim == 1]
    rows = [jnp.concatenate(vectors[i : i + 64]) for i in range(0, len(vectors), 64)]
    return optax.tree.norm([x for x in leaves if x.ndim != 1] + rows)


def compiled(step, mesh: jax.sharding.Mesh, *, forms_of: str | None = None):
    """The step as one program on the mesh: the state is replicated and donated, the batch is sharded.

    Batch norm then uses the statistics of the global batch, without an axis name. `forms_of`: see
    `devices.jit`.
    """
    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    shardings: dict[str, Any] = {"in_shardings": (same, spread), "out_shardings": (same, same)}
    return devices.jit(step, mesh, forms_of=forms_of, **shardings, donate_argnums=0)


def _split(example, parts):
    """(b, ...) -> (parts, b / parts, ...); every device keeps its own examples."""

    def split(x):
        if x.shape[0] % parts:
            raise ValueError(f"train.accumulate={parts} does not divide a batch of {x.shape[0]}.")
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, example)
