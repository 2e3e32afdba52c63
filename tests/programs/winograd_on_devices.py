"""Prints the collectives of Winograd's convolution and kernel gradient with the batch on 8 devices."""

import re

import jax

from hourglass_jax import devices
from hourglass_jax.kernels import winograd

mesh = devices.mesh()
spread, same = devices.sharded(mesh), devices.replicated(mesh)
x = jax.ShapeDtypeStruct((16, 16, 16, 32), "float32", sharding=spread)
kernel = jax.ShapeDtypeStruct((3, 3, 32, 32), "float32", sharding=same)
for function, inputs, out in (
    (winograd.convolve, (x, kernel), spread),
    (winograd.kernel_gradient, (x, x), same),
):
    text = jax.jit(function, out_shardings=out).lower(*inputs).compile().as_text()
    print(re.findall(r"(all-[a-z]+|collective-[a-z]+)[(]", text))
