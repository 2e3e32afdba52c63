"""`hourglass benchmark` from a checkout: python launch/benchmark.py systems --workdir=runs/systems"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # Python looks beside this file only

from hourglass_jax.benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
