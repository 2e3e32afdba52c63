"""The base of all configs: every field with its neutral value, the arguments after the colon, the files.

Your own config file imports `config_base` from here and defines `get_config(string)`. It returns
`config_base.base()` with its own values, or changes the values of a paper's config:
`config_base.named("newell").get_config("stacks=4")`.
"""

import importlib
import pathlib
import re
import types
from typing import Any

from ml_collections import ConfigDict

LEEDS = {"lsp", "lspet"}


def base() -> Any:
    """A config with all fields. A config file sets the values of its paper."""
    c: Any = ConfigDict()  # type checkers do not know its fields
    c.seed = 0
    c.model = ConfigDict(dict(name="newell", dtype="float32"))
    c.data = _data()
    c.augment = _augment()
    c.loss = _loss()
    c.optimizer = _optimizer()
    c.train = _train()
    c.evaluate = _evaluate()
    return c


def _data() -> Any:
    """The people, the source of their pictures, and the storage of their crops."""
    c: Any = ConfigDict()
    c.dataset = "synthetic"  # synthetic, lsp, lspet, mpii, flic, coco; a mixture: "lsp+lspet+mpii"
    c.validation_dataset = ""  # "": the first dataset of the mixture
    c.joints = ""  # the network's joint set: lsp, mpii or flic; "": the first dataset's
    # tfds; packed: files in packed_dir, written by data.prepare --pack; device: these, on the accelerator
    c.source = "tfds"
    c.data_dir = ""  # where TFDS keeps prepared datasets; "": ~/tensorflow_datasets
    c.manual_dir = ""  # folder of the downloaded datasets; "": DATA_DIR/downloads/manual
    c.packed_dir = ""
    c.annotations = ""  # your own data, for coco: "train.json,validation.json", or one file for both
    c.images = ""  # folders of their pictures, if these are neither beside a file nor in images/ there
    c.category = ""  # the category to take, if a file has several with different joints
    c.train_split = "train"  # or train_all: MPII's train and validation; LSP extended with LSP's train
    # all; labelled: people with all joints labelled; visible: all joints visible; single: alone in the
    # picture; see data/selection.py
    c.people = "all"
    c.validation_people = "all"
    c.validation_split = "auto"  # validation; test for lsp, which has no validation split
    c.examples = (20_000, 500)  # number of drawn figures in train and validation, for synthetic
    c.variety = 1.0  # difficulty of the drawn figures, in [0, 1]
    c.box = "auto"  # box of a training crop: annotated, joints or image; auto: the dataset's default
    c.validation_box = "auto"
    c.allow_missing = False  # train on an incomplete dataset, prepared with --allow_missing
    c.canvas = 384  # px, side of the stored crop
    c.margin = 1.5  # side of the stored crop / side of the nominal crop
    c.quality = 95  # JPEG quality of the stored crop
    c.size = 256  # px, side of the network's input
    c.mean = (0.4404, 0.4440, 0.4327)  # mean colour of MPII, as in the public PyTorch port
    c.threads = 0  # threads that decode; 0: one for each core
    return c


def _augment() -> Any:
    """See hourglass_jax/pose/augment.py."""
    c: Any = ConfigDict()
    c.scale_normal = (0.0, 0.0)
    c.scale_range = (1.0, 1.0)
    c.rotate_normal = (0.0, 0.0)
    c.rotate_probability = 1.0
    c.rotate_range = 0.0
    c.shear = 0.0
    c.flip_probability = 0.0
    c.colour = 0.0
    return c


def _loss() -> Any:
    """Targets and losses, see hourglass_jax/training/losses.py."""
    c: Any = ConfigDict()
    c.kind = "mean_squared_error"  # coordinates; cross_entropy, which leaves the plateau sooner
    # The targets are Gaussians. The public PyTorch ports use sigma 1, and so did the training of this
    # project's weights. Newell's text says 1.5. His and Chu's Torch code draws 1.75 in a window of 7 x 7
    # cells at the joint's cell, because `drawGaussian(..., 1)` asks for 0.25 of the window's size.
    c.sigma = 1.0  # cells
    c.window = 0  # cells, side of the square outside of which a target is zero; 0: 3 sigma each way
    c.at_cell = False  # True: centred on the joint's cell, as released; False: on the joint itself
    c.reduce_targets = False  # reduce the full target for smaller maps (HG-Int)
    c.mask_unlabelled = False  # False: a missing joint's zero map counts (Newell 5.3); heatmaps only
    c.leave_out = ()  # names of joints that are not trained
    c.heatmap_weight = 1.0  # weight of the heatmaps' loss if coordinates are trained too
    c.kernel_weight = 0.0  # weight of the sum of all squared kernels
    c.activity_weight = 0.0  # weight of the features' mean squares, summed over convolutions; selvam
    c.occluded_amplitude = 1.0  # peak of an occluded joint's target
    c.sum_over_cells = False  # sum over the cells, so that stacks of all sizes have the same weight
    c.adaptive = False  # weight joints by the errors of the previous stacks
    c.adaptive_limit = True  # only where a person's mean error is below one half; False: as printed
    return c


def _optimizer() -> Any:
    """The optimiser, and the learning rate over time."""
    c: Any = ConfigDict()
    c.name = "rmsprop"  # adam, lion, muon
    c.learning_rate = 2.5e-4
    c.weight_decay = 0.0
    c.clip_norm = 0.0
    c.schedule = "steps"  # cosine; constant; plateau: one drop when the training loss has settled
    c.patience = 0  # epochs without a lower mean loss, for plateau
    c.milestones = ()  # epochs
    c.factor = 0.1
    c.warmup_steps = 0
    return c


