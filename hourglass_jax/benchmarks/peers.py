"""Compares our training step with PyTorch's: equal weights, equal batches, RMSprop as released, step by step.

Two networks are trained: the stacked hourglass, and one of Chu's hourglass residual units between a
convolution and heatmaps. Our training uses `training.step` with Torch's constants. PyTorch's uses its own
loss, BatchNorm2d and optim.RMSprop(alpha=0.99, eps=1e-8), as in the released codes.

In float64 both trainings are equal. In float32 they agree up to rounding in the first step, and the
hourglasses drift apart afterwards. PyTorch's hourglass drifts in the same way from its own float64 training,
and from one whose initial weights differ by 1e-7. The reason is the ReLU: an input within rounding of 0 is on
in one training and off in the other, and the gradient differs by a whole term. In float64 such inputs hardly
ever occur. With a smooth softplus instead of the ReLU (`smooth`) the difference in float32 stays at 1e-6.
With gradient descent, or another epsilon of RMSprop, trainings drift in the same way.

Apart from that, RMSprop divides a gradient by its own root mean square. So a weight whose gradient is only
rounding noise (the bias of a convolution before a batch norm) moves by up to 10 times the learning rate in a
random direction. The loss does not depend on such weights, but the running means of the next norm do.

BatchNorm2d updates its running variance with the unbiased estimate; ours, as Flax, uses the biased one, which
is smaller by (n - 1) / n for n values of a channel. The comparison removes this factor; `evaluated` measures
its effect.
"""

import contextlib
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hourglass_jax.models import chu, layers, newell
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import heatmaps
from hourglass_jax.pose.skeletons import MPII
from hourglass_jax.training import losses, optimizer
from hourglass_jax.training import step as train_step

LEARNING_RATE, MOMENTUM = 2.5e-4, 0.1
MEAN = (0.4404, 0.4440, 0.4327)
JOINTS = len(MPII)


class OneUnit(nn.Module):
    """A convolution to a quarter of the resolution, Chu's unit, heatmaps."""

    width: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image, train=False):
        conv, norm = layers.parts(train=train, dtype=self.dtype)
        x = conv(self.width, (4, 4), (4, 4), padding="VALID", name="conv")(image)
        x = chu.HourglassUnit(self.width, conv, norm, name="unit")(x)
        return Outputs(heatmaps=(conv(JOINTS, (1, 1), name="heatmaps")(x),))


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A training of n steps.

    Attributes:
      loss: (n,).
      means, variances: by norm, (n, c), the running statistics after each step; variances are biased.
      state: `train_step.State` after the last step; None for PyTorch's training.
      counted: by norm, the number of values of a channel in a batch; {} for our training.
    """

    loss: np.ndarray
    means: dict[str, np.ndarray]
    variances: dict[str, np.ndarray]
    state: Any = None
    counted: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Differences:
    """The differences between two trainings after each of n steps.

    Attributes:
      loss: (n,) of the first training; loss_error: (n,) relative.
      mean_error: (n,) the largest difference of a norm's running means, in running deviations.
      variance_error: (n,) the largest relative difference of the running variances.
    """

    loss: np.ndarray
    loss_error: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray

    @classmethod
    def between(cls, one: Trajectory, other: Trajectory) -> "Differences":
        means, variances = [], []
        for name, biased in other.variances.items():
            means.append(np.abs(one.means[name] - other.means[name]) / np.sqrt(biased))
            variances.append(np.abs(one.variances[name] - biased) / biased)
        return cls(
            one.loss,
            np.abs(one.loss - other.loss) / other.loss,
            *(np.concatenate(errors, axis=1).max(axis=1) for errors in (means, variances)),
        )


def networks(*, stacks: int, width: int, depth: int) -> dict:
    """The two networks by name: our model, and a function of its variables that makes PyTorch's network."""
    from hourglass_jax.benchmarks import torch_twin

    fields: dict[str, Any] = {"joints": JOINTS, "stacks": stacks, "width": width, "depth": depth}
    one_unit = functools.partial(torch_twin.one_unit, joints=JOINTS, width=width)
    return {
        "hourglass": (newell.Model(**fields), functools.partial(torch_twin.create, **fields)),
        "hourglass unit": (OneUnit(width), one_unit),
    }


def batch_of(number: int, *, size: int, count: int) -> dict[str, np.ndarray]:
    """A synthetic batch: noise with a bright square at each joint, in the frame of the network's input."""
    rng = np.random.default_rng(number)
    images = rng.integers(0, 128, (count, size, size, 3), np.uint8)
    joints = rng.uniform(0.1 * size, 0.9 * size, (count, JOINTS, 2)).astype(np.float32)
    for image, places in zip(images, joints.astype(int), strict=True):
        for k, (x, y) in enumerate(places):
            image[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2, k % 3] += np.uint8(127 - 4 * k)
    return {
        "image": images,
        "joints": joints,
        "visible": rng.integers(0, 3, (count, JOINTS)).astype(np.uint8),
        "center": np.full((count, 2), size / 2, np.float32),
        "scale": np.full(count, size / 200, np.float32),
    }


