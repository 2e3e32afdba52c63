import sys

from hourglass_jax import devices
from hourglass_jax.demo import command

if __name__ == "__main__":
    devices.keep_memory()
    sys.exit(command.main())
