"""Stacked Hourglass Networks for Human Pose Estimation (Newell, Yang and Deng, ECCV 2016).

    python main.py --config=configs/newell.py:stacks=2,dataset=lspet --workdir=runs/newell \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here): PCKh@0.5 on MPII test 90.9 with 8 stacks. On MPII's
validation people, first and second stack: head 96.7 and 97.7, shoulder 92.9 and 94.6, elbow 85.0 and 88.5,
wrist 79.8 and 88.3, hip 83.7 and 87.5, knee 78.6 and 83.0, ankle 74.3 and 79.0 (Table 1). In Figure 8
hg_stacked_int is 3 above the other networks for most of the training, and hg_stacked_add is the slowest.
FLIC, PCK@0.2: shoulder 99.4, elbow 98.2, wrist 95.2. RMSprop 2.5e-4, divided once by 5 on a plateau; about
five days on a 12 GB TitanX.
"""

from hourglass_jax import config_base as common

# Figure 8 and FLIC (4.1): how the stacks are built, and which heatmaps have a loss. In the comparison, a
# single hourglass has the units of all stacks at every place, also in the stem. Only then does it have the
# paper's "slightly more parameters", 6,752,400 against 6,570,400.
VARIANTS = {
    "hg_stacked_int": ("stacked", "stacks"),
    "hg_stacked": ("stacked", "last"),
    "hg_stacked_add": ("stacked", "sum"),
    "text": ("stacked", "stacks"),
    "hg": ("deep", "last"),
    "hg_int": ("deep", "resolutions"),
    "flic": ("single", "last"),
}


def get_config(string: str | None = None):
    """Arguments: variant, targets, stacks, width, dataset, size, quick.

    variant: one of Figure 8's five networks, or text, or flic.
      hg_stacked_int: the network of the released hg.lua, which is the common one; 6,570,400 parameters with 2
        stacks.
      hg_stacked: with a loss on the last stack only.
      hg_stacked_add: with one loss on the sum of the heatmaps.
      hg: one hourglass with `stacks` units in place of each unit.
      hg_int: the same, with losses also at its lower resolutions.
      text: the network that the paper describes, as in its early release hg-stacked.lua; 26,353,824
        parameters. Use it with targets=text and --config.evaluate.decode=argmax.
      flic: one hourglass, whatever `stacks` is, as in the paper for dataset=flic.
    targets: text (Newell's, sigma 1.5), torch (as in his and Chu's released code) or ports (as in the public
      PyTorch ports). The default is that of the ports, but centred on the joint, not on its cell.
    size: px, side of the input.
    quick: a recipe for small networks and short runs.
    """
    args = common.arguments(
        string,
        variant="hg_stacked_int",
        targets="default",
        stacks=2,
        width=256,
        dataset="lspet",
        size=256,
        quick=False,
    )
    if args.variant not in VARIANTS:
        raise ValueError(f"variant={args.variant!r} is unknown; choose from {', '.join(VARIANTS)}.")
    kind, supervision = VARIANTS[args.variant]
    stacks, units = {"stacked": (args.stacks, 1), "deep": (1, args.stacks), "single": (1, 1)}[kind]
    c = common.base()
    c.model.update(name="newell", stacks=stacks, width=args.width, depth=4, units=units)
    c.model.stem = "newell"
    if args.variant == "text":
        c.model.design = "text"
    elif args.variant != "hg_stacked_int":  # its older checkpoints do not have these fields
        c.model.update(stem_units=units, supervision=supervision)

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # The released code's augmentation: no translation, since the centre shows whom to annotate.
    c.augment.scale_normal = (0.25, 0.5)
    c.augment.rotate_normal = (30.0, 60.0)
    c.augment.rotate_probability = 0.4
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4

    c.loss.mask_unlabelled = common.crowd_labelled(args.dataset)
    common.targets(c, args.targets)
    c.loss.reduce_targets = supervision == "resolutions"  # "a downsampled version of the ground truth" (4.2)

    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.schedule = "steps"
    # The paper waits for a plateau and drops once: optimizer.schedule=plateau, with optimizer.patience=5 or
    # so.
    c.optimizer.milestones = (100,)  # epochs
    c.optimizer.factor = 0.2
    c.train.batch_size = 6  # the released code's; the paper gives neither this nor the epochs
    c.train.epochs = 140.0
    if args.quick:
        common.quick(c, learning_rate=1e-3)
    return c
