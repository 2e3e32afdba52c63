"""How the train step scales to many devices: the bytes that its program sends, and their largest cost.

The step is compiled for simulated devices with the forms for TPUs (`kernels`), and the collectives of the
optimised program are counted. XLA partitions programs for CPUs as for accelerators, and combines neighbouring
reductions. This cannot show times: accelerators have thresholds of their own and overlap communication with
computation, and simulated devices have no links. The efficiency is a lower bound from published rates. It
assumes that every chip computes at its peak, so that it waits for the links as long as possible, and that
nothing overlaps. The latency of an operation is not published and left out; the table has the number of
operations.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax

from hourglass_jax import config_base, devices, models
from hourglass_jax.benchmarks import hlo
from hourglass_jax.benchmarks.common import step_of, text_of
from hourglass_jax.data import pipeline
from hourglass_jax.training import step as train_step
from hourglass_jax.transforms import flops

# Peak bfloat16 operations per second; bytes per second that a chip sends, half of both directions; largest
# size. Cloud TPU v5e: 197 TFLOP/s, 400 GB/s, https://docs.cloud.google.com/tpu/docs/v5e (up to 256 chips).
# NVIDIA H100 SXM: 989 TFLOP/s without sparsity, 900 GB/s by NVLink among the 8 of a node,
# https://www.nvidia.com/en-us/data-center/h100/
SYSTEMS = {"TPU v5e": (197e12, 200e9, 256), "H100 node": (989e12, 450e9, 8)}


def add(command) -> None:
    parser = command("scaling", help="collectives of the train step on 8, 64 and 256 simulated devices")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 256], help="(default: 8 64 256)")
    network = {"stacks": 2, "width": 256, "depth": 4, "size": 256, "per_device": 8}
    for name, value in network.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each number of devices."""
    model = models.build("newell", joints=16, stacks=args.stacks, width=args.width, depth=args.depth)
    forward, parameters = flops.of_model(model, args.size)
    operations = 3 * forward * args.per_device  # the backward pass costs about twice the forward pass
    rows = []
    for count in args.devices:
        seen = _in_a_process(count, args)
        found = seen["collectives"]
        reduced = found.pop("all-reduce", [])
        row = {
            **{"devices": count, "all-reduces": len(reduced), "MB": round(sum(reduced) / 1e6, 2)},
            **{"of the largest": round(max(reduced, default=0) / 1e6, 2)},
            "others": ", ".join(f"{len(sizes)} {kind}" for kind, sizes in found.items()) or "none",
            "compile s": round(seen["seconds"], 1),
        }
        for name in SYSTEMS:
            share = efficiency(name, count, sum(reduced), operations)
            row[f"{name}, at least"] = "" if share is None else f"{100 * share:.0f} %"
        rows.append(row)
    title = (
        f"{args.stacks} stacks, {args.size} px, {parameters:,} parameters ({4 * parameters / 1e6:.2f} MB); "
        f"compiled for one image a device, efficiency for {args.per_device}"
    )
    return {"title": title, "rows": rows}


def efficiency(system: str, count: int, sent: int, operations: float) -> float | None:
    """The share of a step in which chips compute, if nothing overlaps; None beyond the system's size.

    Args:
      system: a key of `SYSTEMS`.
      count: number of chips.
      sent: all-reduced bytes; in a ring each chip sends 2 (count - 1) / count times as many.
      operations: floating-point operations of one chip.
    """
    peak, link, most = SYSTEMS[system]
    if count > most:
        return None
    compute, wait = operations / peak, 2 * (count - 1) / count * sent / link
    return compute / (compute + wait)


def _in_a_process(count: int, args) -> dict:
    """Runs `_measure` in a process with `count` simulated devices; JAX fixes their number at its start."""
    names = ("stacks", "width", "depth", "size")
    command = [sys.executable, "-m", "hourglass_jax.benchmarks.scaling"]
    command.append(json.dumps({name: getattr(args, name) for name in names}))
    simulated = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    done = subprocess.run(
        command,
        cwd=pathlib.Path(__file__).resolve().parents[2],
        env=os.environ | simulated,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{count} devices: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(stacks: int, width: int, depth: int, size: int) -> dict:
    """The collectives of the step over all devices, with one image per device, and the compile seconds."""
    mesh = devices.mesh()
    config = config_base.named("newell").get_config(
        f"stacks={stacks},width={width},size={size},dataset=synthetic"
    )
    config.model.depth, config.train.batch_size, config.data.examples = depth, mesh.size, (1, 1)
    step, network, source, optimiser = step_of(config, mesh, forms_of="tpu")
    state = train_step.abstract(network.model, optimiser, size=size, average=False)
    one = next(pipeline.batches(source, train=True, batch_size=1, loader="threads"))
    batch = {
        name: jax.ShapeDtypeStruct((mesh.size, *one[name].shape[1:]), one[name].dtype)
        for name in train_step.INPUTS
    }
    start = time.perf_counter()
    program = step.lower(state, batch).compile()
    return {"collectives": hlo.collectives(text_of(program)), "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    print(json.dumps(_measure(**json.loads(sys.argv[1]))))
