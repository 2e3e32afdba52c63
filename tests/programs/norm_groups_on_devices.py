"""Prints gradients and all-reduces of a few norms: over the whole batch, and in groups of 2."""

import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import devices
from hourglass_jax.models import layers
from hourglass_jax.transforms import norm_groups


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv, norm = layers.parts(train=True, dtype=x.dtype)
        for i in range(3):
            x = nn.relu(norm(name=f"norm{i}")(conv(4, (1, 1), name=f"conv{i}")(x)))
        return x


rng = np.random.default_rng(0)
x = rng.normal(size=(16, 4, 4, 4)).astype(np.float32)
variables = Net().init(jax.random.key(0), x)
weight = rng.normal(size=x.shape).astype(np.float32)
arguments = variables["params"], variables["batch_stats"], x, weight
found = {"all-reduces": {}, "gradients": {}}
for size, count in ((0, 8), (2, 8), (2, 1)):
    apply = norm_groups.grouped(lambda v, x: Net().apply(v, x, mutable=["batch_stats"]), size)

    def loss(params, stats, x, weight, apply=apply):
        y, new = apply({"params": params, "batch_stats": stats}, x)
        return jnp.sum(weight * y), new

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",))
    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    shardings = {"in_shardings": (same, same, spread, spread), "out_shardings": same}
    program = devices.jit(jax.grad(loss, has_aux=True), mesh, **shardings).lower(*arguments).compile()
    name = f"{size} on {count}"
    found["all-reduces"][name] = len(re.findall(r" all-reduce\(", program.as_text()))
    leaves = jax.tree.leaves(program(*jax.device_put(arguments, (same, same, spread, spread))))
    found["gradients"][name] = [float(v) for leaf in leaves for v in np.ravel(leaf)]
print(json.dumps(found))
