import functools
import gc
import shutil
import sys
import types

import conftest
import jax
import numpy as np
import optax
import pytest

from hourglass_jax import checkpoint, evaluate, loading, models
from hourglass_jax.config import check_model, differences
from hourglass_jax.network import Metadata, network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.training import step as train_step

pytestmark = pytest.mark.usefixtures("small_model")


def metadata_of(config):
    return Metadata(config.to_dict(), skeletons.MPII.to_dict())


ADAM = optax.adam(1e-3)


@functools.cache
def shapes_of(model, optimiser, size, average):
    """The shapes of a state."""
    return train_step.abstract(model, optimiser, size=size, average=average)


def filled(config, step, optimiser=None):
    """A state of the config's network whose values all equal its step; the averaged ones are 1000 more."""
    network = network_of(metadata_of(config))
    average = config.train.average_decay > 0
    shapes = shapes_of(network.model, optimiser or ADAM, network.size, average)
    state = jax.tree.map(lambda x: np.full(x.shape, step, x.dtype), shapes)
    if average:
        state = state.replace(averaged=jax.tree.map(lambda x: x + 1000, state.averaged))
    return jax.device_put(state)


def write(config, workdir, scores, **options):
    """A checkpoint for each step of `scores`."""
    with checkpoint.Checkpoints(workdir, **options) as saved:
        for step, score in scores.items():
            saved.save(filled(config, step), metadata_of(config), score)


def value_of(variables):
    """The number that all variables have."""
    (value,) = {float(v) for leaf in jax.tree.leaves(variables) for v in np.unique(leaf)}
    return value


