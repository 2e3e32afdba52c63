"""Runs a network over a whole split of people."""

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hourglass_jax import devices, inference
from hourglass_jax.data import feed, pipeline
from hourglass_jax.evaluation import attention
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.evaluation.results import Predictions
from hourglass_jax.network import Network
from hourglass_jax.pose import crop
from hourglass_jax.transforms import per_example


class Evaluator:
    """Evaluates a network on a split: `predict(variables)` compiles once and can be called repeatedly."""

    def __init__(
        self,
        network: Network,
        source,
        mesh: jax.sharding.Mesh,
        *,
        batch_size: int,
        resident: bool = False,
        protocol: Protocol | None = None,
        **options,
    ):
        """
        Args:
          network: the network.
          source: the split, see `pipeline`; its joint set has as many joints as the network's.
          mesh: the mesh of devices.
          batch_size: number of people, a multiple of the number of devices.
          resident: keep the split on the devices, see `feed`.
          protocol: the protocol of the evaluation; or its fields as `options`.
        """
        devices.check_divides(batch_size, "evaluate.batch_size")
        if len(source.skeleton) != len(network.skeleton):
            raise ValueError(
                f"The network has {len(network.skeleton)} joints ({network.skeleton.name}), "
                f"{source.name} has {len(source.skeleton)} ({source.skeleton.name})."
            )
        protocol = protocol or Protocol(**options)
        self.network, self.source, self._batch_size, self._mesh = network, source, batch_size, mesh
        self._feed = feed.create(source, mesh, resident=resident)
        estimate = inference.Estimator(
            network, canvas=source.canvas, margin=source.margin, **protocol.estimator_options()
        )
        self._estimate = per_example.estimator(estimate, mesh)
        self._shares = devices.jit(attention.shares, mesh)

    def predict(
        self,
        variables: dict,
        *,
        pictures: int = 0,
        threads: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Predictions:
        """Runs the whole split.

        Args:
          variables: {"params", "batch_stats"} on the mesh.
          pictures: number of examples, from the first on, of which canvas, heatmaps and attention are kept.
          threads: number of threads that decode.
          progress: called with the number of examples that are done.
        """
        parts, kept, attended = [], [], []
        batches = self._feed.batches(train=False, batch_size=self._batch_size, threads=threads)
        with contextlib.closing(batches):
            for batch in batches:
                canvases = self._feed.put(batch, ("image",))["image"]
                joints, scores, seen = self._estimate(variables, canvases)
                joints, scores, means = _gather((joints, scores, seen.pop("mean")))
                fields = _gather({name: batch[name] for name in (*pipeline.FIELDS, "mask")})
                if seen["attention"]:
                    people = self._feed.put(batch, ("joints", "visible", "center", "scale"))
                    shares = _gather(self._shares(seen["attention"], people))
                    attended.append({name: value[fields["mask"]] for name, value in shares.items()})
                if len(kept) < pictures:
                    canvases, seen = _gather((canvases, seen))
                    kept += self._keep(batch, canvases, joints, seen, pictures - len(kept))
                parts.append(self._in_image(joints, scores, means, fields))
                progress(min(len(parts) * self._batch_size, len(self.source)))
        whole, shares = _joined(parts), _joined(attended) if attended else None
        means = whole.pop("means")
        per_joint = means.shape[1] == len(self.network.skeleton)
        means = means if per_joint else None
        return Predictions(**whole, pictures=kept, means=means, attention=shares)

    def compiled(self, variables) -> jax.stages.Compiled | None:
        """Compiles the network's program for a batch, which `predict` then finds among JAX's cached programs.

        Args:
          variables: abstract (`jax.ShapeDtypeStruct` with shardings), as `predict` takes them.

        Returns:
          the program; on one CPU None: there are several small programs, which compute one example of zeros.
        """
        shape = (self._batch_size, self.source.canvas, self.source.canvas, 3)
        if per_example.suits(self._mesh):
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), variables)
            self._estimate(zeros, np.zeros((1, *shape[1:]), np.uint8))
            return None
        spread = devices.sharded(self._mesh)
        return self._estimate.lower(
            variables, jax.ShapeDtypeStruct(shape, np.uint8, sharding=spread)
        ).compile()

    def _in_image(self, joints, scores, means, fields) -> dict:
        size = self.network.size
        joints = inference.image_joints(joints, fields["center"], fields["scale"], size=size)
        values = {
            "joints": joints,
            "scores": scores,
            "means": means,
            "truth": fields["joints"],
            "visible": fields["visible"],
            "head_size": fields["head_size"],
            "crop_size": fields["scale"].astype(np.float64) * crop.REFERENCE,
        }
        return {name: value[fields["mask"]] for name, value in values.items()}

    def _keep(self, batch, canvases, joints, seen, count) -> list[dict]:
        """The data that `sheets` draws for the first `count` examples of a batch, in input pixels."""
        size, source = self.network.size, self.source
        view = crop.input_from_canvas(canvas=source.canvas, margin=source.margin, size=size)
        kept = []
        for i in range(min(count, int(batch["mask"].sum()))):
            center, scale = (batch[name][i].astype(np.float64) for name in ("center", "scale"))
            input_from_image = crop.square(center, scale * crop.REFERENCE, size)
            kept.append(
                {
                    "crop": crop.cut(canvases[i], view, size),
                    "truth": crop.apply(input_from_image, batch["joints"][i]),
                    "labelled": batch["visible"][i] > 0,
                    "joints": joints[i, -1],
                    **jax.tree.map(lambda maps, i=i: maps[i], seen),
                }
            )
        return kept


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _gather(tree):
    """Global arrays, or the parts of all processes, as NumPy arrays on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
