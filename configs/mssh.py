"""Multi-Scale Stacked Hourglass Network for Human Pose Estimation (under review at ICLR 2019).

    python main.py --config=configs/mssh.py:variant=full,stacks=8,dataset=lspet --workdir=runs/mssh \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here), 8 stacks: PCKh@0.5 on MPII test 91.2; on LSP PCK@0.2
91.4 and PCP@0.5 89.5. PCKh@0.5 on about 3000 held-out people of MPII: block=residual with variant=baseline
88.78 and with full 89.25 (5.2.1, which does not name the block; the baseline is the hourglass network, and
5.2.2 gives 89.91 for the other block); variant=full with block=inception_a 89.91, inception_b 82.95, residual
89.19 (5.2.2); lateral=true 88.66 against 89.91 (5.2.3); fusion=concatenation 89.36 against 89.91 (5.2.4,
whose stated difference of 0.66 would give 89.25). Batch 4, one GTX 1080.
"""

from hourglass_jax import config_base as common

# Input px per cell for networks with fewer stacks than the three scales; others use the model's default. Two
# stacks begin and end as the paper's eight do, small features first; one stack has Newell's scale.
FEW_STACKS = {1: (4,), 2: (8, 2)}

# (features of several scales, adaptive weights). 5.2.1 compares "full" with "baseline".
VARIANTS = {
    "full": (True, True),
    "scales": (True, False),
    "weights": (False, True),
    "baseline": (False, False),
}


def get_config(string: str | None = None):
    """Arguments: variant, block, fusion, lateral, literal, stacks, width, dataset, size, quick.

    variant: full, scales (without adaptive weights), weights (every stack at a quarter of the input) or
      baseline (neither; with block=residual this is Newell's network).
    block: inception_a, inception_b or residual (5.2.2).
    fusion: addition or concatenation (5.2.4).
    lateral: connections from small features to large ones (5.2.3).
    literal: use Algorithm 1 as printed, also for a person whose mean error is above one half; there the
      easier joints gain weight. By default the weights of such a person do not change. metrics.jsonl records
      the share of people whose weights change, "moved_people".
    dataset: one, or several joined by plus signs. For LSP the paper trains on lsp+lspet+mpii, in LSP's
      joints.
    size: px, side of the input.
    quick: a recipe for small networks and short runs.
    """
    args = common.arguments(
        string,
        **{"variant": "full", "block": "inception_a", "fusion": "addition", "lateral": False},
        **{"literal": False},
        **{"stacks": 8, "width": 256, "dataset": "lspet", "size": 256, "quick": False},
    )
    if args.variant not in VARIANTS:
        raise ValueError(f"variant={args.variant!r} is unknown; choose from {', '.join(VARIANTS)}.")
    scales, adaptive = VARIANTS[args.variant]
    c = common.base()
    c.model.update(name="mssh", stacks=args.stacks, width=args.width, depth=4)
    c.model.update(block=args.block, fusion=args.fusion, lateral=args.lateral)
    # (): from 1/8 to 1/2 of the input
    c.model.strides = FEW_STACKS.get(args.stacks, ()) if scales else (4,) * args.stacks

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # 5.1.3 names these without amounts. The amounts are Chu's; those of the colours are from Newell's
    # released code.
    c.augment.scale_range = (0.75, 1.25)
    c.augment.rotate_range = 30.0
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4

    c.loss.adaptive = adaptive
    c.loss.adaptive_limit = not args.literal
    c.loss.sum_over_cells = True  # equation 2
    c.loss.occluded_amplitude = 1.0  # -1 in equation 1; +1 to compare with the other systems
    c.loss.mask_unlabelled = common.crowd_labelled(args.dataset)

    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.schedule = "steps"
    c.optimizer.milestones = (175, 200)  # epochs
    c.optimizer.factor = 0.1  # "dropped by 150" cannot be meant
    c.train.batch_size = 4
    c.train.epochs = 220.0
    if args.quick:
        common.quick(c, learning_rate=1e-3)
    return c
