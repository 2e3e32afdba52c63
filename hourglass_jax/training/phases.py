"""Training in phases: which of a model's tasks a step trains, as a function of the step's number only.

A model that can be trained in phases has `tasks`, their names; `label(path)`, the task to which a parameter
or a statistic belongs (path: the names of its modules, outermost first); and a field `trained`: the tasks
whose norms use and update the statistics of the batch. The other tasks are frozen and work as in evaluation.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hourglass_jax.models import shapes


@dataclasses.dataclass(frozen=True)
class Phases:
    """A round of phases that is repeated until the end of the training.

    Attributes:
      round: (tasks that are trained, steps) of each phase; () trains all tasks in every step.
    """

    round: tuple[tuple[tuple[str, ...], int], ...] = ()

    def trained(self, step: int) -> tuple[str, ...] | None:
        """The tasks that step number `step`, counted from 0, trains; None for all tasks."""
        if not self.round:
            return None
        left = step % self._length
        for tasks, steps in self.round:
            if left < steps:
                return tasks
            left -= steps

    def rounds(self, last_step: int) -> list[int]:
        """The steps, counted from 0, at which a new round begins."""
        return list(range(self._length, last_step, self._length)) if self.round else []

    def __str__(self):
        return ", ".join(f"{'+'.join(tasks)} {steps} steps" for tasks, steps in self.round)

    @property
    def _length(self):
        return sum(steps for _, steps in self.round)


ALL = Phases()  # trains all tasks in every step


def plan(phases: Sequence[tuple[str, float]], epoch: float) -> Phases:
    """Phases from `config.train.phases`, for instance (("pose", 20.0), ("pose+attention", 10.0)).

    Args:
      phases: (tasks joined by +, epochs) of each.
      epoch: steps in an epoch.
    """
    if any(epochs <= 0 for _, epochs in phases):
        raise ValueError(f"train.phases={phases!r}: each needs more than 0 epochs.")
    return Phases(tuple((tuple(tasks.split("+")), max(round(n * epoch), 1)) for tasks, n in phases))


def check(phases: Phases, model: nn.Module, size: int) -> None:
    """Raises ValueError if a model and its phases do not fit: every parameter needs a task, and every task of
    the phases needs parameters."""
    if not phases.round:
        return
    name = type(model).__module__
    if not hasattr(model, "label"):
        raise ValueError(f"train.phases: {name} has no tasks; leave train.phases empty.")
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params = shapes.of(model, image)[1]["params"]
    found = set(jax.tree.leaves(labels(model, params)))
    if unknown := {task for tasks, _ in phases.round for task in tasks} - found:
        raise ValueError(
            f"train.phases names {', '.join(sorted(unknown))}; with these fields {name} only has parameters "
            f"of {', '.join(sorted(found))}."
        )


def labels(model: nn.Module, tree):
    """The task of each leaf of a tree of parameters or statistics.

    Raises:
      ValueError: a leaf has no task.
    """

    def label(path, _):
        names = tuple(key.key for key in path)
        if (task := model.label(names)) is None:
            raise ValueError(
                f"train.phases: {type(model).__module__} gives {'/'.join(names)} no task, so no phase would "
                "train it; extend its `label`."
            )
        return task

    return jax.tree_util.tree_map_with_path(label, tree)


def select(model: nn.Module, trained: tuple[str, ...] | None, new, old):
    """Takes the leaves of trained tasks from `new`, and those of frozen tasks from `old`."""
    if trained is None:
        return new
    tasks = labels(model, new)
    return jax.tree.map(lambda task, n, o: n if task in trained else o, tasks, new, old)
