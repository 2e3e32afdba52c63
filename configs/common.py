"""The base that all config files share; it is part of the package, so that an installed one has it, too."""

from hourglass_jax.config_base import arguments, base, crowd_labelled, for_leeds, quick, targets

__all__ = ["arguments", "base", "crowd_labelled", "for_leeds", "quick", "targets"]
