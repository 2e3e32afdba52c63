"""The stacked hourglass's training step against its PyTorch twin: forward, backward and RMSprop.

Both use the same layers, weights, images and targets; the losses and the gradients of a small network are
compared first. Augmentation and rendering of targets are left out, because the twin has neither. One more row
is plain JAX, without the forms of `kernels`.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hourglass_jax import devices, models
from hourglass_jax.benchmarks.common import against, check_equal, random_variables
from hourglass_jax.training import optimizer

LEARNING_RATE = 2.5e-4


def add(command) -> None:
    parser = command("train", help="a training step of the hourglass, against PyTorch")
    for name, value in (("stacks", 2), ("width", 256), ("depth", 4), ("size", 256)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4], help="(default: 4)")
    compiled = "also torch.compile, which takes minutes (default: on)"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    parser.set_defaults(run=run)


def run(args) -> dict:
    """Times the step of both: a row for each batch size and peer."""
    import torch

    from hourglass_jax.benchmarks import torch_twin

    fields = {"joints": 16, "stacks": args.stacks, "width": args.width, "depth": args.depth}
    model = models.build("newell", **fields)
    variables = random_variables(model, args.size)
    check_gradients(args.stacks)
    rows = []
    for b in args.batch_sizes:
        images, targets = examples(b, args.size)
        runs = {"ours": ours(model, variables, images, targets)}
        if devices.platform_of(devices.mesh()) == "cpu":
            runs["plain JAX"] = ours(model, variables, images, targets, forms_of="none")
        values = {name: once() for name, once in runs.items()}
        twins = {"PyTorch, channels_last": lambda network: network}
        if args.compile:
            twins["PyTorch, channels_last, torch.compile"] = torch.compile
        for name, prepare in twins.items():
            twin = torch_twin.create(variables, **fields).train()
            runs[name] = theirs(twin, prepare(twin), images, targets)
            values[name] = runs[name]()
        for value in values.values():
            check_equal([np.float32(values["ours"])], [np.float32(value)])
        rows += against(
            f"training step, batch {b}", f"{args.stacks} stacks, {args.size} px", runs, args.rounds
        )
    return {"title": f"Training step, float32, RMSprop, PyTorch {torch.__version__}", "rows": rows}


def examples(b: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and targets."""
    rng = np.random.default_rng(b)
    images = rng.uniform(0, 1, (b, size, size, 3)).astype(np.float32)
    return images, rng.uniform(0, 1, (b, size // 4, size // 4, 16)).astype(np.float32)


def loss(model, params, batch_stats, images, targets):
    """The sum over the stacks of the mean squared error, and the new statistics."""
    outputs, new = model.apply(
        {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
    )
    return sum(jnp.mean((maps - targets) ** 2) for maps in outputs.heatmaps), new["batch_stats"]


def ours(model, variables, images, targets, *, forms_of: str | None = None):
    """() -> the loss of our next step; `forms_of`: see `devices.jit`."""
    optimiser = optimizer.transformation(optax.constant_schedule(LEARNING_RATE))
    gradient = jax.value_and_grad(functools.partial(loss, model), has_aux=True)

    def step(state, images, targets):
        params, batch_stats, moments = state
        (value, batch_stats), grads = gradient(params, batch_stats, images, targets)
        updates, moments = optimiser.update(grads, moments, params)
        return (optax.apply_updates(params, updates), batch_stats, moments), value

    params, batch_stats = (jax.tree.map(jnp.array, variables[name]) for name in ("params", "batch_stats"))
    state = params, batch_stats, optimiser.init(params)
    images, targets = jax.device_put((images, targets))
    program = devices.jit(step, devices.mesh(), forms_of=forms_of, donate_argnums=0)

    def once():
        nonlocal state
        state, value = program(state, images, targets)
        return value

    return once


def theirs(twin, network, images, targets, *, dtype: str = "float32"):
    """() -> the loss of the twin's next step, on its device; `network` is the twin or its compiled form."""
    import torch

    optimiser = torch.optim.RMSprop(twin.parameters(), lr=LEARNING_RATE)
    (images, targets), cast = for_torch(twin, images, targets, dtype=dtype)

    def once():
        optimiser.zero_grad()
        with cast:
            losses = [torch.nn.functional.mse_loss(maps, targets) for maps in network(images)]
            value = torch.stack(losses).sum()
        value.backward()
        optimiser.step()
        return value.item()

    return once


def for_torch(twin, *arrays, dtype: str):
    """Arrays (b, h, w, c) as channels_last tensors on the twin's device, and autocast to the dtype."""
    import torch

    device = next(twin.parameters()).device
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    return [torch.from_numpy(x).permute(0, 3, 1, 2).to(device) for x in arrays], cast


def check_gradients(stacks: int) -> None:
    """Raises ValueError unless the gradients of a small network and of its twin agree within 1e-3.

    The gradients of a large random network are ill-conditioned in float32: at width 128, depth 3 and 96 px
    the twin's differ by 5% from its own in float64, ours by 0.3%.
    """
    from hourglass_jax.benchmarks import torch_twin

    model = models.build("newell", joints=16, stacks=stacks, width=8, depth=1)
    variables, (images, targets) = random_variables(model, 32), examples(2, 32)
    gradient = jax.jit(jax.grad(functools.partial(loss, model), has_aux=True))
    ours = torch_twin.named(gradient(variables["params"], variables["batch_stats"], images, targets)[0])
    twin = torch_twin.create(variables, joints=16, stacks=stacks, width=8, depth=1).train()
    theirs(twin, twin, images, targets)()
    gradients = {name: weight.grad.numpy() for name, weight in twin.named_parameters()}
    difference = sum(np.square(ours[name] - g).sum() for name, g in gradients.items())
    relative = np.sqrt(difference / sum(np.square(g).sum() for g in gradients.values()))
    if not relative <= 1e-3:
        raise ValueError(f"The gradients differ by {100 * relative:.1f}%.")
