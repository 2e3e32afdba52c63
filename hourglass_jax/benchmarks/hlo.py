"""The text of a compiled program (HLO): how often each operation runs, and the bytes of collectives."""

import collections
import math
import re
from collections.abc import Iterator

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")  # of a computation, which ends with "}"
_LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LIMIT = re.compile(r"ROOT .* compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}


def operations(text: str) -> Iterator[tuple[str, int]]:
    """(line, number of times that it runs) for each operation; those within loops run several times.

    Loops count if they run from 0 to a constant, or if the compiler has noted their number; others count 1.
    """
    bodies, name = collections.defaultdict(list), ""
    for line in text.splitlines():
        if found := _HEAD.match(line):
            name = found[2]
        elif line.startswith("}"):
            name = ""
        else:
            bodies[name].append(line)
    times = dict.fromkeys(bodies, 1)
    # A computation is printed before the one that uses it, so that from the last to the first each loop's own
    # number is known.
    for name, lines in reversed(bodies.items()):
        for line in lines:
            if found := _LOOP.search(line):
                condition, body = found.groups()
                times[body] = times[name] * _trips(line, bodies[condition])
            else:
                for used in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", line):
                    times[used] = max(times.get(used, 1), times[name])
    for name, lines in bodies.items():
        yield from ((line, times[name]) for line in lines)


def _trips(loop: str, condition: list[str]) -> int:
    """The iterations of a loop from its line and its condition, see `operations`."""
    if known := _KNOWN.search(loop):
        return int(known[1])
    for line in condition:
        if found := _LIMIT.search(line):
            limit = re.search(rf"%?{re.escape(found[2])} = .* constant\((\d+)\)", "\n".join(condition))
            return int(limit[1]) if limit else 1
    return 1


def collectives(text: str) -> dict[str, list[int]]:
    """{kind: bytes of each operation}; an operation within a loop is there as often as it runs."""
    found = {}
    for line, times in operations(text):
        if match := _COLLECTIVE.search(line):
            result, kind, starts = match.groups()
            sizes = [
                _BYTES[name] * math.prod(map(int, filter(None, shape.split(","))))
                for name, shape in _ARRAY.findall(result)
            ]
            # The start of a gather or permutation also returns its operands.
            size = sum(sizes) if kind == "all-reduce" or not starts else max(sizes)
            found.setdefault(kind, []).extend([size] * times)
    return found
