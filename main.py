"""Trains or evaluates a network: flags and dispatch only.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart
    python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/lspet --mode=evaluate
"""

import sys

from absl import app, flags
from ml_collections import config_flags

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
    "checkpoint", None, "What to evaluate: a workdir or WORKDIR/checkpoints/STEP. Default: --workdir."
)
flags.DEFINE_bool("allow_changed_config", False, "Go on in a workdir that began with another config.")
flags.DEFINE_bool("distributed", False, "Several processes, as on a TPU pod: jax.distributed first.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"What is {argv[1]!r}? Flags look like --workdir=DIR.")
    if FLAGS.distributed:
        import jax

        jax.distributed.initialize()
    # Only now: `--help` and wrong flags are answered at once.
    from hourglass_jax import evaluate, train

    if FLAGS.mode == "train":
        train.train(FLAGS.config, FLAGS.workdir, allow_changed_config=FLAGS.allow_changed_config)
    else:
        evaluate.evaluate(FLAGS.config, FLAGS.workdir, FLAGS.checkpoint or FLAGS.workdir)


def run() -> None:
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        app.run(main)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    run()
