"""The stacked-hourglass family of 2D human pose estimation in JAX.

In reading order:

    data.crop        the four frames of coordinates, and the maps between them
    data.skeletons   joint sets
    heatmaps         joints -> Gaussians -> joints
    models.layers    unit, hourglass, stem; then models.newell and its descendants, one file per paper;
                     kernels: its operations in the forms that a platform is fast at
    losses, optimizer, train_step, train      one step as one program, and the loop; phases: tasks in turn
    data.pipeline    from (seed, step) to a batch; data.synthetic and data.packed are its sources,
                     prepared by data.builders from the people that data.lsp, data.mpii, data.flic and
                     data.coco list; data.feed brings batches to the devices
    inference, metrics, tables, evaluate      from crops to joints, to tables
    pictures, videos, predictor, predict      the joints in your own pictures: in Python, as a command
    fold, flops                               for prediction without batch norm; the operations of a network
    score, compare, submission                others' predictions in files; papers side by side; MPII's server
    checkpoint, weights, devices, files, logs, draw    what these stand on
    import_torch     networks of the public PyTorch stacked hourglass; export: ours for other runtimes
"""

__all__ = ["Predictor"]


def __getattr__(name: str):
    # Only when asked for: it brings JAX, Orbax and OpenCV with it.
    if name != "Predictor":
        raise AttributeError(f"The module {__name__!r} has no attribute {name!r}.")
    from hourglass_jax.predictor import Predictor

    return Predictor
