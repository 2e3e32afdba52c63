"""Several sources as one, with one joint set: LSP with MPII, or one dataset in several kinds of crops."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from hourglass_jax.data import examples, pipeline
from hourglass_jax.pose.skeletons import Skeleton


class Mixture:
    """The examples of several sources, one after the other; each epoch of training shuffles all of them.

    Args:
      sources: at least one, see `examples.Source`; all with canvases of one size and margin.
      skeleton: the joint set of the mixture. Joints are matched by name (`Skeleton.places_in`). A joint that
        a source does not have gets the flag -1, so that no loss and no score counts it. This differs from an
        unlabelled joint, which may mean "not in the picture" (`loss.mask_unlabelled`).

    Raises:
      ValueError: the canvases differ, or a source shares no joint with the skeleton.
    """

    def __init__(self, sources: Sequence[examples.Source], skeleton: Skeleton):
        self.sources, self.skeleton = sources, skeleton
        frames = {source.name: (source.canvas, source.margin) for source in sources}
        if len(set(frames.values())) > 1:
            found = "; ".join(f"{name}: {c} px, margin {m}" for name, (c, m) in frames.items())
            raise ValueError(f"a mixture needs canvases of one size and margin, found {found}")
        self.canvas, self.margin = sources[0].canvas, sources[0].margin
        self.name = " + ".join(source.name for source in sources)
        light = all(source.loader == "threads" for source in sources)
        self.loader = "threads" if light else "tfdata"
        self._ends = np.cumsum([len(source) for source in sources])
        self._places = [source.skeleton.places_in(skeleton) for source in sources]

    def __len__(self):
        return int(self._ends[-1])

    def __getitem__(self, index):
        index = range(len(self))[index]
        which = int(np.searchsorted(self._ends, index, side="right"))
        source, places = self.sources[which], self._places[which]
        example = source[index - (int(self._ends[which - 1]) if which else 0)]
        joints = np.zeros((len(self.skeleton), 2), np.float32)
        visible = np.full(len(self.skeleton), -1, pipeline.FIELDS["visible"])
        known = places >= 0
        joints[places[known]] = example["joints"][known]
        visible[places[known]] = example["visible"][known]
        return {**example, "joints": joints, "visible": visible}

    @property
    def extras(self) -> dict[str, np.ndarray]:
        """The extras that all sources have."""
        return self._extras

    @functools.cached_property
    def _extras(self) -> dict[str, np.ndarray]:
        names = set.intersection(*(set(source.extras) for source in self.sources))
        return {name: np.concatenate([source.extras[name] for source in self.sources]) for name in names}

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        parts = [",".join(self.skeleton.joints), *(source.fingerprint for source in self.sources)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def ids(self) -> list[str]:
        return self._ids

    @functools.cached_property
    def _ids(self) -> list[str]:
        return [id_ for source in self.sources for id_ in source.ids]
