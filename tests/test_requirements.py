"""The lock of the checks' packages: all required packages, within their ranges, with hashes."""

import os
import pathlib
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = {canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+)", LOCK, re.M)}


@pytest.mark.parametrize("name", ["requirements-minimal.txt", "requirements.txt"])
def test_the_lock_satisfies_the_ranges(name):
    lines = (line.partition(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]
    assert len(wanted) >= 10
    for one in wanted:
        # The lock is for Linux on x86_64.
        if one.marker is None or one.marker.evaluate({"platform_machine": "x86_64"}):
            assert one.specifier.contains(LOCKED[canonicalize_name(one.name)]), one


def _requirements(name):
    """{name: (specifier, marker)} of a file of requirements."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return _by_name(line for line in lines if line and not line.startswith(("#", "-r")))


def _by_name(lines):
    found = [Requirement(line) for line in lines]
    return {(canonicalize_name(r.name), str(r.marker or "")): str(r.specifier) for r in found}


def test_the_projects_file_has_the_same_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _by_name(project["dependencies"]) == _requirements("requirements-minimal.txt")
    extras = project["optional-dependencies"]
    everything = [line for name in ("data", "train", "video", "dev") for line in extras[name]]
    everything = [line for line in everything if not line.startswith("hourglass_jax[")]
    assert _by_name(everything) == _requirements("requirements.txt")
    alike = _by_name(extras["export"]).items() & _by_name(extras["data"]).items()
    assert len(alike) == 2  # TensorFlow's ranges


def test_the_lock_has_hashes_and_names_no_server():
    packages = re.split(r"^(?=[a-z])", "\n".join(re.findall(r"^[^#].*", LOCK, re.M)), flags=re.M)[1:]
    assert len(packages) == len(LOCKED) > 80
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", LOCK)


@pytest.mark.parametrize(
    ("stamp", "lock", "installs"),
    [
        ("", "", "requirements.txt"),
        ("ranges", "", None),
        ("both", "", None),  # a lock is within the ranges
        ("ranges", "lock", "lock"),
        ("both", "lock", None),
    ],
)
def test_setup_installs_only_missing_packages(tmp_path, stamp, lock, installs):
    folder = tmp_path / "launch"
    folder.mkdir()
    (folder / "setup.sh").write_text((ROOT / "launch" / "setup.sh").read_text())
    for name in ("requirements-minimal.txt", "requirements.txt", "lock"):
        (tmp_path / name).write_text(name)
    hashes = {
        "": "",
        "ranges": "$(cat requirements-minimal.txt requirements.txt | sha256sum)",
        "both": "$(cat requirements-minimal.txt requirements.txt | sha256sum) $(sha256sum < lock)",
    }
    # Replaces pip: an interpreter that prints its arguments.
    script = f"""
        cd {tmp_path}; mkdir -p .venv/bin; echo "{hashes[stamp]}" > .venv/requirements.sha256
        printf '#!/bin/sh\\necho "$@" >> called' > .venv/bin/python; chmod +x .venv/bin/python
        LOCK={lock} PYTHON=.venv/bin/python; source launch/setup.sh; cat .venv/requirements.sha256
        """
    env = {name: value for name, value in os.environ.items() if name not in ("VENV", "LOCK", "PYTHON")}
    said = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True, env=env).stdout
    called = (tmp_path / "called").read_text() if (tmp_path / "called").exists() else ""
    assert ("Installing" in said) == (installs is not None)
    assert not installs or f"-r {installs}\n" in called
