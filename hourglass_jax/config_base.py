"""The base of all configs: every field with its neutral value, the arguments after the colon, the files.

A config file of your own imports `config_base` from here and defines `get_config(string)`, which returns
`config_base.base()` with its own values, or changes those of a paper:
`config_base.named("newell").get_config("stacks=4")`.
"""

import importlib
import pathlib
import types
from typing import Any

from ml_collections import ConfigDict

LEEDS = {"lsp", "lspet"}


def base() -> Any:
    """Every field that there is. A config file sets the values of its paper."""
    c: Any = ConfigDict()  # whose fields no type checker knows
    c.seed = 0

    c.model = ConfigDict(dict(name="newell", dtype="float32"))

    c.data = ConfigDict()
    c.data.dataset = "synthetic"  # synthetic, lsp, lspet, mpii, flic, coco; together: "lsp+lspet+mpii"
    c.data.validation_dataset = ""  # "" is the first of them
    c.data.joints = ""  # the network's: lsp, mpii or flic; "" is the first dataset's
    # tfds; packed: files in packed_dir, written by data.prepare --pack; device: they stay on the accelerator
    c.data.source = "tfds"
    c.data.data_dir = ""  # where TFDS keeps what it prepared; "" is ~/tensorflow_datasets
    c.data.manual_dir = ""  # where the downloaded sets lie; "" is DATA_DIR/downloads/manual
    c.data.packed_dir = ""
    c.data.annotations = ""  # for coco, anyone's own: "train.json,validation.json", or one file for both
    c.data.images = ""  # their folders, if the pictures are neither beside a file nor in images/ there
    c.data.category = ""  # of several categories with different joints, the one to take
    c.data.train_split = "train"  # also train_all: MPII's train and validation; LSP extended with LSP's train
    c.data.people = "all"  # labelled: all joints are; visible: all are; single: alone; see data/selection.py
    c.data.validation_people = "all"
    c.data.validation_split = "auto"  # validation; test for lsp, which has no other
    c.data.examples = (20_000, 500)  # drawn figures in train and validation, for synthetic
    c.data.variety = 1.0  # in [0, 1], how hard the drawn figures are
    c.data.box = "auto"  # of a training crop: annotated, joints or image; auto is the dataset's own
    c.data.validation_box = "auto"
    c.data.allow_missing = False  # train on a part of a dataset, prepared with --allow_missing
    c.data.canvas = 384  # px, side of the stored crop
    c.data.margin = 1.5  # side of the stored crop / side of the nominal crop
    c.data.quality = 95  # of the stored JPEG
    c.data.size = 256  # px, side of the network's input
    c.data.mean = (0.4404, 0.4440, 0.4327)  # MPII's, as in the public PyTorch port
    c.data.threads = 0  # that decode; 0 is one for each core

    c.augment = ConfigDict()  # see hourglass_jax/pose/augment.py
    c.augment.scale_normal = (0.0, 0.0)
    c.augment.scale_range = (1.0, 1.0)
    c.augment.rotate_normal = (0.0, 0.0)
    c.augment.rotate_probability = 1.0
    c.augment.rotate_range = 0.0
    c.augment.shear = 0.0
    c.augment.flip_probability = 0.0
    c.augment.colour = 0.0

    c.loss = ConfigDict()
    c.loss.kind = "mean_squared_error"  # coordinates, or cross_entropy, which leaves the plateau sooner
    # The targets' Gaussians. sigma 1 is that of the public PyTorch ports, and what this project's weights
    # were trained with. Newell's text says 1.5; his and Chu's Torch code draws 1.75 in a window of 7 x 7
    # cells at the joint's cell, because `drawGaussian(..., 1)` asks for 0.25 of the window's size.
    c.loss.sigma = 1.0  # cells
    c.loss.window = 0  # cells, side of the square outside of which a target is zero; 0 is 3 sigma each way
    c.loss.at_cell = False  # at the centre of the joint's cell, as released, or at the joint itself
    c.loss.reduce_targets = False  # targets of smaller maps are the full one reduced; HG-Int
    c.loss.mask_unlabelled = False  # Newell 5.3: a missing joint's zero map counts; heatmaps only
    c.loss.leave_out = ()  # names of joints that are not trained
    c.loss.heatmap_weight = 1.0  # of the heatmaps beside the coordinates
    c.loss.kernel_weight = 0.0  # of the sum of all kernels' squares
    c.loss.activity_weight = 0.0  # of the features' mean squares, summed over convolutions; selvam
    c.loss.occluded_amplitude = 1.0  # of an occluded joint's target
    c.loss.sum_over_cells = False  # stacks of different sizes count alike
    c.loss.adaptive = False  # joints weigh by the errors of the stacks before
    c.loss.adaptive_limit = True  # only where a person's mean error is below one half; False is as printed

    c.optimizer = ConfigDict()
    c.optimizer.name = "rmsprop"  # adam, lion, muon
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.weight_decay = 0.0
    c.optimizer.clip_norm = 0.0
    c.optimizer.schedule = "steps"  # cosine, constant, plateau: one drop when the training loss has settled
    c.optimizer.patience = 0  # epochs without a lower mean loss, for plateau
    c.optimizer.milestones = ()  # epochs
    c.optimizer.factor = 0.1
    c.optimizer.warmup_steps = 0

    c.train = ConfigDict()
    c.train.batch_size = 16
    c.train.epochs = 1.0
    c.train.epoch_steps = 0  # in an epoch of epochs, milestones and phases; 0 is a pass over the examples
    c.train.steps = 0  # if not 0, instead of epochs
    c.train.accumulate = 1
    c.train.norm_group = 0  # examples that share batch statistics; 0: the whole batch, on all devices
    c.train.remat = ""  # less memory for more time: units, hourglasses, nested; see transforms/remat.py
    c.train.init_from = ""  # fine-tuning: a workdir, a checkpoint, a file of weights or a PyTorch checkpoint
    # (tasks, epochs), ...: a round of phases, repeated; each trains some of the model's tasks and holds the
    # others. With the schedule "steps" every round ends with a milestone. () trains everything.
    c.train.phases = ()
    c.train.skip_nonfinite = 0  # steps without a finite loss and gradient: skip so many, then stop
    c.train.average_decay = 0.0  # of the averaged parameters (EMA); 0 is none
    c.train.log_every = 50  # steps
    c.train.evaluate_every = 1000
    c.train.save_every = 1000
    c.train.keep_latest = 2
    c.train.pictures = 12  # validation crops that are drawn at each evaluation
    c.train.tensorboard = True
    c.train.track = ""  # also to trackers: "wandb:PROJECT", "mlflow:EXPERIMENT", or both with a comma
    c.train.profile = ()  # (first, last): a trace of these steps, for TensorBoard and Perfetto
    c.train.stop_after = 0  # evaluations without a better score, after which to end; 0 is never

    c.evaluate = ConfigDict()
    c.evaluate.batch_size = 32
    # A paper's: newell, chu, tang, mssh or selvam, in place of flip and scales; see evaluation/protocol.py
    c.evaluate.protocol = ""
    c.evaluate.flip = True
    c.evaluate.scales = (1.0,)  # of a pyramid: at 1.2 the person is 1.2 times larger, the crop smaller
    c.evaluate.decode = "quarter"  # argmax, dark, soft_argmax; see hourglass_jax/pose/heatmaps.py
    c.evaluate.metric = "auto"  # pckh where head sizes are known, else pck; pckbox for joints without a torso
    return c


