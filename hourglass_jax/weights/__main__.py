import sys

from hourglass_jax import weights

sys.exit(weights.main())
