"""One of two processes, within a training that does nothing.

    python waits_in_a_training.py PORT NUMBER [SECONDS]

Waits up to SECONDS for the other. Prints a line when both are there, then ends as a training of several
processes does.
"""

import sys
import time

from hourglass_jax import main
from hourglass_jax.training import processes

port, number, *limit = map(int, sys.argv[1:])
processes.START = limit[0] if limit else processes.START
processes.begin(f"localhost:{port}", 2, number, **main.PATIENCE)
with processes.ending_when_one_is_lost():
    print("there", flush=True)
    time.sleep(300)
