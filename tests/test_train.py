import gzip
import json
import os
import shutil
import signal
import time

import conftest
import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import checkpoint, console, evaluate, loading, models, train
from hourglass_jax.data import feed, pipeline, sources
from hourglass_jax.evaluation import results
from hourglass_jax.media import draw
from hourglass_jax.training import log as logs
from hourglass_jax.training import losses
from hourglass_jax.training.workdir import FREE, Workdir

pytestmark = pytest.mark.usefixtures("quick_compiles", "small_model", "shared_programs")


def losses_of(lines):
    """{step: all values except times} of the training lines, and of the evaluations."""
    found = {}
    for line in lines:
        kind = "loss" if "loss" in line else "validation"
        assert (line["step"], kind) not in found, "a step is there twice"
        found[line["step"], kind] = {k: v for k, v in line.items() if k not in logs.CLOCKED}
    return found


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


# The same seed.


def test_same_seed_ends_in_the_same_bits(tiny, state_of, same, metrics_of, tmp_path):
    config = tiny({"train.evaluate_every": 3})
    scores = [train.train(config, tmp_path / name) for name in ("a", "b")]
    assert scores[0] == scores[1] and scores[0]["examples"] == 10
    a, b = (state_of(config, tmp_path / name, 4) for name in ("a", "b"))
    same(a, b)
    lines = [losses_of(metrics_of(tmp_path / name)) for name in ("a", "b")]
    assert lines[0] == lines[1]
    # log_every=1, evaluations at 3 and at the end.
    wanted = [(step, "loss") for step in range(1, 5)] + [(3, "validation"), (4, "validation")]
    assert sorted(lines[0]) == sorted(wanted)
    assert lines[0][4, "validation"]["validation/Mean"] == scores[0]["table"]["Mean"]
    assert lines[0][1, "loss"]["learning_rate"] == pytest.approx(1e-3)

    train.train(tiny({"seed": 1, "train.steps": 1}), tmp_path / "c")
    c = losses_of(metrics_of(tmp_path / "c"))
    assert c[1, "loss"]["loss"] != lines[0][1, "loss"]["loss"]

    assert json.loads((tmp_path / "a" / "config.json").read_text()) == json.loads(config.to_json())
    pictures = sorted(p.name for p in (tmp_path / "a" / "pictures").iterdir())
    assert pictures == ["validation_0000003.png", "validation_0000004.png"]
    # One example: three tiles of 192 px with 2 px around each, in a sheet of six.
    assert cv2.imread(str(tmp_path / "a" / "pictures" / pictures[0])).shape == (196, 6 * 196, 3)


def test_steps_and_milestones_follow_from_epochs(tiny):
    # 40 examples in batches of 8 are 5 steps; 2.5 epochs 12.5, rounded to even.
    config = tiny({"train.steps": 0, "train.epochs": 2.5, "optimizer.learning_rate": 1.0})
    config.optimizer.update(schedule="steps", milestones=(1, 2), factor=0.1)
    last_step, rate, _ = train.make_optimizer(config, 40)
    assert last_step == 12
    np.testing.assert_allclose([rate(s) for s in (0, 4, 6, 9, 11)], [1, 1, 0.1, 0.1, 0.01], rtol=1e-5)
    assert train.make_optimizer(tiny({"train.steps": 7}), 40)[0] == 7
    # An epoch of 8 steps, for any number of examples: 20 steps, drops at 8 and 16.
    config.train.epoch_steps = 8
    last_step, rate, _ = train.make_optimizer(config, 40)
    assert last_step == 20
    np.testing.assert_allclose([rate(s) for s in (6, 9, 15, 17)], [1, 0.1, 0.1, 0.01], rtol=1e-5)


# Interruptions.


