"""The stacked-hourglass family of 2D human pose estimation in JAX.

In reading order:

    pose         crop: the four frames of coordinates and the maps between them; skeletons: joint sets;
                 heatmaps: joints -> Gaussians -> joints; augment
    models       layers: unit, hourglass, stem; newell and its descendants, one file for each paper
    kernels      the operations of models, in forms that are fast on a platform
    transforms   transforms of networks: less memory, faster tracing, no batch norm; counts of operations
    training     losses, optimizer, one step as one program, phases; train: the loop
    data         pipeline: from (seed, step) to a batch; its sources, and the preparation of datasets
    evaluation   metrics, tables; evaluate, score, compare: from joints to the papers' tables
    media        pictures, videos, drawing; inference, predictor, predict: the joints in your own pictures
    people       boxes and the detectors that find them, tracking in videos, smooth joints
    weights      a network as one file; loading, checkpoint, network: every kind of trained network
    export, import_torch, submission, part_groups      other runtimes, PyTorch, MPII's server, Tang's groups
    main, cli    the commands; config_base: the fields of all configs; console, files, devices, extras
    benchmarks   measurements of speed

Modules are imported only when they are used: `Predictor` imports JAX, Orbax and OpenCV.
"""

import typing

if typing.TYPE_CHECKING:
    from hourglass_jax.predictor import Predictor

__version__ = "0.2.0"
__all__ = ["Predictor"]


def __getattr__(name: str):
    # Only on demand, because it imports JAX, Orbax and OpenCV.
    if name != "Predictor":
        raise AttributeError(f"The module {__name__!r} has no attribute {name!r}.")
    from hourglass_jax.predictor import Predictor

    return Predictor
