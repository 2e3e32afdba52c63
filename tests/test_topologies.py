"""Accelerators that are not here, and the text of programs that are compiled for them."""

import sys

import jax
import jax.numpy as jnp
import pytest

from hourglass_jax import topologies
from hourglass_jax.benchmarks import hlo


def test_names_are_chips_and_their_number():
    assert topologies.parsed("v5e:2x4") == ("v5e", 8)
    assert topologies.parsed("h100:8") == ("h100", 8)
    assert topologies.described("v5e:16x16")["TPU_ACCELERATOR_TYPE"] == "v5litepod-256"


@pytest.mark.parametrize("name", ["v5e", "v5e:8", "v9:2x2", "h100:2x4", "h100:0", "h100:", "v5e:0x4", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"^--topology={name}: expected .* v5e, v6e, a100, h100.$"):
        topologies.mesh_of(name)


@pytest.mark.parametrize("name, module", [("v5e:2x4", "libtpu"), ("h100:8", "jax_cuda13_plugin")])
def test_a_missing_compiler_is_one_line(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"^--topology={name} needs {module.replace('_', '.')}, which"):
        topologies.mesh_of(name)


@pytest.fixture
def settings():
    """Keeps JAX's settings for the other tests."""
    before = {name: jax.config.values[name] for name in ("jax_platforms", "jax_enable_compilation_cache")}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_gpus_program_is_compiled_without_it(settings):
    pytest.importorskip("jax_cuda13_plugin")
    mesh = topologies.mesh_of("h100:2")
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=spread)
    program = jax.jit(lambda x: jnp.sum(x * x)).lower(x).compile()
    assert program.memory_analysis().argument_size_in_bytes == 4 * 128 * 4
    assert hlo.collectives(program.as_text()) == {"all-reduce": [4]}


PROGRAM = """\
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %all-reduce.3 = f32[2]{0} all-reduce(%d), channel_id=4, to_apply=%add
}

%inner_condition (p: (s32[], f32[2])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  ROOT %lt.0 = pred[] compare(%i, %limit), direction=LT
}

%outer (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %while.1 = (s32[], f32[2]) while(%t), condition=%inner_condition, body=%inner
  %all-reduce.4 = f32[] all-reduce(%d), channel_id=5, to_apply=%add
}

%unknown (p: (s32[], f32[2])) -> pred[] {
  ROOT %lt.1 = pred[] compare(%i, %j), direction=LT
}

ENTRY %main (x: f32[2], /*index=1*/y: f32[2]) -> f32[2] {
  %all-reduce.1 = (f32[2]{0}, f32[3,4]{1,0}) all-reduce(%a, %b), channel_id=2, to_apply=%add
  %all-reduce-start = f32[] all-reduce-start(%c), channel_id=3, to_apply=%add
  %all-reduce-done = f32[] all-reduce-done(%all-reduce-start)
  %all-gather-start = (u8[1,48,48,3]{3,2,1,0}, u8[8,48,48,3]{3,2,1,0}) all-gather-start(%d), dimensions={0}
  %while.2 = (s32[], f32[2]) while(%t), condition=%unknown, body=%outer, backend_config={KNOWN}
  ROOT %fusion = f32[2]{0} fusion(%all-reduce.1), metadata={op_name="jit(step)/all-reduce"}
}
"""


@pytest.mark.parametrize("known, times", [('"known_trip_count":{"n":"5"}', 5), ("", 1)])
def test_operations_of_loops_count_as_often_as_they_run(known, times):
    program = PROGRAM.replace("KNOWN", known)
    assert hlo.collectives(program) == {
        "all-reduce": [8] * 3 * times + [4] * times + [4 * (2 + 12), 4],
        "all-gather": [8 * 48 * 48 * 3],
    }


def test_a_scans_operations_count_as_often_as_it_runs():
    def body(total, x):
        return jax.lax.psum(total, "data") * x, None

    mesh = jax.make_mesh((1,), ("data",))
    spec = jax.sharding.PartitionSpec()
    loop = jax.shard_map(lambda x: jax.lax.scan(body, x[0], x)[0], mesh=mesh, in_specs=spec, out_specs=spec)
    text = jax.jit(loop).lower(jnp.ones((7, 3))).compile().as_text()
    runs = [times for line, times in hlo.operations(text) if " multiply(" in line]
    assert max(runs) == 7, text
