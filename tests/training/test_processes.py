"""Several processes of one training: they are refused together and end together."""

import signal
import socket
import subprocess
import sys
import time

import conftest
import jax
import numpy as np
import pytest

from hourglass_jax import train
from hourglass_jax.network import Metadata
from hourglass_jax.training import processes

pytestmark = pytest.mark.usefixtures("small_model", "quick_compiles", "shared_programs")


def flags(number):
    port = conftest.free_port()
    shared = ["--distributed", f"--coordinator=localhost:{port}", f"--processes={number}"]
    return [[*shared, f"--process={i}"] for i in range(number)]


def ends_with_one_line(number, errors):
    """Checks that the error is the last line, below the lines of JAX's C++ code."""
    assert [line for line in errors if "Error: " in line] == errors[-1:]
    name = f"process {number} ({socket.gethostname()})"
    assert errors[-1].startswith(f"Error: {name} lost contact with another process (")
    assert errors[-1].endswith("Start all of them again: they continue after the latest checkpoint.\n")
    assert "Traceback" not in "".join(errors)


def test_sigterm_to_one_process_stops_all_and_they_continue_until_one_is_lost(
    start, tiny, state_of, metrics_of, tmp_path
):
    changes = {"train.steps": 100_000, "train.save_every": 10**6, "train.evaluate_every": 10**6}
    config, workdir = tiny(changes), tmp_path / "w"
    runs = [start(config, workdir, *flags) for flags in flags(2)]
    runs[0].wait_for("step 3/")
    began = time.monotonic()
    runs[1].signal(signal.SIGTERM)
    assert [run.end() for run in runs] == [0, 0], [run.errors for run in runs]
    assert time.monotonic() - began < 30  # a spot VM has 30 s
    (step,) = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    written = metrics_of(workdir)
    assert step == written[-1]["step"] >= 3
    assert runs[0].output[-3] == f"A process was asked to end: saving step {step} in all of them."
    assert runs[0].output[-1].startswith(f"Stopped after step {step}, which is saved;")
    assert int(state_of(config, workdir, step).step) == step  # the checkpoint is complete
    # Started again, they continue from there, and save each step, until one is lost.
    config, last = tiny(changes | {"train.save_every": 1}), f"step {step + 2}/"
    first, second = [
        start(config, workdir, *flags, begins=begins)
        for flags, begins in zip(flags(2), (last, ""), strict=True)
    ]
    first.wait_for(f"Continues after step {step} of ")
    first.wait_for(last)
    assert metrics_of(workdir)[:step] == written
    second.kill()
    began = time.monotonic()
    first.go_on()
    assert first.end(120) != 0
    assert time.monotonic() - began < 60
    ends_with_one_line(0, first.errors)


@pytest.fixture
def pair(cache):
    """pair(number, kind, ...) starts programs/waits_in_a_training.py; the processes end with the test.

    Those of a test find each other, except those with another `port`.
    """
    ours, begun = conftest.free_port(), []
    program, env = str(conftest.PROGRAMS / "waits_in_a_training.py"), conftest.environment(cache)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}

    def begin(number, *arguments, port=ours):
        command = [sys.executable, program, str(port), str(number), *arguments]
        begun.append(subprocess.Popen(command, **pipes))
        return begun[-1]

    yield begin
    for run in begun:
        run.kill()
        run.communicate()


def there(*runs):
    """Waits until all processes are in their training."""
    for run in runs:
        while (line := run.stdout.readline()).startswith("[Gloo]"):  # from JAX's C++ code
            pass
        assert line == "there\n"


def errors_of(run):
    """The lines on stderr of a process that ends with an error."""
    lines = run.communicate(timeout=60)[1].splitlines(keepends=True)
    assert run.returncode != 0
    return lines


def test_a_process_that_hangs_ends_the_others_and_itself(pair):
    first, second = pair(0, "computing"), pair(1, "computing")
    there(first, second)
    second.send_signal(signal.SIGSTOP)
    ends_with_one_line(0, errors_of(first))
    second.send_signal(signal.SIGCONT)
    ends_with_one_line(1, errors_of(second))


