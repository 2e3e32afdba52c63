"""Tables, timings and rows of the benchmarks; every system has a row."""

import contextlib
import json
import os
import shlex
import subprocess
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs import quickstart
from hourglass_jax import models, train
from hourglass_jax.benchmarks import account, common, compiling, gpu, input, scaling, systems
from hourglass_jax.benchmarks import train as training
from hourglass_jax.data import people_builder, pipeline
from hourglass_jax.transforms import remat
from launch import benchmark


@pytest.mark.parametrize("name", models.names())
def test_every_system_has_a_small_form_a_command_and_a_measured_row(name):
    assert name in systems.SYSTEMS and name in quickstart.SYSTEMS
    command = systems.system_command(name, "runs/systems", 700)
    words = dict(w.removeprefix("--").split("=", 1) for w in shlex.split(command) if w.startswith("--"))
    config = quickstart.get_config(words["config"].partition(":")[2])
    config.train.steps = int(words["config.train.steps"])
    assert config == systems.system_config(name, 700) and config.model.name == name
    assert words["workdir"] == f"runs/systems/{name}"
    small = {"width": 32, "size": 64}
    words = systems.system_command(name, "runs/systems", 700, **small).split()
    assert f"--config=quickstart:model={name},stacks=2,width=32" in words
    assert {"--config.data.size=64", "--config.data.canvas=96"} <= set(words)
    config = systems.system_config(name, 700, **small)
    assert (config.model.width, config.data.size, config.data.canvas) == (32, 64, 96)


def test_all_systems_see_the_same_people_with_the_same_recipe():
    configs = [systems.system_config(name, 700) for name in systems.SYSTEMS]
    for section in ("data", "augment", "optimizer", "seed", "evaluate"):
        assert all(config[section] == configs[0][section] for config in configs)
    assert {config.train.batch_size for config in configs} == {16}


def test_runs_take_turns_and_the_first_is_not_counted(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])

    def run(name, seconds):
        def call():
            calls.append(name)
            clock[0] += next(seconds)

        return call

    runs = {"a": run("a", iter([100, 1, 2, 3, 4, 5])), "b": run("b", iter([50, 7, 7, 7, 7, 7]))}
    found = common.interleaved(runs, rounds=5)
    assert calls == ["a", "b"] * 6
    assert found == {"a": (2, 3, 4), "b": (7, 7, 7)}  # quartiles of 1 to 5


def test_a_table():
    rows = [{"what": "one", "x/s": 2.5, "note": "ab"}, {"what": "three", "x/s": 10, "note": ""}]
    assert common.markdown(rows).splitlines() == [
        "| what  | x/s | note |",
        "| ----- | --: | ---- |",
        "| one   | 2.5 | ab   |",
        "| three |  10 |      |",
    ]


def test_compiling_ignores_the_cache_and_leaves_it_unchanged(quick_compiles):
    before = jax.config.jax_enable_compilation_cache
    program, seconds = common.compiled(jax.jit(lambda x: x + 1), jnp.zeros(3))
    np.testing.assert_array_equal(program(jnp.ones(3)), [2, 2, 2])
    assert list(seconds) == ["trace", "lower", "compile"] and min(seconds.values()) > 0
    assert jax.config.jax_enable_compilation_cache == before
    with pytest.raises(TypeError):
        common.compiled(jax.jit(lambda x: x + None), jnp.zeros(3))
    assert jax.config.jax_enable_compilation_cache == before


@pytest.fixture
def cached_steps(small_model, quick_compiles, monkeypatch):
    """Small steps, compiled once for all tests that only measure them."""
    monkeypatch.setattr(common, "_without_cache", contextlib.nullcontext)