@pytest.mark.parametrize(
    "scores, best",
    [
        ({1: 10.0, 2: 30.0, 3: 20.0}, 2),
        ({1: None, 2: 30.0, 3: None}, 2),
        ({1: None, 2: None, 3: None}, 3),  # the latest, if none has a score
        ({1: 10.0, 2: float("nan"), 3: None}, 1),  # nothing was labelled
        ({1: 0.0, 2: 0.0, 3: None}, 2),
    ],
)
def test_workdir_means_its_best_checkpoint(tiny, tmp_path, scores, best):
    config = tiny()
    write(config, tmp_path, scores, keep_latest=3)
    network, variables, metadata = loading.load(tmp_path)
    assert metadata.step == best and value_of(variables) == 1000 + best


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with checkpoints of steps 1 and 2; the first one has the better score."""
    folder = tmp_path_factory.mktemp("two") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", conftest.create_small)
        write(conftest.tiny(), folder, {1: 30.0, 2: 20.0})
    return folder


@pytest.mark.parametrize("step", [1, 2])
def test_the_path_of_a_checkpoint_means_that_one(run, step):
    _, variables, metadata = loading.load(f"{run}/checkpoints/{step}")
    assert metadata.step == step and value_of(variables) == 1000 + step


def test_the_network_follows_from_the_metadata(tiny, tmp_path):
    config = tiny({"loss.sigma": 1.5, "data.mean": (0.1, 0.2, 0.3)})
    write(config, tmp_path, {1: None})
    network, variables, metadata = loading.load(tmp_path)
    assert network.skeleton == skeletons.MPII
    assert (network.size, network.mean, network.sigma) == (32, (0.1, 0.2, 0.3), 1.5)
    assert network.logits and network.model.stacks == 2 and network.model.joints == 16
    assert metadata.config["train"]["batch_size"] == 8
    squared = tiny({"loss.kind": "mean_squared_error"})
    assert not network_of(metadata_of(squared)).logits


def test_without_an_average_the_parameters_are_loaded(tiny, tmp_path):
    write(tiny({"train.average_decay": 0.0}), tmp_path, {3: None})
    _, variables, _ = loading.load(tmp_path)
    assert value_of(variables) == 3 and variables.keys() == {"params", "batch_stats"}


def test_a_state_is_restored_completely(tiny, same, tmp_path):
    config = tiny()
    rng = np.random.default_rng(0)
    # Distinct numbers of all kinds: tiny, huge, negative zero.
    state = jax.tree.map(
        lambda x: jax.numpy.asarray(rng.standard_normal(x.shape) * 10.0 ** rng.integers(-30, 30), x.dtype),
        filled(config, 7),
    ).replace(step=jax.numpy.int32(7))
    state.params["conv"]["kernel"] = state.params["conv"]["kernel"].at[0, 0, 0, 0].set(-0.0)
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(state, metadata_of(config), None)
        saved.wait()
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
        back = saved.restore(7, like)
    same(jax.device_get(state), jax.device_get(back))
    assert [x.dtype for x in jax.tree.leaves(back)] == [x.dtype for x in jax.tree.leaves(state)]
    assert np.signbit(back.params["conv"]["kernel"][0, 0, 0, 0])


def test_an_existing_step_is_not_overwritten(tiny, tmp_path):
    config = tiny()
    write(config, tmp_path, {2: None})
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(filled(config, 2).replace(params=filled(config, 5).params), metadata_of(config), None)
    _, variables, _ = loading.load(tmp_path)
    assert value_of(variables) == 1002


def test_reading_does_not_change_the_folder(tiny, tmp_path):
    write(tiny(), tmp_path, {1: None, 2: None})
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()  # of a running training
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    assert loading.load(tmp_path)[2]["step"] == 2
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "path, message",
    [
        ("nowhere", "nowhere holds no checkpoints; is it the --workdir of a training"),
        ("nowhere/checkpoints/5", "nowhere/checkpoints/5 holds no checkpoints"),
        ("run/checkpoints/5", "run/checkpoints/5: there is no such checkpoint; found 1, 2"),
        ("run/checkpoints", "run/checkpoints holds no checkpoints"),
        ("empty", "empty holds no checkpoints"),
        ("begun", "begun: there is no such checkpoint; found none"),
    ],
)
def test_a_missing_checkpoint_is_a_one_line_error(run, tmp_path, path, message):
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        loading.load(tmp_path / path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.width": 8}, "model.width: 4 -> 8."),
        (
            {"model.stacks": 1, "model.dtype": "bfloat16"},
            "model.dtype: float32 -> bfloat16; model.stacks: 2 -> 1.",
        ),
    ],
)
def test_checkpoint_of_another_model_is_refused(tiny, tmp_path, changes, message):
    write(tiny(), tmp_path, {1: None})
    with pytest.raises(ValueError) as error:
        evaluate.evaluate(tiny(changes), tmp_path / "out", tmp_path)
    assert str(error.value) == f"{tmp_path} is of another model than the config: {message}"
    assert not (tmp_path / "out").exists()


# Checkpoints of older versions.


def older(tiny, workdir, remove=(), **changes):
    """A checkpoint of step 1 without some of its metadata, such as ("config", "model", "stem")."""
    metadata = metadata_of(tiny())
    metadata.config["model"] |= changes
    with pytest.MonkeyPatch.context() as patch:
        for path in remove:
            *above, name = path
            if above:
                section = metadata
                for part in above:
                    section = section[part]
                section.pop(name)
        plain = checkpoint.ocp.args.JsonSave
        without = {name for *above, name in remove if not above}

        def save(item):
            return plain({name: value for name, value in item.items() if name not in without})

        patch.setattr(checkpoint.ocp.args, "JsonSave", save)
        with checkpoint.Checkpoints(workdir) as saved:
            saved.save(filled(tiny(), 1), metadata, None)


def test_a_checkpoint_without_checksums_loads(tiny, tmp_path):
    older(tiny, tmp_path, [("checksums",), ("checksum",)])
    _, variables, metadata = loading.load(tmp_path)
    assert value_of(variables) == 1001 and metadata.checksums == {}


def test_a_field_newer_than_the_checkpoint_has_its_default(tiny, tmp_path):
    older(tiny, tmp_path, [("config", "model", "depth"), ("config", "loss", "occluded_amplitude")])
    _, variables, metadata = loading.load(tmp_path)
    assert value_of(variables) == 1001
    check_model(tmp_path, metadata, tiny({"model.depth": 4}))  # Newell's default
    with pytest.raises(ValueError, match="of another model than the config: model.depth: 4 -> 1.$"):
        check_model(tmp_path, metadata, tiny())


@pytest.mark.parametrize(
    ("remove", "changes", "reason"),
    [
        ([], {"gone": 3}, "The model 'newell' has no field gone; it has depth, "),
        ([("config", "data", "mean")], {}, "KeyError: 'mean'"),
        ([("skeleton",)], {}, "metadata: skeleton is missing)"),
    ],
)
def test_metadata_without_a_network_are_a_one_line_error(
    tiny, monkeypatch, tmp_path, remove, changes, reason
):
    older(tiny, tmp_path, [*remove, ("checksum",)], **changes)
    monkeypatch.undo()  # restores the real models
    with pytest.raises(ValueError) as error:
        loading.load(tmp_path)
    message = str(error.value)
    assert str(tmp_path / "checkpoints" / "1") in message
    assert "describes no network" in message and reason in message
    assert "\n" not in message


def test_a_checkpoint_that_a_training_replaces_is_found(tiny, monkeypatch, tmp_path):
    config, plain = tiny(), checkpoint.Checkpoints.variables
    write(config, tmp_path, {1: None})

    def replaced(self, step, *args):
        if step == 1:
            write(config, tmp_path, {2: None}, keep_latest=1)
            assert not (tmp_path / "checkpoints" / "1").exists()
        return plain(self, step, *args)

    monkeypatch.setattr(checkpoint.Checkpoints, "variables", replaced)
    _, variables, metadata = loading.load(tmp_path)
    assert metadata.step == 2 and value_of(variables) == 1002


def test_a_step_removed_while_the_folder_is_listed_is_not_an_error(tiny, monkeypatch, tmp_path):
    write(tiny(), tmp_path, {1: None})
    plain, calls = checkpoint.ocp.CheckpointManager, []

    def looked_through(directory, **options):
        calls.append(directory)
        if len(calls) < failing:
            raise FileNotFoundError(f"{directory}/0")  # Orbax's error for a step that it has listed
        return plain(directory, **options)

    monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", looked_through)
    failing = 3
    assert loading.load(tmp_path)[2]["step"] == 1 and len(calls) == 3
    failing = 10**6  # a lasting error is raised
    with pytest.raises(FileNotFoundError, match="checkpoints/0"):
        loading.load(tmp_path)
    del calls[:]
    with pytest.raises(FileNotFoundError, match="checkpoints/0"):  # a writer is alone and does not retry
        checkpoint.Checkpoints(tmp_path)
    assert len(calls) == 1


def test_differences_are_named_by_their_path():
    old = {"a": 1, "b": {"c": (1, 2), "d": "x", "e": {"f": 0.5}}, "g": None}
    new = {"a": 1, "b": {"c": [1, 2], "d": "y", "e": {"f": 0.25}}, "h": 1}
    assert differences(old, old) == []
    assert differences(old, new) == ["b.d: x -> y", "b.e.f: 0.5 -> 0.25", "h: None -> 1"]
    assert differences({"g": None}, {"g": 1}, "model.") == ["model.g: None -> 1"]


# Damage.


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A workdir with a checkpoint of distinct numbers, and the numbers."""
    config, workdir = conftest.tiny(), tmp_path_factory.mktemp("intact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", conftest.create_small)
        rng = np.random.default_rng(0)
        state = jax.tree.map(
            lambda x: jax.numpy.asarray(100 * rng.standard_normal(x.shape), x.dtype), filled(config, 1)
        ).replace(step=jax.numpy.int32(1))
        with checkpoint.Checkpoints(workdir) as saved:
            saved.save(state, metadata_of(config), None)
    return workdir, jax.device_get(state.averaged)


