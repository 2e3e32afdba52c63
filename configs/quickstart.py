"""A whole training in about five minutes on two cores: a small hourglass on drawn figures.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from hourglass_jax import config_base as common

# Each paper's values on top of the shared recipe; the paper's own config has them in full.
SYSTEMS = {
    "newell": {},
    "chu": {},
    "mssh": {"loss.adaptive": True},
    "selvam": {
        "model.attention_width": 8,
        "model.stem_slope": 0.01,
        "loss.kind": "coordinates",
        # Algorithm 1, one round in half an epoch. The attention alone gets few steps, as the pose is frozen
        # in them.
        "train.phases": (("pose", 0.2), ("attention", 0.04), ("pose+attention", 0.26)),
    },
    "tang": {"model.branch_width": 16},
}


def get_config(string: str | None = None):
    """Arguments: model, stacks, width.

    model: newell, chu, mssh, selvam or tang, in a small form.
    """
    args = common.arguments(string, model="newell", stacks=1, width=64)
    c = common.base()
    c.model.update(name=args.model, stacks=args.stacks, width=args.width, depth=3)

    c.data.dataset = "synthetic"
    c.data.examples = (12_000, 500)
    c.data.variety = 0.2
    c.data.size = 96
    c.data.canvas = 144
    c.data.mean = (0.5, 0.5, 0.5)

    c.augment.scale_normal = (0.1, 0.2)
    c.augment.rotate_range = 15.0
    c.augment.flip_probability = 0.5

    c.loss.kind = "cross_entropy"
    c.loss.mask_unlabelled = True
    c.optimizer.name = "adam"
    c.optimizer.learning_rate = 3e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 50

    c.train.batch_size = 16
    c.train.steps = 1800
    c.train.average_decay = 0.995
    c.train.log_every = 50
    c.train.evaluate_every = 900
    c.train.save_every = 450
    c.evaluate.batch_size = 50
    c.update_from_flattened_dict(SYSTEMS.get(args.model, {}))
    if args.model == "mssh" and args.stacks == 1:
        c.model.strides = (4,)
    if args.model == "selvam":
        c.model.coordinate_scale = args.width**-0.5
    return c
