"""Multi-Context Attention for Human Pose Estimation (Chu et al., CVPR 2017).

    python main.py --config=configs/chu.py:stacks=2,dataset=lspet --workdir=runs/chu \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here), 8 stacks, six-scale pyramid with flipping: PCKh@0.5 on
MPII test 91.5; PCK@0.2 on LSP 92.6 (trained on MPII as well). PCKh@0.5 on MPII's validation people, where
the text gives it (Figure 8): ms 87.2, full 89.4.
"""

from hourglass_jax import config_base as common

# The bars of Figure 8 (BL, +MS, +HRU, +MR, +HP). Figure 10 compares softmax with crf on two stacks.
VARIANTS = {
    "baseline": ("none", False, False, False),
    "ms": ("crf", False, False, False),
    "ms_hru": ("crf", True, False, False),
    "ms_hru_mr": ("crf", True, True, False),
    "full": ("crf", True, True, True),
    "softmax": ("softmax", True, True, True),
    "release": ("crf", True, False, True),
}


def get_config(string: str | None = None):
    """Arguments: variant, targets, released_epochs, stacks, width, dataset, size, quick.

    variant: baseline, ms, ms_hru, ms_hru_mr, full (the bars of Figure 8), softmax, or release: the network of
      the released hg-attention.lua, which differs from the text (see model.skips, head, crf). With fewer than
      8 stacks the release has more units on each branch; this project leaves them out. Figure 10 compares
      variant=softmax,stacks=2 with variant=full,stacks=2. The paper does not say which of Figure 8's parts
      it uses; --config.model.attention=softmax works with all of them.
    dataset: one, or several joined by plus signs. For LSP the paper trains on lsp+lspet+mpii, in LSP's
      joints.
    targets: text (Newell's, sigma 1.5), torch (as in his and Chu's released code) or ports (as in the public
      PyTorch ports). The default is that of the ports, but centred on the joint, not on its cell.
    released_epochs: epochs of 6,000 batches of 8, as the released code counts them: 48,000 people, which is
      2.16 passes over MPII's 22,246 training people. The paper probably counts its 130 epochs this way. By
      default an epoch is one pass over the data, and a training takes less than half the steps.
    size: px, side of the input.
    quick: a recipe for small networks and short runs.
    """
    args = common.arguments(
        string,
        variant="full",
        targets="default",
        released_epochs=False,
        stacks=8,
        width=256,
        dataset="lspet",
        size=256,
        quick=False,
    )
    if args.variant not in VARIANTS:
        raise ValueError(f"variant={args.variant!r} is unknown; choose from {', '.join(VARIANTS)}.")
    attention, hourglass_units, multi_resolution, part_attention = VARIANTS[args.variant]
    c = common.base()
    c.model.update(name="chu", stacks=args.stacks, width=args.width, depth=4, units=1, stem="newell")
    c.model.update(attention=attention, window=11, hourglass_units=hourglass_units)
    c.model.update(multi_resolution=multi_resolution, part_attention=part_attention)
    if args.variant == "release":
        c.model.update(stem="release", skips="release", head="release", crf="release")
        c.model.last_width = 2 * args.width

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # 7, "Data Augmentation"
    c.augment.scale_range = (0.75, 1.25)
    c.augment.rotate_range = 30.0
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4  # "color jittering"; the amount is that of Newell's released code

    c.loss.mask_unlabelled = common.crowd_labelled(args.dataset)
    common.targets(c, args.targets)

    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.schedule = "steps"
    c.optimizer.factor = 0.1
    c.train.batch_size = 8  # the released code's; the paper gives none
    # 130 epochs on MPII, with the drops of the released README; 60 on LSP, with drops in the same proportion.
    lsp, mpii = (60.0, (46, 58)), (130.0, (100, 125))
    c.train.epochs, c.optimizer.milestones = lsp if common.has_lsp_joints(args.dataset) else mpii
    c.train.epoch_steps = 6000 if args.released_epochs else 0
    if args.quick:
        common.quick(c, learning_rate=1e-3)
    return c
