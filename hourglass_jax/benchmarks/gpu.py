"""All systems on one accelerator within ten minutes: training and inference, in images per second.

The most important rows come first. Each row is written as soon as it is measured; rows that do not fit into
the time are left out. Each row is measured in its own process, so that running out of memory ends only that
row, not the table. The hourglass is compared with its PyTorch twin (pip install torch): channels_last,
autocast, torch.compile, the same precision of float32 products. Our step includes augmentation and targets;
the twin's does not.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np

from hourglass_jax import config_base, devices, models
from hourglass_jax.benchmarks import train
from hourglass_jax.benchmarks.common import Step, interleaved, random_variables, save
from hourglass_jax.network import network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import flops, fold_norms

TWINNED = "newell"  # the system that has a twin
NETWORKS = ("newell:2", "newell:8", "chu:8", "mssh:8", "tang:8", "selvam:2")
FULL, LATE = "out of memory", "no time"
_SAYS_FULL = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory")  # in the errors of both frameworks
_PRODUCTS = 10  # in a row, so that the start does not count


def add(command) -> None:
    parser = command("gpu", help="all systems on an accelerator, in ten minutes, against PyTorch")
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)s)")
    lists = {"networks": NETWORKS, "dtypes": ("bfloat16", "float32"), "batch_sizes": (32, 128, 8, 512)}
    for name, values in lists.items():
        words = " ".join(map(str, values))
        kind = type(values[0])
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=values, help=f"(default: {words})")
    for name, value in (("width", 256), ("depth", 4), ("size", 256), ("product", 8192)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    compiled = "torch.compile (default: on)"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each network, task, dtype and batch size, as many as fit into the time."""
    deadline = time.monotonic() + 60 * args.minutes
    measured = functools.partial(_in_a_process, deadline, args.rounds)
    begun = f"{args.size} px, width {args.width}, at most {args.minutes:g} minutes"
    result, rates, full = {"title": begun, "rows": []}, {}, {}
    for case in cases(args):
        key = tuple(case[name] for name in ("system", "stacks", "what", "dtype"))
        if case["batch"] >= full.get(key, float("inf")):
            continue  # a smaller batch was already too large
        if case["dtype"] not in rates:
            seconds = measured("product", dtype=case["dtype"], size=args.product)
            if seconds == LATE:
                break
            if isinstance(seconds, str):
                raise ValueError(f"A product of matrices: {seconds}")
            rates[case["dtype"]] = 2 * args.product**3 / seconds[1]
        ours, theirs = measured("ours", **case), ""
        if ours == LATE:
            break
        if case["system"] == TWINNED and importlib.util.find_spec("torch"):
            theirs = measured("theirs", **case, compile=args.compile)
        if ours == FULL:
            full[key] = case["batch"]
        result["rows"].append(_row(case, ours, theirs, rates[case["dtype"]]))
        print(json.dumps(result["rows"][-1]), flush=True)
        text = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items())
        result["title"] = f"{begun}; products of {args.product} x {args.product} matrices: {text}"
        save(result, args)
    if not result["rows"]:
        raise ValueError(f"--minutes={args.minutes:g} is too little for a single row.")
    return result


def cases(args) -> list[dict]:
    """The measurements, the most informative first; those far from the first choices come last."""
    sizes = {name: getattr(args, name) for name in ("width", "depth", "size")}
    choices = itertools.product(args.networks, ("train", "inference"), args.dtypes, args.batch_sizes)
    ranked = []
    for network, what, dtype, batch in choices:
        system, _, stacks = network.partition(":")
        rank = (system != TWINNED) + (what != "train")
        rank += 2 * args.dtypes.index(dtype) + 2 * args.batch_sizes.index(batch)
        case = {"system": system, "stacks": int(stacks), "what": what, "dtype": dtype, "batch": batch}
        ranked.append((rank, case | sizes))
    return [case for _, case in sorted(ranked, key=lambda pair: pair[0])]


