"""The time of one inference, operation by operation: ours and, if installed, PyTorch's.

Each runs in its own process on one core. There operations do not overlap, so that the times of the traced
operations add up to the time of the call. Compared with twice the time on two cores, this time shows the cost
of waiting for each other there.
"""

import glob
import os
import re
import tempfile

import jax
import numpy as np

from hourglass_jax import devices
from hourglass_jax.benchmarks.common import text_of
from hourglass_jax.benchmarks.compiling import in_a_process
from hourglass_jax.benchmarks.inference import folded_hourglass, images_of

KINDS = {  # patterns in the path of a traced instruction; the first match counts
    "7x7 convolution": r"stem/conv/|7x7",
    "3x3 convolutions, products": r"conv1/dot_general|conv1/conv_general_dilated|3x3",
    "3x3 convolutions, Winograd's transforms": r"conv1/",
    "1x1 convolutions": r"dot_general|1x1",
    "the rest: sums, ReLU, pooling, upsampling, batch norm": r"",
}


def add(command) -> None:
    parser = command("account", help="where the time of an inference goes, operation by operation")
    for name, value in (("stacks", 2), ("width", 256), ("depth", 4), ("size", 256), ("batch_size", 1)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each kind of operation."""
    sizes = {name: getattr(args, name) for name in ("stacks", "width", "depth", "size", "batch_size")}
    found = {"ours": in_a_process(of_ours, sizes, args.rounds)}
    try:
        found["PyTorch"] = in_a_process(of_torch, sizes, args.rounds)
    except ModuleNotFoundError:
        pass
    rows = []
    for kind in (*KINDS, "all"):
        row = {"operations": kind}
        for name, seconds in found.items():
            row |= {
                f"{name}, ms": round(1000 * seconds[kind], 1),
                f"{name}, %": round(100 * seconds[kind] / seconds["all"]),
            }
        rows.append(row)
    text = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return {"title": f"Inference on one core, float32, {text}", "rows": rows}


def of_ours(sizes: dict[str, int], rounds: int) -> dict[str, float]:
    """Seconds of a call by kind and in all ("all"), from the profiler's trace of the compiled program."""
    _on_one_core(sizes["batch_size"])
    network, variables, _ = folded_hourglass(**_model(sizes))
    images = images_of(sizes["batch_size"], sizes["size"])
    function = devices.jit(lambda v, x: network.outputs(v, x, flip=False).heatmaps, devices.mesh())
    program = function.lower(variables, images).compile()
    jax.block_until_ready(program(variables, images))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(rounds):
                jax.block_until_ready(program(variables, images))
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        planes = jax.profiler.ProfileData.from_file(path).planes
        events = [(e.name, e.duration_ns) for plane in planes for line in plane.lines for e in line.events]
    paths = re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', text_of(program), re.MULTILINE)
    return by_kind(events, dict(paths), rounds)


def of_torch(sizes: dict[str, int], rounds: int) -> dict[str, float]:
    """The same for the PyTorch twin, channels_last; the time of an operation excludes that of its parts."""
    _on_one_core(sizes["batch_size"])
    import torch

    from hourglass_jax.benchmarks import torch_twin

    torch.set_num_threads(1)
    _, _, variables = folded_hourglass(**_model(sizes))
    fields = {name: sizes[name] for name in ("stacks", "width", "depth")}
    twin = torch_twin.create(variables, joints=16, **fields).eval()
    images = torch.from_numpy(images_of(sizes["batch_size"], sizes["size"])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        twin(images)
        with torch.profiler.profile(record_shapes=True) as trace:
            for _ in range(rounds):
                twin(images)
    events, paths = [], {}
    for number, event in enumerate(trace.events()):
        name, shapes = f"{number}", event.input_shapes
        # A convolution's second input is its kernel (d, c, h, w).
        window = "x".join(map(str, shapes[1][2:])) if "conv" in event.name and len(shapes) > 1 else ""
        paths[name] = f"{event.name} {window}"
        events.append((name, 1000 * event.self_cpu_time_total))
    return by_kind(events, paths, rounds)


def by_kind(events: list[tuple[str, float]], paths: dict[str, str], rounds: int) -> dict[str, float]:
    """Seconds of a round by kind, and "all".

    Args:
      events: (name, nanoseconds) of everything traced in all rounds.
      paths: paths of the operations among these, by name.
      rounds: number of rounds.
    """
    seconds = dict.fromkeys((*KINDS, "all"), 0.0)
    for name, duration in events:
        if name in paths:
            kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, paths[name]))
            seconds[kind] += duration / 1e9 / rounds
            seconds["all"] += duration / 1e9 / rounds
    return seconds


def _model(sizes):
    return {name: value for name, value in sizes.items() if name != "batch_size"}


def _on_one_core(batch_size):
    """Moves this process to one core, and touches a large heap first.

    A profiler's records lie between the arrays of two calls. Without the large heap, each call would
    therefore need new pages.
    """
    devices.keep_memory()
    np.ones((batch_size, 1 << 27))  # 1 GiB each
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