def test_killed_stopped_and_evaluated_runs_end_as_an_undisturbed_one(
    tiny, start, state_of, same, alike, metrics_of, monkeypatch, capsys, tmp_path
):
    changes = {"train.steps": 12, "train.save_every": 3, "train.evaluate_every": 6}
    config, workdir, whole = tiny(changes), tmp_path / "disturbed", tmp_path / "whole"
    # Killed after step 5, while steps 4 and 5 are in the log and in no checkpoint.
    run = start(config, workdir, begins="step 5/12")
    run.wait_for("step 5/12")
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert set(saved_steps(workdir)) <= {3} and len(metrics_of(workdir)) == 5
    # Remains of a kill in the middle of a write.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    started_at = max(saved_steps(workdir), default=0)

    # It is evaluated while it validates, saves and deletes checkpoints at every step, then SIGTERM stops it.
    often = tiny(changes | {"train.save_every": 1, "train.evaluate_every": 1})
    run, seen = start(often, workdir, begins="step "), []
    for step in range(started_at + 1, 9):
        run.wait_for(f"step {step}/12")
        if step < 8:
            run.go_on()
        if step >= 6:  # the first checkpoints are whole
            scores = evaluate.evaluate(often, workdir, workdir)
            seen.append((json.loads((workdir / "evaluation.json").read_text())["step"], scores))
    run.signal(signal.SIGTERM)
    run.wait_for("SIGTERM: saving after this step.")
    run.go_on()
    assert run.end() == 0, run.errors
    assert saved_steps(workdir)[-2:] == [7, 8]
    if started_at:
        assert f"Continues after step {started_at} of 12." in run.output
    assert run.output[-1].startswith("Stopped after step 8, which is saved;")
    assert not [line for line in run.errors if "Traceback" in line]
    lines = losses_of(metrics_of(workdir))
    for step, scores in seen:
        expected = {f"validation/{name}": value for name, value in scores.scalars().items()}
        alike(lines[step, "validation"], {"step": step} | expected)

    say = train.say

    def interrupted(text):
        say(text)
        if text.startswith("step 10/12"):
            signal.raise_signal(signal.SIGINT)  # in this process: a process takes seconds

    with monkeypatch.context() as patch:
        patch.setattr(train, "say", interrupted)
        train.train(config, workdir)
    said = capsys.readouterr().out.splitlines()
    assert "Continues after step 8 of 12." in said and "SIGINT: saving after this step." in said
    assert said[-1].startswith("Stopped after step 11, which is saved;") and max(saved_steps(workdir)) == 11

    train.train(config, workdir)
    assert "Continues after step 11 of 12." in capsys.readouterr().out
    train.train(config, whole)
    same(state_of(config, workdir, 12), state_of(config, whole, 12))
    lines, expected = (losses_of(metrics_of(path)) for path in (workdir, whole))
    # A stop adds lines of its own only if not every step is logged; validation was more frequent for a while.
    kinds = [[(s, k) for s in range(1, 13)] for k in ("loss", "validation")]
    assert expected.keys() == {*kinds[0], (6, "validation"), (12, "validation")}
    assert {key: lines[key] for key in expected} == expected and lines.keys() <= {*kinds[0], *kinds[1]}


def test_half_written_checkpoint_is_ignored_and_removed(tiny, state_of, same, tmp_path):
    config = tiny({"train.steps": 2, "train.save_every": 1})
    train.train(config, tmp_path / "whole")
    train.train(config, tmp_path / "a")
    # As left by a kill during a save.
    (tmp_path / "a/checkpoints/2").rename(tmp_path / "a/checkpoints/2.orbax-checkpoint-tmp-7")
    network, variables, metadata = loading.load(tmp_path / "a")
    assert metadata.step == 1
    assert (tmp_path / "a/checkpoints/2.orbax-checkpoint-tmp-7").exists()  # reading changes nothing
    train.train(config, tmp_path / "a")
    assert (
        saved_steps(tmp_path / "a")
        == [1, 2]
        == sorted(int(p.name) for p in (tmp_path / "a/checkpoints").iterdir())
    )
    same(state_of(config, tmp_path / "a", 2), state_of(config, tmp_path / "whole", 2))


def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_resumes_later(
    tiny, monkeypatch, state_of, same, tmp_path
):
    config = tiny({"train.steps": 4, "train.save_every": 1})
    free = iter([10**9, 10**9, 3_000_000, 10**9, 10**9, 10**9])
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=next(free)))
        with pytest.raises(OSError, match=r"could not be saved \(it takes up to 4.* MB, 3.0 MB are free\)"):
            train.train(config, tmp_path / "a")
        assert max(saved_steps(tmp_path / "a")) == 2
        assert loading.load(tmp_path / "a")[2]["step"] == 2
        train.train(config, tmp_path / "a")
    train.train(config, tmp_path / "b")
    same(state_of(config, tmp_path / "a", 4), state_of(config, tmp_path / "b", 4))


