"""Trains in pieces of a few minutes: each call continues from the files that the previous one wrote.

    python launch/pieces.py --minutes=9 --state=state --output=state -- \\
        --config=configs/newell.py:stacks=2,dataset=lspet \\
        --config.data.source=device --config.data.packed_dir=packed

The arguments after `--` go to main.py. A piece unpacks the state, trains until its time is over, saves, and
writes the workdir's config, log and newest checkpoint as at most eight files of at most 16 MiB. On a
machine that still has the workdir of the previous piece, it unpacks nothing. A piece that is killed leaves
the state unchanged.
"""

import argparse
import hashlib
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # Python searches launch/ only

from hourglass_jax import console, files

ROOT = pathlib.Path(__file__).resolve().parents[1]
PART = 2**24  # bytes of a file
PARTS = 7  # and state.json
COMMAND = [sys.executable, str(ROOT / "main.py")]
SAVING = 45.0  # seconds that a piece keeps for its last checkpoint and for packing
PATIENCE = 120.0  # the most seconds to wait after SIGTERM


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps of the workdir's complete checkpoints, in order."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def pack(workdir: pathlib.Path, state: pathlib.Path) -> dict:
    """Writes the newest checkpoint, config and log of a workdir as parts, and then state.json.

    Returns:
      {"step", "parts" (SHA-256 of each), "bytes"}, which is also in state.json.

    Raises:
      ValueError: there is no checkpoint, or it is too large.
    """
    found = steps(workdir)
    if not found:
        raise ValueError(f"{workdir}: no checkpoint was saved; give the piece more --minutes.")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("config.json", "metrics.jsonl", f"checkpoints/{found[-1]}"):
            archive.add(workdir / name, arcname=name)
    data = buffer.getvalue()
    if len(data) > PART * PARTS:
        raise ValueError(
            f"{workdir}: the state takes {len(data) / 2**20:.0f} MiB, more than {PARTS} files of "
            f"{PART / 2**20:g} MiB; train fewer stacks, or without train.average_decay."
        )
    parts = [data[start : start + PART] for start in range(0, len(data), PART)]
    about = {"step": found[-1], "bytes": len(data), "parts": [hashlib.sha256(p).hexdigest() for p in parts]}
    # The name of a part contains its checksum: the previous parts stay until state.json names the new ones.
    for part, digest in zip(parts, about["parts"], strict=True):
        files.write(state / _name(digest), part)
    files.write_json(state / "state.json", about)
    for path in state.glob("part-*"):
        if path.name not in map(_name, about["parts"]):
            path.unlink()
    return about


def unpack(state: pathlib.Path, workdir: pathlib.Path) -> int | None:
    """Makes the workdir of a state, unless the workdir already has that step or a later one.

    Returns:
      the step from which training continues; None if there is neither a state nor a checkpoint.

    Raises:
      ValueError: a part is missing or damaged; the workdir is unchanged.
    """
    here = max(steps(workdir), default=None)
    if not (state / "state.json").exists():
        return here
    about = files.read_json(state / "state.json")
    if here is not None and here >= about["step"]:
        return here
    data = b""
    for digest in about["parts"]:
        path = state / _name(digest)
        part = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(part).hexdigest() != digest:
            raise ValueError(f"{path}: missing or damaged; copy all files of {state} again.")
        data += part
    fresh = workdir.with_name(f".{workdir.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        if not all(_within(member) for member in archive.getmembers()):
            raise ValueError(f"{state}: the state holds paths outside of a workdir.")
        # Python has this filter since 3.11.4.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(fresh)
    shutil.rmtree(workdir, ignore_errors=True)
    fresh.rename(workdir)
    return about["step"]


def _within(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file or a folder within the folder to unpack to."""
    path = pathlib.PurePosixPath(member.name)
    return (member.isfile() or member.isdir()) and not path.is_absolute() and ".." not in path.parts


def _name(digest: str) -> str:
    return f"part-{digest[:16]}"


def train(arguments: list[str], workdir: pathlib.Path, seconds: float) -> int:
    """Runs main.py for the given number of seconds, then asks it to save and end; returns its exit code."""
    process = subprocess.Popen([*COMMAND, f"--workdir={workdir}", *arguments])
    try:
        return process.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=PATIENCE)
    finally:
        process.kill()  # if it did not end, or this process was interrupted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=9.0, help="total time of this piece (default: %(default)s)")
    add("--state", required=True, help="folder of the state to continue from")
    add("--output", help="folder for the new state (default: --state)")
    add("--workdir", default="runs/pieces", help="(default: %(default)s)")
    add("training", nargs="*", help="after --: main.py's flags without --workdir")
    args = parser.parse_args(arguments)
    return console.run(piece, args, interrupted="Interrupted; the state is as it was.")


def piece(args) -> int:
    """Trains one piece; returns its exit code."""
    start = time.monotonic()
    state, output, workdir = map(files.local, (args.state, args.output or args.state, args.workdir))
    before = unpack(state, workdir)
    code = train(args.training, workdir.resolve(), 60 * args.minutes - SAVING)
    if code:
        raise ValueError(f"main.py ended with exit code {code}; the state is as it was.")
    about = pack(workdir, output)
    print(
        f"Step {before or 0} -> {about['step']} in {(time.monotonic() - start) / 60:.1f} min; "
        f"{about['bytes'] / 1e6:.1f} MB in {len(about['parts'])} files -> {output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
