"""Trainings that start from another training's network."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util

from hourglass_jax import loading, train, weights
from hourglass_jax.data import feed, synthetic
from hourglass_jax.network import abstract, network_of
from hourglass_jax.pose import skeletons
from hourglass_jax.training import finetune


@pytest.fixture
def fourteen_joints(monkeypatch):
    """Gives the drawn figures LSP's joints."""
    monkeypatch.setattr(synthetic.SyntheticPeople, "skeleton", skeletons.LSP)
    draw = synthetic.SyntheticPeople.__getitem__
    places = skeletons.LSP.places_in(skeletons.MPII)

    def lsp(self, index):
        example = draw(self, index)
        return example | {name: example[name][places] for name in ("joints", "visible")}

    monkeypatch.setattr(synthetic.SyntheticPeople, "__getitem__", lsp)


def flat(tree):
    return traverse_util.flatten_dict(jax.device_get(tree), sep="/")


class Begun(Exception):
    """Raised instead of the first step, which would have to be compiled."""


def begun(config, workdir, monkeypatch):
    """The state with which a training starts; it has printed its first lines."""
    states, make_state = [], train.make_state

    def first_step(*_):
        raise Begun

    def kept(*args):
        state = make_state(*args)
        states.append(jax.device_get(state))
        return state

    with monkeypatch.context() as patch:
        patch.setattr(train, "make_state", kept)
        patch.setattr(feed.Sent, "put", first_step)
        with pytest.raises(Begun):
            train.train(config, workdir)
    return states[0]


@pytest.fixture(scope="module")
def network(trained):
    """The trained network, without its variables."""
    return loading.load(trained[1])[0]


def test_the_trunk_is_kept_exactly_and_the_heads_are_named(trained):
    network, variables, _ = loading.load(trained[1])
    lsp = {"skeleton": skeletons.LSP, "mean": (0.4, 0.5, 0.5), "model": network.model.clone(joints=14)}
    taken, said = finetune.load(trained[1], dataclasses.replace(network, **lsp), None)
    old = flat(variables)
    # Two stacks: kernel and bias of each stack's heatmaps, and the kernel of the remap between them.
    heads = {
        *(f"params/stack{s}_heatmaps/{leaf}" for s in (0, 1) for leaf in ("kernel", "bias")),
        "params/stack0_remap_heatmaps/kernel",
    }
    assert taken.keys() == old.keys() - heads
    for name in taken:
        np.testing.assert_array_equal(taken[name], old[name], err_msg=name)
    assert said == [
        f"Starts from {trained[1]}; at random: {', '.join(sorted(heads))}.",
        "Note: it was trained with another mean of the channels: --config.data.mean=(0.5,0.5,0.5)",
    ]


def test_a_training_starts_from_a_file_of_weights_with_new_heads(
    small_model, tiny, fourteen_joints, monkeypatch, quick_compiles, tmp_path, capsys
):
    config = tiny({"train.steps": 1, "train.init_from": str(tmp_path / "w.npz")})
    metadata = {"step": 1, "config": config.to_dict(), "skeleton": skeletons.MPII.to_dict()}
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        abstract(network_of(metadata), None),
    )
    weights.write(tmp_path / "w.npz", variables, metadata)
    (tmp_path / "a/checkpoints/1.orbax-checkpoint-tmp").mkdir(parents=True)  # a first save that was killed
    state = begun(config, tmp_path / "a", monkeypatch)
    old, new = flat(variables), flat({"params": state.params, "batch_stats": state.batch_stats})
    heads = {f"params/stack{s}/{leaf}" for s in (0, 1) for leaf in ("kernel", "bias")}
    for name in old.keys() - heads:
        expected = old[name].astype(np.float16) if old[name].ndim > 1 else old[name]
        np.testing.assert_array_equal(new[name], expected, err_msg=name)
        np.testing.assert_array_equal(flat(state.averaged)[name], expected, err_msg=name)
    assert all(new[name].shape == (*old[name].shape[:-1], 14) for name in heads) and state.step == 0
    said = capsys.readouterr().out
    assert f"Starts from {tmp_path / 'w.npz'}; at random: {', '.join(sorted(heads))}.\n" in said


def test_a_training_continues_from_its_own_checkpoint_without_the_other(trained, tiny, tmp_path, capsys):
    shutil.copytree(trained[1], tmp_path / "a")
    train.train(tiny({"train.init_from": "gone"}), tmp_path / "a", allow_changed_config=True)
    said = capsys.readouterr().out
    assert "Starts from" not in said and "Already trained to step 4" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.width": 8}, r"bottom0/norm0/mean is \(4,\) instead of \(8,\);.*; and \d+ more"),
        ({"model.stacks": 1}, "stack1.* is unexpected"),
        ({"model.stacks": 3}, "stack2.* is missing"),
        ({"train.init_from": "nowhere"}, "nowhere holds no checkpoints"),
    ],
)
def test_another_trunk_is_refused_before_anything_is_written(trained, tiny, tmp_path, change, message):
    config = tiny({"train.init_from": str(trained[1])} | change)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        train.train(config, tmp_path / "a")
    assert "\n" not in str(caught.value) and not (tmp_path / "a").exists()


def test_differences_other_than_the_heads_are_reported(network):
    assert finetune.remarks("x", network, network, []) == ["Starts from x."]
    names = ("head", *network.skeleton.joints[1:])
    other = dataclasses.replace(
        network, skeleton=dataclasses.replace(network.skeleton, joints=names), logits=False, mean=(0, 0, 0)
    )
    said = finetune.remarks("x", other, network, [])
    assert said[1].startswith("Note: its joints are head, right_knee") and "for right_ankle" in said[1]
    assert said[2].endswith("--config.data.mean=(0,0,0)")
    assert said[3].endswith("--config.loss.kind=mean_squared_error")


def test_a_pytorch_checkpoint_is_recognised_by_its_extension(tmp_path, network):
    (tmp_path / "hg.pth").write_bytes(b"nothing of the kind")
    with pytest.raises((ValueError, ImportError), match="hg.pth|PyTorch"):
        finetune.load(tmp_path / "hg.pth", network, None)
