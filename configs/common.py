"""What a config file shares with all others; it lies in the package, so that an installed one has it, too."""

from hourglass_jax.config_base import arguments, base, crowd_labelled, for_leeds, quick, targets

__all__ = ["arguments", "base", "crowd_labelled", "for_leeds", "quick", "targets"]
