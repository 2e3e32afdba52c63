"""Facts that are kept between processes, and facts that a start-up computes again."""

import dataclasses
import os

import conftest
import jax
import numpy as np
import pytest

from hourglass_jax import kept, network
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import fold_norms

METADATA = network.Metadata(
    {
        "model": {"name": "newell", "stacks": 1, "width": 8, "depth": 1},
        "data": {"size": 32, "mean": (0.5, 0.5, 0.5)},
        "loss": {"sigma": 1.0, "kind": "mse"},
    },
    skeletons.LSP.to_dict(),
    1,
)


@pytest.fixture
def folder(tmp_path):
    kept.keep(tmp_path / "facts")
    yield tmp_path / "facts"
    kept.keep(None)


def test_a_fact_is_computed_once_per_set_of_inputs(folder, monkeypatch):
    asked = []

    def compute():
        asked.append(1)
        return {"a": [1, 0.1]}

    for _ in range(2):
        assert kept.fact("kind", ["x", 1], compute) == {"a": [1, 0.1]}
    assert len(asked) == 1 and len(list(folder.iterdir())) == 1
    kept.fact("kind", ["x", 2], compute)
    kept.fact("other", ["x", 1], compute)
    assert len(asked) == 3
    for path in folder.iterdir():
        path.write_text('{"a": [1,')  # damaged
    assert kept.fact("kind", ["x", 1], compute) == {"a": [1, 0.1]} and len(asked) == 4
    kept.fact("kind", None, compute)
    monkeypatch.setattr(kept, "_code", lambda: ["another version"])
    kept.fact("kind", ["x", 1], compute)
    assert len(asked) == 6
    kept.keep(None)
    kept.fact("kind", ["x", 1], compute)
    assert len(asked) == 7


def test_the_oldest_go_first(tmp_path):
    for number in range(8):
        path = tmp_path / f"{number}.json"
        path.write_bytes(b"0" * 100)
        os.utime(path, (1000 + (number * 3) % 8, 1000))
    kept.prune(tmp_path, "*.json", count=8, size=800)
    assert len(list(tmp_path.iterdir())) == 8  # within the limits
    kept.prune(tmp_path, "*.json", size=799)  # to three quarters: five files
    # Used in the order 0 3 6 1 4 7 2 5: the oldest three are 0, 3 and 6.
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["1", "2", "4", "5", "7"]
    kept.prune(tmp_path / "none", "*", count=0)


def test_a_network_is_the_same_with_kept_facts(folder, monkeypatch):
    of = network.network_of(METADATA)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    plain = network.abstract(of, sharding)
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), plain)
    expected = fold_norms.fold(of, variables)[1]
    for traced in (True, False):
        if not traced:  # the second time nothing is
            monkeypatch.setattr(jax, "eval_shape", None)
            monkeypatch.setattr(fold_norms, "_norms", None)
        about = network.about(of, METADATA)
        found = network.abstract(of, sharding, about=about)
        assert found == plain and jax.tree.structure(found) == jax.tree.structure(plain)
        folded = fold_norms.fold(of, variables, about=about)[1]
        assert jax.tree.structure(folded) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, folded, expected)
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"norms", "shapes"}


def test_a_model_from_elsewhere_is_traced_whatever_its_config():
    """Another model may have the same config, and its source is not watched."""
    of = network.network_of(METADATA)
    assert network.about(of, METADATA) is not None and network.about(of, network.Metadata()) is None
    assert network.about(dataclasses.replace(of, model=conftest.Small()), METADATA) is None