# The targets of Newell's text, of his and Chu's released Torch code, and of the public PyTorch ports.
TARGETS = {
    "default": {},
    "text": {"sigma": 1.5},
    "torch": {"sigma": 1.75, "window": 7, "at_cell": True},
    "ports": {"sigma": 1.0, "at_cell": True},
}


def targets(c: Any, name: str) -> None:
    """Sets the targets to those of `TARGETS`.

    Raises:
      ValueError: an unknown name.
    """
    if name not in TARGETS:
        raise ValueError(f"targets={name!r} is unknown; choose from {', '.join(TARGETS)}.")
    c.loss.update(TARGETS[name])


def crowd_labelled(dataset: str) -> bool:
    """Whether joints without a label may be there: in Leeds' sets, and in COCO's format by its definition.

    These say nothing, not "absent", and must not count (`loss.mask_unlabelled`).
    """
    return not {*LEEDS, "coco", "yolo", "dlc", "labelme"}.isdisjoint(dataset.split("+"))


def for_leeds(dataset: str) -> bool:
    """Whether a dataset is Leeds', or a mixture is in its joints, as the papers train for LSP."""
    return dataset.split("+")[0] in LEEDS


def quick(c: Any, learning_rate: float) -> None:
    """A recipe for small networks and short runs, where the papers' squared error stays on its plateau."""
    c.loss.kind = "cross_entropy"
    c.optimizer.update(name="adam", learning_rate=learning_rate, schedule="cosine", warmup_steps=100)
    c.train.update(batch_size=32, average_decay=0.998)


def arguments(string: str | None, **defaults: Any) -> Any:
    """Reads "key=value,key=value" into the types of the defaults.

    Raises:
      ValueError: an unknown key or a value of another type; the message says what there is.
    """
    values = dict(defaults)
    for item in filter(None, (string or "").split(",")):
        key, _, value = item.partition("=")
        if key not in defaults:
            known = ", ".join(f"{name}={value}" for name, value in defaults.items())
            raise ValueError(f"The config has no argument {key!r}; it has (with defaults) {known}.")
        try:
            values[key] = _parse(value, type(defaults[key]))
        except ValueError:
            kind = type(defaults[key]).__name__
            raise ValueError(f"The config's argument {key}={value!r} must be of type {kind}.") from None
    return ConfigDict(values)


def _parse(value: str, kind: type):
    if kind is not bool:
        return kind(value)
    if value.lower() not in ("true", "false"):
        raise ValueError
    return value.lower() == "true"


def folder() -> pathlib.Path:
    """Where the package's configs lie: inside it or, in a checkout, next to it."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Of the package's configs."""
    return sorted({path.stem for path in folder().glob("*.py")} - {"__init__", "common"})


def named(name: str) -> types.ModuleType:
    """The package's config `name` as a module, which has `get_config`.

    Raises:
      ValueError: there is none of this name; the message says which there are.
    """
    if name not in names():
        raise ValueError(f"No config is named {name!r}; there are {', '.join(names())}.")
    installed = folder().parent == pathlib.Path(__file__).parent
    return importlib.import_module(f"hourglass_jax.configs.{name}" if installed else f"configs.{name}")


def find(config: str) -> str:
    """A file for `config`, with its arguments: "newell:stacks=2" -> "FOLDER/newell.py:stacks=2".

    A file that exists is itself. NAME and configs/NAME.py are otherwise the package's own.

    Raises:
      ValueError: there is neither; the message says which the package has.
    """
    name, colon, arguments = config.partition(":")
    path = pathlib.Path(name)
    if path.is_file():
        return config
    if path.suffix in ("", ".py") and str(path.parent) in (".", "configs") and path.stem in names():
        return f"{folder() / path.stem}.py{colon}{arguments}"
    raise ValueError(
        f"--config={name}: there is no such file; the package has {', '.join(names())}, "
        "for instance --config=newell:stacks=2."
    )
