"""Where speed is measured: tables of medians from interleaved runs, with the machine they were seen on.

    python launch/benchmark.py systems --workdir=runs/systems --steps=1800

trains a small form of each of the five systems on the quickstart's drawn figures, the same people in the same
order, and puts validation score, size and speed side by side. Each training is an ordinary one in a workdir
of its own, with the command that the table prints, so that an interrupted benchmark goes on.

    python launch/benchmark.py inference

times the stacked hourglass as prediction runs it against a twin in PyTorch (pip install torch) of the same
layers and weights, whose heatmaps are compared first.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # Python looks beside this file only

from configs import quickstart
from hourglass_jax import checkpoint, devices, evaluate, files, flops, fold, models, phases, train
from hourglass_jax.data import pipeline, skeletons, sources
from hourglass_jax.inference import Network

SYSTEMS = tuple(models.names())
STACKS = 2  # one has neither the scales nor the weights of MSSH


def machine() -> str:
    """What the figures were seen on, and when."""
    return (
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores of {_processor()}, "
        f"Python {platform.python_version()}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}, load "
        f"{os.getloadavg()[0]:.1f} at the start"
    )


def _processor() -> str:
    """The processor as the kernel names it; `platform.processor` is often empty."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    model, family = fields.get("model name", platform.processor()), fields.get("cpu family")
    return f"{model} family {family}" if family else model


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Times functions in turn, so that what else the machine does falls on all of them alike.

    Args:
      runs: by name; each returns what to wait for. The first call of each is not counted.
      rounds: calls of each that are counted.

    Returns:
      by name the lower quartile, the median and the upper quartile, in seconds.
    """
    seconds = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: tuple(np.percentile(values[1:], (25, 50, 75))) for name, values in seconds.items()}


def markdown(rows: list[dict]) -> str:
    """Rows of the same columns as a table, right-aligned where they are numbers; it reads well as text."""
    cells = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if isinstance(value, (int, float)) else "<" for value in rows[0].values()]
    rule = [("-" * (w - 1) + ":") if side == ">" else "-" * w for w, side in zip(widths, sides, strict=True)]
    lines = [[f"{c:{side}{w}}" for c, w, side in zip(row, widths, sides, strict=True)] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


class Step:
    """The train step of a config with one batch of its own data, to be timed: `step()` runs it once.

    Attributes:
      compile_seconds: from the traced function to the program, without any cache.
      temporary: bytes that the program takes beside its inputs and outputs.
    """

    def __init__(self, config):
        mesh, source = devices.mesh(), sources.open_source(config.data, train=True)
        network = checkpoint.network_of({"config": config.to_dict(), "skeleton": source.skeleton.to_dict()})
        plan = phases.create(config.train.phases, len(source) / config.train.batch_size)
        _, _, optimiser = train.make_optimizer(config, len(source), network.model, plan)
        # The phase that trains most of the tasks: it costs most.
        trained = max((tasks for tasks, _ in plan.round), key=len, default=None)
        step = train.make_step(config, network, source, optimiser, mesh, trained)
        self._state = train.make_state(config, network, optimiser, mesh, _Nothing)
        batches = pipeline.batches(
            source, train=True, batch_size=config.train.batch_size, loader=sources.loader(source)
        )
        self._batch = devices.put_batch(train.step_inputs(next(batches)), mesh)
        batches.close()
        self._step, self.compile_seconds = compiled(step, self._state, self._batch)
        self.temporary = self._step.memory_analysis().temp_size_in_bytes

    def __call__(self):
        self._state, metrics = self._step(self._state, self._batch)
        return metrics


class _Nothing:
    """Checkpoints of a run that has not begun."""

    latest = None


def compiled(function, *arguments):
    """(program, seconds to lower and compile it), past the persistent cache."""
    with _without_cache():
        start = time.perf_counter()
        program = function.lower(*arguments).compile()
        return program, time.perf_counter() - start


@contextlib.contextmanager
def _without_cache():
    before = jax.config.jax_enable_compilation_cache
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", use)
    compilation_cache.reset_cache()  # JAX decides only once whether it uses it


def system_config(name: str, steps: int):
    """The small form of a system, as `system_command` trains it."""
    config = quickstart.get_config(f"model={name},stacks={STACKS}")
    config.train.steps = steps
    return config


def system_command(name: str, workdir, steps: int) -> str:
    """The command that trains what `system_config` describes."""
    return (
        f"python main.py --config=configs/quickstart.py:model={name},stacks={STACKS} "
        f"--workdir={pathlib.Path(workdir) / name} --config.train.steps={steps}"
    )


def systems(args) -> dict:
    """Trains, evaluates and times the small form of every system; a row for each."""
    configs = {name: system_config(name, args.steps) for name in SYSTEMS}
    steps = {name: Step(config) for name, config in configs.items()}
    seconds = interleaved(steps, args.rounds)
    rows = []
    for name, config in configs.items():
        scores = trained_scores(config, pathlib.Path(args.workdir) / name)
        model = models.create(joints=16, **config.model)
        operations, parameters = flops.of_model(model, config.data.size)
        low, median, high = (config.train.batch_size / value for value in reversed(seconds[name]))
        rows.append(
            {
                "system": name,
                scores["metric"]: round(scores["table"]["Mean"], 1),
                "parameters": parameters,
                "GFLOP an image": round(operations / 1e9, 3),
                "train images/s": round(median, 1),
                "quartiles": f"{low:.1f} to {high:.1f}",
                "compile s": round(steps[name].compile_seconds, 1),
                "temporary MB": round(steps[name].temporary / 1e6),
            }
        )
    commands = [system_command(name, args.workdir, args.steps) for name in SYSTEMS]
    print("One command for each row:", *commands, sep="\n")
    return {"title": f"{args.steps} steps of {config.train.batch_size}", "rows": rows, "commands": commands}


def trained_scores(config, workdir) -> dict:
    """Trains to the end, where that has not been done yet, and evaluates the best checkpoint."""
    train.train(config, workdir)
    with checkpoint.Checkpoints(workdir, read_only=True) as saved:
        if saved.latest < config.train.steps:
            sys.exit("Stopped; the same command goes on.")
    return evaluate.evaluate(config, workdir, workdir)


def inference(args) -> dict:
    """Times the folded hourglass against its PyTorch twin: a row for each batch size and peer."""
    import torch

    from launch import torch_twin

    fields = {"joints": 16, "stacks": args.stacks, "width": args.width, "depth": args.depth}
    model = models.create("newell", **fields)
    plain = Network(model, skeletons.MPII, args.size, mean=(0.0,) * 3, sigma=1.0, logits=False)
    variables = random_variables(model, args.size)
    network, folded = fold.fold(plain, variables)
    ours = jax.jit(lambda v, x: network.outputs(v, x, flip=False).heatmaps)
    folded, twin = jax.device_put(folded), torch_twin.create(variables, **fields).eval()
    peers = {"PyTorch, channels_last": twin}
    if args.compile:
        peers["PyTorch, channels_last, torch.compile"] = torch.compile(twin)
    rows = []
    for b in args.batch_sizes:
        images = np.random.default_rng(b).uniform(0, 1, (b, args.size, args.size, 3)).astype(np.float32)
        theirs = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last, as it lies
        runs = {"ours": functools.partial(ours, folded, jax.device_put(images))}
        runs |= {
            name: torch.inference_mode()(functools.partial(peer, theirs)) for name, peer in peers.items()
        }
        for name in peers:
            check_equal(runs["ours"](), [maps.permute(0, 2, 3, 1).numpy() for maps in runs[name]()])
        rows += against(f"inference, batch {b}", f"{args.stacks} stacks, {args.size} px", runs, args.rounds)
    return {"title": f"Inference, float32, PyTorch {torch.__version__}", "rows": rows}


def random_variables(model, size: int) -> dict:
    """Variables in which every parameter and statistic matters; features keep about their size."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        inputs = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return (rng.normal(0, 1, leaf.shape) / np.sqrt(inputs)).astype(np.float32)

    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    )
    return jax.tree_util.tree_map_with_path(draw, shapes)


