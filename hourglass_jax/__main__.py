import sys

from hourglass_jax import cli

sys.exit(cli.main())
