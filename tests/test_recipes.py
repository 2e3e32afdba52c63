"""CONTRIBUTING's recipe for a new system: one file, which is found by its name, trained for a step."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hourglass_jax import models, train

MODEL = '''
import flax.linen as nn
import jax.numpy as jnp

from hourglass_jax.models.outputs import Outputs


class Model(nn.Module):
    """A stride of four and one convolution for the heatmaps."""

    joints: int
    dtype: jnp.dtype = jnp.float32
    width: int = 4

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.relu(nn.Conv(self.width, (4, 4), (4, 4), dtype=self.dtype)(image))
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
        return Outputs(heatmaps=(nn.Conv(self.joints, (1, 1), dtype=self.dtype)(x).astype(jnp.float32),))
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A file models/mine.py, as if it were in the package."""
    (tmp_path / "mine.py").write_text(MODEL)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    there = models.names()
    monkeypatch.setattr(models, "names", lambda: sorted([*there, "mine"]))
    importlib.invalidate_caches()
    yield


def test_a_new_system_is_one_file_found_by_its_name(recipe, tiny, tmp_path, metrics_of, quick_compiles):
    assert models.defaults("mine") == {"width": 4}
    model = models.build("mine", joints=16, width=2)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    # 4 x 4 x 3 x 2 and 2; batch norm 2 and 2; 2 x 16 and 16
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 98 + 4 + 48
    config = tiny({"train.steps": 1, "train.evaluate_every": 1, "train.save_every": 1})
    config.model = type(config)({"name": "mine", "dtype": "float32", "width": 2})
    train.train(config, tmp_path / "run")
    (loss,) = [line["loss"] for line in metrics_of(tmp_path / "run") if "loss" in line]
    assert np.isfinite(loss)
