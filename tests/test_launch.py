"""The launch scripts with stand-ins for gcloud's and SLURM's commands: each call, in order."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TRAINING = ["--config=configs/newell.py:stacks=8", "--workdir=gs://bucket/hg8"]
CREATE = (
    "compute tpus queued-resources create hg8 --node-id=hg8 --zone=us-west4-a "
    "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot"
)
DESCRIBE = "compute tpus queued-resources describe hg8 --zone=us-west4-a --format=value(state.state)"
COPY = "compute tpus tpu-vm scp ARCHIVE hg8:hourglass_jax.tar.gz --zone=us-west4-a --worker=all"
SSH = "compute tpus tpu-vm ssh hg8 --zone=us-west4-a --worker="
DELETE = "compute tpus queued-resources delete hg8 --zone=us-west4-a --force --quiet"
# Records its arguments, one call per line, and gives the next matching reply.
STANDIN = """#!/usr/bin/env bash
printf '%q ' "$@" >> RECORD; echo >> RECORD
case "$*" in
  *describe*) kind=states ;;
  *is-active*) kind=looks ;;
  *" create "*) kind=creates ;;
  *) exit 0 ;;
esac
answer=$(head -n 1 FOLDER/$kind); sed -i 1d FOLDER/$kind
[ "$answer" = error ] && exit 1
echo "$answer"
"""


@pytest.fixture
def launch(tmp_path):
    """Runs a script with stand-ins of these names: (exit code, errors, calls)."""

    def run(script, *arguments, names=("gcloud",), program=STANDIN, env=(), **answers):
        record = tmp_path / "record"
        record.write_text("")
        for kind, values in answers.items():
            (tmp_path / kind).write_text("\n".join(values) + "\n")
        for name in names:
            content = program.replace("RECORD", str(record)).replace("FOLDER", str(tmp_path))
            (tmp_path / name).write_text(content.replace("NAME", name))
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / script), *arguments],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PAUSE": "0"} | dict(env),
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = [shlex.split(line) for line in record.read_text().splitlines()]
        plain = [[re.sub(r"^/.*\.tar\.gz$", "ARCHIVE", word) for word in call] for call in calls]
        return done.returncode, done.stderr, [" ".join(call) for call in plain]

    return run


def flags(command, *more):
    return [command, "hg8", "--zone=us-west4-a", *more, "--", *TRAINING]


def short(calls):
    """The kinds of the calls, in order."""
    kinds = {
        **{" create ": "create", " describe ": "state", " scp ": "copy", "--install": "install"},
        **{"systemd-run": "start", "is-active": "look", "--lines=20": "lines", " delete ": "delete"},
    }
    return [next(kind for text, kind in kinds.items() if text in call) for call in calls]


def test_a_preempted_slice_is_created_again_until_the_training_has_ended(launch):
    code, errors, calls = launch(
        "tpu_vm.sh",
        *flags("run", "--type=v5litepod-16", "--spot"),
        creates=["", "", ""],
        states=[
            "WAITING_FOR_RESOURCES",
            "ACTIVE",
            "ACTIVE",
            "ACTIVE",
            "SUSPENDED",
            "FAILED",
            "ACTIVE",
            "ACTIVE",
        ],
        looks=["active", "error", "inactive"],
    )
    assert code == 0, errors
    assert short(calls) == [
        *("create", "state", "state", "copy", "install", "start", "state", "look", "state", "look", "state"),
        *("delete", "create", "state", "delete"),  # not given
        *("create", "state", "copy", "install", "start", "state", "look", "lines", "delete"),
    ]
    assert (calls[0], calls[1], calls[3], calls[-1]) == (CREATE, DESCRIBE, COPY, DELETE)
    install, start = calls[4], calls[5]
    assert install.startswith(f"{SSH}all --command=mkdir -p hourglass_jax && tar -xzf hourglass_jax.tar.gz")
    assert install.endswith("bash hourglass_jax/launch/tpu_worker.sh --install")
    assert "--property=Restart=on-failure" in start and "--property=TimeoutStopSec=28" in start
    assert start.endswith(f"bash launch/tpu_worker.sh {' '.join(TRAINING)}")


def test_a_stopped_training_on_a_slice_that_stays_starts_again_and_a_failed_one_ends(launch):
    code, errors, calls = launch(
        "tpu_vm.sh",
        *flags("run", "--type=v6e-8"),
        creates=[""],
        states=["ACTIVE"] * 4,
        looks=["stopped", "failed"],
    )
    assert code == 1 and errors.endswith("Error: the training failed; its last lines are above.\n")
    again = ["state", "start", "state", "look"]
    assert short(calls)[4:] == ["start", "state", "look", *again, "lines", "delete"]
    assert "--runtime-version=v2-alpha-tpuv6e" in calls[0] and "--spot" not in calls[0]


def test_a_dry_run_prints_the_commands_and_runs_none(launch):
    code, errors, calls = launch("tpu_vm.sh", *flags("run", "--type=v5litepod-16", "--spot", "--dry-run"))
    printed = [" ".join(shlex.split(line)[1:]) for line in errors.splitlines()]
    assert (code, calls) == (0, [])
    assert short(printed) == [
        *("create", "state", "copy", "install", "start", "state", "look", "lines", "delete")
    ]
    assert printed[0] == CREATE and printed[-1] == DELETE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly", "hg8"], "no command 'fly'; there are run, create"),
        (["run"], "NAME='': expected small letters"),
        (["log", "hg8"], "--zone=ZONE must be given."),
        (["create", "hg8", "--zone=a"], "--type=TYPE must be given, such as v5litepod-8."),
        (["start", "hg8", "--zone=a"], "the training's flags must follow --"),
        (
            ["log", "hg8", "--zone=a", "--config=b"],
            "--config=b is unknown; the training's own flags come after --.",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_any_request(launch, words, message):
    code, errors, calls = launch("tpu_vm.sh", *words)
    assert (code, calls) == (2, []) and errors.startswith(f"Error: {message}")


@pytest.mark.parametrize(
    ("last", "again"), [("Stopped after step 7, which is saved;", True), ("Mean 90", False)]
)
def test_a_slurm_job_that_was_stopped_is_queued_again(launch, last, again):
    program = f"""#!/usr/bin/env bash
printf '%q ' NAME "$@" >> RECORD; echo >> RECORD
case "NAME $*" in *--distributed*) printf 'step 7/9\\n{last}\\n' ;; esac
"""
    env = {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(ROOT)}
    code, errors, calls = launch("slurm.sh", *TRAINING, names=("srun", "scontrol"), program=program, env=env)
    assert code == 0, errors
    assert calls[:2] == [
        "srun --nodes=1 --ntasks=1 bash launch/gpu.sh --help",
        f"srun --kill-on-bad-exit=1 bash launch/gpu.sh --distributed {' '.join(TRAINING)}",
    ]
    assert calls[2:] == (["scontrol requeue 42"] if again else [])
    image = dict(env, IMAGE="registry/hourglass:gpu")
    _, _, calls = launch("slurm.sh", *TRAINING, names=("srun", "scontrol"), program=program, env=image)
    assert (
        "--container-image=registry/hourglass:gpu" in calls[0]
        and " hourglass train --distributed" in calls[0]
    )