def compare(model: nn.Module, twin_of, *, size: int, count: int, steps: int) -> Differences:
    """Trains a network and its twin in float32 on the same batches; for the arguments see `ours`."""
    mine = ours(model, size=size, count=count, steps=steps)
    return Differences.between(mine, theirs(model, twin_of, size=size, count=count, steps=steps))


def ours(model: nn.Module, *, size: int, count: int, steps: int, dtype: str = "float32") -> Trajectory:
    """Trains a network with this project's step.

    Args:
      model: returns `Outputs`.
      size: side of the input, px; count: people in a batch; steps: length of the training.
      dtype: "float32" or "float64", type of the computation, the variables and the optimiser.
    """
    from hourglass_jax.benchmarks import torch_twin

    with _precision(dtype):
        optimiser = optimizer.transformation(lambda step: LEARNING_RATE)
        loss = functools.partial(
            losses.on_heatmaps, size=size, sigma=1.0, kind="mean_squared_error", mask_unlabelled=False
        )
        step = jax.jit(
            train_step.make(
                model.clone(dtype=jnp.dtype(dtype)),
                optimiser,
                geometry=train_step.Geometry(canvas=size, margin=1.0, size=size),
                flip_order=MPII.flip,
                seed=0,
                mean=MEAN,
                augmentation={},
                loss=loss,
            )
        )
        begin = _begin(model, size, dtype)
        state = train_step.State(jnp.zeros((), jnp.int32), *begin, optimiser.init(begin[0]), None)
        found, seen = [], []
        for number in range(1, steps + 1):
            state, metrics = step(state, batch_of(number, size=size, count=count))
            found.append(float(metrics["loss"]))
            seen.append(torch_twin.named(state.batch_stats))
        return Trajectory(np.array(found), *_by_norm(seen), jax.device_get(state))


def theirs(
    model: nn.Module,
    twin_of,
    *,
    size: int,
    count: int,
    steps: int,
    dtype: str = "float32",
    nudge: float = 0.0,
) -> Trajectory:
    """Trains a network's twin with PyTorch's own parts; for the other arguments see `ours`.

    Args:
      model: the model whose initial weights are used.
      twin_of: variables -> the same network in PyTorch.
      nudge: relative change of each initial weight, randomly up or down.
    """
    import torch

    params, batch_stats = _begin(model, size, "float32")
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: (np.asarray(x) * (1 + nudge * rng.choice([-1, 1], x.shape))).astype(np.float32), params
    )
    twin = twin_of({"params": params, "batch_stats": batch_stats}).train().to(getattr(torch, dtype))
    counted = _counts(twin)
    rmsprop = torch.optim.RMSprop(twin.parameters(), lr=LEARNING_RATE, alpha=0.99, eps=1e-8)
    found, seen = [], []
    for number in range(1, steps + 1):
        batch = batch_of(number, size=size, count=count)
        found.append(_torch_step(twin, rmsprop, batch, size, np.dtype(dtype)))
        kept = (1 - MOMENTUM) ** number  # the share of the initial variance, 1
        running = {name: value.numpy().copy() for name, value in twin.state_dict().items()}
        for name, n in counted.items():
            running[f"{name}.running_var"] = _biased(running[f"{name}.running_var"], n, kept)
        seen.append(running)
    return Trajectory(np.array(found), *_by_norm(seen), counted=counted)


@contextlib.contextmanager
def smooth():
    """Replaces PyTorch's ReLU by softplus(4 x) / 4, which has no kink."""
    from torch.nn import functional

    relu = functional.relu
    functional.relu = functools.partial(functional.softplus, beta=4)
    try:
        yield
    finally:
        functional.relu = relu


def evaluated(model: nn.Module, run: Trajectory, counted: dict[str, int], *, size: int) -> float:
    """The effect of the choice of the running variance: the largest difference of the heatmaps in evaluation,
    relative to the largest value, if BatchNorm2d's unbiased variances replace ours.

    Args:
      model: the model of `ours` that made the run.
      counted: that of PyTorch's run on the same batches.
      size: side of the input, px.
    """
    kept = (1 - MOMENTUM) ** len(run.loss)  # the share of the initial variance, 1
    stats: dict[Any, Any] = traverse_util.flatten_dict(run.state.batch_stats)
    theirs = dict(stats)
    for name, n in counted.items():
        path = (*name.split("."), "var")
        theirs[path] = kept + (stats[path] - kept) * n / (n - 1)
    image = jnp.asarray(batch_of(0, size=size, count=4)["image"] / np.float32(255) - np.array(MEAN))

    def last(of) -> jax.Array:
        variables = {"params": run.state.params, "batch_stats": traverse_util.unflatten_dict(of)}
        outputs: Any = model.apply(variables, image)
        return outputs.heatmaps[-1]

    maps, others = last(stats), last(theirs)
    return float(jnp.abs(maps - others).max() / jnp.abs(maps).max())