def test_a_save_that_fails_half_way_is_one_error(tiny, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: No space\nleft on device")

    config = tiny({"train.steps": 2, "train.save_every": 1})
    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", broken)
    with pytest.raises(OSError, match="could not be saved .*No space left on device.*continues") as caught:
        train.train(config, tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_second_ctrl_c_stops_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)
    with train.Stop() as stop:
        assert not stop.asked(1)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.splitlines() == ["SIGTERM: saving after this step."] * 2


def test_an_evaluation_that_is_cut_off_comes_first_in_the_next_start(
    tiny, monkeypatch, state_of, same, metrics_of, capsys, tmp_path
):
    config = tiny({"train.steps": 4, "train.save_every": 1, "train.evaluate_every": 2})
    config.evaluate.batch_size = 2  # five batches
    train.train(config, tmp_path / "whole")
    predict = evaluate.Evaluator.predict

    def cut(self, variables, *, progress, **options):
        def signalled(done):
            signal.raise_signal(signal.SIGTERM)
            progress(done)

        return predict(self, variables, progress=signalled, **options)

    monkeypatch.setattr(evaluate.Evaluator, "predict", cut)
    for stopped in (2, 2):  # in its evaluation, and in the one that was due
        assert train.train(config, tmp_path / "a") == {}
        assert saved_steps(tmp_path / "a") == [1, stopped]
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"Stopped after step {stopped}, which is")
    monkeypatch.setattr(evaluate.Evaluator, "predict", predict)
    train.train(config, tmp_path / "a")
    assert losses_of(metrics_of(tmp_path / "a")) == losses_of(metrics_of(tmp_path / "whole"))
    assert [kind for _, kind in losses_of(metrics_of(tmp_path / "a"))].count("validation") == 2
    same(state_of(config, tmp_path / "a", 4), state_of(config, tmp_path / "whole", 4))
    for name in ("whole", "a"):
        with checkpoint.Checkpoints(tmp_path / name, read_only=True) as saved:
            assert saved.best in (2, 4) and saved.steps == sorted({saved.best, 3, 4})
            assert all(not saved.metadata(step).due for step in saved.steps)
            best = saved.best
        assert name == "whole" or loading.load(tmp_path / "whole")[2].step == best


# Kept checkpoints.


@pytest.mark.parametrize(
    ("means", "on_test", "best"),
    [((30.0, 10.0, 20.0), False, 2), ((10.0, np.nan, 20.0), False, 6), ((30.0, 10.0, 20.0), True, 6)],
)
def test_latest_and_best_checkpoints_are_kept(tiny, monkeypatch, tmp_path, means, on_test, best):
    monkeypatch.setattr(sources, "validates_on_test", lambda data: on_test)
    plain, means = results.score_predictions, list(means)

    def scored(*args, **options):
        scores = plain(*args, **options)
        scores["table"]["Mean"] = means.pop(0)
        return scores

    monkeypatch.setattr(results, "score_predictions", scored)
    config = tiny({"train.steps": 6, "train.save_every": 1, "train.evaluate_every": 2, "train.pictures": 0})
    train.train(config, tmp_path)
    assert saved_steps(tmp_path) == sorted({best, 5, 6})
    assert loading.load(tmp_path)[2]["step"] == best
    assert not (tmp_path / "pictures").exists()


def test_diverging_run_stops_before_the_bad_state_is_saved(tiny, monkeypatch, state_of, same, tmp_path):
    config = tiny({"train.steps": 6, "train.evaluate_every": 6})
    make_step = train.make_step

    def poisoned(*args):
        step = make_step(*args)

        def wrapped(state, batch):
            factor = np.nan if int(state.step) == 2 else 1.0
            return step(state.replace(params=jax.tree.map(lambda x: x * factor, state.params)), batch)

        return wrapped

    monkeypatch.setattr(train, "make_step", poisoned)
    with pytest.raises(
        FloatingPointError, match=r"The loss is nan at step 3; the last checkpoint has step 2"
    ):
        train.train(config, tmp_path / "a")
    assert saved_steps(tmp_path / "a") == [2]
    monkeypatch.setattr(train, "make_step", make_step)  # fixed: as if nothing had happened
    train.train(config, tmp_path / "a")
    train.train(config, tmp_path / "b")
    same(state_of(config, tmp_path / "a", 6), state_of(config, tmp_path / "b", 6))


