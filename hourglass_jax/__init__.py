"""The stacked-hourglass family of 2D human pose estimation in JAX.

In reading order:

<<<<<<< HEAD
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
=======
    pose         crop: the four frames of coordinates and the maps between them; skeletons: joint sets;
                 heatmaps: joints -> Gaussians -> joints; augment
    models       layers: unit, hourglass, stem; newell and its descendants, one file for each paper
    kernels      the operations of models, in the forms that are fast on one backend
    transforms   a network rewritten: less memory, faster tracing, no batch norm; its operations counted
    training     losses, optimizer, one step as one program, phases; train: the loop
    data         pipeline: from (seed, step) to a batch; its sources, and the preparation of datasets
    evaluation   metrics, tables; evaluate, score, compare: from joints to the papers' tables
    media        pictures, videos, drawing; inference, predictor, predict: the joints in your own pictures
    weights      a network as one file; loading, checkpoint, network: every kind of trained network
    export, import_torch, submission, part_groups      other runtimes, PyTorch, MPII's server, Tang's groups
    main, cli    the commands; config_base: the fields of all configs; console, files, devices, extras
    benchmarks   where speed is measured

Only what is used is imported: `Predictor` brings JAX, Orbax and OpenCV.
>>>>>>> b0cfa96 (Install the whole package: the command hourglass, configs by name, extras)
"""

__version__ = "0.2.0"
__all__ = ["Predictor"]


def __getattr__(name: str):
    # Only when asked for: it brings JAX, Orbax and OpenCV with it.
    if name != "Predictor":
        raise AttributeError(f"The module {__name__!r} has no attribute {name!r}.")
    from hourglass_jax.predictor import Predictor

    return Predictor
