import sys

from hourglass_jax.benchmarks import command

sys.exit(command.main())
