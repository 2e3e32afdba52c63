"""Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng, ECCV 2016).

    python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/newell \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here): PCKh@0.5 on MPII test 90.9 with 8 stacks; RMSprop
2.5e-4, divided once by 5 on a plateau; batch 6; about three days on a 12 GB TitanX.
"""

from configs import common


def get_config(string: str | None = None):
    """Arguments: stacks, width, dataset, size (px of the input), quick (a recipe for small networks)."""
    args = common.arguments(string, stacks=2, width=256, dataset="lspet", size=256, quick=False)
    c = common.base()
    c.model.update(name="newell", stacks=args.stacks, width=args.width, depth=4, units=1, stem="newell")

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # The released code's augmentation: no translation, since the centre tells whom to annotate.
    c.augment.scale_normal = (0.25, 0.5)
    c.augment.rotate_normal = (30.0, 60.0)
    c.augment.rotate_probability = 0.4
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4

    # Crowd workers left out joints that are there (LSPet): they say nothing, not "absent".
    c.loss.mask_unlabelled = args.dataset in ("lsp", "lspet")

    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.schedule = "steps"
    c.optimizer.milestones = (100, 125)  # epochs; the paper waits for a plateau instead
    c.optimizer.factor = 0.2
    c.train.batch_size = 6
    c.train.epochs = 140.0
    if args.quick:
        common.quick(c, learning_rate=1e-3)
    return c
