"""The optimiser and its schedule, from config values."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

NAMES = ("rmsprop", "adam", "lion", "muon")
SCHEDULES = ("steps", "cosine", "constant", "plateau")


def schedule(
    *,
    learning_rate: float,
    kind: str,
    steps: int,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      learning_rate: its peak.
      kind: "steps" multiplies the rate by `factor` at each milestone, "cosine" lets it fall to 0 at the last
        step, "constant" does not change it. Neither does "plateau": there the optimiser itself drops the
        rate, see `plateau`.
      steps: length of the training.
      milestones: in steps.
      factor: for "steps".
      warmup_steps: number of first steps in which the rate is multiplied by a factor that rises to 1.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"optimizer.schedule={kind!r} is unknown; choose from {SCHEDULES}.")
    base = {
        "steps": lambda: optax.piecewise_constant_schedule(
            learning_rate, {m: factor**n for m, n in collections.Counter(milestones).items()}
        ),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, max(steps, 1)),
        "constant": lambda: optax.constant_schedule(learning_rate),
        "plateau": lambda: optax.constant_schedule(learning_rate),
    }[kind]()
    if not warmup_steps:
        return base
    return lambda step: base(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def epoch_steps(train: Mapping[str, Any], examples: int) -> float:
    """Steps in an epoch: the config's `epoch_steps`, or else a pass over the examples.

    Args:
      train: the config's section; configs of older versions have no `epoch_steps`.
      examples: number of training examples.
    """
    return train.get("epoch_steps", 0) or examples / train["batch_size"]


def last_step(train: Mapping[str, Any], examples: int) -> int:
    """The length of a training in steps.

    Args:
      train: the config's section: steps, and, if that is 0, epochs, epoch_steps and batch_size.
      examples: number of training examples.
    """
    return train["steps"] or max(round(train["epochs"] * epoch_steps(train, examples)), 1)


def transformation(
    learning_rate: optax.Schedule,
    *,
    name: str = "rmsprop",
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """The optimiser.

    Args:
      learning_rate: as a function of the step.
      name: one of `NAMES`: "rmsprop" with the constants of the released codes, "adam", "lion" (Chen et al.
        2023), or "muon" (Jordan et al. 2024), which orthogonalises the kernels' updates and uses Adam with
        Nesterov's momentum for vectors.
      weight_decay: decoupled, of all parameters; "rmsprop" has none.
      clip_norm: largest global norm of the gradient; 0 does not clip it.

    Raises:
      ValueError: the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"optimizer.name={name!r} is unknown; choose from {NAMES}.")
    decay: dict[str, Any] = {"weight_decay": weight_decay}
    step = {
        # Torch's constants: decay 0.99, and epsilon outside of the square root (optax: 0.9, inside).
        "rmsprop": lambda: optax.rmsprop(learning_rate, decay=0.99, eps=1e-8, eps_in_sqrt=False),
        "adam": lambda: optax.adamw(learning_rate, **decay),
        "lion": lambda: optax.lion(learning_rate, **decay),
        # Updates have the size of Adam's, so that one learning rate suits kernels and vectors.
        "muon": lambda: optax.contrib.muon(
            learning_rate, **decay, adam_weight_decay=weight_decay,
            consistent_rms=0.2, muon_weight_dimension_numbers=_matrices,
        ),
    }[name]()  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(clip_norm), step) if clip_norm else step


def _matrices(params) -> Any:
    """Treats kernels (..., inputs, outputs) as matrices with the outputs as columns; None for vectors."""
    axes = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(lambda p: axes(tuple(range(p.ndim - 1)), p.ndim - 1) if p.ndim > 1 else None, params)


def plateau(
    step: optax.GradientTransformation, *, factor: float, patience: int, window: int
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by `factor`, once, when the loss has reached a plateau (Newell 3.4).

    The paper waits for a plateau of the validation accuracy. Here the mean training loss replaces it: the
    loss is part of each step's program, so an interrupted run drops the rate at the same step. Also, no
    validation score then influences the training.

    Args:
      step: the optimiser. The returned optimiser needs the loss: `update(..., value=loss)`.
      factor: multiplies the updates from the plateau on.
      patience: the rate drops after this many successive means that are not lower than the lowest mean by a
        thousandth.
      window: steps in a mean.
    """
    drop = optax.contrib.reduce_on_plateau(
        factor, patience, rtol=1e-3, accumulation_size=window, min_scale=factor
    )
    return optax.with_extra_args_support(optax.chain(step, drop))


def plateau_scale(state: optax.OptState) -> float:
    """The factor by which `plateau` has reduced the learning rate so far; 1 for other optimisers."""
    found = [float(leaf.scale) for leaf in jax.tree.leaves(state, is_leaf=_is_plateau) if _is_plateau(leaf)]
    return found[0] if found else 1.0


def _is_plateau(leaf) -> bool:
    return isinstance(leaf, optax.contrib.ReduceLROnPlateauState)


def by_label(
    learning_rate: optax.Schedule, labels: Callable, names: Sequence[str], **options
) -> optax.GradientTransformationExtraArgs:
    """An optimiser for each label; `update(..., trained=names)` updates these labels and freezes the others.

    Frozen parameters get no update, and the state of their optimiser (moments, and the count that corrects
    them) does not change. The learning rate depends on the number of all steps.

    Args:
      learning_rate: as a function of the step.
      labels: parameters -> the tree of their labels.
      names: all labels.
      **options: of `transformation`; `clip_norm` applies to the gradient of each label.
    """
    constant = optax.constant_schedule(1.0)
    parts = optax.partition({name: transformation(constant, **options) for name in names}, labels)
    rate = optax.scale_by_schedule(learning_rate)

    def init(params):
        return parts.init(params), rate.init(params)

    def update(gradients, state: Any, params=None, *, trained, **_):
        moved: Any
        updates, moved = parts.update(gradients, state[0], params)
        updates, count = rate.update(updates, state[1])
        held = jax.tree.map(
            lambda label, u: u if label in trained else jnp.zeros_like(u), labels(params), updates
        )
        before = state[0].inner_states
        inner = {name: moved.inner_states[name] if name in trained else before[name] for name in before}
        return held, (moved._replace(inner_states=inner), count)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
