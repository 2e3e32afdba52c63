"""Trains or evaluates a network; this file has only flags and dispatch.

    hourglass train --config=quickstart --workdir=runs/quickstart
    hourglass train --config=newell:stacks=2,dataset=lspet --workdir=runs/lspet
    hourglass evaluate --config=newell:stacks=2,dataset=lspet --workdir=runs/lspet

`hourglass train --mode=compile ...` checks everything that the training needs, compiles its step, and stops.

In a checkout `python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/lspet` does the
same; add `--mode=evaluate` to evaluate.
"""

import signal
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from hourglass_jax import config_base, console

FLAGS = flags.FLAGS
# The loss of a process is noticed after 30 s instead of JAX's 100.
PATIENCE: dict[str, Any] = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 30}
config_flags.DEFINE_config_file(
    "config",
    None,
    "NAME[:key=value,...] of the package, or FILE.py[:...]; set single values with --config.train.steps=100.",
    lock_config=True,
)
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, pictures, scores, TensorBoard.")
flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "compile"], "compile: check, and stop before step 1."
)
flags.DEFINE_string(
    "topology",
    "",
    "With --mode=compile: compile for chips that are not here, such as v5e:2x4 or h100:8.",
)
flags.DEFINE_string(
    "checkpoint",
    None,
    "What to evaluate: a workdir, WORKDIR/checkpoints/STEP or weights. Default: --workdir.",
)
flags.DEFINE_bool("allow_changed_config", False, "Continue in a workdir that started with another config.")
flags.DEFINE_bool("allow_changed_data", False, "Continue in a workdir that was trained on other examples.")
flags.DEFINE_bool("distributed", False, "One of several processes; on TPU pods they find each other.")
flags.DEFINE_string("coordinator", None, "With --distributed elsewhere: HOST:PORT of the first process.")
flags.DEFINE_integer("processes", None, "With --distributed elsewhere: the number of processes.")
flags.DEFINE_integer("process", None, "With --distributed elsewhere: the index of this process, from 0.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # JAX and Orbax log each of their steps
    if len(argv) > 1:
        raise ValueError(f"Unknown argument {argv[1]!r}; flags look like --workdir=DIR.")
    if FLAGS.distributed:
        from hourglass_jax.training import processes

        processes.begin(FLAGS.coordinator, FLAGS.processes, FLAGS.process, **PATIENCE)
        if FLAGS.mode != "train":  # a training stops by JAX's handler, see `training.stopping`
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Imported here, so that `--help` and wrong flags do not have to wait.
    from hourglass_jax import devices, evaluate, train

    devices.keep_programs()
    devices.keep_memory()
    if FLAGS.mode == "train":
        allowed = {name: bool(FLAGS[name].value) for name in ("allow_changed_config", "allow_changed_data")}
        train.train(FLAGS.config, FLAGS.workdir, **allowed)
    elif FLAGS.mode == "compile":
        from hourglass_jax import dry_run

        dry_run.dry_run(FLAGS.config, FLAGS.workdir, topology=FLAGS.topology)
    else:
        evaluate.evaluate(FLAGS.config, FLAGS.workdir, FLAGS.checkpoint or FLAGS.workdir)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; errors become one line instead of a traceback."""
    if {"--help", "-help", "-h", "-?"}.intersection(argv):
        print(f"{__doc__}\nflags:\n{FLAGS.module_help(__name__)}")
        sys.exit()
    try:
        rest = FLAGS(_with_file(argv))
        if missing := [f"--{name}" for name in ("config", "workdir") if FLAGS[name].value is None]:
            raise ValueError(
                f"{' and '.join(missing)} must be given, for instance "
                "--config=newell:stacks=2,dataset=lspet --workdir=runs/lspet; see --help."
            )
        FLAGS.config.lock()  # a config file that cannot be loaded raises its error only here
    except (flags.Error, AttributeError, KeyError, OSError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, (AttributeError, KeyError)):  # the former wraps a KeyError of ml_collections
            key = str(getattr(error.args[0], "args", error.args)[0])
            raise ValueError(f"--config has no key {' '.join(key.split())}") from None
        # The last line of a traceback has the message, after the exception's name.
        raise ValueError(lines[-1].partition(": ")[2] if len(lines) > 2 else lines[0]) from None
    return rest


def _with_file(argv: list[str]) -> list[str]:
    """The flags with a file instead of the config's name, because ml_collections loads only files."""
    argv = list(argv)
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config"):
            if equals:
                argv[i] = f"--config={config_base.find(value)}"
            elif i + 1 < len(argv):
                argv[i + 1] = config_base.find(argv[i + 1])
    return argv


def run(argv: list[str] | None = None) -> None:
    """Runs the command and ends the process.

    Args:
      argv: the program's name and its flags, by default those of the process.
    """
    if argv is not None:
        sys.argv = argv  # ml_collections reads the fields of --config there
    sys.exit(console.run(app.run, main, flags_parser=parse))


if __name__ == "__main__":
    run()
