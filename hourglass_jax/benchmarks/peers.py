"""Our training step beside PyTorch's: equal weights, equal batches, RMSprop as released, step by step.

Two networks are trained, in float32: the stacked hourglass, and a single one of Chu's hourglass residual
units between a convolution and heatmaps. Ours takes `training.step` with Torch's constants; PyTorch's its own
loss, BatchNorm2d and optim.RMSprop(alpha=0.99, eps=1e-8), as the released codes do.

The two agree to rounding in the first step and drift apart afterwards: RMSprop divides a gradient by its own
root mean square, so that one which is 0 but for rounding (the bias of a convolution before a batch norm, the
weight of a unit that is off) moves by up to 10 times the learning rate in a direction of chance. Such weights
hardly change the loss; they do shift the means that the next norm sees.

BatchNorm2d updates its running variance by the unbiased estimate, ours, as Flax, by the biased one: smaller
by (n - 1) / n for n values of a channel. They are compared with that factor taken out.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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

    @nn.compact
    def __call__(self, image, train=False):
        conv, norm = layers.parts(train=train, dtype=jnp.float32)
        x = conv(self.width, (4, 4), (4, 4), padding="VALID", name="conv")(image)
        x = chu.HourglassUnit(self.width, conv, norm, name="unit")(x)
        return Outputs(heatmaps=(conv(JOINTS, (1, 1), name="heatmaps")(x),))


@dataclasses.dataclass(frozen=True)
class Differences:
    """Between the two after each of n steps.

    Attributes:
      loss: (n,) of ours; loss_error: (n,) relative.
      mean_error: (n,) the largest difference of a norm's running means, in running deviations.
      variance_error: (n,) the largest relative difference of the running variances.
    """

    loss: np.ndarray
    loss_error: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray


def networks(*, stacks: int, width: int, depth: int) -> dict:
    """The two networks by name: ours, and a function of its variables that makes PyTorch's."""
    from hourglass_jax.benchmarks import torch_twin

    fields: dict[str, Any] = {"joints": JOINTS, "stacks": stacks, "width": width, "depth": depth}
    one_unit = functools.partial(torch_twin.one_unit, joints=JOINTS, width=width)
    return {
        "hourglass": (newell.Model(**fields), functools.partial(torch_twin.create, **fields)),
        "hourglass unit": (OneUnit(width), one_unit),
    }


def batch_of(number: int, *, size: int, count: int) -> dict[str, np.ndarray]:
    """A made batch: noise with a bright square at each joint, in the frame of the network's input."""
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
    """Trains a network and its twin on the same batches.

    Args:
      model: returns `Outputs`.
      twin_of: variables -> the same network in PyTorch.
      size: side of the input, px; count: people in a batch; steps: of the training.
    """
    import torch

    optimiser = optimizer.transformation(lambda step: LEARNING_RATE)
    loss = functools.partial(
        losses.on_heatmaps, size=size, sigma=1.0, kind="mean_squared_error", mask_unlabelled=False
    )
    step = jax.jit(
        train_step.make(
            model,
            optimiser,
            geometry=train_step.Geometry(canvas=size, margin=1.0, size=size),
            flip_order=MPII.flip,
            seed=0,
            mean=MEAN,
            augmentation={},
            loss=loss,
        )
    )
    state = train_step.init(model, optimiser, seed=0, size=size, average=False)
    twin = twin_of({"params": state.params, "batch_stats": state.batch_stats}).train()
    counted = _counts(twin)
    rmsprop = torch.optim.RMSprop(twin.parameters(), lr=LEARNING_RATE, alpha=0.99, eps=1e-8)
    found = []
    for number in range(1, steps + 1):
        batch = batch_of(number, size=size, count=count)
        state, metrics = step(state, batch)
        theirs = _torch_step(twin, rmsprop, batch, size)
        value = float(metrics["loss"])
        errors = _statistics(state.batch_stats, twin, counted, number)
        found.append((value, abs(value - theirs) / theirs, *errors))
    return Differences(*map(np.array, zip(*found, strict=True)))


def _torch_step(twin, rmsprop, batch: dict[str, np.ndarray], size: int) -> float:
    import torch
    from torch.nn import functional

    images = (batch["image"] / np.float32(255) - np.array(MEAN, np.float32)).transpose(0, 3, 1, 2)
    joints, shown = jnp.asarray(batch["joints"] / 4), jnp.asarray(batch["visible"] > 0)
    maps = heatmaps.render(joints, shown, size=size // 4, sigma=1.0)
    targets = torch.from_numpy(np.moveaxis(np.asarray(maps), -1, 1).copy())
    loss: Any = sum(functional.mse_loss(found, targets) for found in twin(torch.from_numpy(images.copy())))
    rmsprop.zero_grad()
    loss.backward()
    rmsprop.step()
    return float(loss.detach())


def _counts(twin) -> dict[str, int]:
    """Gets, once the twin runs, how many values of a channel each of its norms sees."""
    import torch

    counted: dict[str, int] = {}

    def count(name, module, inputs):
        counted[name] = inputs[0].numel() // inputs[0].shape[1]

    for name, module in twin.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(functools.partial(count, name))
    return counted


def _statistics(batch_stats: dict, twin, counted: dict[str, int], step: int) -> tuple[float, float]:
    """The largest differences of means and variances, see `Differences`."""
    from hourglass_jax.benchmarks import torch_twin

    ours, theirs = torch_twin.named(batch_stats), twin.state_dict()
    kept = (1 - MOMENTUM) ** step  # of the variance at the start, 1
    means, variances = [], []
    for name, n in counted.items():
        mean, var = (theirs[f"{name}.running_{kind}"].numpy() for kind in ("mean", "var"))
        biased = kept + (var - kept) * (n - 1) / n
        found = ours[f"{name}.running_var"]
        means.append(np.abs(mean - ours[f"{name}.running_mean"]) / np.sqrt(biased))
        variances.append(np.abs(found - biased) / biased)
    return max(map(np.max, means)), max(map(np.max, variances))


def add(command) -> None:
    parser = command("peers", help="losses and batch statistics of our training step beside PyTorch's")
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--stacks", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--depth", type=int, default=4, help="of the hourglasses (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the input, px (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each network and some of the steps."""
    rows = []
    made = networks(stacks=args.stacks, width=args.width, depth=args.depth)
    for name, (model, twin_of) in made.items():
        found = compare(model, twin_of, size=args.size, count=args.batch_size, steps=args.steps)
        shown = sorted({1, 2, 5, 10, 20, 50, 100, args.steps} & set(range(1, args.steps + 1)))
        for step in shown:
            values = {
                "loss": f"{found.loss[step - 1]:.6f}",
                "relative difference": f"{found.loss_error[:step].max():.1e}",
                "means, deviations": f"{found.mean_error[:step].max():.1e}",
                "variances, relative": f"{found.variance_error[:step].max():.1e}",
            }
            rows.append({"network": name, "up to step": step} | values)
    title = (
        f"Training steps beside PyTorch's: {args.stacks} stacks, width {args.width}, {args.size} px, batch "
        f"{args.batch_size}, RMSprop, float32; largest differences so far"
    )
    return {"title": title, "rows": rows}
