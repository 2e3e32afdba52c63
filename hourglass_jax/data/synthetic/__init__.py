"""Drawn people: pictures with exact joints, made from a seed, for experiments without a dataset.

A figure is a small 3D skeleton of rotating bones (`figure`). It is posed, seen from a random side, projected
orthographically and painted from far to near (`painting`) into a scene (`scene`); `source` gives examples.
"""

from hourglass_jax.data.synthetic.source import SyntheticPeople

__all__ = ["SyntheticPeople"]
