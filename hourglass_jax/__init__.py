"""The stacked-hourglass family of 2D human pose estimation in JAX."""
