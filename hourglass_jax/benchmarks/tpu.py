"""Estimates of a TPU's compiler for the train step, the evaluation and the prediction. No TPU is needed.

    pip install 'hourglass_jax[tpu]'
    hourglass benchmark tpu --networks newell:2 --output=runs/tpu

All figures are the compiler's estimates, not measured speed. libtpu compiles for a named topology on any
x86-64 Linux host, and writes `estimated_cycles` for the operations of its schedule. Their sum is
deterministic, and serves to compare two forms of a computation. It is not a time: operations without an
estimate, such as collectives, count 0, and copies that overlap count fully.

Each configuration is compiled in its own process, which takes minutes. With --output, finished ones are kept
in `tpu_programs.json` with a checksum of the package, and the same command continues from there.
"""

import collections
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import zlib
from importlib import metadata

import jax
import numpy as np

from hourglass_jax import config_base, devices, extras, files, models, topologies
from hourglass_jax.benchmarks import hlo
from hourglass_jax.benchmarks.common import compiled, held, save, step_of
from hourglass_jax.data import pipeline
from hourglass_jax.inference import Estimator
from hourglass_jax.network import abstract
from hourglass_jax.training import step as train_step
from hourglass_jax.transforms import fold_norms, per_example

NOTE = "Estimates of the TPU's compiler, not measured speed"
TASKS = ("train", "evaluate", "predict")
KEPT = "tpu_programs.json"
# bfloat16 operations per chip and cycle: four matrix units of 128 x 128; a multiply-add counts as two.
# https://docs.cloud.google.com/tpu/docs/v5e
PER_CYCLE = {"v5e": 4 * 128 * 128 * 2}
BLIND = ("reduce-window", "select-and-scatter", "custom-call", "all-reduce", "gather", "scatter")
_BLIND = re.compile(rf" ({'|'.join(BLIND)})\(")
_ESTIMATE = re.compile(r'"estimated_cycles":"?(\d+)')
_PATH = re.compile(r'op_name="([^"]*)"')
SCOPES = ("augment", "loss", "update")  # of `training.step`
KINDS = {  # the last part of an operation's path -> its kind; all others are "other"
    "dot_general": "products",
    "conv_general_dilated": "convolutions",
    "reduce_sum": "sums",
    "reduce_max": "maxima",
    "max": "maxima",
    "broadcast_in_dim": "broadcasts",
    "select_n": "selects",
    "transpose": "copies",
    "copy": "copies",
    "reshape": "copies",
    "concatenate": "copies",
    "slice": "copies",
    "squeeze": "copies",
    "pad": "copies",
    "stack": "copies",
    "convert_element_type": "conversions",
    "gather": "gathers",
    "iota_2x32_shape": "random numbers",
    "threefry2x32": "random numbers",
} | dict.fromkeys(
    ("add", "add_any", "sub", "mul", "div", "and", "or", "neg", "rsqrt", "square"), "elementwise"
)


