"""Selects people of a source: those with all joints labelled, with all joints visible, or alone."""

import functools
import hashlib
from collections.abc import Callable

import numpy as np

from hourglass_jax.data import packed
from hourglass_jax.data.examples import Source

KINDS = ("all", "labelled", "visible", "single")


class Selection:
    """The selected examples of a source, in the same order.

    Args:
      source: see `examples.Source`.
      people: "labelled": all joints are labelled (14,975 of MPII's 22,246 training people); "visible": all
        joints are labelled as visible (2,892); "single": all joints are labelled, and no other person in the
        picture has labels (6,425). Several joined by "+" must all hold: "visible+single" selects 1,184, the
        "single person annotations with all visible body joints" on which Selvam and Mishra (2019) train.

    Raises:
      ValueError: an unknown selection, one for which the source has no data, or no person is left.
    """

    def __init__(self, source: Source, people: str):
        kinds = [kind.strip() for kind in people.split("+")]
        if not set(kinds) <= set(KINDS):
            known = ", ".join(KINDS)
            raise ValueError(f"data.people={people!r} is unknown; choose {known}, or several joined by +.")
        if "single" in kinds and not _knows_who_is_alone(source):
            raise ValueError(
                f"data.people={people}: {source.name} does not record who is alone. Only mpii does, but "
                f"not in files that an older version packed: write them again with {packed.COMMAND}"
            )
        self._source = source
        about = _about(source)
        self._rows = np.array([i for i in range(len(source)) if _chosen(about(i), kinds)], np.int64)
        if not len(self._rows):
            raise ValueError(f"data.people={people}: no person of {source.name} is left.")
        self.name = f"{source.name}-{people}"
        self.skeleton, self.canvas, self.margin = source.skeleton, source.canvas, source.margin
        self.loader = source.loader

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        return self._source[int(self._rows[index])]

    @property
    def ids(self) -> list[str]:
        return self._ids

    @functools.cached_property
    def _ids(self) -> list[str]:
        ids = self._source.ids
        return [ids[row] for row in self._rows]

    @property
    def extras(self) -> dict[str, np.ndarray]:
        return self._extras

    @functools.cached_property
    def _extras(self) -> dict[str, np.ndarray]:
        return {name: values[self._rows] for name, values in self._source.extras.items()}

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        text = self._source.fingerprint.encode() + self._rows.tobytes()
        return hashlib.sha256(text).hexdigest()[:16]


def _about(source: Source) -> Callable[[int], dict]:
    """Gives an example by its position. One of packed files has no picture: a host may not need that one."""
    return source.about if isinstance(source, packed.PackedSource) else source.__getitem__


def _knows_who_is_alone(source: Source) -> bool:
    return bool(len(source)) and packed.ALONE in _about(source)(0)


def _chosen(example: dict, kinds: list[str]) -> bool:
    """Whether an example is selected; joints that its dataset does not have (-1) are ignored."""
    visible = example["visible"][example["visible"] >= 0]
    least = 2 if "visible" in kinds else 1 if {"labelled", "single"} & set(kinds) else 0
    return bool((visible >= least).all()) and ("single" not in kinds or bool(example[packed.ALONE]))
