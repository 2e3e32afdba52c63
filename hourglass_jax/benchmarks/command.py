"""Measures speed: tables of medians from interleaved runs, with a description of the machine.

    hourglass benchmark systems --workdir=runs/systems --steps=1800

Each benchmark is a file of `hourglass_jax/benchmarks/`; --help lists them, and the options of each.
"""

import argparse
import functools
import os

from hourglass_jax import console, devices, files
from hourglass_jax.benchmarks import (
    account,
    compiling,
    equal,
    exports,
    gpu,
    growth,
    inference,
    input,
    learning,
    memory,
    peers,
    scaling,
    systems,
    tpu,
    train,
)
from hourglass_jax.benchmarks.common import machine, save

BENCHMARKS = (
    systems,
    inference,
    exports,
    account,
    train,
    gpu,
    input,
    memory,
    growth,
    compiling,
    scaling,
    learning,
    equal,
    peers,
    tpu,
)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hourglass benchmark",
        description="Measures speed: medians of interleaved runs, with the machine.",
        allow_abbrev=False,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--output", help="folder for the table as json and markdown")
    shared.add_argument("--rounds", type=int, default=7, help="timed runs per row (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="WHAT", dest="name")
    for benchmark in BENCHMARKS:
        benchmark.add(functools.partial(commands.add_parser, parents=[shared]))
    return parser


def main(arguments: list[str] | None = None) -> int:
    devices.keep_memory()  # as in training and prediction; it applies to everything timed in this process
    args = parser().parse_args(arguments)
    # PyTorch, and the processes of some benchmarks, need an accelerator's memory, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    where = machine()  # before the run, with the load at the start

    def run() -> None:
        for name, value in vars(args).items():
            if isinstance(value, str) and files.in_bucket(value):
                raise ValueError(f"--{name}={value}: benchmarks use local files; copy it.")
        print(save(args.run(args) | {"machine": where}, args))

    return console.run(run)
