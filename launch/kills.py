"""Kills a small training many times and compares its result with that of an undisturbed run.

python launch/kills.py --kills=20 --output=runs/kills
python launch/kills.py --kills=10 --steps=120 --bucket=emulator --output=runs/kills

The kills (SIGKILL) aim in turn at a random moment of starting, training, saving and evaluating; the files
that a killed process leaves show its activity. Every fifth signal is a SIGTERM, after which the training must
save its last step and end. Every new process must resume from the newest complete checkpoint. In the end the
parameters, the averages and the optimiser's state must equal those of the undisturbed run bit by bit, the
log must have every step once, and both workdirs must have the same files. With --bucket both workdirs are in
a bucket, of Google or of an emulator on this machine; the consoles stay in --output.
"""

import argparse
import atexit
import collections
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # Python searches launch/ only

from hourglass_jax import buckets, files  # noqa: E402

STEPS, EVALUATE_EVERY, SAVE_EVERY, KEPT = 240, 20, 4, 3  # the two latest and the best
CONFIG = [
    "--config=configs/quickstart.py",
    *(f"--config.train.save_every={SAVE_EVERY}", f"--config.train.evaluate_every={EVALUATE_EVERY}"),
    *("--config.train.log_every=1", "--config.train.pictures=1"),
    *("--config.train.tensorboard=false", "--config.model.width=16", "--config.model.depth=2"),
    *("--config.data.examples=(200,40)", "--config.data.size=64", "--config.data.canvas=96"),
    *("--config.train.batch_size=8", "--config.evaluate.batch_size=20"),
]
AIMS = ("starting", "training", "saving", "evaluating", "SIGTERM")
SECONDS = 10.0  # most time from SIGTERM to the end; on a busy machine the time that the start took


class Process:
    """One process of the training, from start to end."""

    def __init__(self, workdir: pathlib.Path, output: pathlib.Path):
        self.workdir, self._console = workdir, output / f"{workdir.name}.txt"
        self._console.touch()
        self._before = self._console.stat().st_size
        command = [sys.executable, "main.py", f"--workdir={files.absolute(workdir)}", *CONFIG]
        command += [f"--config.train.steps={STEPS}"]
        with self._console.open("a") as console:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=console, stderr=subprocess.STDOUT)

    def output(self) -> str:
        """The console output of this process."""
        with self._console.open() as console:
            console.seek(self._before)
            return console.read()

    def activities(self) -> set[str]:
        """The current activities, or the last ones of a dead process; it may save and evaluate together."""
        if not self.begun():
            return {"starting"}
        found = set()
        if steps(self.workdir) != {str(step) for step in saved(self.workdir)}:
            found.add("saving")  # the start has already removed the remains of the previous process
        last = re.search(r"^step (\d+)/.*\n\Z", self.output(), re.MULTILINE)
        if last and int(last[1]) % EVALUATE_EVERY == 0:
            found.add("evaluating")
        return found or {"training"}

    def begun(self) -> bool:
        return re.search("^step ", self.output(), re.MULTILINE) is not None

    def wait_for(self, *activities: str) -> bool:
        """Waits for one of these activities; False if the process ended before."""
        while self.process.poll() is None:
            now = self.activities()
            if now & set(activities):
                return True
            # A save takes hundredths of a second; in a bucket it takes a second.
            time.sleep(0.1 if "starting" in now or files.in_bucket(self.workdir) else 0.002)
        return False


def empty_folder(name: str) -> pathlib.Path:
    """The folder of --output, made if it does not exist; ends the program if the folder is not empty."""
    try:
        output = files.local(name)
    except ValueError as error:
        sys.exit(f"Error: --output={error}")
    if output.exists() and any(output.iterdir()):
        sys.exit(f"Error: --output={output} is not empty; choose another folder.")
    output.mkdir(parents=True, exist_ok=True)
    return output


def emulated():
    """Starts an emulated bucket, gs://bucket, that ends with this process; returns its `store.Store`."""
    sys.path.insert(0, str(ROOT / "tests"))
    import store

    running = store.Store("bucket")
    atexit.register(running.close)
    os.environ.update(running.environment)
    return running