def damaged(intact, tmp_path, change):
    """For every file that loading reads: the result of loading after the file is damaged."""
    workdir, _ = intact
    step = workdir / "checkpoints" / "1"
    files = [p.relative_to(workdir) for p in step.rglob("*") if p.is_file()]
    wanted = [f for f in files if not {"model", "optimizer"} & set(f.parts)]
    for number, name in enumerate(wanted):
        copy = tmp_path / str(number)
        shutil.copytree(workdir, copy)
        change(copy / name)
        try:
            yield name, loading.load(copy)
        except (ValueError, OSError) as error:
            yield name, error


def _halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path):
    path.write_bytes(b"")


def _remove(path):
    path.unlink()


def _overwrite(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("change", [_halve, _empty, _remove, _overwrite])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own threads
def test_damaged_checkpoint_never_gives_wrong_numbers(intact, tmp_path, same, change):
    _, expected = intact
    found = 0
    for name, result in damaged(intact, tmp_path, change):
        if isinstance(result, Exception):
            text = str(result)
            assert "\n" not in text and "checkpoint" in text and str(tmp_path) in text, name
            found += 1
        else:  # a file without numbers
            same(jax.device_get(result[1]), expected)
    assert found >= 3
    gc.collect()  # removes the remains of these threads before the next test


def test_missing_chunks_are_one_line_and_no_traceback_of_each_array(tiny, tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(str(report.exc_value)))
    many = {f"{number}": jax.numpy.ones(9) for number in range(150)}  # few are read before the first fails
    state = filled(tiny(), 1).replace(step=jax.numpy.int32(1), params=many)
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(state, metadata_of(tiny()), None)
    chunks = [path for path in (tmp_path / "checkpoints/1/model").rglob("d/*") if path.is_file()]
    for path in chunks[:-1]:
        path.unlink()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
    with checkpoint.Checkpoints(tmp_path, read_only=True) as saved:
        with pytest.raises(ValueError, match=r"checkpoints/1: the checkpoint is damaged [^\n]*$"):
            saved.variables(1, "model", {"params": like.params, "batch_stats": like.batch_stats})
    gc.collect()  # removes the remains of its threads
    assert len(chunks) > 1 and not reported
    sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError("another")))
    assert reported == ["another"]


