"""`hourglass benchmark` from a checkout: python launch/benchmark.py systems --workdir=runs/systems"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # Python searches launch/ only

from hourglass_jax.benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