def main() -> int:
    global STEPS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training (default: %(default)s)")
    parser.add_argument("--bucket", help="empty gs://BUCKET/FOLDER for the workdirs, or the word emulator")
    parser.add_argument("--output", required=True, help="empty folder for the workdirs and consoles")
    flags = parser.parse_args()
    output = empty_folder(flags.output)
    STEPS = flags.steps
    bucket = flags.bucket
    if bucket == "emulator":
        bucket = emulated() and "gs://bucket"
    folder = files.path(bucket) if bucket else output
    whole, killed = folder / "whole", folder / "killed"
    if Process(whole, output).process.wait():
        sys.exit(f"Error: the undisturbed run failed, see {output}/whole.txt.")

    moments, hit, failures = random.Random(flags.seed), collections.Counter(), []
    most, slowest, startup = (0, 0), 0.0, 5.0
    for number in range(1, flags.kills + 1):
        aim, newest, began = AIMS[(number - 1) % len(AIMS)], max(saved(killed), default=0), time.monotonic()
        trained = Process(killed, output)
        if aim == "starting":
            time.sleep(moments.uniform(0, startup))
        elif trained.wait_for(*AIMS[1:]):
            startup = time.monotonic() - began
            time.sleep(moments.uniform(0, 0.5))
            if aim in ("saving", "evaluating"):
                trained.wait_for(aim)
                time.sleep(moments.uniform(0, 0.05))
        if trained.process.poll() is not None:
            failures.append(f"process {number} ended by itself")  # too short a training for so many kills
            break
        asked = time.monotonic()
        trained.process.send_signal(signal.SIGTERM if aim == "SIGTERM" else signal.SIGKILL)
        code = trained.process.wait()
        took = time.monotonic() - asked
        found = {aim} if aim == "SIGTERM" else trained.activities()
        hit.update(found)
        if aim == "SIGTERM":
            slowest = max(slowest, took)
            if code or took > max(SECONDS, startup) or saved(killed)[-1:] != [last(killed)]:
                failures.append(f"SIGTERM: code {code}, {took:.1f} s, {saved(killed)} of {last(killed)}")
        failures += resumed(trained, newest)
        most = max(most[0], len(steps(killed))), max(most[1], size(killed))
        did = " and ".join(sorted(found))
        print(f"{number}: {did}, logged to step {last(killed)}, saved {saved(killed)}", flush=True)
    newest = max(saved(killed), default=0)
    trained = Process(killed, output)
    if trained.process.wait():
        failures.append("the last process")
    failures += resumed(trained, newest) + differences(whole, killed)
    # Two more are allowed: one that is being written and one that is being removed.
    failures += ["disk"] * (most[0] > KEPT + 2)
    print(f"Kills while {', '.join(f'{name} {hit[name]}' for name in AIMS)}; SIGTERM to end {slowest:.1f} s")
    print(f"At most {most[0]} checkpoints and {most[1] / 1e6:.1f} MB; undisturbed {size(whole) / 1e6:.1f} MB")
    print(f"Failures: {', '.join(failures) or 'none'}")
    return 1 if failures else 0


def names(workdir: pathlib.Path) -> dict[str, int]:
    """The files in a workdir and their bytes."""
    if not files.in_bucket(workdir):
        paths = [path for path in workdir.rglob("*") if path.is_file()]
        return {path.relative_to(workdir).as_posix(): path.stat().st_size for path in paths}
    try:
        return {name: about["size"] for name, about in buckets.listing(workdir).items()}
    except FileNotFoundError:
        return {}


def steps(workdir: pathlib.Path) -> set[str]:
    """Names of the checkpoints' folders, complete or not."""
    if not files.in_bucket(workdir):
        return {path.name for path in (workdir / "checkpoints").glob("*")}
    return {name.split("/")[1] for name in names(workdir) if name.startswith("checkpoints/")}


def saved(workdir: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints: of folders with a plain name, in a bucket with Orbax' marker."""
    found = steps(workdir)
    if files.in_bucket(workdir):
        there = names(workdir)
        found = {name for name in found if f"checkpoints/{name}/commit_success.txt" in there}
    return sorted(int(name) for name in found if name.isdigit())


def size(workdir: pathlib.Path) -> int:
    """The size of all files, in bytes."""
    return sum(names(workdir).values())


def resumed(trained: Process, newest: int) -> list[str]:
    """Failures: a process that trained must have resumed from the newest complete checkpoint."""
    line = re.search(r"^Continues after step (\d+) of", trained.output(), re.MULTILINE)
    if trained.begun() and (int(line[1]) if line else 0) != newest:
        return [f"resumed from {line and line[1]}, not {newest}"]
    return []


def lines(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    try:
        with files.opened(workdir / "metrics.jsonl") as file:
            content = file.read().splitlines()
    except FileNotFoundError:
        content = []
    found = []
    for line in content:
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line of a killed run; the next run drops it
            continue
    return found


def last(workdir: pathlib.Path) -> int:
    """The last step in the log."""
    return max((line["step"] for line in lines(workdir)), default=0)


def differences(whole: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """The differences between the results of two runs."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    def arrays(path):
        """Reads arrays as NumPy's, for any devices from which they were saved."""
        reader = ocp.PyTreeCheckpointer()
        found = reader.metadata(path).item_metadata
        assert found is not None  # every item of a checkpoint has its own
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found.tree)
        return reader.restore(path, restore_args=args)

    found = []
    for item in ("model", "averaged", "optimizer"):
        a, b = (arrays(files.absolute(w) / "checkpoints" / str(STEPS) / item) for w in (whole, killed))
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        found += [item] * any(np.asarray(x).tobytes() != np.asarray(y).tobytes() for x, y in pairs)
    clocked = ("images_per_second", "input_share")
    logs = [[{k: v for k, v in line.items() if k not in clocked} for line in lines(w)]
            for w in (whole, killed)]  # fmt: skip
    if logs[0] != logs[1]:
        found.append("metrics.jsonl")
    logged = [line["step"] for line in logs[1] if "loss" in line]
    if logged != list(range(1, STEPS + 1)):
        found.append("steps in the log")
    kept = [{"/".join(name.split("/")[:2]) for name in names(w)} for w in (whole, killed)]
    if kept[0] != kept[1]:
        found.append(f"files: {', '.join(kept[0] ^ kept[1])}")
    return found


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