def test_a_step_folder_that_was_copied_is_refused(intact, tmp_path):
    workdir = shutil.copytree(intact[0], tmp_path / "run")
    shutil.copytree(workdir / "checkpoints/1", workdir / "checkpoints/12")
    with pytest.raises(ValueError, match="checkpoints/12: the checkpoint is of step 1, so its folder was co"):
        loading.load(workdir)
    assert loading.load(workdir / "checkpoints/1")[2].step == 1


def test_flipped_bits_are_noticed(tiny, same, tmp_path):
    # Large arrays that cannot be compressed are stored as they are.
    big = jax.numpy.asarray(np.random.default_rng(0).standard_normal(50_000), np.float32)
    state = filled(tiny(), 1)
    state = state.replace(step=jax.numpy.int32(1), params={**state.params, "big": big})
    with checkpoint.Checkpoints(tmp_path / "sound") as saved:
        saved.save(state, metadata_of(tiny()), None)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
    model = tmp_path / "sound/checkpoints/1/model"
    file = next(p for p in model.rglob("*") if p.stat().st_size > 100_000).relative_to(tmp_path / "sound")
    size = (tmp_path / "sound" / file).stat().st_size
    for place in np.linspace(0.1 * size, 0.9 * size, 7).astype(int):  # within the numbers
        copy = tmp_path / str(place)  # a folder for each, because TensorStore caches files
        shutil.copytree(tmp_path / "sound", copy)
        flipped = bytearray((copy / file).read_bytes())
        flipped[place] ^= 1
        (copy / file).write_bytes(flipped)
        with checkpoint.Checkpoints(copy, read_only=True) as saved:
            with pytest.raises(ValueError, match="checkpoints/1: the checkpoint is damaged"):
                saved.restore(1, like)
    with checkpoint.Checkpoints(tmp_path / "sound", read_only=True) as saved:
        same(jax.device_get(saved.restore(1, like)), jax.device_get(state))
