"""Some of the people of a source: those whose joints are all labelled, all visible, or who are alone."""

import functools
import hashlib

import numpy as np

from hourglass_jax.data import packed
from hourglass_jax.data.examples import Source

KINDS = ("all", "labelled", "visible", "single")


class Selection:
    """The examples of a source that a choice of people leaves, in the same order.

    Args:
      source: see `examples.Source`.
      people: "labelled", whose joints are all labelled (of MPII's 22,246 for training 14,975); "visible", all
        labelled as visible (2,892); "single", all labelled, and no one else in the picture has labels
        (6,425). Joined by "+" all must hold: "visible+single" are 1,184, "single person annotations with all
        visible body joints" as Selvam and Mishra (2019) train on.

    Raises:
      ValueError: an unknown choice, one that the source does not know of, or no person is left.
    """

    def __init__(self, source: Source, people: str):
        kinds = [kind.strip() for kind in people.split("+")]
        if not set(kinds) <= set(KINDS):
            known = ", ".join(KINDS)
            raise ValueError(f"data.people={people!r} is unknown; choose {known}, or several joined by +.")
        if "single" in kinds and not _knows_who_is_alone(source):
            raise ValueError(
                f"data.people={people}: {source.name} does not say who is alone; only mpii does, and files "
                f"packed of it since: write them again with {packed.COMMAND}"
            )
        self._source = source
        self._rows = np.array([i for i in range(len(source)) if _chosen(source[i], kinds)], np.int64)
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


def _knows_who_is_alone(source: Source) -> bool:
    return bool(len(source)) and packed.ALONE in source[0]


def _chosen(example: dict, kinds: list[str]) -> bool:
    """Joints that a dataset does not have (-1) count for nothing."""
    visible = example["visible"][example["visible"] >= 0]
    least = 2 if "visible" in kinds else 1 if {"labelled", "single"} & set(kinds) else 0
    return bool((visible >= least).all()) and ("single" not in kinds or bool(example[packed.ALONE]))
