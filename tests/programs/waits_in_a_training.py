"""One of two processes, within a training that does nothing.

    python waits_in_a_training.py PORT NUMBER KIND [SECONDS]

Waits up to SECONDS for the other. Prints a line when both are there, then ends as a training of several
processes does. Until then it is KIND: "computing" in collectives, or "waiting" outside of them.
"""

import sys
import time

import numpy as np
from jax.experimental import multihost_utils

from hourglass_jax import console, main
from hourglass_jax.training import processes

port, number, kind, *limit = sys.argv[1:]
processes.START = int(limit[0]) if limit else processes.START
main.PATIENCE["heartbeat_timeout_seconds"] = 6  # a test waits for it


def run():
    processes.begin(f"localhost:{port}", 2, int(number), **main.PATIENCE)
    with processes.ending_when_one_is_lost():
        multihost_utils.process_allgather(np.zeros(1))
        print("there", flush=True)
        while True:
            if kind == "computing":
                multihost_utils.process_allgather(np.zeros(1))
            time.sleep(0.02)


sys.exit(console.run(run))