def _biased(var, n, kept):
    return kept + (var - kept) * (n - 1) / n


@contextlib.contextmanager
def _precision(dtype: str):
    before = bool(jax.config.values["jax_enable_x64"])
    jax.config.update("jax_enable_x64", before or dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _begin(model, size, dtype) -> tuple[dict, dict]:
    """Parameters and statistics that are the same in every precision."""
    optimiser = optimizer.transformation(lambda step: LEARNING_RATE)
    state = train_step.init(model, optimiser, seed=0, size=size, average=False)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (state.params, state.batch_stats))


def _torch_step(twin, rmsprop, batch: dict[str, np.ndarray], size: int, dtype: np.dtype) -> float:
    import torch
    from torch.nn import functional

    images = (batch["image"] / dtype.type(255) - np.array(MEAN, dtype)).transpose(0, 3, 1, 2)
    with _precision(dtype.name):
        joints, shown = jnp.asarray(batch["joints"].astype(dtype) / 4), jnp.asarray(batch["visible"] > 0)
        maps = np.asarray(heatmaps.render(joints, shown, size=size // 4, sigma=1.0))
    targets = torch.from_numpy(np.moveaxis(maps, -1, 1).astype(dtype))
    loss: Any = sum(functional.mse_loss(found, targets) for found in twin(torch.from_numpy(images.copy())))
    rmsprop.zero_grad()
    loss.backward()
    rmsprop.step()
    return float(loss.detach())


def _counts(twin) -> dict[str, int]:
    """The number of values per channel that each of the twin's norms sees; filled when the twin runs."""
    import torch

    counted: dict[str, int] = {}

    def count(name, module, inputs):
        counted[name] = inputs[0].numel() // inputs[0].shape[1]

    for name, module in twin.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(functools.partial(count, name))
    return counted


def _by_norm(seen: list[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The running means and variances (n, c) by norm, from the statistics of n steps by the twin's names."""

    def of(kind):
        names = [name for name in seen[0] if name.endswith(f".{kind}")]
        return {name.removesuffix(f".{kind}"): np.stack([one[name] for one in seen]) for name in names}

    return of("running_mean"), of("running_var")


def add(command) -> None:
    parser = command("peers", help="losses and batch statistics of our training step and of PyTorch's")
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--stacks", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--depth", type=int, default=4, help="depth of hourglasses (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the input, px (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """Rows for each network: pairs of trainings, and their largest differences so far."""
    rows = []
    made = networks(stacks=args.stacks, width=args.width, depth=args.depth)
    for name, (model, twin_of) in made.items():
        sizes = {"size": args.size, "count": args.batch_size, "steps": args.steps}
        mine = {dtype: ours(model, dtype=dtype, **sizes) for dtype in ("float64", "float32")}
        peer = {dtype: theirs(model, twin_of, dtype=dtype, **sizes) for dtype in ("float64", "float32")}
        pairs = {
            "ours, PyTorch; float64": (mine["float64"], peer["float64"]),
            "ours, PyTorch; float32": (mine["float32"], peer["float32"]),
            "ours; float32, float64": (mine["float32"], mine["float64"]),
            "PyTorch; float32, float64": (peer["float32"], peer["float64"]),
            "PyTorch; float32, weights 1e-7 away": (
                theirs(model, twin_of, nudge=1e-7, **sizes),
                peer["float32"],
            ),
        }
        with smooth():
            pairs["PyTorch with softplus; float32, float64"] = (
                theirs(model, twin_of, **sizes),
                theirs(model, twin_of, dtype="float64", **sizes),
            )
        for title, pair in pairs.items():
            found = Differences.between(*pair)
            for step in sorted({1, 10, 100, args.steps} & set(range(1, args.steps + 1))):
                values = {
                    "loss": f"{found.loss[step - 1]:.6f}",
                    "relative difference": f"{found.loss_error[:step].max():.1e}",
                    "means, deviations": f"{found.mean_error[:step].max():.1e}",
                    "variances, relative": f"{found.variance_error[:step].max():.1e}",
                }
                rows.append({"network": name, "trainings": title, "up to step": step} | values)
        worth = evaluated(model, mine["float32"], peer["float32"].counted, size=args.size)
        print(
            f"{name}: unbiased running variances would change heatmaps by {100 * worth:.2f}% of the largest."
        )
    title = (
        f"Training steps and PyTorch's: {args.stacks} stacks, width {args.width}, {args.size} px, batch "
        f"{args.batch_size}, RMSprop; largest differences so far"
    )
    return {"title": title, "rows": rows}
