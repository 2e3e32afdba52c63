"""Trains or evaluates a network: flags and dispatch only.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/lspet --mode=evaluate
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from hourglass_jax import console

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config",
    None,
    "configs/NAME.py[:key=value,...]; single values by --config.train.steps=100.",
    lock_config=True,
)
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, pictures, scores, TensorBoard.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
flags.DEFINE_string(
    "checkpoint",
    None,
    "What to evaluate: a workdir, WORKDIR/checkpoints/STEP or weights. Default: --workdir.",
)
flags.DEFINE_bool("allow_changed_config", False, "Go on in a workdir that began with another config.")
flags.DEFINE_bool("distributed", False, "One of several processes; on TPU pods they find each other.")
flags.DEFINE_string("coordinator", None, "With --distributed elsewhere: HOST:PORT of the first process.")
flags.DEFINE_integer("processes", None, "With --distributed elsewhere: how many there are.")
flags.DEFINE_integer("process", None, "With --distributed elsewhere: which one this is, from 0.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell each of their steps
    if len(argv) > 1:
        raise ValueError(f"What is {argv[1]!r}? Flags look like --workdir=DIR.")
    if FLAGS.distributed:
        import jax

        jax.distributed.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    # Only now: `--help` and wrong flags are answered at once.
    from hourglass_jax import devices, evaluate, train

    devices.keep_programs()
    devices.keep_memory()
    if FLAGS.mode == "train":
        train.train(FLAGS.config, FLAGS.workdir, allow_changed_config=FLAGS.allow_changed_config)
    else:
        evaluate.evaluate(FLAGS.config, FLAGS.workdir, FLAGS.checkpoint or FLAGS.workdir)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them ends in one line instead of a traceback."""
    try:
        rest = FLAGS(argv)
        FLAGS.config.lock()  # a config file that cannot be loaded shows itself only when it is used
    except (flags.Error, AttributeError, KeyError, OSError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, (AttributeError, KeyError)):  # the former wraps ml_collections' KeyError
            key = str(getattr(error.args[0], "args", error.args)[0])
            raise ValueError(f"--config has no key {' '.join(key.split())}") from None
        if isinstance(error, OSError):
            known = {path.stem for path in pathlib.Path("configs").glob("*.py")} - {"__init__", "common"}
            known = ", ".join(f"configs/{name}.py" for name in sorted(known))
            raise ValueError(f"--config: there is no such file; there are {known}.") from None
        # A traceback's last line says what is wrong, after the exception's name.
        raise ValueError(lines[-1].partition(": ")[2] if len(lines) > 2 else lines[0]) from None
    return rest


def run() -> None:
    flags.mark_flags_as_required(["config", "workdir"])
    sys.exit(console.run(app.run, main, flags_parser=parse))


if __name__ == "__main__":
    run()
