"""Three training steps on one device and on eight: states go to STATES.npz, messages and collectives to
stdout.

    python steps_on_devices.py STATES.npz        (with 8 simulated devices)
"""

import json
import re
import sys
import types

import conftest
import jax
import numpy as np
import optax

from hourglass_jax import devices, train
from hourglass_jax.benchmarks import hlo
from hourglass_jax.data import feed, sources
from hourglass_jax.network import network_of
from hourglass_jax.training import step as train_step

config = conftest.tiny({"model.stacks": 1, "model.width": 8, "loss.kind": "mean_squared_error"})
source = sources.open_source(config.data, train=True)
metadata = {"config": config.to_dict(), "skeleton": source.skeleton.to_dict()}
network, sgd = network_of(metadata), optax.sgd(0.1)
no_checkpoints = types.SimpleNamespace(latest=None)
result = {}
for count in (1, 8):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",))
    step = train.make_step(config, network, source, sgd, mesh)
    state = train.make_state(config, network, sgd, mesh, no_checkpoints)
    sent, resident = feed.Sent(source, mesh), feed.Resident(source, mesh)
    options = {"train": True, "batch_size": 8, "steps": 3}
    for batch, same in zip(sent.batches(**options), resident.batches(**options), strict=True):
        inputs = sent.put(batch, train_step.INPUTS)
        for name, value in resident.put(same, train_step.INPUTS).items():
            assert value.sharding == inputs[name].sharding
            np.testing.assert_array_equal(value, inputs[name])
        state, metrics = step(state, inputs)
    leaf = state.params["stem"]["conv"]["kernel"]
    assert len(leaf.sharding.device_set) == count and leaf.sharding.is_fully_replicated
    for path, leaf in jax.tree.leaves_with_path((state.params, state.batch_stats, state.averaged, metrics)):
        result[f"{count}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
np.savez(sys.argv[1], **result)
for batch_size in (12, 0):
    try:
        devices.check_divides(batch_size, "train.batch_size")
    except ValueError as error:
        print(error)
collectives = hlo.collectives(step.lower(state, inputs).compile().as_text())
sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, state.batch_stats)]
# Biases before a norm of the batch have no gradient to send.
cancelled = re.compile(r"\['(conv0|conv1|stack0_lin)'\]\['bias'\]|^\['stem'\]\['conv'\]\['bias'\]")
leaves = jax.tree.leaves_with_path(state.params)
sizes[0] -= sum(x.size for path, x in leaves if cancelled.search(jax.tree_util.keystr(path)))
print(json.dumps([collectives, *sizes]))
