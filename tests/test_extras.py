"""Optional packages: different errors for a missing package and for one that does not load."""

import importlib
import pathlib
import sys
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hourglass_jax import extras

PROJECT = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


@pytest.mark.parametrize("module, extra", extras.EXTRAS.items())
def test_an_extra_installs_the_named_package(module, extra):
    wanted = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    names = {canonicalize_name(one.name) for one in wanted}
    for one in wanted:  # the extras of JAX install the version that belongs to it
        for line in metadata.requires(one.name) or [] if one.name == "jax" else []:
            inner = Requirement(line)
            if inner.marker and any(f'extra == "{name}"' in str(inner.marker) for name in one.extras):
                names.add(canonicalize_name(inner.name))
    assert names & {canonicalize_name(DISTRIBUTIONS.get(module, module)), f"{module}-cpu"}


def test_a_missing_package_and_a_broken_one_get_different_errors(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as error, extras.needed("torch", "a.pth: reading it"):
        importlib.import_module("torch")
    assert str(error.value) == (
        "a.pth: reading it needs PyTorch, which is not installed: pip install 'hourglass_jax[torch]'."
    )
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch.py").write_text("import torch_libraries")
    with pytest.raises(ValueError) as error, extras.needed("torch", "it", error=ValueError):
        importlib.import_module("torch")
    assert str(error.value) == (
        "it needs PyTorch, which is installed but does not load (No module named 'torch_libraries'); "
        "install it again."
    )
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open')")
    with pytest.raises(ImportError, match="does not load .libcudart.so"), extras.needed("torch", "it"):
        importlib.import_module("torch")
