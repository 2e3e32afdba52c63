"""Steps, trainings and evaluations on eight devices and on one; their results go to FOLDER.

    python on_eight_devices.py FOLDER        (with 8 simulated devices)

FOLDER/states.npz has the states after three steps, and stdout their messages and collectives. A run of eight
devices stops at step 2 (FOLDER/begun); copies continue to step 4 on eight devices and on one (FOLDER/8 and
FOLDER/1), and it is evaluated on them (FOLDER/begun_on_8 and FOLDER/begun_on_1). FOLDER/one is a whole run of
one device, with its evaluation.
"""

import json
import pathlib
import re
import shutil
import sys
import types

import conftest
import jax
import numpy as np
import optax

from hourglass_jax import devices, evaluate, models, train
from hourglass_jax.benchmarks import hlo
from hourglass_jax.data import feed, sources
from hourglass_jax.network import network_of
from hourglass_jax.training import step as train_step

COUNTS = (1, 8)


def mesh_of(count):
    return jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",))


def steps(file):
    """Three training steps of a real network."""
    # Narrower, the norms of a few features would make much of how a sum is rounded.
    changes = {"model.stacks": 1, "model.width": 8, "loss.kind": "mean_squared_error"}
    config = conftest.tiny(changes)
    source = sources.open_source(config.data, train=True)
    metadata = {"config": config.to_dict(), "skeleton": source.skeleton.to_dict()}
    network, sgd = network_of(metadata), optax.sgd(0.1)
    fresh = train.make_state(config, network, sgd, mesh_of(1), types.SimpleNamespace(latest=None))
    fresh, result = jax.device_get(fresh), {}  # the steps reuse the memory of a state
    for count in COUNTS:
        mesh, step = mesh_of(count), None
        state = jax.device_put(fresh, devices.replicated(mesh))
        sent, resident = feed.Sent(source, mesh), feed.Resident(source, mesh)
        options = {"train": True, "batch_size": 8, "steps": 3}
        for batch, same in zip(sent.batches(**options), resident.batches(**options), strict=True):
            inputs = sent.put(batch, train_step.INPUTS)
            for name, value in resident.put(same, train_step.INPUTS).items():
                assert value.sharding == inputs[name].sharding
                np.testing.assert_array_equal(value, inputs[name])
            if step is None:
                step = train.make_step(config, network, source, sgd, mesh).lower(state, inputs).compile()
            state, metrics = step(state, inputs)
        leaf = state.params["stem"]["conv"]["kernel"]
        assert len(leaf.sharding.device_set) == count and leaf.sharding.is_fully_replicated
        for path, leaf in jax.tree.leaves_with_path(
            (state.params, state.batch_stats, state.averaged, metrics)
        ):
            result[f"{count}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    np.savez(file, **result)
    for batch_size in (12, 0):
        try:
            devices.check_divides(batch_size, "train.batch_size")
        except ValueError as error:
            print(error)
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, state.batch_stats)]
    # Biases before a norm of the batch have no gradient to send.
    cancelled = re.compile(r"\['(conv0|conv1|stack0_lin)'\]\['bias'\]|^\['stem'\]\['conv'\]\['bias'\]")
    leaves = jax.tree.leaves_with_path(state.params)
    sizes[0] -= sum(x.size for path, x in leaves if cancelled.search(jax.tree_util.keystr(path)))
    print(json.dumps([hlo.collectives(step.as_text()), *sizes]))


def config_of(steps):
    changes = {"train.steps": steps, "train.save_every": 1, "loss.kind": "mean_squared_error"}
    return conftest.tiny(changes | {"data.examples": (40, 13)})


def trainings(folder):
    """Trainings and evaluations of `conftest.Small`."""
    models.build = conftest.create_small
    conftest.share_programs()

    def use(count):
        """Makes the first `count` devices of the machine the only ones."""
        devices.mesh = lambda: mesh_of(count)

    use(8)
    train.train(config_of(2), folder / "begun")
    for count in COUNTS:
        use(count)
        shutil.copytree(folder / "begun", folder / str(count))
        train.train(config_of(4), folder / str(count))
        evaluate.evaluate(config_of(4), folder / f"begun_on_{count}", folder / "begun")
    use(1)
    train.train(config_of(4), folder / "one")
    evaluate.evaluate(config_of(4), folder / "one", folder / "one")


if __name__ == "__main__":
    sys.modules["matplotlib"] = None  # not needed
    steps(pathlib.Path(sys.argv[1]) / "states.npz")
    trainings(pathlib.Path(sys.argv[1]))
