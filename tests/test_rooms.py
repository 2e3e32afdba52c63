"""The rooms: imports point down the list of docs/architecture.md, and there are no circular imports."""

import ast
import graphlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
(LIST,) = re.findall(
    r"^```\n(__main__\n.*?)^```", (ROOT / "docs" / "architecture.md").read_text(), re.M | re.S
)
LAYERS = {name: height for height, line in enumerate(reversed(LIST.splitlines())) for name in line.split()}


def modules():
    """{name within the package: syntax tree}"""
    found = {}
    for path in sorted((ROOT / "hourglass_jax").rglob("*.py")):
        parts = path.relative_to(ROOT / "hourglass_jax").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports(tree, known):
    """The package's modules that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hourglass_jax"):
            inner = node.module.removeprefix("hourglass_jax").removeprefix(".")
            for alias in node.names:
                full = f"{inner}.{alias.name}".removeprefix(".")
                yield full if full in known else inner
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports name the whole package"


def place(name):
    """The most specific entry of the list."""
    while name not in LAYERS and "." in name:
        name = name.rpartition(".")[0]
    return name


MODULES = modules()
ARROWS = {name: set(imports(tree, MODULES)) - {"", name} for name, tree in MODULES.items() if name}


def test_every_module_is_in_the_list_and_the_list_has_no_others():
    assert {place(name) for name in ARROWS} == set(LAYERS)


def test_imports_point_down():
    upward = [
        f"{name} -> {other}"
        for name, others in ARROWS.items()
        for other in others
        if place(name) != place(other) and LAYERS[place(name)] <= LAYERS[place(other)]
    ]
    assert len(ARROWS) > 60 and not upward


def test_there_are_no_circular_imports():
    order = list(graphlib.TopologicalSorter(ARROWS).static_order())  # raises CycleError
    assert order.index("files") < order.index("cli")
