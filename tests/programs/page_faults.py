"""Prints whether memory is kept, and the page faults of a program's fourth call.

python page_faults.py KEEP        (1: ask for memory to be kept; 0: do not)
"""

import resource
import sys

import jax
import numpy as np

from hourglass_jax import devices

kept = sys.argv[1] == "1" and devices.keep_memory()
x = np.ones((4096, 2), np.float32)
program = jax.jit(lambda x: (x @ x.T) @ x)  # the first product lies in 64 MiB of temporary memory
assert program.lower(x).compile().memory_analysis().temp_size_in_bytes > 60e6


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


print(kept, [faults() for _ in range(4)][-1])
