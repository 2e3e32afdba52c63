"""Trainings on several devices and in several processes are those on one device."""

import json
import re
import shutil
import socket
import subprocess
import sys

import conftest
import jax
import numpy as np
import pytest

from hourglass_jax.training import log

# Use the squared error: the cross-entropy's gradient for a last bias is 0 except for rounding, and Adam would
# make steps of full length from that.
CHANGES = {"train.steps": 4, "train.save_every": 1, "loss.kind": "mean_squared_error"}
CHANGES["data.examples"] = (40, 13)
HOST = socket.gethostname()


@pytest.fixture(scope="module")
def eight(run_python, tmp_path_factory):
    """(folder, lines) of programs/on_eight_devices.py."""
    folder = tmp_path_factory.mktemp("eight")
    result = run_python("on_eight_devices.py", folder, devices=8)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout.splitlines()


@pytest.fixture(scope="module")
def two(eight, cache, tmp_path_factory):
    """(folder, runs) of programs/in_two_processes.py, each with two devices.

    `runs` has, for each process, its lines by the name of the training, and its errors.
    """
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(eight[0] / "begun", folder / "resumed")
    same = {"train": CHANGES, "data": CHANGES | {"data.source": "device"}}  # this does not alter the batches
    other = CHANGES | {"seed": 1, "data.variety": 0.5, "data.threads": 1}  # the threads may differ
    plan = [
        {
            "name": name,
            "evaluate": name == "whole",
            "configs": [json.loads(conftest.tiny(c).to_json()) for c in pair],
        }
        for name, *pair in (
            ("different", CHANGES, other),
            ("whole", same["data"], same["data"]),
            ("resumed", same["train"], same["train"]),
            ("impossible", CHANGES, CHANGES | {"seed": -1}),
        )
    ]
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, conftest.PROGRAMS / "in_two_processes.py", str(conftest.free_port())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(i), folder], env=conftest.environment(cache, 2), **pipes)
        for i in range(2)
    ]
    try:
        written = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1], written
    runs = []
    for output, errors in written:
        lines = [line for line in output.splitlines() if not line.startswith("[Gloo]")]  # of JAX's C++ code
        parts = re.split(r"^## (\w+)\n", "".join(f"{line}\n" for line in lines), flags=re.MULTILINE)
        assert parts[0] == ""
        found = {name: text.splitlines() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
        runs.append((found, errors.splitlines()))
    return folder, runs


def close(a, b, **tolerances):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, err_msg=jax.tree_util.keystr(path), **tolerances)


def test_eight_devices_give_the_parameters_of_one(eight):
    folder, lines = eight
    with np.load(folder / "states.npz") as states:
        names = [name[1:] for name in states if name.startswith("1")]
        assert len(names) > 100
        for name in names:
            # Measured: at most 1.2e-7 in the parameters and 1.2e-6 in the statistics, because the devices'
            # parts are added in another order. With statistics of each device's own example, or with other
            # augmentation, nothing would agree.
            one, eight = states["1" + name], states["8" + name]
            np.testing.assert_allclose(eight, one, rtol=1e-5, atol=5e-6, err_msg=name)
    messages = [line for line in lines if line.startswith("train.batch_size=")]
    assert messages == [
        "train.batch_size=12 must be a positive multiple of the 8 devices.",
        "train.batch_size=0 must be a positive multiple of the 8 devices.",
    ]
    (facts,) = [line for line in lines if line.startswith("[{")]
    sent, parameters, statistics = json.loads(facts)
    # The gradients except those of cancelled biases, each norm's mean and mean of squares, and at most 16
    # numbers for the loss: in the backward pass a norm needs no sums except the gradients of its scale and
    # bias.
    (sizes,) = sent.values()
    assert sent.keys() == {"all-reduce"}
    assert 0 <= sum(sizes) - 4 * (parameters + statistics) <= 4 * 16


@pytest.mark.usefixtures("small_model")
def test_a_run_of_eight_devices_resumes_on_any_number(eight, two, tiny, state_of, alike):
    (begun, _), (resumed, runs) = eight, two
    hosts, machine, continues, *_ = runs[0][0]["resumed"]
    assert hosts.startswith("This process 0 of 2 runs on ") and "4 x cpu" in machine
    assert continues == "Continues after step 2 of 4."

    config = tiny(CHANGES)
    workdirs = {"8": begun / "8", "1": begun / "1", "processes": resumed / "resumed"}
    states = {name: state_of(config, workdir, 4) for name, workdir in workdirs.items()}
    for state in states.values():
        assert state.step == 4
        # The devices' parts of a sum are added in another order, and Adam divides by small numbers, too.
        close(state, states["8"], rtol=1e-3, atol=1e-5)

    many, one = (json.loads((begun / f"begun_on_{count}/evaluation.json").read_text()) for count in (8, 1))
    alike(one, many)
    assert many["examples"] == 13


@pytest.mark.usefixtures("small_model")
def test_two_processes_give_the_run_of_one(eight, two, tiny, state_of, metrics_of, alike):
    workdirs, runs = (eight[0] / "one", two[0] / "whole"), two[1]
    first, second = (found["whole"] for found, _ in runs)
    assert second == [  # the first process prints for both
        f"This process 1 of 2 runs on {HOST}; process 0 on {HOST} writes the log and the files."
    ]
    assert first[2] == f"This process 0 of 2 runs on {HOST}, 1 on {HOST}."
    assert "40 canvases of 48 px take" in first[0] and "4 x cpu, batch 8." in first[3]

    one, both = (state_of(tiny(CHANGES), workdir, 4) for workdir in workdirs)
    assert one.step == both.step == 4
    close(both, one, rtol=1e-3, atol=1e-5)
    for a, b in zip(*(metrics_of(workdir) for workdir in workdirs), strict=True):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for name in a.keys() - {*log.CLOCKED}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
    alike(*(json.loads((workdir / "evaluation.json").read_text()) for workdir in workdirs))
    a, b = (json.loads((workdir / "predictions.json").read_text()) for workdir in workdirs)
    ids = [f"synthetic-validation-{i:06d}" for i in range(13)]
    assert [p["id"] for p in a] == [p["id"] for p in b] == ids
    np.testing.assert_allclose([p["joints"] for p in a], [p["joints"] for p in b], atol=2e-3)
    np.testing.assert_allclose([p["scores"] for p in a], [p["scores"] for p in b], atol=2e-4)


def test_processes_with_different_configs_and_data_are_all_refused(two):
    expected = (
        "The processes differ: from process 0 to process 1, config.data.variety: 0.25 -> 0.5; "
        "config.seed: 0 -> 1"
    )
    for found, _ in two[1]:
        (line,) = found["different"]
        assert line.startswith(expected)
    assert not (two[0] / "different").exists()


def test_a_process_that_cannot_start_ends_all(two):
    refused = "seed=-1 is out of range; choose 0 to 4294967295."
    first, second = ([line for line in errors if line.startswith("Error: ")] for _, errors in two[1])
    assert second == [f"Error: {refused}"] and first == [f"Error: Process 1 ({HOST}): {refused}"]
    assert not (two[0] / "impossible").exists()
