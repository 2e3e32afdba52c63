"""The suite itself: the tests that the inner loop leaves out exist."""

import pathlib
import re

import conftest

TESTS = pathlib.Path(__file__).parent


def test_every_test_of_slow_txt_exists():
    functions = {
        f"{path.relative_to(TESTS).as_posix()}::{name}"
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    gone = sorted(name for name in conftest.SLOW if name.partition("[")[0] not in functions)
    assert not gone, "rename or remove them in tests/slow.txt"
    assert len(conftest.SLOW) < len(functions) / 4  # the inner loop has most of the suite
