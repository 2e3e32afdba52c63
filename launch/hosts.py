"""Trains in several processes on this machine, as on several hosts, and ends them in each way that hosts end.

python launch/hosts.py --processes=4 --output=runs/hosts

    SIGTERM   one process gets it, as before a preemption: all save the same step, and end
    slow      the same, while every save takes --slow seconds more
    killed    one process dies (SIGKILL)
    stopped   one process hangs (SIGSTOP), and comes back (SIGCONT) when the others have ended

After each of these all processes start again, and must continue from the newest checkpoint. In the end the
parameters, the averages and the optimiser's state must equal those of an undisturbed run.
"""

import argparse
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import kills  # a file in launch/

WAYS = ("SIGTERM", "slow", "killed", "stopped")
kills.STEPS = 60  # the last of --config.train.steps counts
CONFIG = [*kills.CONFIG, f"--config.train.steps={kills.STEPS}"]
MINUTE = 60.0


class Job:
    """A training in several processes."""

    def __init__(self, workdir: pathlib.Path, count: int, slow: float = 0.0):
        self.workdir = workdir
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.consoles = [workdir.parent / f"{workdir.name}_{number}.txt" for number in range(count)]
        program = [__file__, "--child", str(slow)] if slow else ["main.py"]
        shared = [f"--workdir={workdir.resolve()}", "--distributed", f"--coordinator=localhost:{port}"]
        self.processes = []
        for number, path in enumerate(self.consoles):
            flags = [*shared, f"--processes={count}", f"--process={number}", *CONFIG]
            with path.open("w") as console:
                command = [sys.executable, *program, *flags]
                self.processes.append(
                    subprocess.Popen(command, cwd=kills.ROOT, stdout=console, stderr=subprocess.STDOUT)
                )

    def wait_for(self, pattern: str) -> re.Match:
        """Waits for a line of the first process' console.

        Raises:
          RuntimeError: it ended before.
        """
        while True:
            running = self.processes[0].poll() is None
            if found := re.search(pattern, self.consoles[0].read_text(), re.MULTILINE):
                return found
            if not running:
                raise RuntimeError(f"no line {pattern!r} in {self.consoles[0]}")
            time.sleep(0.02)

    def end(self, *numbers: int, timeout: float = 10 * MINUTE) -> list[int]:
        """The exit codes of these processes, by default of all, when they have ended by themselves."""
        limit = time.monotonic() + timeout
        return [
            self.processes[number].wait(max(limit - time.monotonic(), 0.1))
            for number in numbers or range(len(self.processes))
        ]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def last_lines(self) -> list[str]:
        return [(path.read_text().splitlines() or [""])[-1] for path in self.consoles]


def disturbed(way: str, workdir: pathlib.Path, count: int, slow: float) -> list[str]:
    """Ends one process of a training in a way; the failures."""
    newest = max(kills.saved(workdir), default=0)
    job = Job(workdir, count, slow if way == "slow" else 0.0)
    failures = []
    try:
        if newest:
            found = int(job.wait_for(r"^Continues after step (\d+) of")[1])
            failures += [f"resumed from {found}, not {newest}"] * (found != newest)
        job.wait_for(rf"^step {newest + kills.SAVE_EVERY + 1}/")  # the first save is on its way
        victim, others = count - 1, range(count - 1)
        began = time.monotonic()
        signals = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
        job.processes[victim].send_signal(signals.get(way, signal.SIGTERM))
        codes = job.end(*(others if way in signals else ()))
        took = time.monotonic() - began
        if way == "stopped":
            job.processes[victim].send_signal(signal.SIGCONT)
            codes += job.end(victim, timeout=MINUTE)
        lines = job.last_lines()
    finally:
        job.kill()
    saved, logged = kills.saved(workdir), kills.last(workdir)
    print(f"{way}: {took:.1f} s to the end of the others, saved {saved}, logged to {logged}; {lines[0]}")
    failures += [f"{took:.1f} s"] * (took > (30.0 if way in ("SIGTERM", "slow") else MINUTE))
    if way in signals:
        spoke = lines if way == "stopped" else lines[:victim]
        failures += [line for line in spoke if " lost contact with another process (" not in line]
        failures += ["an exit code of 0"] * (0 in codes)
    else:
        failures += [f"codes {codes}"] * any(codes) + ["not saved"] * (saved[-1:] != [logged])
    return [f"{way}: {failure}" for failure in failures]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="of each training (default: %(default)s)")
    parser.add_argument("--slow", type=float, default=8.0, help="s of a slow save (default: %(default)s)")
    parser.add_argument("--output", required=True, help="empty folder for the two workdirs")
    flags = parser.parse_args()
    output = kills.empty_folder(flags.output)
    whole, workdir = output / "whole", output / "disturbed"
    failures = []
    for way in WAYS:
        failures += disturbed(way, workdir, flags.processes, flags.slow)
    for folder in (workdir, whole):
        failures += ["an undisturbed process"] * any(Job(folder, flags.processes).end())
    failures += kills.differences(whole, workdir)
    print(f"Failures: {', '.join(failures) or 'none'}")
    return 1 if failures else 0


def slow_child(seconds: float, argv: list[str]) -> None:
    """main.py, with saves that take longer, in the background as they do."""
    from orbax.checkpoint import CheckpointManager

    from hourglass_jax.main import run

    plain = CheckpointManager._finalize

    def finalize(*args, **options):
        time.sleep(seconds)
        return plain(*args, **options)

    CheckpointManager._finalize = finalize
    run(["main.py", *argv])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        slow_child(float(sys.argv[2]), sys.argv[3:])
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