def test_a_lost_first_process_ends_the_others_with_one_line(pair):
    first, second = pair(0, "waiting"), pair(1, "waiting")
    alone = pair(1, "waiting", "2", port=conftest.free_port())  # its first process does not come
    there(first, second)
    first.kill()
    ends_with_one_line(1, errors_of(second))
    alone = [line.strip() for line in errors_of(alone)]
    assert [line for line in alone if "Error: " in line] == alone[-1:]
    assert alone[-1].startswith(f"Error: {socket.gethostname()} ended while it waited for the other")
    assert alone[-1].endswith("at most 2 s; JAX's messages are above. Start all of them within this time.")


# Messages of jax 0.10 with a second process that was killed, did not come, or stopped.
LOST = (
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/transport/tcp/pair.cc:547] Connection closed by peer",
    "INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat timeout.",
    "DEADLINE_EXCEEDED: Barrier timed out. Id: x::0.",
    "INTERNAL: external/xla/nccl_utils.cc:216: NCCL operation async_err failed: remote process exited",
)


def test_a_failed_collective_counts_as_a_lost_process_for_any_error():
    def raised(error, cause=None, where="hourglass_jax.train"):
        """The error, raised in a function of a module."""
        names = {"__name__": where, "error": error, "cause": cause}
        with pytest.raises(type(error)) as caught:
            exec("def f():\n    raise error from cause\nf()", names)
        return caught.value

    orbax = "orbax.checkpoint._src.serialization"
    for text in LOST:
        assert processes.lost_contact(raised(jax.errors.JaxRuntimeError(text), where=orbax)) == text
    for text in (LOST[0], LOST[3]):  # also as a ValueError
        cause = raised(ValueError(text), where=orbax)
        assert processes.lost_contact(raised(OSError("could not be saved"), cause)) == text
    assert processes.lost_contact(raised(ValueError("UNAVAILABLE: TPU"))) == "UNAVAILABLE: TPU"
    assert len(processes.lost_contact(jax.errors.JaxRuntimeError(f"{LOST[0]}\n {'x' * 200}"))) == 150
    # TensorStore's, with a bucket that gives 503, closes the connection or is not there.
    for text in ("made by the test [http_response_code='503']", "CURL error Server returned nothing"):
        text = f"ABORTED: Error writing gs://bucket/a/0: All 32 retry attempts failed: {text}"
        cause = raised(ValueError(text), where=orbax)
        assert not processes.lost_contact(raised(OSError("could not be saved"), cause))
    assert not processes.lost_contact(ValueError("seed=-1 is out of range"))
    assert not processes.lost_contact(OSError("UNKNOWN: a disk"))
    assert not processes.lost_contact(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_a_seed_that_would_not_be_used_unchanged_is_refused(tiny, tmp_path, seed):
    with pytest.raises(ValueError, match=f"seed={seed} is out of range; choose 0 to 4294967295.$"):
        train.train(tiny({"seed": seed}), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_one_process_agrees_with_itself():
    processes.agree({"config": {"seed": np.float64(0)}})
    assert processes.together(lambda: 3) == 3


def test_data_that_was_replaced_during_a_run_is_noticed(tiny, monkeypatch, tmp_path):
    config = tiny({"train.steps": 1, "train.evaluate_every": 9})
    source = train.sources.open_source(config.data, train=True)
    for fingerprint in ("", "aaaaaaaaaa"):  # a checkpoint without a fingerprint accepts all data
        monkeypatch.setattr(type(source), "fingerprint", fingerprint, raising=False)
        train.train(config, tmp_path / "w")
    longer = tiny({"train.steps": 2, "train.evaluate_every": 9})
    train.train(longer, tmp_path / "w")
    monkeypatch.setattr(type(source), "fingerprint", "bbbbbbbbbb")
    longest = tiny({"train.steps": 3, "train.evaluate_every": 9})
    with pytest.raises(ValueError, match=r"\(fingerprints aaaaaaaa and bbbbbbbb\); .*--allow_changed_data"):
        train.train(longest, tmp_path / "w")
    train.train(longest, tmp_path / "w", allow_changed_data=True)
    train.train(longest, tmp_path / "w")
    assert Metadata.from_dict(Metadata(data="b").to_dict()).data == "b"
