"""The time to the first step of a training of the stacked hourglass: from nothing, and with cached programs.

Each start is in its own process. Only the time that depends on programs is counted, without imports and data.
"""

import concurrent.futures
import multiprocessing
import tempfile

from hourglass_jax import config_base, devices
from hourglass_jax.benchmarks.common import Step
from hourglass_jax.benchmarks.memory import add_sizes

SIZES = {"stacks": 8, "width": 256, "size": 256, "batch_size": 8}


def add(command) -> None:
    parser = command("compile", help="seconds to the first step of a training, from nothing and cached")
    add_sizes(parser, **SIZES)
    parser.add_argument("--remat", default="", help="train.remat (default: none)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for the start that compiles everything, and one for the next start."""
    sizes = {name: getattr(args, name) for name in SIZES}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for start in ("cold", "warm"):
            seconds = in_a_process(seconds_of_a_start, folder, sizes, args.remat)
            text = {f"{name} s": round(value, 1) for name, value in seconds.items()}
            rows.append({"start": start} | text | {"all s": round(sum(seconds.values()), 1)})
    text = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return {"title": f"Start of a training, {text}, remat {args.remat or 'none'}", "rows": rows}


def in_a_process(function, *arguments):
    """Runs a function in a new process and returns its result."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def seconds_of_a_start(folder: str, sizes: dict[str, int], remat: str) -> dict[str, float]:
    """Seconds to make a state and to trace, lower and compile the step; programs are cached in the folder."""
    devices.keep_programs_in(folder)
    arguments = ",".join(f"{name}={value}" for name, value in sizes.items() if name != "batch_size")
    config = config_base.named("newell").get_config(f"{arguments},dataset=synthetic")
    config.train.update(batch_size=sizes["batch_size"], remat=remat)
    return Step(config, cache=True).seconds
