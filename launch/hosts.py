"""Trains in several processes on this machine, as on several hosts, and ends them in each way that hosts end.

python launch/hosts.py --processes=4 --output=runs/hosts
python launch/hosts.py --processes=4 --ways SIGTERM slow --bucket=emulator --output=runs/hosts

    SIGTERM   one process gets it, as before a preemption: all save the same step, and end
    slow      the same, while every save takes --slow seconds more; with --bucket=emulator, while every
              request to the bucket takes --delay seconds more
    killed    one process dies (SIGKILL)
    stopped   one process hangs (SIGSTOP), and comes back (SIGCONT) when the others have ended
    alone     one process dies and is started again at once, as by a supervisor; the others end, are started
              again, and all continue together

After each of these all processes start again, and must continue from the newest checkpoint. In the end the
parameters, the averages and the optimiser's state must equal those of an undisturbed run. With --bucket both
workdirs are in a bucket, of Google or of an emulator on this machine; the consoles stay in --output.
"""

import argparse
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import kills  # a file in launch/, which lets Python find the package

from hourglass_jax import files

WAYS = ("SIGTERM", "slow", "killed", "stopped", "alone")
kills.STEPS = 80  # the last of --config.train.steps counts
CONFIG = [*kills.CONFIG, f"--config.train.steps={kills.STEPS}"]
MINUTE = 60.0


class Job:
    """A training in several processes."""

    def __init__(self, workdir: pathlib.Path, output: pathlib.Path, count: int, slow: float = 0.0):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.consoles = [output / f"{workdir.name}_{number}.txt" for number in range(count)]
        self._command = [sys.executable, *([__file__, "--child", str(slow)] if slow else ["main.py"])]
        self._command += [f"--workdir={files.absolute(workdir)}", *CONFIG, "--distributed"]
        self._command += [f"--coordinator=localhost:{port}", f"--processes={count}"]
        self.processes = [self._started(number) for number in range(count)]

    def _started(self, number: int) -> subprocess.Popen:
        command = [*self._command, f"--process={number}"]
        with self.consoles[number].open("w") as console:
            return subprocess.Popen(command, cwd=kills.ROOT, stdout=console, stderr=subprocess.STDOUT)

    def start_again(self, *numbers: int) -> None:
        for number in numbers:
            self.processes[number] = self._started(number)

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


def disturbed(way: str, workdir: pathlib.Path, output: pathlib.Path, count: int, slow: float) -> list[str]:
    """Ends one process of a training in a way; the failures."""
    newest = max(kills.saved(workdir), default=0)
    job = Job(workdir, output, count, slow)
    failures, victim, others = [], count - 1, range(count - 1)
    try:
        if newest:
            failures += resumed(job, newest)
        job.wait_for(rf"^step {newest + kills.SAVE_EVERY + 1}/")  # the first save is on its way
        began = time.monotonic()
        ends = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "alone": signal.SIGKILL}
        job.processes[victim].send_signal(ends.get(way, signal.SIGTERM))
        if way == "alone":
            job.end(victim)
            job.start_again(victim)
        codes = job.end(*(others if way in ends else ()))
        took = time.monotonic() - began
        if way == "stopped":
            job.processes[victim].send_signal(signal.SIGCONT)
            codes += job.end(victim, timeout=MINUTE)
        lines = job.last_lines()
        if way == "alone":
            newest = max(kills.saved(workdir))
            job.start_again(*others)
            failures += resumed(job, newest)
            job.wait_for(rf"^step {newest + 1}/")
            job.processes[0].send_signal(signal.SIGTERM)
            failures += ["the restarted processes"] * any(job.end())
    finally:
        job.kill()
    saved, logged = kills.saved(workdir), kills.last(workdir)
    print(f"{way}: {took:.1f} s to the end of the others, saved {saved}, logged to {logged}; {lines[0]}")
    failures += [f"{took:.1f} s"] * (took > (MINUTE if way in ends else 30.0))
    if way in ends:
        spoke = lines if way == "stopped" else lines[:victim]
        failures += [line for line in spoke if " lost contact with another process (" not in line]
        failures += ["an exit code of 0"] * (0 in codes)
    else:
        failures += [f"codes {codes}"] * any(codes) + ["not saved"] * (saved[-1:] != [logged])
    return [f"{way}: {failure}" for failure in failures]


def resumed(job: Job, newest: int) -> list[str]:
    """The failure to continue after this step."""
    found = int(job.wait_for(r"^Continues after step (\d+) of")[1])
    return [f"resumed from {found}, not {newest}"] * (found != newest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="of each training (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, metavar="WAY", help="(default: all)")
    parser.add_argument("--slow", type=float, default=8.0, help="s of a slow save (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.3, help="s of a slow request (default: %(default)s)")
    parser.add_argument("--bucket", help="empty gs://BUCKET/FOLDER for the workdirs, or the word emulator")
    parser.add_argument("--output", required=True, help="empty folder for the workdirs and consoles")
    flags = parser.parse_args()
    output = kills.empty_folder(flags.output)
    emulator = kills.emulated() if flags.bucket == "emulator" else None
    folder = files.path("gs://bucket" if emulator else flags.bucket) if flags.bucket else output
    whole, workdir = folder / "whole", folder / "disturbed"
    failures = []
    for way in flags.ways:
        slow = flags.slow if way == "slow" and not emulator else 0.0
        if emulator:
            delay = flags.delay if way == "slow" else 0.0
            emulator.fault = lambda method, path, delay=delay: time.sleep(delay)
        failures += disturbed(way, workdir, output, flags.processes, slow)
    if emulator:
        emulator.fault = lambda method, path: None
    for path in (workdir, whole):
        failures += ["an undisturbed process"] * any(Job(path, output, flags.processes).end())
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
