"""Equal learning: the same network, examples and recipe here and in PyTorch, and both scores.

    python launch/benchmark.py equal --packed_dir=packed --steps=1200 --seeds=2 --output=runs/equal

Both start with the same weights and see the same augmented batches, made by this project's augmentation.
PyTorch trains its twin of the hourglass with its own convolutions, BatchNorm2d, log_softmax and AdamW. The
validation split is predicted here, from the variables of each. Trainings drift apart by rounding, see
`peers`; the scores should not differ by more than those of two seeds.

Seconds are those of the steps only, without the first step. Our time includes the augmentation, PyTorch's
does not.
"""

import contextlib
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import devices, train
from hourglass_jax.benchmarks import learning
from hourglass_jax.benchmarks.common import step_of
from hourglass_jax.data import feed, sources
from hourglass_jax.evaluation import results
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.evaluation.run import Evaluator
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.training import losses
from hourglass_jax.training import step as train_step

BASE = "stacks=1,width=64,dataset=lspet,size=96,quick=true"
RECIPE = "data.box=joints,optimizer.learning_rate=3e-3"


def add(command) -> None:
    parser = command("equal", help="PCK of the same training here and in PyTorch; needs torch")
    argument = parser.add_argument
    argument("--packed_dir", required=True, help="folder written by data.prepare --pack")
    argument("--steps", type=int, default=1200, help="steps of each training (default: %(default)s)")
    argument("--seeds", type=int, default=2, help="pairs of trainings (default: %(default)s)")
    argument("--points", type=int, default=6, help="evaluations of each training (default: %(default)s)")
    argument("--config", default=BASE, help="arguments of configs/newell.py (default: %(default)s)")
    argument("--recipe", default=RECIPE, help="changes, as in `learning` (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """Trains a pair for each seed; a row for each training."""
    rows, curves = [], {}
    for seed in range(args.seeds):
        config = learning.recipe_config(args.config, args.packed_dir, args.recipe, seed)
        config.train.update(steps=args.steps, average_decay=0.0)
        for learner in trained(config, args.points):
            curves[f"{learner.name}, seed {seed}"] = learner.curve
            row = {
                "training": learner.name,
                "seed": seed,
                "last": round(learner.curve[-1][1], 1),
                "curve": " ".join(f"{score:.1f}" for _, score in learner.curve),
                "loss at the end": round(float(np.mean(learner.losses[-50:])), 4),
                "seconds of steps": round(learner.seconds),
                "processor seconds": round(learner.processor_seconds),
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    if args.output:
        learning.plot(curves, pathlib.Path(args.output) / "equal.png", along="steps")
    return {"title": f"{args.steps} steps each, {args.config}, {args.recipe}", "rows": rows}


def trained(config, points: int) -> list["_Learner"]:
    """Both trainings of a config, evaluated `points` times at equal distances."""
    mesh = devices.mesh()
    step, network, source, optimiser = step_of(config, mesh)
    evaluator = Evaluator(
        network,
        sources.open_source(config.data, train=False),
        mesh,
        batch_size=config.evaluate.batch_size,
        protocol=Protocol.from_config(config.evaluate, crop=sources.crops(config.data)),
    )
    state = train_step.init(network.model, optimiser, seed=config.seed, size=network.size, average=False)
    _, rate, _ = train.make_optimizer(config, len(source), network.model)
    learners = [
        _Ours(step, jax.device_put(state, devices.replicated(mesh))),
        _Theirs(config, network, source, state, rate),
    ]
    fed = feed.Sent(source, mesh)
    steps = config.train.steps
    batches = fed.batches(train=True, batch_size=config.train.batch_size, seed=config.seed, steps=steps)
    ends = {round(steps * (i + 1) / points) for i in range(points)}
    with contextlib.closing(batches):
        for number, batch in enumerate(batches, 1):
            for learner in learners:
                learner.learn(fed.put(batch, train_step.INPUTS))
                if number in ends:
                    found = evaluator.predict(learner.variables)
                    scores = results.score_predictions(found, network.skeleton, metric=config.evaluate.metric)
                    learner.curve.append((number, float(scores["table"]["Mean"])))
    return learners


class _Learner:
    """A training: its losses, its curve of (step, score in per cent), and its seconds."""

    name: str
    variables: dict

    def __init__(self):
        self.losses: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.seconds = self.processor_seconds = 0.0

    def learn(self, batch: dict[str, jax.Array]) -> None:
        """One step on a batch of `train_step.INPUTS`."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _timed(self):
        wall, process = time.perf_counter(), time.process_time()
        yield
        if len(self.losses) > 1:  # the first step compiles
            self.seconds += time.perf_counter() - wall
            self.processor_seconds += time.process_time() - process


class _Ours(_Learner):
    name = "ours"

    def __init__(self, step, state: train_step.State):
        super().__init__()
        self._step, self._state = step, state

    def learn(self, batch):
        with self._timed():
            self._state, metrics = self._step(self._state, batch)
            self.losses.append(float(metrics["loss"]))

    @property
    def variables(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._state.variables


class _Theirs(_Learner):
    name = "PyTorch"

    def __init__(self, config, network, source, state: train_step.State, rate):
        super().__init__()
        import torch

        from hourglass_jax.benchmarks import torch_twin

        self._torch, self._twins = torch, torch_twin
        self._like, self._rate = jax.device_get(state.variables), rate
        sizes = {name: config.model[name] for name in ("stacks", "width", "depth")}
        self._twin = torch_twin.create(self._like, joints=len(network.skeleton), **sizes).train()
        if config.optimizer.name != "adam" or config.loss.kind != "cross_entropy":
            raise ValueError("--recipe: the twin needs optimizer.name=adam and loss.kind=cross_entropy.")
        self._adam = torch.optim.AdamW(
            self._twin.parameters(), lr=config.optimizer.learning_rate, weight_decay=0.0
        )
        self._examples = devices.jit(_examples(config, network, source), devices.mesh())
        self._step = 0

    def learn(self, batch):
        images, targets = (np.array(x) for x in self._examples(self._step, batch))
        images, targets = (self._torch.from_numpy(x) for x in (images, targets))
        for group in self._adam.param_groups:
            group["lr"] = float(self._rate(self._step))
        with self._timed():
            images = images.contiguous(memory_format=self._torch.channels_last)
            loss: Any = 0.0
            for maps in self._twin(images):
                loss = loss - (targets * maps.flatten(2).log_softmax(2)).sum()
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
            self.losses.append(float(loss.detach()))
        self._step += 1

    @property
    def variables(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        mesh = devices.mesh()
        return jax.device_put(self._twins.variables(self._twin, self._like), devices.replicated(mesh))


def _examples(config, network, source):
    """Makes examples(step, batch) -> (images, shares), in PyTorch's layout.

    Images are (b, 3, size, size). Shares (b, k, cells) are the targets divided by their sum, 0 for joints
    that do not count. The loss is their product with the logarithms of the maps' shares, negated.
    """
    prepare = train_step.preparation(
        geometry=train_step.Geometry(source.canvas, source.margin, network.size),
        flip_order=network.skeleton.flip,
        mean=network.mean,
        augmentation=config.augment.to_dict(),
        seed=config.seed,
    )
    names = ("sigma", "kind", "window", "at_cell")
    options = {name: config.loss[name] for name in names}

    def examples(step, batch):
        images, joints, visible = prepare(step, batch)
        cells = network.size // 4
        shape = Outputs(heatmaps=(jnp.zeros((len(images), cells, cells, joints.shape[1])),))
        (maps,) = losses.heatmap_targets(shape, joints, visible, size=network.size, **options)
        maps = jnp.moveaxis(maps, -1, 1).reshape(*visible.shape, -1)
        total = jnp.sum(maps, axis=-1, keepdims=True)
        counted = losses.counted_joints(visible, mask_unlabelled=config.loss.mask_unlabelled)
        weights = counted[..., None] * (total > 0.1)
        share = maps / jnp.maximum(total, 0.1) * weights / jnp.maximum(jnp.sum(weights), 1.0)
        return jnp.moveaxis(images, -1, 1), share

    return examples