def test_too_large_learning_rate_stops_the_run(tiny, tmp_path):
    changes = {"train.log_every": 4, "train.save_every": 4, "optimizer.learning_rate": 1e30}
    with pytest.raises(FloatingPointError, match="(?s)loss is (nan|inf).*smaller optimizer.learning_rate"):
        train.train(tiny(changes), tmp_path)
    assert saved_steps(tmp_path) == []


def test_gradient_that_is_not_a_number_is_not_saved_either(tiny, monkeypatch, tmp_path):
    # The loss of a step is computed before its update: it is finite at the step that breaks the parameters.
    make_step = train.make_step

    def breaking(*args):
        step = make_step(*args)

        def wrapped(state, batch):
            state, metrics = step(state, batch)
            return state, metrics | {"gradient_norm": metrics["gradient_norm"] * np.nan}

        return wrapped

    monkeypatch.setattr(train, "make_step", breaking)
    with pytest.raises(FloatingPointError, match="gradient's norm is nan at step 1; nothing is saved yet"):
        train.train(tiny({"train.steps": 1}), tmp_path)
    assert saved_steps(tmp_path) == []


@pytest.fixture
def bad_step(monkeypatch):
    """A run whose loss is nan in step 3: joints far away represent bad data."""
    create, put, count = losses.named, feed.Sent.put, []

    def fragile(**options):
        loss = create(**options)

        def wrapped(outputs, joints, visible):
            value, stacks = loss(outputs, joints, visible)
            return value * jnp.where(jnp.abs(joints).max() > 1e6, jnp.nan, 1.0), stacks

        return wrapped

    def poisoned(self, batch, names):
        count.append("joints" in names)  # in a step; an evaluation uses only the image
        if sum(count) == 3 and count[-1]:
            batch = batch | {"joints": np.full_like(batch["joints"], 1e9)}
        return put(self, batch, names)

    monkeypatch.setattr(losses, "named", fragile)
    monkeypatch.setattr(feed.Sent, "put", poisoned)


def test_a_bad_step_changes_nothing_and_names_its_batch(tiny, bad_step, state_of, same, tmp_path):
    # Checked after step 4: a plain step 3 would have broken the parameters, and step 4 continued.
    config = tiny({"train.steps": 4, "train.log_every": 4, "train.save_every": 4})
    with pytest.raises(FloatingPointError, match=r"at step 3;.*diverged_0000003.npz: synthetic") as caught:
        train.train(config, tmp_path)
    assert "\n" not in str(caught.value) and saved_steps(tmp_path) == []
    source = sources.open_source(config.data, train=True)
    index = pipeline.train_indices(2, batch_size=8, length=40, seed=0)
    with np.load(tmp_path / "diverged_0000003.npz") as dump:
        assert np.isnan(dump["step_loss"]) and dump["image"].shape == (8, 48, 48, 3)
        assert dump["ids"].tolist() == [source.ids[i] for i in index]
        np.testing.assert_array_equal(dump["joints"][5], source[index[5]]["joints"])


def test_bad_steps_are_skipped_and_counted(tiny, bad_step, state_of, same, metrics_of, tmp_path, capsys):
    changes = {"train.log_every": 1, "train.save_every": 1, "train.keep_latest": 9}
    config = tiny(changes | {"train.steps": 4, "train.skip_nonfinite": 1})
    train.train(config, tmp_path)
    assert "Skipped 1 steps without a finite loss and gradient (1 in all)." in capsys.readouterr().out
    before, after = (state_of(config, tmp_path, step) for step in (2, 3))
    same(before.replace(step=after.step), after)
    skipped = {line["step"]: line.get("skipped") for line in metrics_of(tmp_path) if "loss" in line}
    assert skipped == {1: None, 2: None, 3: 1, 4: None}


# One workdir, one training, one config.