def test_systems_are_trained_evaluated_timed_and_found_again(
    tiny, cached_steps, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(systems, "SYSTEMS", ("newell",))
    monkeypatch.setattr(
        systems, "system_config", lambda name, steps, seed=0, **_: tiny({"train.steps": steps, "seed": seed})
    )
    folders = [f"--workdir={tmp_path}", f"--output={tmp_path / 'tables'}"]
    arguments = ["systems", *folders, "--steps=2", "--rounds=1", "--seeds=2"]
    assert benchmark.main(arguments) == 0
    result = json.loads((tmp_path / "tables" / "systems.json").read_text())
    (row,) = result["rows"]
    # `Small`: 4 x 4 x 3 x 8 weights and two of the norm for each of 8 channels; then 8 x 16 + 16 twice.
    assert row["system"] == "newell" and row["parameters"] == 384 + 16 + 2 * (128 + 16)
    assert row["train images/s"] > 0 and f"jax {jax.__version__}" in result["machine"]
    assert result["commands"][0] in capsys.readouterr().out
    # Two trainings give one number, the mean, with the smallest and the largest.
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(line["system"], line["seed"], line["steps"]) for line in lines] == [
        ("newell", s, 2) for s in (0, 1)
    ]
    means = [line["PCKh@0.5"] for line in lines]
    assert row["PCKh@0.5"] == pytest.approx(np.mean(means), abs=0.06)
    assert row["seeds"] == f"{min(means):.1f} to {max(means):.1f}"
    words = result["commands"][1].split()
    assert "--config.seed=1" in words and f"--workdir={tmp_path}/newell-seed1" in words
    assert "| newell " in (tmp_path / "tables" / "systems.md").read_text()

    # A training that was stopped leaves fewer steps.
    monkeypatch.setattr(train, "train", lambda *_: {})
    with pytest.raises(ValueError, match="resumes"):
        systems.trained_scores(tiny({"train.steps": 3}), tmp_path / "newell")


