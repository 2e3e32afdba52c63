"""The table of a TPU compiler's estimates: its arithmetic, and that finished programs are kept."""

import argparse
import json
import sys
import types

import pytest

from hourglass_jax.benchmarks import tpu
from launch import benchmark

PROGRAM = """
  %fusion.1 = bf16[8,64,64,128]{3,2,1,0} fusion(%a), \
metadata={op_name="jit(step)/jvp(Net)/stem/unit0/dot_general"}, \
backend_config={"estimated_cycles":"100"}
  %fusion.2 = bf16[8,64,64,128]{3,2,1,0} fusion(%a), \
metadata={op_name="jit(step)/transpose(jvp(Net))/stack1_hourglass/level0/reduce_sum"}, \
backend_config={"window_config":{},"estimated_cycles":"300"}
  %copy.3 = u8[8,64,64,3]{3,2,1,0} copy(%b), metadata={op_name="args[1][\\'image\\']"}, \
backend_config={"estimated_cycles":"50"}
  %all-reduce.1 = (f32[64]{0}, f32[32]{0}) all-reduce(%c, %d), to_apply=%add
  %reduce-window.1 = f32[8]{0} reduce-window(%e, %f), window={size=2}
"""
SEEN = {"operations": 131072 * 225.0, "bytes": 2.5e9, "temporary": 1e9, "seconds": 61.2}
SMALL = ["--networks=newell:1", "--tasks", "train", "predict", "--width=16", "--depth=1", "--size=64"]


def test_cycles_are_summed_by_kind_module_and_pass():
    seen = tpu.analysed(PROGRAM)
    assert (seen["cycles"], seen["blind"], seen["sent"]) == (450, 2, {"all-reduce": [4 * (64 + 32)]})
    assert seen["where"] == {
        "kind": {"sums": 300, "products": 100, "copies": 50},
        "module": {"hourglass": 300, "stem": 100, "augment": 50},
        "pass": {"backward": 300, "forward and the rest": 150},
    }


def arguments(*words):
    parser = argparse.ArgumentParser()
    tpu.add(lambda *_, **__: parser)
    return parser.parse_args(words)


def test_a_row_states_the_share_of_the_peak():
    (case,) = tpu.cases(arguments("--networks=chu:8", "--tasks=train"))
    row = tpu.row(case, tpu.analysed(PROGRAM) | SEEN)
    assert (row["system"], row["stacks"], row["batch"], row["dtype"]) == ("chu", 8, 8, "bfloat16")
    # Half of 450 cycles at 4 x 128 x 128 multiply-adds.
    assert row["of the peak, at best"] == "50.0 %"
    assert (row["GB a chip"], row["sent"], row["compile s"]) == (2.5, "1 all-reduce 0.00 MB", 61)
    # The peak of other chips is not known.
    assert tpu.row(case | {"topology": "v6e:2x4"}, tpu.analysed(PROGRAM) | SEEN)["of the peak, at best"] == ""


@pytest.mark.parametrize("words", ["--networks=hourglass:2", "--networks=newell", "--topology=v9:2x2"])
def test_unknown_networks_and_chips_are_refused(words):
    with pytest.raises(ValueError, match="newell:2|v5e, v6e"):
        tpu.cases(arguments(words))


def test_finished_programs_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", types.ModuleType("libtpu"))
    calls = []

    def process(case, seconds):
        if len(calls) == 1:
            calls.append(None)
            raise ValueError("killed")
        calls.append(case["task"])
        return tpu.analysed(PROGRAM) | SEEN

    monkeypatch.setattr(tpu, "_in_a_process", process)
    command = ["tpu", *SMALL, f"--output={tmp_path}"]
    assert benchmark.main(command) == 1 and "killed" in capsys.readouterr().err
    assert benchmark.main(command) == 0
    assert calls == ["train", None, "predict"]
    result = json.loads((tmp_path / "tpu.json").read_text())
    assert [row["task"] for row in result["rows"]] == ["train", "predict"]
    out = capsys.readouterr().out
    assert "Estimates of the TPU's compiler, not measured speed" in out
    assert "newell:1 train bfloat16 8, cycles by kind: sums 67 %, products 22 %, copies 11 %" in out
    assert (tmp_path / "tpu.png").stat().st_size > 1000


def test_a_missing_compiler_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert benchmark.main(["tpu", *SMALL]) == 1
    assert "libtpu" in (said := capsys.readouterr().err) and "hourglass_jax[tpu]" in said


@pytest.mark.slow
def test_a_small_prediction_compiles_for_a_chip():
    pytest.importorskip("libtpu")
    case = {"network": "newell:1", "task": "predict", "dtype": "bfloat16", "batch": 1, "topology": "v5e:2x4"}
    seen = tpu._in_a_process(
        case | {"chips": None, "width": 16, "depth": 1, "size": 64, "remat": "", "norm_group": 0}, 400
    )
    assert seen["cycles"] > 0 and seen["operations"] > 0 and seen["sent"] == {}


def test_an_error_says_that_libtpu_is_of_another_jax(monkeypatch):
    fails = types.SimpleNamespace(returncode=1, stderr="INTERNAL: RET_CHECK failure", stdout="")
    monkeypatch.setattr(tpu.subprocess, "run", lambda *args, **kwargs: fails)
    monkeypatch.setattr(
        tpu.metadata, "requires", lambda name: ["numpy>=2", 'libtpu==0.0.42.*; extra == "tpu"']
    )
    case = {"network": "newell:1", "task": "predict", "topology": "v6e:2x4"}
    other = r" \(libtpu is 0.0.52, but JAX .* needs 0.0.42: pip install 'jax\[tpu\]'\)"
    for version, hint in {"0.0.42": "", "0.0.42.1": "", "0.0.52": other}.items():
        monkeypatch.setattr(tpu.metadata, "version", lambda name, version=version: version)
        with pytest.raises(ValueError, match=f"^newell:1 predict: INTERNAL: RET_CHECK failure{hint}$"):
            tpu._in_a_process(case, 1)


def test_the_steps_scopes_are_parts_outside_the_network():
    found = [
        tpu.module_of(f"jit(step)/{path}")
        for path in (
            "augment/vmap()/floor",
            "jvp(loss)/mul",
            "transpose(jvp(loss))/mul",
            "update/add",
            "isfinite",
        )
    ]
    assert found == ["augment", "loss", "loss", "update", "the rest"]
    assert tpu.module_of("jit(step)/jvp(Model)/stack1_lin_norm/reduce_sum") == "lin_norm"
