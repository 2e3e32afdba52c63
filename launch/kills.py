"""Kills a small training again and again, and compares what it ends with to an undisturbed run.

python launch/kills.py --kills=20 --output=runs/kills

Each kill (SIGKILL) comes at a random moment of a real run: while it starts, trains, saves or evaluates. At
the end parameters, averages and the optimiser's state must be those of the undisturbed run, bit by bit; the
log must hold every step once; and the same checkpoints must lie there.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 240
CONFIG = [
    *("--config=configs/quickstart.py", f"--config.train.steps={STEPS}", "--config.train.save_every=4"),
    *("--config.train.evaluate_every=20", "--config.train.log_every=1", "--config.train.pictures=1"),
    *("--config.train.tensorboard=false", "--config.model.width=16", "--config.model.depth=2"),
    *("--config.data.examples=(200,40)", "--config.data.size=64", "--config.data.canvas=96"),
    *("--config.train.batch_size=8", "--config.evaluate.batch_size=20"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=12.0, help="s, longest life (default: %(default)s)")
    parser.add_argument("--output", required=True, help="folder for the two workdirs; has to be empty")
    flags = parser.parse_args()
    output = pathlib.Path(flags.output)
    if output.exists() and any(output.iterdir()):
        sys.exit(f"Error: --output={output} is not empty; choose another folder.")
    whole, killed = output / "whole", output / "killed"
    start(whole).wait()

    moments = random.Random(flags.seed)
    kills = most = 0
    while kills < flags.kills:
        run = start(killed)
        life = moments.uniform(0.0, flags.longest)
        try:
            run.wait(life)
            break  # it came to its end: short of kills, but a whole run
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
        checkpoints = [p.name for p in (killed / "checkpoints").glob("*")]
        most = max(most, len(checkpoints))
        print(f"kill {kills} after {life:.1f} s: logged to step {last(killed)}, checkpoints {checkpoints}")
        if kills % 5 == 0:
            flags.longest += 5  # on a slow machine a run has to come further than its start
    finished = start(killed)
    finished.wait()
    failures = differences(whole, killed)
    print(f"{kills} kills, at most {most} checkpoints at a time; differences: {failures or 'none'}")
    return 1 if failures or finished.returncode else 0


def start(workdir):
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "main.py", f"--workdir={workdir.resolve()}", *CONFIG]
    with (workdir.parent / f"{workdir.name}.txt").open("a") as console:
        return subprocess.Popen(command, cwd=ROOT, stdout=console, stderr=subprocess.STDOUT)


def lines(workdir) -> list[dict]:
    path = workdir / "metrics.jsonl"
    content = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in content:
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line of a killed run; the next run drops it
            continue
    return found


def last(workdir) -> int:
    return max((line["step"] for line in lines(workdir)), default=0)


def differences(whole, killed) -> list[str]:
    """What differs between the ends of two runs."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    found = []
    for item in ("model", "averaged", "optimizer"):
        a, b = (ocp.StandardCheckpointer().restore(w.resolve() / "checkpoints" / str(STEPS) / item)
                for w in (whole, killed))  # fmt: skip
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        found += [item] * any(np.asarray(x).tobytes() != np.asarray(y).tobytes() for x, y in pairs)
    clocked = ("images_per_second", "input_share")
    logs = [[{k: v for k, v in line.items() if k not in clocked} for line in lines(w)]
            for w in (whole, killed)]  # fmt: skip
    if logs[0] != logs[1]:
        found.append("metrics.jsonl")
    steps = [line["step"] for line in logs[1] if "loss" in line]
    if steps != list(range(1, STEPS + 1)):
        found.append("steps in the log")
    kept = [sorted(p.name for p in (w / "checkpoints").iterdir()) for w in (whole, killed)]
    if kept[0] != kept[1]:
        found.append(f"checkpoints {kept}")
    return found


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