def add(command) -> None:
    parser = command("tpu", help="estimates of a TPU's compiler for all programs; needs libtpu, and no TPU")
    parser.add_argument("--topology", default="v5e:2x4", help="such as v6e:2x4, v5e:16x16 (default: v5e:2x4)")
    parser.add_argument("--chips", type=int, help="use only the topology's first chips (default: all)")
    lists = {"networks": ("newell:2",), "tasks": TASKS, "dtypes": ("bfloat16",), "batch_sizes": (8,)}
    for name, values in lists.items():
        words = " ".join(map(str, values))
        kind = type(values[0])
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=values, help=f"(default: {words})")
    for name, value in (("width", 256), ("depth", 4), ("size", 256)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.add_argument("--remat", default="", help="train.remat (default: none)")
    parser.add_argument("--norm_group", type=int, default=0, help="train.norm_group (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="limit for one program (default: 30)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each program; plots and kept programs are written to --output."""
    with extras.needed("libtpu", "benchmark tpu"):
        import libtpu  # noqa: F401  JAX loads it by the topology's platform
    folder = pathlib.Path(args.output) if args.output else None
    kept = json.loads((folder / KEPT).read_text()) if folder and (folder / KEPT).exists() else {}
    result = {"title": f"{NOTE}; {args.topology}, {args.size} px, width {args.width}", "rows": []}
    places = {}
    for case in cases(args):
        key = json.dumps(case | {"jax": jax.__version__, "package": _checksum()}, sort_keys=True)
        if key not in kept:
            kept[key] = _in_a_process(case, 60 * args.minutes)
            if folder:
                files.write_json(folder / KEPT, kept)
        result["rows"].append(row(case, kept[key]))
        print(json.dumps(result["rows"][-1]), flush=True)
        for name, by in kept[key]["where"].items():
            title = "{network} {task} {dtype} {batch}".format(**case)
            places.setdefault(name, {})[title] = by
        if folder:
            save(result, args)
    result["where"] = places
    for name, of_programs in places.items():
        for title, by in of_programs.items():
            shares = ", ".join(f"{kind} {100 * n / sum(by.values()):.0f} %" for kind, n in by.items() if n)
            print(f"{title}, cycles by {name}: {shares}", flush=True)
    if folder:
        plot(places, folder / "tpu.png")
    return result


def cases(args) -> list[dict]:
    """The cases to compile; batch is the number of images per chip."""
    if topologies.parsed(args.topology)[0] not in topologies.TPUS:
        raise ValueError(f"--topology={args.topology}: not TPUs; choose from {', '.join(topologies.TPUS)}.")
    names = ("topology", "chips", "width", "depth", "size", "remat", "norm_group")
    sizes = {name: getattr(args, name) for name in names}
    choices = itertools.product(args.networks, args.tasks, args.dtypes, args.batch_sizes)
    made = []
    for network, task, dtype, batch in choices:
        system, _, stacks = network.partition(":")
        if system not in models.names() or not stacks.isdigit() or task not in TASKS:
            raise ValueError(
                f"--networks={network} --tasks={task}: a network is a system ({', '.join(models.names())}) "
                f"and its stacks, such as newell:2; a task is one of {', '.join(TASKS)}."
            )
        made.append({"network": network, "task": task, "dtype": dtype, "batch": batch} | sizes)
    return made


def row(case: dict, seen: dict) -> dict:
    """A row of the table. The share of the peak is an upper bound: the estimate leaves operations out."""
    system, _, stacks = case["network"].partition(":")
    found = case | {"system": system, "stacks": int(stacks)}
    line = {name: found[name] for name in ("system", "stacks", "task", "batch", "dtype")}
    peak = PER_CYCLE.get(case["topology"].partition(":")[0])
    # XLA counts the operations of a loop once.
    known = peak and seen["cycles"] and not seen.get("loops")
    share = seen["operations"] / (seen["cycles"] * peak) if known else None
    sent = ", ".join(f"{len(sizes)} {kind} {sum(sizes) / 1e6:.2f} MB" for kind, sizes in seen["sent"].items())
    return line | {
        "M cycles": round(seen["cycles"] / 1e6, 2),
        "of the peak, at best": "" if share is None else f"{100 * share:.1f} %",
        "GB a chip": round(seen["bytes"] / 1e9, 2),
        "temporary GB": round(seen["temporary"] / 1e9, 2),
        "sent": sent or "nothing",
        "without estimate": seen["blind"],
        "compile s": round(seen["seconds"]),
    }


def analysed(text: str) -> dict:
    """The cycles of a compiled program, and their distribution.

    Args:
      text: text of the program: optimised HLO, one operation per line.

    Returns:
      cycles, with those of loops as often as they run; blind, the number of operations of `BLIND`, which have
      no estimate; sent, bytes by kind of collective; loops, whether there are any; where, cycles by kind of
      operation, by module, and by direction.
    """
    kinds, modules, passes = (collections.Counter() for _ in range(3))
    for line, times in hlo.operations(text):
        if not (found := _ESTIMATE.search(line)):
            continue
        cycles, path = times * int(found[1]), found_path[1] if (found_path := _PATH.search(line)) else ""
        kinds[kind_of(path, line)] += cycles
        modules[module_of(path)] += cycles
        passes["backward" if "transpose(" in path else "forward and the rest"] += cycles
    where = {"kind": kinds, "module": modules, "pass": passes}
    return {
        "cycles": sum(kinds.values()),
        "blind": len(_BLIND.findall(text)),
        "sent": hlo.collectives(text),
        "loops": " while(" in text,
        "where": {name: dict(by.most_common()) for name, by in where.items()},
    }


def kind_of(path: str, line: str) -> str:
    """The kind of an operation, from the end of its path; copies of the program's arguments have no path."""
    if "/" not in path:
        return "copies" if " copy(" in line else "other"
    return KINDS.get(path.rpartition("/")[2], "other")


def module_of(path: str) -> str:
    """The part of a network to which an operation belongs, by its path; the same for all stacks.

    Outside the network these are the scopes of the train step: augment, loss and update.
    """
    parts = [part for part in path.split("/") if not part.startswith("jit(")]
    for part in parts:
        if found := re.fullmatch(r"(?:[\w.]+\()*stack\d+_([a-z_]+?)\d*\)*", part):
            return found[1]
        if re.fullmatch(r"(?:[\w.]+\()*(stem|pre_processing|refinement|global_attention)\w*\)*", part):
            return re.sub(r"[\w.]+\(|\)", "", part)
    if "jit(unit)" in path:
        return "unit"
    scopes = [name for name in SCOPES if re.search(rf"[/(]{name}[/)]", path)]
    return scopes[0] if scopes else "augment" if path.startswith("args[") else "the rest"


def plot(places: dict, path: pathlib.Path) -> None:
    """Plots the programs' cycles as bars: one picture for kinds, modules and passes."""
    with extras.needed("matplotlib", "the picture"):
        from matplotlib.figure import Figure

    programs = list(places["kind"])
    figure = Figure(figsize=(11, 3 * (2.5 + 0.4 * len(programs))), layout="constrained")
    for axes, (name, of_programs) in zip(figure.subplots(len(places), 1), places.items(), strict=True):
        left = np.zeros(len(programs))
        parts = dict.fromkeys(itertools.chain(*of_programs.values()))
        for number, part in enumerate(parts):
            width = np.array([of_programs[program].get(part, 0) / 1e6 for program in programs])
            colour, hatch = f"C{number % 10}", "//" if number > 9 else ""
            axes.barh(programs, width, left=left, label=part, color=colour, hatch=hatch, height=0.6)
            left += width
        axes.invert_yaxis()
        axes.set(xlabel=f"M cycles by {name}")
        axes.margins(y=0.2)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", ncols=1 + len(parts) // 9)
    figure.suptitle(NOTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@functools.cache
def _checksum() -> int:
    """A checksum of the package's code; programs of other code are compiled again."""
    room = pathlib.Path(__file__).resolve().parents[1]
    code = [path.read_bytes() for path in sorted(room.rglob("*.py")) if path.parent.name != "benchmarks"]
    return zlib.crc32(b"".join(code))


def _in_a_process(case: dict, seconds: float) -> dict:
    """Runs `measure` in its own process: libtpu reads its variables when it is loaded, and keeps memory."""
    command = [sys.executable, "-m", "hourglass_jax.benchmarks.tpu", json.dumps(case)]
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=os.environ | topologies.described(case["topology"]),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{case['network']} {case['task']}: not compiled after {seconds / 60:g} minutes; give --minutes."
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ValueError(f"{case['network']} {case['task']}: {reason}{_other_version()}")
    return json.loads(done.stdout.splitlines()[-1])


def _other_version() -> str:
    """For an error: that libtpu is not the version for which this JAX is released, as far as that is known.

    jaxlib may not read the programs of a newer one: "async-update instruction should have 1 operands".
    """
    wanted = re.search(r"\blibtpu==([\d.]+)\.\*", "\n".join(metadata.requires("jax") or []))
    try:
        found = metadata.version("libtpu")
    except metadata.PackageNotFoundError:  # such as libtpu-nightly
        return ""
    if not wanted or f"{found}.".startswith(f"{wanted[1]}."):
        return ""
    return f" (libtpu is {found}, but JAX {jax.__version__} needs {wanted[1]}: pip install 'jax[tpu]')"


def measure(case: dict) -> dict:
    """Compiles a case for its topology. Returns `analysed` of it, and operations and bytes per chip."""
    mesh = topologies.mesh_of(case["topology"], case["chips"] if case["task"] != "predict" else 1)
    config = config_of(case)
    config.train.batch_size = case["batch"] * mesh.size
    step, network, source, optimiser = step_of(config, mesh)
    start = time.perf_counter()
    if case["task"] == "train":
        state = train_step.abstract(network.model, optimiser, size=case["size"], average=False)
        one = next(pipeline.batches(source, train=True, batch_size=1, loader="threads"))
        batch = {
            name: jax.ShapeDtypeStruct((config.train.batch_size, *one[name].shape[1:]), one[name].dtype)
            for name in train_step.INPUTS
        }
        program, _ = compiled(step, state, batch)
    else:
        variables = abstract(network, devices.replicated(mesh))
        if case["task"] == "predict":
            folded = jax.eval_shape(lambda variables: fold_norms.fold(network, variables)[1], variables)
            network = dataclasses.replace(network, model=fold_norms.Folded(network.model))
            variables = folded
        estimate = Estimator(network, canvas=source.canvas, margin=source.margin, flip=True)
        canvases = (config.train.batch_size, source.canvas, source.canvas, 3)
        program, _ = compiled(
            per_example.estimator(estimate, mesh), variables, jax.ShapeDtypeStruct(canvases, np.uint8)
        )
    memory, costs, text = program.memory_analysis(), program.cost_analysis(), program.as_text()
    assert memory is not None and costs is not None and text is not None  # libtpu has them
    return analysed(text) | {
        "operations": costs.get("flops", 0.0),
        "temporary": memory.temp_size_in_bytes,
        "bytes": held(memory),
        "seconds": time.perf_counter() - start,
    }


def config_of(case: dict):
    """The system's own config, on a few drawn figures."""
    system, _, stacks = case["network"].partition(":")
    sizes = f"stacks={stacks},width={case['width']},size={case['size']},dataset=synthetic"
    config = config_base.named(system).get_config(sizes)
    config.model.update(depth=case["depth"], dtype=case["dtype"])
    config.train.update(remat=case["remat"], norm_group=case["norm_group"])
    config.data.examples = (8, 1)
    return config


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