def test_second_training_in_a_workdir_is_refused_at_once(tiny, monkeypatch, tmp_path):
    def reached(*args):
        raise AssertionError("It went on.")

    monkeypatch.setattr(train, "make_state", reached)
    with Workdir(tmp_path).locked():
        with pytest.raises(ValueError, match="another training is running in this workdir"):
            train.train(tiny(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]  # nothing was written
    with Workdir(tmp_path).locked(), pytest.raises(ValueError, match="another training"):
        with Workdir(tmp_path).locked():
            pass
    with Workdir(tmp_path).locked():  # the lock is free again
        pass


def test_changed_config_is_listed_refused_or_allowed(tiny, metrics_of, tmp_path, capsys):
    train.train(tiny({"train.steps": 2}), tmp_path)
    changed = {"train.steps": 3, "optimizer.learning_rate": 2e-3, "augment.scale_range": (0.9, 1.2)}
    with pytest.raises(ValueError) as error:
        train.train(tiny(changed), tmp_path)
    message = str(error.value)
    for part in (
        "optimizer.learning_rate: 0.001 -> 0.002",
        "augment.scale_range: [0.8, 1.2] -> (0.9, 1.2)",
        "--allow_changed_config",
    ):
        assert part in message
    assert "train.save_every" not in message and "\n" not in message
    assert "train.steps" not in message  # it may grow
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 2

    train.train(tiny(changed), tmp_path, allow_changed_config=True)
    assert "Continues after step 2 of 3." in capsys.readouterr().out
    assert [line["learning_rate"] for line in metrics_of(tmp_path) if "loss" in line][-1] == pytest.approx(
        2e-3
    )
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 3


def test_workdirs_of_other_versions_are_listed_refused_or_allowed(tiny, state_of, same, tmp_path, capsys):
    config = tiny({"train.steps": 2})
    train.train(config, tmp_path / "whole")
    workdir = tmp_path / "older"
    train.train(tiny({"train.steps": 1, "train.evaluate_every": 9}), workdir)
    old = json.loads(config.to_json())
    del old["optimizer"]["clip_norm"], old["evaluate"]["decode"]
    old["train"]["gone"] = 3
    (workdir / "config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="with another config: train.gone: 3 -> None. Choose"):
        train.train(config, workdir)
    train.train(config, workdir, allow_changed_config=True)
    assert "Continues after step 1 of 2." in capsys.readouterr().out
    same(state_of(config, workdir, 2), state_of(config, tmp_path / "whole", 2))
    (workdir / "config.json").write_text("")
    with pytest.raises(ValueError, match="config.json: not readable as json"):
        train.train(config, workdir)


def test_values_that_change_no_future_step_are_free(tiny, tmp_path):
    config = json.loads(tiny().to_json())
    Workdir(tmp_path).check_config(config, allow_changed=False)
    for name in FREE:
        section, _, key = name.partition(".")
        changed = json.loads(tiny().to_json())
        for k in [key] if key else list(changed[section]):
            changed[section][k] = "another"
        Workdir(tmp_path).check_config(changed, allow_changed=False)
        assert json.loads((tmp_path / "config.json").read_text()) == changed
    with pytest.raises(ValueError, match="train.steps: 4 -> 3. Only a longer training continues as it is"):
        shorter = json.loads(tiny({"train.steps": 3}).to_json())
        Workdir(tmp_path).check_config(shorter, allow_changed=False)


@pytest.mark.parametrize("schedule", ["constant", "steps"])
def test_a_training_may_be_longer_if_its_schedule_does_not_change(
    tiny, state_of, same, tmp_path, capsys, schedule
):
    changes = {"optimizer.schedule": schedule, "optimizer.milestones": (0.6,), "train.evaluate_every": 9}
    whole = tiny(changes | {"train.steps": 0, "train.epochs": 0.8})  # 40 people in batches of 8: 4 steps
    train.train(whole, tmp_path / "whole")
    train.train(tiny(changes | {"train.steps": 2}), tmp_path / "longer")
    train.train(whole, tmp_path / "longer")
    assert "Continues after step 2 of 4." in capsys.readouterr().out
    same(state_of(whole, tmp_path / "longer", 4), state_of(whole, tmp_path / "whole", 4))


def test_for_a_longer_training_the_error_describes_its_schedule(tiny, tmp_path):
    def config(**changes):
        return json.loads(tiny({"optimizer.schedule": "cosine"} | changes).to_json())

    Workdir(tmp_path).check_config(config(), allow_changed=False)
    longer = config(**{"train.steps": 0, "train.epochs": 2.0})
    message = "train.epochs: 1.0 -> 2.0; train.steps: 4 -> 0. optimizer.schedule=cosine .* 10 instead of 4"
    with pytest.raises(ValueError, match=message):
        Workdir(tmp_path).check_config(longer, allow_changed=False, examples=40)
    (tmp_path / "config.json").write_text('{"train": []}')
    with pytest.raises(ValueError, match="was started with another config: "):
        Workdir(tmp_path).check_config(longer, allow_changed=False, examples=40)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="config.json: expected a json object, found list.$"):
        Workdir(tmp_path).check_config(longer, allow_changed=False)


def test_a_workdir_may_have_any_name_and_its_first_checkpoint_is_read_back(
    tiny, monkeypatch, tmp_path, capsys
):
    workdir = tmp_path / "lr=[0.1, 0.2]*?"
    config = tiny({"train.evaluate_every": 9})
    train.train(config, workdir)
    assert loading.load(workdir)[2].step == loading.load(workdir / "checkpoints" / "4")[2].step == 4
    train.train(config, workdir)
    assert "Already trained to step 4" in capsys.readouterr().out

    def lost(self, step, *args):
        raise ValueError(f"{self.directory / str(step)}: the checkpoint is damaged")

    monkeypatch.setattr(checkpoint.Checkpoints, "variables", lost)
    with pytest.raises(OSError, match="cannot be read back: .*checkpoints/2: the checkpoint is damaged"):
        train.train(config, tmp_path / "other")


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("elsewhere"), lambda p: p.mkdir(), os.mkfifo])
def test_a_lock_touches_nothing_but_a_file_of_its_own(tmp_path, make):
    (tmp_path / "elsewhere").write_text("precious")
    make(tmp_path / ".lock")
    with pytest.raises(ValueError, match=r"\.lock: .*lock file; remove it.$"):
        with Workdir(tmp_path).locked():
            pass
    assert (tmp_path / "elsewhere").read_text() == "precious"
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / ".lock").write_text("kept")
    with Workdir(tmp_path / "used").locked():
        assert (tmp_path / "used" / ".lock").read_text() == "kept"


