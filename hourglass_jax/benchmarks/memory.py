"""Memory and time of a training step under each policy of `train.remat`, for every system.

By default the systems are small; sizes are options. Times are processor time, summed over all threads, so
that other work on the machine has little effect.
"""

from hourglass_jax import config_base, models
from hourglass_jax.benchmarks.common import Step, interleaved
from hourglass_jax.transforms import remat


def add(command) -> None:
    parser = command("memory", help="memory and time of a training step under each train.remat")
    add_sizes(parser, stacks=2, width=64, size=96, batch_size=16)
    parser.add_argument("--systems", nargs="+", default=models.names(), help="(default: all)")
    parser.set_defaults(run=run)


def add_sizes(parser, **defaults: int) -> None:
    """Options for the sizes of `config_of`."""
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")


def config_of(system: str, *, stacks: int, width: int, size: int, batch_size: int, policy: str = ""):
    """The quickstart's config with other sizes; size in px."""
    config = config_base.named("quickstart").get_config(f"model={system},stacks={stacks},width={width}")
    config.data.update(size=size, canvas=size * 3 // 2)
    config.train.update(batch_size=batch_size, remat=policy)
    return config


def run(args) -> dict:
    """A row for each system and policy, against the system's step that keeps all features."""
    sizes = {name: getattr(args, name) for name in ("stacks", "width", "size", "batch_size")}
    rows = []
    for system in args.systems:
        steps = {policy: Step(config_of(system, **sizes, policy=policy)) for policy in remat.POLICIES}
        seconds = interleaved(steps, args.rounds, clock="process_time")
        for policy, step in steps.items():
            low, median, high = (1000 * value for value in seconds[policy])
            rows.append(
                {
                    **{"system": system, "remat": policy, "temporary MB": round(step.temporary / 1e6, 1)},
                    "of plain": round(step.temporary / steps[""].temporary, 2),
                    "processor ms": f"{median:.0f} ({low:.0f} to {high:.0f})",
                    "times plain": round(seconds[policy][1] / seconds[""][1], 2),
                    "compile s": round(step.compile_seconds, 1),
                }
            )
    text = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return {"title": f"Training step, {text}", "rows": rows}