def _row(case, ours, theirs, rate: float) -> dict:
    """Images per second, the share of the matrix product's rate, and PyTorch's images per second.

    ours, theirs: quartiles in seconds, or the reason why there are none, in words.
    """

    def images(seconds):
        return seconds if isinstance(seconds, str) else round(case["batch"] / seconds[1], 1)

    row = {name: case[name] for name in ("system", "stacks", "what", "dtype", "batch")}
    row |= {"images/s": images(ours), "quartiles": "", "of the product's rate": ""}
    row |= {"PyTorch's": images(theirs), "ratio": ""}
    if not isinstance(ours, str):
        low, _, high = (case["batch"] / value for value in reversed(ours))
        row["quartiles"] = f"{low:.1f} to {high:.1f}"
        used = _operations(case) * case["batch"] / ours[1] / rate
        row["of the product's rate"] = f"{100 * used:.1f} %"
        if not isinstance(theirs, str):
            row["ratio"] = round(theirs[1] / ours[1], 2)
    return row


def _operations(case) -> int:
    """Operations per image; the backward pass costs about twice the forward pass."""
    config = _config(case)
    forward, _ = flops.of_model(models.build(joints=16, **config.model), case["size"])
    return forward * (3 if case["what"] == "train" else 1)


def _config(case):
    """The system's own config, on a few drawn figures."""
    arguments = "stacks={stacks},width={width},size={size},dataset=synthetic".format(**case)
    config = config_base.named(case["system"]).get_config(arguments)
    config.model.update(depth=case["depth"], dtype=case["dtype"])
    config.train.batch_size, config.data.examples = case["batch"], (8, 1)
    return config


def _in_a_process(deadline: float, rounds: int, who: str, **job) -> list[float] | str:
    """Runs `measure` in its own process; returns quartiles, or why there are none, LATE at the deadline."""
    command = [
        sys.executable,
        "-m",
        "hourglass_jax.benchmarks.gpu",
        json.dumps({"who": who, "rounds": rounds} | job),
    ]
    left = max(deadline - time.monotonic(), 0)
    root = pathlib.Path(__file__).resolve().parents[2]
    # No other process uses the accelerator's memory at this time.
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"} | os.environ
    try:
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return LATE
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    if any(words in done.stderr for words in _SAYS_FULL):
        return FULL
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def measure(who: str, *, rounds: int, **job) -> tuple[float, float, float]:
    """Quartiles in seconds of a product of matrices ("product"), or of a batch of "ours" or "theirs"."""
    calls, count = {"product": (_product, _PRODUCTS), "ours": (_ours, 1), "theirs": (_theirs, 1)}[who]
    return tuple(seconds / count for seconds in interleaved({who: calls(**job)}, rounds)[who])


def _product(dtype: str, size: int):
    # The values of the product have the same scale as those of the matrices.
    matrix = jax.random.normal(jax.random.key(0), (size, size)) / np.sqrt(size)
    matrix = matrix.astype(dtype)
    products = jax.jit(lambda a: jax.lax.fori_loop(0, _PRODUCTS, lambda _, b: a @ b, a))
    return functools.partial(products, matrix)


def _ours(**case):
    config = _config(case)
    if case["what"] == "train":
        return Step(config)
    metadata = {"config": config.to_dict(), "skeleton": skeletons.MPII.to_dict()}
    plain = network_of(metadata)
    network, variables = fold_norms.fold(plain, random_variables(plain.model, case["size"]))
    images, _ = train.examples(case["batch"], case["size"])
    outputs = devices.jit(
        lambda variables, images: network.outputs(variables, images, flip=False), devices.mesh()
    )
    return functools.partial(outputs, *jax.device_put((variables, images)))


def _theirs(compile: bool, **case):
    import torch

    from hourglass_jax.benchmarks import torch_twin

    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
    fields = {"joints": 16, **{name: case[name] for name in ("stacks", "width", "depth")}}
    variables = random_variables(models.build(TWINNED, **fields), case["size"])
    twin = torch_twin.create(variables, **fields).to("cuda" if torch.cuda.is_available() else "cpu")
    network = torch.compile(twin) if compile else twin
    images, targets = train.examples(case["batch"], case["size"])
    if case["what"] == "train":
        return train.theirs(twin.train(), network, images, targets, dtype=case["dtype"])
    twin.eval()
    (images,), cast = train.for_torch(twin, images, dtype=case["dtype"])

    def once():
        with torch.inference_mode(), cast:
            maps = network(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return [one.shape for one in maps]

    return once


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