def test_a_workdir_older_than_a_field_continues_with_its_neutral_value(tiny, tmp_path):
    older = json.loads(tiny().to_json())
    del older["loss"]["activity_weight"], older["loss"]["adaptive"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    # 1 unit is the model's own default
    Workdir(tmp_path).check_config(json.loads(tiny({"model.units": 1}).to_json()), allow_changed=False)
    (tmp_path / "config.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"config: loss.activity_weight: 0.0 -> 0.5. Choose"):
        Workdir(tmp_path).check_config(
            json.loads(tiny({"loss.activity_weight": 0.5}).to_json()), allow_changed=False
        )


def test_a_plateau_lowers_the_rate_that_is_logged(tiny, tmp_path):
    changes = {"schedule": "plateau", "patience": 1, "factor": 0.5, "learning_rate": 1e-12}
    changes = {f"optimizer.{key}": value for key, value in changes.items()}
    # One step per epoch; the losses of equal weights vary with the augmentation.
    config = tiny({**changes, "train.steps": 12, "data.examples": (8, 8), "train.batch_size": 8})
    train.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[0] == pytest.approx(1e-12) and rates[-1] == pytest.approx(5e-13) and len(set(rates)) == 2
    with pytest.raises(ValueError, match="plateau needs optimizer.patience of 1 epoch or more"):
        train.make_optimizer(tiny({"optimizer.schedule": "plateau"}), 40)


def test_complete_training_says_so(tiny, tmp_path, capsys):
    config = tiny({"train.steps": 2})
    assert train.train(config, tmp_path)["examples"] == 10
    lines = (tmp_path / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert train.train(config, tmp_path) == {}
    assert "Already trained to step 2. Use `hourglass evaluate`" in capsys.readouterr().out
    assert saved_steps(tmp_path) == [2] and (tmp_path / "metrics.jsonl").read_text() == lines


# The logs of a run.


def test_console_prints_model_data_progress_and_scores(tiny, tmp_path, capsys):
    scores = train.train(tiny({"train.steps": 2, "train.log_every": 2}), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    # A convolution 4 * 4 * 3 * 8, scale and bias of 8, two of 8 * 16 + 16: 384 + 16 + 288.
    assert lines[0] == (
        "newell: 688 parameters, 32 px, float32; synthetic-train: 40 people, validation 10; 1 x cpu, batch 8."
    )
    assert lines[1] == "Parameters: conv 384, stack* 288 (2 modules), norm 16; all are in parameters.txt."
    assert lines[2].startswith("step 2/2 (100%)  loss ") and "lr 1.00e-03" in lines[2]
    assert lines[3].startswith("synthetic-validation, step 2, 10 people; ")
    assert "\n".join(lines[4:]) == evaluate.report(scores)


class Attending(nn.Module):
    """`Small`, with attention."""

    joints: int

    @nn.compact
    def __call__(self, image, train=False):
        outputs = conftest.Small(self.joints, name="small")(image, train)
        return outputs._replace(attention={"stack1_refined": nn.sigmoid(outputs.heatmaps[0][..., :1])})


def test_attention_has_a_sheet_in_training_and_in_evaluation(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models, "build", lambda name, joints, **fields: Attending(joints))
    shown = []
    monkeypatch.setattr(logs.Log, "pictures", lambda self, step, pictures: shown.append((step, pictures)))
    config = tiny({"train.steps": 1, "train.pictures": 2})
    train.train(config, tmp_path)
    # Scores are printed with their protocol in training, too.
    printed = capsys.readouterr().out
    assert "validation, step 1, 10 people; crop: image, no flip, scales 1, quarter\nPCKh@0.5 " in printed
    assert "\nAttention within the box of the labelled joints: " in printed
    scores = evaluate.evaluate(config, tmp_path, tmp_path)
    assert scores.attention["people"] == 10 and 20 < scores.attention["chance"] < 90
    assert (
        scores.to_dict()["attention"] == json.loads((tmp_path / "evaluation.json").read_text())["attention"]
    )
    step, sheet = shown[-1]
    names = ("attention_0000001", "evaluation_attention")
    pictures = [cv2.imread(str(tmp_path / "pictures" / f"{name}.png")) for name in names]
    # Two examples, with a tile for the crop and one for the map.
    assert step == 1 and sheet["attention"].shape[1] == 2 * 164 and sheet["attention"].shape[0] % 2 == 0
    for picture in pictures:
        np.testing.assert_array_equal(picture[..., ::-1], sheet["attention"])


def test_tensorboard_gets_scalars_and_pictures(tiny, metrics_of, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(tiny({"train.steps": 2, "train.tensorboard": True, "train.profile": (2, 2)}), tmp_path)
    (trace,) = (tmp_path / "plugins" / "profile").iterdir()
    assert len(list(trace.glob("*.xplane.pb"))) == 1
    with gzip.open(trace / "perfetto_trace.json.gz") as file:
        assert len(json.load(file)["traceEvents"]) > 10
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    lines = {line["step"]: line for line in metrics_of(tmp_path) if "loss" in line}
    for name in ("loss", "loss_stack2", "learning_rate"):
        points = {
            e.step: float(np.frombuffer(e.tensor_proto.tensor_content, np.float32)[0])
            if e.tensor_proto.tensor_content
            else e.tensor_proto.float_val[0]
            for e in events.Tensors(name)
        }
        assert points == pytest.approx({step: lines[step][name] for step in (1, 2)}, rel=1e-6)
    (picture,) = [tag for tag in events.Tags()["tensors"] if "annotated" in tag]
    encoded = events.Tensors(picture)[-1].tensor_proto.string_val[-1]
    shown = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, cv2.imread(str(tmp_path / "pictures" / "validation_0000002.png")))


def test_a_training_without_better_scores_ends_after_a_restart_too(tiny, monkeypatch, capsys, tmp_path):
    means = [10.0, 30.0, 20.0, float("nan"), 30.0]  # the best is at step 2; 3, 4 and 5 are not better
    plain = results.score_predictions

    def scored(*args, **options):
        scores = plain(*args, **options)
        scores["table"]["Mean"] = means.pop(0)
        return scores

    monkeypatch.setattr(results, "score_predictions", scored)
    config = tiny({"train.steps": 9, "train.evaluate_every": 1, "train.pictures": 0, "train.stop_after": 3})
    asked = train.Stop.asked
    monkeypatch.setattr(train.Stop, "asked", lambda self, step: step == 3 or asked(self, step))
    train.train(config, tmp_path)  # stopped at step 3; its evaluation is due
    monkeypatch.setattr(train.Stop, "asked", asked)
    for _ in range(2):  # the second time nothing is left to do
        train.train(config, tmp_path)
        assert saved_steps(tmp_path)[-1] == 5 and not means
        ended = "Ended after step 5 of 9: 3 evaluations without a better score (the best is 30.00)."
        assert capsys.readouterr().out.splitlines()[-1] == ended
    monkeypatch.setattr(sources, "validates_on_test", lambda data: True)
    with pytest.raises(ValueError, match="train.stop_after: a test split must not end"):
        train.train(config, tmp_path / "b")


def test_the_log_drops_repeated_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n{"step": 3, "a": 3.0}\n{"step": 4, "')
    with logs.Log(tmp_path, 2, tensorboard=False) as log:
        log.scalars(3, {"a": np.float32(0.5)})
    assert path.read_text() == '{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n{"step": 3, "a": 0.5}\n'


def test_progress_counts_training_time_only(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    progress = logs.Progress(10, 110)
    clock[0] += 20
    assert progress.lap(20) == (2.0, 0.0, 180.0)  # 10 steps in 20 s; 90 steps are left
    clock[0] += 5 + 10
    progress.away(5)
    pace, _, left = progress.lap(30)
    assert pace == 1.0 and left == pytest.approx(35 / 20 * 80)  # the rest has evaluations, too
    assert [console.duration(s) for s in (0, 59.6, 75, 3675)] == ["0:00", "1:00", "1:15", "1:01:15"]


def test_waiting_counts_while_the_devices_are_idle(monkeypatch):
    clock, idle = [0.0], iter([True, False, True])
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])

    def slow():
        for seconds in (1.0, 2.0, 4.0):
            clock[0] += seconds
            yield seconds

    progress, seen = logs.Progress(0, 9), []
    for batch in progress.waiting(slow(), lambda: next(idle)):
        seen.append(batch)
        clock[0] += 3.0  # the step
    assert seen == [1.0, 2.0, 4.0]
    # Of 3 x 3 + 7 seconds the first and the third wait count; those of the last lap do not count again.
    assert progress.lap(3)[1] == pytest.approx(5 / 16)
    clock[0] += 1.0
    assert progress.lap(4)[1] == 0.0


def test_a_slow_source_is_named(tiny, monkeypatch, metrics_of, tmp_path, capsys):
    plain, make_step, clock, away = pipeline.batches, train.make_step, time.monotonic, [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock() + away[0])

    def steps_of_a_minute(*args, **options):
        step = make_step(*args, **options)

        def run(state, batch):
            away[0] += 60.0  # by the clock, independent of the machine's load
            return step(state, batch)

        return run

    def slow(source, *, train, **options):
        for batch in plain(source, train=train, **options):
            time.sleep(0.3 if train else 0)  # a step of `Small` takes milliseconds: the devices are idle
            away[0] += 540.0 if train else 0.0
            yield batch

    monkeypatch.setattr(train, "make_step", steps_of_a_minute)
    config = tiny({"train.steps": 4, "train.log_every": 2, "train.save_every": 9})
    train.train(config, tmp_path / "plain")
    monkeypatch.setattr(pipeline, "batches", slow)
    train.train(config, tmp_path / "slow")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 4/4")]
    shares = [metrics_of(tmp_path / name)[1]["input_share"] for name in ("plain", "slow")]
    assert 0 <= shares[0] < 0.2 and 0.8 < shares[1] < 0.95
    assert f"  input {100 * shares[1]:.0f}% of the time  left" in said[1]
    assert losses_of(metrics_of(tmp_path / "plain")) == losses_of(metrics_of(tmp_path / "slow"))


def test_picture_of_a_step_is_drawn_from_that_step(tiny, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(draw, "save", lambda path, image: seen.append((path.name, image.copy())))
    train.train(tiny({"train.steps": 2, "train.evaluate_every": 1, "train.pictures": 2}), tmp_path)
    assert [name for name, _ in seen] == ["validation_0000001.png", "validation_0000002.png"]
    assert seen[0][1].shape == (196, 6 * 196, 3) and (seen[0][1] != seen[1][1]).any()
    tiles = seen[0][1].reshape(196, 6, 196, 3).swapaxes(0, 1)
    seen_next = seen[1][1].reshape(196, 6, 196, 3).swapaxes(0, 1)
    np.testing.assert_array_equal(tiles[[0, 3]], seen_next[[0, 3]])  # the annotations are unchanged
    assert jax.process_count() == 1