def _train() -> Any:
    """The length of a training, the parts of a batch, and what is written when."""
    c: Any = ConfigDict()
    c.batch_size = 16
    c.epochs = 1.0
    c.epoch_steps = 0  # steps per epoch, for epochs, milestones and phases; 0: a pass over the examples
    c.steps = 0  # length in steps; 0: `epochs` sets the length
    c.accumulate = 1  # parts of a batch, whose gradients are averaged
    c.norm_group = 0  # examples that share batch statistics; 0: the whole batch, on all devices
    c.remat = ""  # less memory for more time: units, hourglasses, nested; see transforms/remat.py
    c.init_from = ""  # fine-tune from a workdir, a checkpoint, a weights file or a PyTorch checkpoint
    # (tasks, epochs), ...: one round of phases, repeated until the end. Each phase trains some of the model's
    # tasks and freezes the others. With the schedule "steps" every round ends with a milestone. (): all
    # tasks.
    c.phases = ()
    c.skip_nonfinite = 0  # skip at most so many steps whose loss or gradient is not finite, then stop
    c.average_decay = 0.0  # decay of the averaged parameters (EMA); 0: no average
    c.log_every = 50  # steps
    c.evaluate_every = 1000
    c.save_every = 1000
    c.keep_latest = 2
    c.pictures = 12  # validation crops to draw at each evaluation
    c.tensorboard = True
    c.track = ""  # experiment trackers: "wandb:PROJECT", "mlflow:EXPERIMENT", or both with a comma
    c.profile = ()  # (first, last): trace these steps for TensorBoard and Perfetto
    c.stop_after = 0  # stop after so many evaluations without a better score; 0: never
    return c


def _evaluate() -> Any:
    """The prediction and scoring of the validation people."""
    c: Any = ConfigDict()
    c.batch_size = 32
    # The protocol of a paper: newell, chu, tang, mssh or selvam. It replaces flip and scales; see
    # evaluation/protocol.py.
    c.protocol = ""
    c.flip = True
    c.scales = (1.0,)  # scales of a pyramid; at 1.2 the person is 1.2 times larger, the crop smaller
    c.decode = "quarter"  # argmax, dark, soft_argmax; see hourglass_jax/pose/heatmaps.py
    c.metric = "auto"  # pckh where head sizes are known, else pck; pckbox for joints without a torso
    return c


# The targets of Newell's text, of his and Chu's released Torch code, and of the public PyTorch ports.
TARGETS = {
    "default": {},
    "text": {"sigma": 1.5},
    "torch": {"sigma": 1.75, "window": 7, "at_cell": True},
    "ports": {"sigma": 1.0, "at_cell": True},
}


def targets(c: Any, name: str) -> None:
    """Sets the config's targets to the entry `name` of `TARGETS`.

    Raises:
      ValueError: an unknown name.
    """
    if name not in TARGETS:
        raise ValueError(f"targets={name!r} is unknown; choose from {', '.join(TARGETS)}.")
    c.loss.update(TARGETS[name])


def crowd_labelled(dataset: str) -> bool:
    """Whether a joint without a label may still be in the picture.

    This holds for the Leeds datasets, and for COCO's format by its definition. Such a joint is unknown, not
    absent, and must not count in the loss (`loss.mask_unlabelled`).
    """
    return not {*LEEDS, "coco", "yolo", "dlc", "labelme"}.isdisjoint(dataset.split("+"))


def has_lsp_joints(dataset: str) -> bool:
    """Whether a dataset has LSP's joints, or a mixture that starts with it, as the papers train for LSP."""
    return dataset.split("+")[0] in LEEDS


for_leeds = has_lsp_joints  # its first name, which configs of users may have


def quick(c: Any, learning_rate: float) -> None:
    """Sets a recipe for small networks and short runs, where the papers' squared error stays on a plateau."""
    c.loss.kind = "cross_entropy"
    c.optimizer.update(name="adam", learning_rate=learning_rate, schedule="cosine", warmup_steps=100)
    c.train.update(batch_size=32, average_decay=0.998)


def arguments(string: str | None, **defaults: Any) -> Any:
    """Reads "key=value,key=value" into the types of the defaults.

    Raises:
      ValueError: an unknown key, or a value of another type; the message lists the known keys.
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
    """The folder of the package's configs: inside the package or, in a checkout, next to it."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of the package's configs."""
    return sorted({path.stem for path in folder().glob("*.py")} - {"__init__", "common"})


def named(name: str) -> types.ModuleType:
    """The package's config `name` as a module, which has `get_config`.

    Raises:
      ValueError: an unknown name; the message lists the known ones.
    """
    if name not in names():
        raise ValueError(f"No config is named {name!r}; there are {', '.join(names())}.")
    installed = folder().parent == pathlib.Path(__file__).parent
    return importlib.import_module(f"hourglass_jax.configs.{name}" if installed else f"configs.{name}")


def find(config: str) -> str:
    """The file of `config`, with its arguments: "newell:stacks=2" -> "FOLDER/newell.py:stacks=2".

    The path of an existing file is returned as it is. Otherwise NAME and configs/NAME.py name a config of the
    package.

    Raises:
      ValueError: neither exists; the message lists the package's configs. Or it is in a bucket.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", config):
        raise ValueError(
            f"--config={config}: a config is a program, and runs only from a local file; copy it."
        )
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
