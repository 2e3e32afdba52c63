"""A run of 8 devices stops at step 2; copies continue to step 4 on 8 and 1 of them, and are evaluated.

python runs_on_fewer_devices.py FOLDER        (with 8 simulated devices)
"""

import pathlib
import shutil
import sys

import conftest
import jax
import numpy as np

from hourglass_jax import devices, evaluate, models, train

models.build = conftest.create_small
folder = pathlib.Path(sys.argv[1])


def use(count):
    """Makes the first `count` devices of the machine the only ones."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",))
    devices.mesh = lambda: mesh


def config(steps):
    changes = {"train.steps": steps, "train.save_every": 1, "loss.kind": "mean_squared_error"}
    return conftest.tiny(changes | {"data.examples": (40, 13)})


use(8)
train.train(config(2), folder / "begun")
for count in (8, 1):
    workdir = folder / str(count)
    shutil.copytree(folder / "begun", workdir)
    use(count)
    train.train(config(4), workdir, allow_changed_config=True)
    evaluate.evaluate(config(4), folder / f"begun_on_{count}", folder / "begun")
(folder / "config.json").write_text(config(4).to_json())