@pytest.fixture
def one_thread():
    """PyTorch on one thread: its idle threads would spin and slow other tests."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_memory_and_time_of_every_policy_are_compared_with_the_plain_step(
    cached_steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(remat, "POLICIES", {name: remat.POLICIES[name] for name in ("", "units")})
    small = ["--systems", "newell", "--size=32", "--batch_size=2", "--rounds=1", f"--output={tmp_path}"]
    assert benchmark.main(["memory", *small]) == 0
    plain, units = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert (plain["remat"], plain["of plain"], plain["times plain"]) == ("", 1, 1)
    assert (units["system"], units["remat"]) == ("newell", "units")
    assert units["of plain"] == pytest.approx(units["temporary MB"] / plain["temporary MB"], abs=0.01)


def test_growth_is_measured_one_dimension_at_a_time_and_drawn(cached_steps, tmp_path):
    pytest.importorskip("matplotlib")
    small = ["--width_values", "--stacks_values", "1", "--size_values", "32", "64", "--batch_size=2"]
    assert benchmark.main(["growth", *small, "--size=32", "--rounds=1", f"--output={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert [(row["what"], row["value"]) for row in rows] == [("stacks", 1), ("size", 32), ("size", 64)]
    assert rows[2]["temporary MB"] > 2 * rows[1]["temporary MB"] > 0
    assert cv2.imread(str(tmp_path / "growth.png")).shape == (450, 1350, 3)  # 9 x 3 inches


def test_a_second_start_finds_the_folder_of_the_first(small_model, quick_compiles, monkeypatch, tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    folders, before = [], {name: getattr(jax.config, name) for name in names}

    def in_this_process(function, folder, *arguments):
        folders.append(folder)
        return function(folder, *arguments) | {"compile": len(folders)}

    monkeypatch.setattr(compiling, "in_a_process", in_this_process)
    small = ["--stacks=1", "--width=8", "--size=64", "--batch_size=2", f"--output={tmp_path}"]
    try:
        assert benchmark.main(["compile", *small]) == 0
        assert folders == [jax.config.jax_compilation_cache_dir] * 2
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # otherwise it would use the deleted folder
    cold, warm = json.loads((tmp_path / "compile.json").read_text())["rows"]
    assert (cold["start"], warm["start"], cold["compile s"], warm["compile s"]) == ("cold", "warm", 1, 2)
    for row, compiling_s in ((cold, 1), (warm, 2)):  # the state may have been compiled by other tests
        parts = [row[f"{name} s"] for name in ("state", "trace", "lower", "compile")]
        assert min(parts) >= 0 and row["all s"] >= compiling_s
        assert row["all s"] == pytest.approx(sum(parts), abs=0.3)  # each is rounded to 0.1 s


def test_a_start_is_measured_in_its_own_process():
    assert compiling.in_a_process(os.getppid) == os.getpid()


def test_inference_is_timed_against_a_twin_with_the_same_outputs(one_thread, quick_compiles, tmp_path):
    small = ["--stacks=1", "--width=8", "--depth=1", "--size=16", "--no-compile", "--rounds=2"]
    assert benchmark.main(["inference", *small, "--batch_sizes", "1", "3", f"--output={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "inference.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["inference, batch 1", "inference, batch 3", "one person, flip"]
    peers = ["PyTorch, channels_last"] * 2 + ["both images at once"]
    assert [row["peer"] for row in rows] == peers and all(row["ratio"] > 0 for row in rows)


def test_a_training_step_is_timed_against_a_twin_with_the_same_gradients(
    one_thread, quick_compiles, monkeypatch, tmp_path
):
    small = ["--stacks=1", "--width=8", "--depth=1", "--size=16", "--no-compile", "--rounds=1"]
    assert benchmark.main(["train", *small, "--batch_sizes", "2", f"--output={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert [row["peer"] for row in rows] == ["plain JAX", "PyTorch, channels_last"]
    assert all(row["what"] == "training step, batch 2" and row["ratio"] > 0 for row in rows)

    def spoil(twin, *rest):  # changes the gradient of a layer
        twin.stack0_lin.weight.register_hook(lambda gradient: 1.1 * gradient)
        return theirs(twin, *rest)

    theirs = training.theirs
    monkeypatch.setattr(training, "theirs", spoil)
    with pytest.raises(ValueError, match="gradients differ"):
        training.check_gradients(stacks=1)


def test_input_is_timed_from_drawn_frames_and_from_a_folders(cached_steps, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow_datasets")
    steps = []
    plain = common.Step.__call__
    monkeypatch.setattr(common.Step, "__call__", lambda self: steps.append(self) or plain(self))
    small = ["--size=32", "--frame=64", "--count=10", "--batches=2", "--batch_size=4", "--rounds=1"]
    small += ["--step_batch_size=2", f"--output={tmp_path / 'drawn'}"]
    assert benchmark.main(["input", *small]) == 0
    result = json.loads((tmp_path / "drawn" / "input.json").read_text())
    rows = {row["from"]: row for row in result["rows"]}
    assert list(rows)[:2] == ["crops, source=tfds", "crops, source=packed"]
    assert all(row["images/s and core"] > 0 for row in rows.values())
    assert rows["frames, at every step"]["times frames at every step"] == 1
    assert result["share of the step"] > 0 and result["title"].startswith("10 drawn pictures")
    assert len(steps) == 4 and steps[0] is steps[2]  # with and without the network, in turn

    assert benchmark.main(["input", *small, f"--pictures={tmp_path}"]) == 1
    assert "found no .jpg" in capsys.readouterr().err


def test_frames_are_cut_as_preparation_and_as_a_loader_without_crops_does():
    # A grey frame of 90 x 60 px: its height is the crop's side, and 1.5 times that is 90 px.
    encoded = cv2.imencode(".jpg", np.full((60, 90, 3), 128, np.uint8))[1].tobytes()
    frame = (encoded, np.array([45.0, 30.0]), 60.0)
    config = people_builder.CropConfig(box="annotated", canvas=48)
    canvas = pipeline.decode(input.prepared(frame, config)["image"])
    assert canvas.shape == (48, 48, 3)
    np.testing.assert_allclose(canvas[12:36], 128, atol=2)
    assert canvas[:4].max() < 8 and canvas[-4:].max() < 8  # above and below the frame

    image, maps = input.at_every_step(*frame, size=32, rng=np.random.default_rng(2))
    assert image.shape == (32, 32, 3) and image.dtype == np.float32 and maps.shape == (16, 8, 8)
    np.testing.assert_allclose(image[16, 16], 128 / 255, atol=0.01)  # not recoloured
    assert maps.max() == 1 and {one.max() for one in maps} == {1}  # every joint lies in a cell
    # Its neighbours: exp(-1 / 2), exp(-2 / 2) across.
    y, x = np.unravel_index(maps[0].argmax(), (8, 8))
    near = maps[0][max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    assert set(np.round(np.unique(near), 6)) == {*np.round(np.float32(np.exp([-1.0, -0.5, 0.0])), 6)}


def test_sending_is_compared_with_computation():
    # 989e9 operations are a millisecond of an H100. Of 450 MB each of two chips sends 450 MB: a millisecond.
    assert scaling.efficiency("H100 node", 2, 450_000_000, 989e9) == pytest.approx(0.5)
    assert scaling.efficiency("H100 node", 1, 450_000_000, 989e9) == 1
    assert scaling.efficiency("H100 node", 9, 450_000_000, 989e9) is None


def test_a_step_is_compiled_for_simulated_devices_in_its_own_process(
    small_model, quick_compiles, tmp_path, monkeypatch, capsys
):
    small = {"stacks": 1, "width": 256, "depth": 4, "size": 32}
    alone = scaling._measure(**small)
    assert alone["collectives"] == {} and alone["seconds"] > 0  # test_train_step.py has it with 8 devices

    calls, answers = [], [{"collectives": {"all-reduce": [26_000_000, 8]}, "seconds": 2.0}, None]

    run = scaling.subprocess.run

    def answer(command, env=None, **options):
        if env is None:  # of `platform`
            return run(command, **options)
        calls.append((command, env["XLA_FLAGS"]))
        content = answers.pop(0)
        error = "Traceback\nMemoryError: all of it\n"
        return types.SimpleNamespace(returncode=not content, stdout=json.dumps(content), stderr=error)

    monkeypatch.setattr(scaling.subprocess, "run", answer)
    arguments = ["scaling", "--stacks=1", "--size=32", f"--output={tmp_path}", "--devices"]
    assert benchmark.main([*arguments, "8"]) == 0
    ((command, simulated),) = calls
    assert json.loads(command[-1]) == small and simulated == "--xla_force_host_platform_device_count=8"
    (row,) = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    expected = {"devices": 8, "all-reduces": 2, "MB": 26.0, "of the largest": 26.0, "others": "none"}
    assert row.items() >= expected.items() and row["TPU v5e, at least"].endswith(" %")

    assert benchmark.main([*arguments, "64"]) == 1
    assert "Error: 64 devices: MemoryError: all of it" in capsys.readouterr().err


GPU = {"stacks": 1, "width": 8, "depth": 1, "size": 32, "dtype": "bfloat16", "batch": 2}


def test_an_accelerators_rows_come_in_order_and_are_kept_as_far_as_the_time_goes(
    cached_steps, tmp_path, monkeypatch, capsys
):
    seen, slow = [], [False]

    def here(deadline, rounds, who, **job):
        if slow[0]:
            return gpu.LATE
        if who == "theirs":
            return gpu.FULL
        if job.get("system") == "chu" and job["batch"] == 2:
            return "a failure"
        seen.append((who, *(job.get(name) for name in ("system", "what", "dtype", "batch"))))
        slow[0] = len(seen) == 6
        return gpu.measure(who, rounds=rounds, **job)

    monkeypatch.setattr(gpu, "_in_a_process", here)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: name)  # PyTorch's, which is optional
    small = ["--width=8", "--depth=1", "--size=32", "--product=16", "--rounds=1", f"--output={tmp_path}"]
    networks = ["--networks", "newell:1", "chu:1", "--batch_sizes", "2", "4"]
    assert benchmark.main(["gpu", *small, *networks]) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    found = [(row["system"], row["what"], row["dtype"], row["batch"]) for row in rows]
    assert found == [
        *(("newell", "train", "bfloat16", 2), ("newell", "inference", "bfloat16", 2)),
        *(("chu", "train", "bfloat16", 2), ("newell", "train", "bfloat16", 4)),
        ("newell", "train", "float32", 2),
    ]
    assert [row["images/s"] for row in rows].count("a failure") == 1 and rows[0]["images/s"] > 0
    assert [rows[i]["PyTorch's"] for i in (0, -1)] == [gpu.FULL, gpu.LATE] and rows[0]["ratio"] == ""
    assert {who for who, *_ in seen} == {"product", "ours"}
    assert benchmark.main(["gpu", *small, "--minutes=0"]) == 1
    assert "too little for a single row" in capsys.readouterr().err


def test_larger_batches_are_not_tried_after_one_that_was_too_large(monkeypatch, tmp_path):
    tried = []

    def full(deadline, rounds, who, **job):
        if who == "product":
            return 0.001, 0.002, 0.003
        tried.append((job["what"], job["batch"]))
        return gpu.FULL if job["batch"] > 8 else [0.1, 0.2, 0.3]

    monkeypatch.setattr(gpu, "_in_a_process", full)
    monkeypatch.setattr(gpu, "_operations", lambda case: 5_000_000)
    networks = ["--networks", "chu:1", "--dtypes", "float32", "--batch_sizes", "16", "32", "8"]
    assert benchmark.main(["gpu", *networks, "--product=100", f"--output={tmp_path}"]) == 0
    assert tried == [("train", 16), ("inference", 16), ("train", 8), ("inference", 8)]
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["images/s"] for row in rows] == [gpu.FULL, gpu.FULL, 40.0, 40.0]
    assert rows[2]["quartiles"] == "26.7 to 80.0"
    # 2 * 100^3 operations in 2 ms are 1 GFLOP/s; 8 * 5 million in 0.2 s are a fifth of that.
    assert rows[2]["of the product's rate"] == "20.0 %"


def test_a_measurement_runs_in_its_own_process_and_reports_how_it_ended(monkeypatch):
    ends = [(0, "warning\n[1, 2, 3]\n", ""), (1, "", "XlaRuntimeError: RESOURCE_EXHAUSTED: 9 GB\n")]
    ends += [(1, "", "Traceback\nKeyError: 'x'\n"), (-9, "", "")]

    def run(*_, **__):
        if not ends:
            raise subprocess.TimeoutExpired("ours", 0)
        code, output, errors = ends.pop(0)
        return types.SimpleNamespace(returncode=code, stdout=output, stderr=errors)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    found = [gpu._in_a_process(0.0, 1, "ours", **GPU) for _ in range(5)]
    assert found == [[1, 2, 3], gpu.FULL, "KeyError: 'x'", "exit code -9", gpu.LATE]


@pytest.mark.parametrize("what", ["train", "inference"])
def test_the_twin_is_measured_on_the_available_device(what):
    pytest.importorskip("torch")
    low, median, high = gpu.measure("theirs", rounds=2, what=what, compile=False, system="newell", **GPU)
    assert 0 < low <= median <= high


def test_networks_that_differ_are_not_compared():
    maps = np.arange(6.0)
    common.check_equal([maps], [maps * (1 + 9e-5)])
    for other in (maps * (1 + 2e-4), maps * np.nan):
        with pytest.raises(ValueError, match="The networks differ"):
            common.check_equal([maps], [other])


def test_the_ratio_is_the_peers_time_over_ours(monkeypatch):
    seconds = {"ours": (0.001, 0.002, 0.004), "peer": (0.004, 0.005, 0.006)}
    monkeypatch.setattr(common, "interleaved", lambda runs, rounds: seconds)
    (row,) = common.against("inference", "small", dict.fromkeys(seconds), rounds=1)
    assert (row["ours"], row["peer"], row["ratio"]) == ("2.0 ms (1.0 to 4.0)", "peer", 2.5)


def test_errors_are_one_line(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["speed"])
    assert "choose from" in capsys.readouterr().err


def test_an_account_adds_up_by_kind():
    paths = {
        "a.1": "jit(f)/Model/stack0_hourglass/level0_skip0/conv1/dot_general",
        "a.2": "jit(f)/Model/stack0_hourglass/level0_skip0/conv1/add",
        "b": "jit(f)/Model/stack0_lin/dot_general",
        "c": "jit(f)/Model/stem/conv/conv_general_dilated",
        "d": "aten::mkldnn_convolution 3x3",
        "e": "aten::relu ",
    }
    events = [(name, 1e6 * 2**i) for i, name in enumerate(paths)] * 2 + [("ThunkExecutor::Execute", 1e9)]
    seconds = account.by_kind(events, paths, rounds=2)
    assert list(seconds) == [*account.KINDS, "all"]
    np.testing.assert_allclose(list(seconds.values()), np.array([8, 17, 2, 4, 32, 63]) / 1e3)


def test_the_account_of_a_small_network(capsys):
    sizes = ["--stacks=1", "--width=64", "--depth=1", "--size=64", "--rounds=2"]
    assert benchmark.main(["account", *sizes]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    *kinds, whole = (float(row[2]) for row in rows)
    assert [row[1].strip() for row in rows] == [*account.KINDS, "all"]
    assert whole > 0 and sum(kinds) == pytest.approx(whole, abs=0.3)  # each is rounded to 0.1 ms
