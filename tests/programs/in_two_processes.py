"""One of two processes that do the trainings of FOLDER/plan.json together, one after the other.

    python in_two_processes.py PORT NUMBER FOLDER

A training of the plan has a name, which is its workdir in FOLDER, a config for each of the processes, and
whether it is evaluated. Prints "## NAME" before its lines, and the error if it is refused. The error of the
last one ends the process.
"""

import json
import pathlib
import sys

import conftest
from ml_collections import ConfigDict

from hourglass_jax import console, evaluate, main, models, train
from hourglass_jax.training import processes

models.build = conftest.create_small
conftest.share_programs()
sys.modules["matplotlib"] = None  # not needed
port, number, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])


def run():
    plan = json.loads((folder / "plan.json").read_text())
    for training in plan:
        print("##", training["name"], flush=True)
        config, workdir = ConfigDict(training["configs"][number]), folder / training["name"]
        try:
            train.train(config, workdir, allow_changed_config=True)
            if training["evaluate"]:
                evaluate.evaluate(config, workdir, workdir)
        except ValueError as error:
            if training is plan[-1]:
                raise
            print(error, flush=True)


processes.begin(f"localhost:{port}", 2, number, **main.PATIENCE)
sys.exit(console.run(run))