def check_equal(ours, theirs) -> None:
    """Raises ValueError unless all heatmaps agree to 1e-4 of the largest value."""
    for a, b in zip(ours, theirs, strict=True):
        if not np.abs(a - b).max() <= 1e-4 * np.abs(b).max():
            raise ValueError(f"The networks differ by {np.abs(a - b).max()} of {np.abs(b).max()}.")


def against(what: str, size: str, runs: dict, rounds: int) -> list[dict]:
    """A row for each peer of "ours": milliseconds (quartiles), and how many times as fast ours is."""
    seconds = interleaved(runs, rounds)

    def told(name):
        low, median, high = (1000 * value for value in seconds[name])
        return f"{median:.1f} ms ({low:.1f} to {high:.1f})"

    return [
        {
            **{"what": what, "size": size, "ours": told("ours"), "peer": name, "of the peer": told(name)},
            "ratio": round(seconds[name][1] / seconds["ours"][1], 2),
        }
        for name in runs
        if name != "ours"
    ]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measures speed; see the top of launch/benchmark.py.", allow_abbrev=False
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--output", help="folder for the table as json and markdown")
    shared.add_argument("--rounds", type=int, default=7, help="timed runs of each (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    command = functools.partial(commands.add_parser, parents=[shared])
    five = command("systems", help="the five systems in a small form, side by side")
    five.add_argument("--workdir", default="runs/systems", help="folder of the five trainings' workdirs")
    five.add_argument("--steps", type=int, default=1800, help="of each training (default: %(default)s)")
    five.set_defaults(run=systems, name="systems")
    predict = command("inference", help="the hourglass as prediction runs it, against PyTorch")
    for name, value in (("stacks", 2), ("width", 256), ("depth", 4), ("size", 256)):
        predict.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    predict.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8], help="(default: 1 8)")
    compiled = "torch.compile too, which takes minutes (default: on)"
    predict.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compiled)
    predict.set_defaults(run=inference, name="inference")
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    where = machine()  # with the load that there was at the beginning
    try:
        result = args.run(args) | {"machine": where}
    except (ValueError, OSError, ImportError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    text = f"{result['title']}; {where}\n\n{markdown(result['rows'])}\n"
    print(text)
    if args.output:
        folder = pathlib.Path(args.output)
        files.write_json(folder / f"{args.name}.json", result)
        files.write(folder / f"{args.name}.md", text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
