"""Parts shared by the benchmarks: times from interleaved runs, tables, and the train step of a config."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from hourglass_jax import devices, files, train
from hourglass_jax.data import feed, sources
from hourglass_jax.models import shapes
from hourglass_jax.network import network_of
from hourglass_jax.training import phases
from hourglass_jax.training import step as train_step


def machine() -> str:
    """The devices, processor, versions, date and load of a measurement."""
    return (
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores of {_processor()}, "
        f"Python {platform.python_version()}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}, load "
        f"{os.getloadavg()[0]:.1f} at the start"
    )


def text_of(program: jax.stages.Compiled) -> str:
    """The optimised program as the compiler prints it."""
    text = program.as_text()
    if text is None:
        raise ValueError("This backend does not print its programs.")
    return text


def _processor() -> str:
    """The kernel's name of the processor; `platform.processor` is often empty."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in pairs}
    model, family = fields.get("model name", platform.processor()), fields.get("cpu family")
    return f"{model} family {family}" if family else model


def interleaved(
    runs: dict[str, Callable[[], object]], rounds: int, *, clock: str = "perf_counter"
) -> dict[str, tuple[float, float, float]]:
    """Times functions in turn, so that other work on the machine affects all of them equally.

    Args:
      runs: functions by name; each returns the arrays to wait for. The first call of each is not counted.
      rounds: number of counted calls of each function.
      clock: a function of the module `time`; "process_time" counts the time of all threads of the process.

    Returns:
      by name the lower quartile, the median and the upper quartile, in seconds.
    """
    seconds, now = {name: [] for name in runs}, getattr(time, clock)
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = now()
            jax.block_until_ready(run())
            seconds[name].append(now() - start)
    return {name: tuple(np.percentile(values[1:], (25, 50, 75))) for name, values in seconds.items()}


def markdown(rows: list[dict]) -> str:
    """Rows with the same columns as a table, with numbers right-aligned, so that it reads well as text."""
    cells = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if isinstance(value, (int, float)) else "<" for value in rows[0].values()]
    rule = [("-" * (w - 1) + ":") if side == ">" else "-" * w for w, side in zip(widths, sides, strict=True)]
    lines = [[f"{c:{side}{w}}" for c, w, side in zip(row, widths, sides, strict=True)] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def save(result: dict, args) -> str:
    """Returns the result as text; writes it as json and markdown to the folder --output, if given."""
    text = f"{result['title']}; {result.get('machine', 'unfinished')}\n\n{markdown(result['rows'])}\n"
    if args.output:
        folder = pathlib.Path(args.output)
        files.write_json(folder / f"{args.name}.json", result)
        files.write(folder / f"{args.name}.md", text.encode())
    return text


def random_variables(model, size: int) -> dict:
    """Random variables such that every parameter and statistic matters, and features keep their scale."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        inputs = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return (rng.normal(0, 1, leaf.shape) / np.sqrt(inputs)).astype(np.float32)

    _, like = shapes.of(model, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
    return jax.tree_util.tree_map_with_path(draw, like)


def check_equal(ours, theirs) -> None:
    """Raises ValueError unless all heatmaps agree within 1e-4 of the largest value."""
    for a, b in zip(ours, theirs, strict=True):
        if not np.abs(a - b).max() <= 1e-4 * np.abs(b).max():
            raise ValueError(f"The networks differ by {np.abs(a - b).max()} of {np.abs(b).max()}.")


def against(what: str, size: str, runs: dict, rounds: int) -> list[dict]:
    """A row for each peer of "ours": milliseconds (quartiles), and the ratio of the times."""
    seconds = interleaved(runs, rounds)

    def milliseconds(name):
        low, median, high = (1000 * value for value in seconds[name])
        return f"{median:.1f} ms ({low:.1f} to {high:.1f})"

    return [
        {
            **{
                "what": what,
                "size": size,
                "ours": milliseconds("ours"),
                "peer": name,
                "of the peer": milliseconds(name),
            },
            "ratio": round(seconds[name][1] / seconds["ours"][1], 2),
        }
        for name in runs
        if name != "ours"
    ]


def held(memory) -> int:
    """Bytes of a device that a program needs, by its `memory_analysis`; donated arguments count once."""
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return kept + memory.temp_size_in_bytes


class Step:
    """The train step of a config with one batch of its own data, for timing: `step()` runs it once.

    Args:
      config: as described in `config_base.py`.
      model: replaces the config's model.
      cache: whether to use the persistent cache of programs, if there is one.

    Attributes:
      seconds: seconds to make the state, and those of `compiled`, by activity.
      compile_seconds: their sum without the state.
      temporary: bytes that the program needs in addition to its inputs and outputs.
    """

    def __init__(self, config, model=None, *, cache=False):
        mesh = devices.mesh()
        step, network, source, optimiser = step_of(config, mesh, model)
        start = time.perf_counter()
        self._state = jax.block_until_ready(train.make_state(config, network, optimiser, mesh, _Nothing))
        seconds = time.perf_counter() - start
        b, fed = config.train.batch_size, feed.Sent(source, mesh)
        batches: Any = fed.batches(train=True, batch_size=min(b, len(source)))
        # If the batch is larger than the data, the examples are repeated.
        batch = {name: np.resize(x, (b, *x.shape[1:])) for name, x in next(batches).items()}
        self._batch = fed.put(batch, train_step.INPUTS)
        batches.close()
        self._step, of_step = compiled(step, self._state, self._batch, cache=cache)
        self.seconds, self.compile_seconds = {"state": seconds} | of_step, sum(of_step.values())
        memory = self._step.memory_analysis()
        self.temporary = memory.temp_size_in_bytes if memory else 0

    def __call__(self):
        self._state, metrics = self._step(self._state, self._batch)
        return metrics


def step_of(config, mesh, model=None, *, forms_of: str | None = None):
    """(train step, network, source, optimiser) of a config, optionally with another model.

    `forms_of`: see `devices.jit`.
    """
    source = sources.open_source(config.data, train=True)
    network = network_of({"config": config.to_dict(), "skeleton": source.skeleton.to_dict()})
    network = dataclasses.replace(network, model=model or network.model)
    plan = phases.plan(config.train.phases, len(source) / config.train.batch_size)
    _, _, optimiser = train.make_optimizer(config, len(source), network.model, plan)
    # The phase that trains the most tasks is the most expensive one.
    trained = max((tasks for tasks, _ in plan.round), key=len, default=None)
    step = train.make_step(config, network, source, optimiser, mesh, trained, forms_of=forms_of)
    return step, network, source, optimiser


class _Nothing:
    """The checkpoints of a run that has not started."""

    latest = None


def compiled(function, *arguments, cache=False):
    """(program, seconds to trace, lower and compile it), without the persistent cache unless `cache`."""
    with contextlib.nullcontext() if cache else _without_cache():
        times = [time.perf_counter()]
        traced = function.trace(*arguments)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        program = lowered.compile()
        times.append(time.perf_counter())
    return program, dict(zip(("trace", "lower", "compile"), np.diff(times).tolist(), strict=True))


@contextlib.contextmanager
def _without_cache():
    before = bool(jax.config.values["jax_enable_compilation_cache"])
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", use)
    compilation_cache.reset_cache()  # otherwise JAX keeps its first decision about the cache
