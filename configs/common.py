"""The base that all config files share. It is part of the package, so that it is installed, too."""

from hourglass_jax.config_base import (
    arguments,
    base,
    crowd_labelled,
    for_leeds,
    has_lsp_joints,
    quick,
    targets,
)

__all__ = ["arguments", "base", "crowd_labelled", "for_leeds", "has_lsp_joints", "quick", "targets"]
