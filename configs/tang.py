"""Does Learning Specific Features for Related Parts Help Human Pose Estimation? (Tang and Wu, CVPR 2019).

    python main.py --config=configs/tang.py:variant=data5,stacks=8,dataset=lspet --workdir=runs/tang \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here), 8 stacks and data5, six-scale pyramid with flipping:
PCKh@0.5 on MPII 92.7 (test) and 91.8 (validation), PCK@0.2 on LSP 94.5 (trained on MPII as well). On
MPII's ten hard joints, one scale: 88.14 (deep_baseline 87.74, onward=specific 87.68), with 3 stacks 87.30
(onward=specific 87.21). Parameters with 16 joints: 26.69 M with 8 stacks, 10.23 M with 3 (29.11 GFLOPs).
"""

from hourglass_jax import config_base as common
from hourglass_jax.models import groups as part_groups
from hourglass_jax.pose import skeletons

# The heads without branches of Figure 5c: a linear layer, and a unit of the full width before it.
BASELINES = {"baseline": "linear", "deep_baseline": "unit"}
VARIANTS = (*part_groups.NAMED, "each", *BASELINES)


def get_config(string: str | None = None):
    """Arguments: variant, onward, branch_width, branch_depth, ankles, stacks, width, dataset, size, quick.

    variant: the part groups of Figures 5d to 5f (body, data2, data5, data8; each: one group per joint;
      overlapping), or a network without branches (baseline, deep_baseline).
    onward: the features that the next stack gets, shared or specific.
    branch_width, branch_depth: W and D of Figures 5a and 5b.
    ankles: false: do not train the ankles (4.3, "Negative transfer"). With variant=baseline,stacks=1 this is
      the paper's hourglass network, whose upper body gains 0.30 and whose lower body loses 0.45.
    dataset: one, or several joined by plus signs. For LSP the paper trains on lsp+lspet+mpii, in LSP's
      joints.
    size: px, side of the input.
    quick: a recipe for small networks and short runs.
    """
    args = common.arguments(
        string,
        **{"variant": "data5", "onward": "shared", "branch_width": 64, "branch_depth": 1},
        **{"ankles": True},
        **{"stacks": 8, "width": 256, "dataset": "lspet", "size": 256, "quick": False},
    )
    if args.variant not in VARIANTS:
        raise ValueError(f"variant={args.variant!r} is unknown; choose from {', '.join(VARIANTS)}.")
    c = common.base()
    c.model.update(name="tang", stacks=args.stacks, width=args.width, depth=4)
    c.model.update(head=BASELINES.get(args.variant, "branches"), onward=args.onward, groups=())
    c.model.update(branch_width=args.branch_width, branch_depth=args.branch_depth)
    if c.model.head == "branches":
        skeleton = skeletons.LSP if common.has_lsp_joints(args.dataset) else skeletons.MPII
        c.model.groups = part_groups.named(args.variant, skeleton)

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # 4.1
    c.augment.scale_range = (0.75, 1.25)
    c.augment.rotate_range = 30.0
    c.augment.shear = 0.5
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4  # "color jittering"; the amount is that of Newell's released code

    if not args.ankles:
        c.loss.leave_out = ("right_ankle", "left_ankle")
    c.loss.mask_unlabelled = common.crowd_labelled(args.dataset)

    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 2.5e-4
    c.optimizer.schedule = "steps"
    c.optimizer.milestones = (170, 220)  # epochs
    c.optimizer.factor = 0.1
    c.train.batch_size = 16
    c.train.epochs = 250.0
    if args.quick:
        common.quick(c, learning_rate=1e-3)
    return c
