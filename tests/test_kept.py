"""Facts and programs that are kept between processes, and those that a start-up computes again."""

import dataclasses
import os

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import inference, kept, models, network
from hourglass_jax.pose import skeletons
from hourglass_jax.transforms import fold_norms, per_example

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


def test_the_oldest_files_are_removed_first(tmp_path):
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


class Scaled:
    """values -> their cosine times a factor; counts how often it is traced."""

    def __init__(self, factor=2.0):
        self.factor, self.traced = factor, 0

    def __call__(self, variables, values):
        self.traced += 1
        return {"cosines": self.factor * variables["a"] * jnp.cos(values)}, [values.sum()]


VALUES = {"a": np.float32([0.3])}, np.arange(6, dtype=np.float32)


def call(function, *args, about=("x",), **options):
    return jax.device_get(kept.program("scaled", about, function, platform="cpu", **options)(*args))


def programs(folder):
    return sorted(folder.glob("*.program")) if folder.exists() else []


def test_a_program_is_traced_once_for_all_processes(folder, same):
    first, second = Scaled(), Scaled()
    plain = jax.device_get(jax.jit(Scaled())(*VALUES))
    same(call(first, *VALUES), plain)
    assert first.traced == 1 and len(programs(folder)) == 1
    run = kept.program("scaled", ["x"], second, platform="cpu")
    for _ in range(2):
        same(jax.device_get(run(*VALUES)), plain)
    assert second.traced == 0
    longer = VALUES[0], np.arange(7, dtype=np.float32)
    same(jax.device_get(run(*longer)), jax.device_get(jax.jit(Scaled())(*longer)))
    assert second.traced == 1 and len(programs(folder)) == 2  # one for each shape


def test_a_program_is_traced_again_if_anything_that_it_depends_on_differs(folder, monkeypatch):
    call(Scaled(), *VALUES)
    call(Scaled(), *VALUES, about=("y",))
    call(Scaled(), VALUES[0], VALUES[1].astype(np.float16))
    with jax.default_matmul_precision("float32"):
        call(Scaled(), *VALUES)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    call(Scaled(), *VALUES)
    monkeypatch.setattr(kept, "_code", lambda: ["another version"])
    call(Scaled(), *VALUES)
    assert len(programs(folder)) == 6
    never, off = Scaled(), Scaled()
    call(never, *VALUES, about=None)
    kept.keep(None)
    call(off, *VALUES)
    assert never.traced == off.traced == 1


def test_a_damaged_program_is_traced_and_written_again(folder, same):
    plain = call(Scaled(), *VALUES)
    (path,) = programs(folder)
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:-9], whole[32:], whole[:99] + bytes([whole[99] ^ 1]) + whole[100:]):
        path.write_bytes(damaged)
        function, after = Scaled(), Scaled()
        same(call(function, *VALUES), plain)
        assert function.traced == 1
        same(call(after, *VALUES), plain)
        assert after.traced == 0 and programs(folder) == [path]


def test_without_a_folder_to_write_in_a_program_is_traced(tmp_path, same):
    (tmp_path / "file").write_text("")
    kept.keep(tmp_path / "file" / "facts")
    try:
        same(call(Scaled(), *VALUES), jax.device_get(jax.jit(Scaled())(*VALUES)))
    finally:
        kept.keep(None)


def test_a_program_that_jax_does_not_export_runs(folder):
    def function(values):
        return jax.pure_callback(lambda x: np.asarray(x) + 1, jax.typeof(values), values)

    for _ in range(2):
        np.testing.assert_array_equal(call(function, VALUES[1]), VALUES[1] + 1)
    assert not programs(folder)


def test_the_error_of_a_function_is_raised_unchanged(folder):
    def function(values):
        raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        call(function, VALUES[1])


SYSTEMS = {"chu": {"window": 3}, "selvam": {"attention_width": 8}, "tang": {"branch_width": 8}}


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_each_systems_programs_are_kept(folder, monkeypatch, name):
    """They are lowered only; the estimator's tests check their results."""
    fields = {"name": name, "stacks": 1, "width": 8, "depth": 1} | SYSTEMS.get(name, {})
    metadata = dataclasses.replace(METADATA, config=METADATA.config | {"model": fields})
    of = network.network_of(metadata)
    variables = network.abstract(of, None)
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    estimate = inference.Estimator(of, canvas=32, margin=1.0, flip=True)
    lowered = []
    monkeypatch.setattr(per_example, "examples", lambda program, **others: lowered.append((program, others)))
    per_example.estimator(estimate, mesh, about=network.about(of, metadata))
    ((program, others),) = lowered
    views = jax.eval_shape(others["views"], jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8))
    assert views.shape == (2, 32, 32, 3)
    outputs = jax.eval_shape(program, variables, jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    twice = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), outputs)
    assert jax.eval_shape(others["result"], twice)[0].shape == (1, 1, 14, 2)
    assert {path.name.split("-")[0] for path in programs(folder)} == {"views", "forward", "result"}
