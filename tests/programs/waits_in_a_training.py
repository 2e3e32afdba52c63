"""One of two processes, within a training that does nothing.

    python waits_in_a_training.py PORT NUMBER

Prints a line when both are there, then ends as a training of several processes does.
"""

import sys
import time

import jax

from hourglass_jax import main
from hourglass_jax.training import processes

jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]), **main.PATIENCE)
with processes.ending_when_one_is_lost():
    print("there", flush=True)
    time.sleep(300)
