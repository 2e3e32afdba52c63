"""A preparation that prints "begun" at its first person and then waits to be killed.

python prepare_and_wait.py DATA_DIR MANUAL_DIR
"""

import sys
import time

from hourglass_jax.data import people_builder, preparation


def wait(*arguments):
    print("begun", flush=True)
    time.sleep(600)


people_builder.make_example = wait
data_dir, manual_dir = sys.argv[1:]
builder = preparation.builder("lspet", data_dir=data_dir, canvas=48)
preparation.prepare(builder, manual_dir=manual_dir)
