"""Multi-scale Attention Aided Multi-Resolution Network for Human Pose Estimation (Selvam and Mishra 2019).

    python main.py --config=configs/selvam.py:attention=global,dataset=lspet --workdir=runs/selvam \\
        --config.data.manual_dir=DOWNLOADS

The paper's own figures (theirs, not measured here), "average accuracy" on MPII, no threshold given:
baseline 83.2, global 86.7, heatmap 78.6, multi_resolution 84.1 (Table 1).
"""

from hourglass_jax import config_base as common

# Figures 3 to 6: the masks that are switched on (global, heatmap, multi-resolution).
VARIANTS = {
    "baseline": (False, False, False),
    "global": (True, False, False),
    "heatmap": (False, True, False),
    "multi_resolution": (False, False, True),
    "all": (True, True, True),
}


def get_config(string: str | None = None):
    """Arguments: attention, heatmap_alone, features, slope, stacks, width, dataset, size, quick.

    attention: baseline, global, heatmap, multi_resolution (Table 1) or all.
    heatmap_alone: the next network and the Refinement Net see only the heatmap, as the text says (3.1 to
      3.3). By default they also get the features.
    features: draw the intermediate features of Figure 8 at each evaluation.
    slope: slope of leaky ReLU below 0, which the paper does not give; 0.01 is the default of Torch, 0.3 that
      of Keras.
    size: px, side of the input.
    quick: a recipe for small networks and short runs.
    """
    args = common.arguments(
        string,
        **{"attention": "global", "heatmap_alone": False, "features": False, "slope": 0.01},
        **{"stacks": 2, "width": 256, "dataset": "lspet", "size": 256, "quick": False},
    )
    if args.attention not in VARIANTS:
        raise ValueError(f"attention={args.attention!r} is unknown; choose from {', '.join(VARIANTS)}.")
    c = common.base()
    c.model.update(name="selvam", stacks=args.stacks, width=args.width, depth=4, attention_width=32)
    c.model.update(slope=args.slope, stem_slope=args.slope, coordinate_scale=args.width**-0.5)
    c.model.update(heatmap_alone=args.heatmap_alone, show_features=args.features)
    switches = ("global_attention", "heatmap_attention", "multi_resolution_attention")
    c.model.update(dict(zip(switches, VARIANTS[args.attention], strict=True)))

    c.data.dataset = args.dataset
    c.data.size = args.size
    c.data.canvas = args.size * 3 // 2

    # The paper mentions no augmentation; this is the augmentation of Newell's released code.
    c.augment.scale_normal = (0.25, 0.5)
    c.augment.rotate_normal = (30.0, 60.0)
    c.augment.rotate_probability = 0.4
    c.augment.flip_probability = 0.5
    c.augment.colour = 0.4

    c.loss.kind = "coordinates"
    c.loss.heatmap_weight = 1.0
    # "Kernel and activity regularization" (3.4); no amounts are given.
    c.loss.kernel_weight = 1e-6
    c.loss.activity_weight = 1e-5

    # 3.4 and Algorithm 1; the paper gives neither learning rate nor epochs.
    c.optimizer.name = "adam"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "steps"
    c.optimizer.factor = 0.1  # after each round of phases
    c.optimizer.warmup_steps = 500  # Adam's first steps move all weights of the coordinates' matrix equally
    c.train.batch_size = 30
    c.train.epochs = 150.0  # three rounds
    if args.attention != "baseline":
        c.train.phases = (("pose", 20.0), ("attention", 10.0), ("pose+attention", 20.0))
    else:
        c.optimizer.milestones = (50, 100)
    if args.quick:
        c.train.update(batch_size=32, average_decay=0.998)
    return c
