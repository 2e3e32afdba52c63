"""The stacked hourglass, as prediction runs it, against its PyTorch twin (pip install torch).

Both have the same layers and weights, and their heatmaps are compared first.
"""

import argparse
import functools

import jax
import numpy as np

from hourglass_jax import devices, models
from hourglass_jax.benchmarks.common import against, check_equal, random_variables
from hourglass_jax.inference import Estimator
from hourglass_jax.network import Network
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import fold_norms, per_example


def add(command) -> None:
    parser = command("inference", help="the hourglass as prediction runs it, against PyTorch")
    for name, value in (("stacks", 2), ("width", 256), ("depth", 4), ("size", 256)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8], help="(default: 1 8)")
    compiled = "also torch.compile, which takes minutes (default: on)"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    parser.set_defaults(run=run)


def run(args) -> dict:
    """Times the folded hourglass against its PyTorch twin: a row for each batch size and peer."""
    import torch

    from hourglass_jax.benchmarks import torch_twin

    fields = {"stacks": args.stacks, "width": args.width, "depth": args.depth}
    network, folded, variables = folded_hourglass(size=args.size, **fields)
    mesh = devices.mesh()
    ours = devices.jit(lambda v, x: network.outputs(v, x, flip=False).heatmaps, mesh)
    if per_example.suits(mesh):
        ours = per_example.examples(ours)
    folded, twin = jax.device_put(folded), torch_twin.create(variables, joints=16, **fields).eval()
    peers = {"PyTorch, channels_last": twin}
    if args.compile:
        peers["PyTorch, channels_last, torch.compile"] = torch.compile(twin)
    rows = []
    for b in args.batch_sizes:
        images = images_of(b, args.size)
        theirs = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last in memory
        runs = {"ours": functools.partial(ours, folded, jax.device_put(images))}
        runs |= {
            name: torch.inference_mode()(functools.partial(peer, theirs)) for name, peer in peers.items()
        }
        for name in peers:
            check_equal(runs["ours"](), [maps.permute(0, 2, 3, 1).numpy() for maps in runs[name]()])
        rows += against(f"inference, batch {b}", f"{args.stacks} stacks, {args.size} px", runs, args.rounds)
    rows += _mirrored(network, folded, args)
    return {"title": f"Inference, float32, PyTorch {torch.__version__}", "rows": rows}


def _mirrored(network, folded, args) -> list[dict]:
    """From one canvas to joints, with the flipped image: the predictor's program, and one call for both."""
    estimate = Estimator(network, canvas=args.size, margin=1.0, flip=True)
    canvas = (255 * images_of(1, args.size)).astype(np.uint8)
    mesh = devices.mesh()
    ours, both = per_example.estimator(estimate, mesh), devices.jit(estimate, mesh)
    runs = {"ours": lambda: ours(folded, canvas), "both images at once": lambda: both(folded, canvas)}
    check_equal(*([run()[2]["heatmaps"]] for run in runs.values()))
    return against("one person, flip", f"{args.stacks} stacks, {args.size} px", runs, args.rounds)


def folded_hourglass(*, stacks: int, width: int, depth: int, size: int) -> tuple[Network, dict, dict]:
    """A network with random weights as prediction runs it, its variables, and those before folding."""
    model = models.build("newell", joints=16, stacks=stacks, width=width, depth=depth)
    variables = random_variables(model, size)
    plain = Network(model, skeletons.MPII, size, mean=(0.0, 0.0, 0.0), sigma=1.0, logits=False)
    return *fold_norms.fold(plain, variables), variables


def images_of(b: int, size: int) -> np.ndarray:
    """Random images (b, size, size, 3) float32 in [0, 1]."""
    return np.random.default_rng(b).uniform(0, 1, (b, size, size, 3)).astype(np.float32)
