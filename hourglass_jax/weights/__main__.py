import sys

from hourglass_jax.weights import command

sys.exit(command.main())
