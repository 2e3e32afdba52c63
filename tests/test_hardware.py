"""A run that resumes on different devices."""

import json
import shutil

import conftest
import jax
import numpy as np
import pytest


@pytest.mark.usefixtures("small_model")
def test_a_run_of_eight_devices_resumes_on_any_number(run_python, start, tiny, state_of, alike, tmp_path):
    result = run_python("runs_on_fewer_devices.py", tmp_path, devices=8)
    assert result.returncode == 0, result.stderr
    changes = {"train.steps": 4, "train.save_every": 1, "loss.kind": "mean_squared_error"}
    config = tiny(changes | {"data.examples": (40, 13)})
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(config.to_json())

    # It also resumes in two processes with two devices each.
    shutil.copytree(tmp_path / "begun", tmp_path / "processes")
    flags = [
        "--distributed",
        f"--coordinator=localhost:{conftest.free_port()}",
        "--processes=2",
        "--allow_changed_config",
    ]
    two = [start(config, tmp_path / "processes", *flags, f"--process={i}", devices=2) for i in range(2)]
    assert [run.end() for run in two] == [0, 0], [run.errors for run in two]
    hosts, machine, resumed, *_ = two[0].output
    assert hosts.startswith("This process 0 of 2 runs on ") and "4 x cpu" in machine
    assert resumed == "Continues after step 2 of 4."

    states = {name: state_of(config, tmp_path / name, 4) for name in ("8", "1", "processes")}
    for name, state in states.items():
        assert state.step == 4
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(states["8"]), strict=True):
            # The devices' parts of a sum are added in another order, and Adam divides by small numbers, too.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)

    many, one = (
        json.loads((tmp_path / f"begun_on_{count}" / "evaluation.json").read_text()) for count in (8, 1)
    )
    alike(one, many)
    assert many["examples"] == 13
