"""Evaluation: a network over a whole split, and the papers' tables from its predictions."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

import cv2
import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from hourglass_jax import checkpoint, devices, draw, files, inference, metrics
from hourglass_jax.data import crop, pipeline, sources
from hourglass_jax.logs import say

_TILE = 192  # px, least size of a drawn crop
_ATTENDED = 4  # examples whose attention is drawn: eight stacks have 40 maps each


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network says on a split of n examples, and what the annotations say. All in image pixels.

    Attributes:
      joints: (n, s, k, 2) float64 for each of s stacks; scores (n, s, k) float32.
      truth: (n, k, 2); visible (n, k) flags; head_size (n,), 0 where unknown.
      pictures: of the first few examples, what `picture` and `attention` draw.
    """

    joints: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    head_size: np.ndarray
    pictures: list[dict]


class Evaluator:
    """A network with a split: `predict(variables)` compiles once and can be called at every evaluation."""

    def __init__(self, network: inference.Network, source, mesh, *, batch_size: int, flip: bool):
        devices.check_divides(batch_size, "evaluate.batch_size")
        if len(source.skeleton) != len(network.skeleton):
            raise ValueError(
                f"The network has {len(network.skeleton)} joints ({network.skeleton.name}), "
                f"{source.name} has {len(source.skeleton)} ({source.skeleton.name})."
            )
        self.network, self.source, self._mesh, self._batch_size = network, source, mesh, batch_size
        estimate = inference.estimator(network, canvas=source.canvas, margin=source.margin, flip=flip)
        same, spread = devices.replicated(mesh), devices.sharded(mesh)
        self._estimate = jax.jit(estimate, in_shardings=(same, spread), out_shardings=spread)

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
          pictures: how many of the first examples keep their canvas, heatmaps and attention.
          threads: that decode.
          progress: is called with the number of examples that are done.
        """
        parts, kept = [], []
        batches = pipeline.batches(
            self.source,
            train=False,
            batch_size=self._batch_size,
            shards=jax.process_count(),
            shard=jax.process_index(),
            threads=threads,
            loader=sources.loader(self.source),
        )
        with contextlib.closing(batches):
            for batch in batches:
                canvases = devices.put_batch({"image": batch["image"]}, self._mesh)["image"]
                joints, scores, seen = self._estimate(variables, canvases)
                joints, scores = _gather((joints, scores))
                fields = _gather({name: batch[name] for name in (*pipeline.FIELDS, "mask")})
                if len(kept) < pictures:
                    kept += self._keep(batch, joints, _gather(seen), pictures - len(kept))
                parts.append(self._in_image(joints, scores, fields))
                progress(min(len(parts) * self._batch_size, len(self.source)))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Predictions(**whole, pictures=kept)

    def _in_image(self, joints, scores, fields) -> dict:
        size = self.network.size
        joints = inference.image_joints(joints, fields["center"], fields["scale"], size=size)
        values = {
            **{"joints": joints, "scores": scores, "truth": fields["joints"]},
            **{"visible": fields["visible"], "head_size": fields["head_size"]},
        }
        return {name: value[fields["mask"]] for name, value in values.items()}

    def _keep(self, batch, joints, seen, count) -> list[dict]:
        """What `picture` and `attention` draw, of the first `count` examples of a batch, in input pixels."""
        size, source = self.network.size, self.source
        view = crop.input_from_canvas(canvas=source.canvas, margin=source.margin, size=size)
        kept = []
        for i in range(min(count, int(batch["mask"].sum()))):
            center, scale = (batch[name][i].astype(np.float64) for name in ("center", "scale"))
            input_from_image = crop.square(center, scale * crop.REFERENCE, size)
            kept.append(
                {
                    "crop": crop.cut(batch["image"][i], view, size),
                    "truth": crop.apply(input_from_image, batch["joints"][i]),
                    "labelled": batch["visible"][i] > 0,
                    "joints": joints[i, -1],
                    **jax.tree.map(lambda maps, i=i: maps[i], seen),
                }
            )
        return kept


def evaluate(config, workdir, path) -> dict:
    """Evaluates a checkpoint on the validation split; its tables and predictions go to the workdir.

    Args:
      config: its `data` and `evaluate` sections are used; the model is the checkpoint's, and has to be the
        config's.
      workdir: gets evaluation.json, predictions.json and pictures/evaluation.png, and of a network with
        attention pictures/evaluation_attention.png.
      path: of the checkpoint, see `checkpoint.load`.

    Returns:
      the scores, see `score`.
    """
    mesh = devices.mesh()
    network, variables, metadata = checkpoint.load(path, mesh)
    checkpoint.check_model(path, metadata, config)
    source = sources.open_source(config.data, train=False)
    options = {"batch_size": config.evaluate.batch_size, "flip": config.evaluate.flip}
    evaluator = Evaluator(network, source, mesh, **options)
    # One process shows a bar, and only where somebody looks at it (None: a terminal).
    silent = jax.process_index() > 0 or None
    with tqdm.tqdm(total=len(source), unit=" people", desc="Evaluating", disable=silent) as bar:
        predictions = evaluator.predict(
            variables,
            pictures=config.train.pictures,
            threads=config.data.threads or None,
            progress=lambda done: bar.update(done - bar.n),
        )
    scores = score(predictions, network.skeleton, metric=config.evaluate.metric)
    say(f"{source.name}, step {metadata['step']}, {len(source)} people")
    say(report(scores))
    about = {"data": source.name, "step": metadata["step"], "flip": config.evaluate.flip}
    if jax.process_index() == 0:
        write(workdir, predictions, scores, source.ids, about)
        if predictions.pictures:
            folder = pathlib.Path(workdir) / "pictures"
            draw.save(folder / "evaluation.png", picture(predictions, network))
            if (sheet := attention(predictions)) is not None:
                draw.save(folder / "evaluation_attention.png", sheet)
    return scores


def score(predictions: Predictions, skeleton, *, metric: str = "auto") -> dict:
    """The tables of a split.

    Args:
      predictions: of `Evaluator.predict`.
      skeleton: the joint set.
      metric: "pckh" (0.5 of the head size), "pck" (0.2 of the torso), or "auto": pckh where the head sizes
        are known.

    Returns:
      {"metric", "table" (last stack), "stacks" (a table each), "joints", "confidence" (how well the last
      stack's scores tell right joints from wrong ones, see `metrics.confidence`), "examples", "left_out"};
      rates in per cent. Where the joint set states limbs (LSP) also "pcp", {"metric", "table", "stacks"}.
    """
    labelled = predictions.visible > 0
    if metric == "auto":
        metric = "pckh" if predictions.head_size.any() else "pck"
    if metric == "pckh":
        reference, threshold = predictions.head_size, 0.5
    elif metric == "pck":
        reference = metrics.torso(predictions.truth, labelled, skeleton)
        threshold = 0.2
    else:
        raise ValueError(f"evaluate.metric={metric!r} is unknown; choose auto, pckh or pck.")
    counts = []
    for s in range(predictions.joints.shape[1]):
        distance = metrics.distances(predictions.joints[:, s], predictions.truth)
        counts.append(metrics.correct(distance, labelled, reference, threshold))
    right, counted = metrics.judged(distance, labelled, reference, threshold)  # of the last stack
    tables = [metrics.table(*count, skeleton) for count in counts]
    scores = {
        "metric": f"PCKh@{threshold}" if metric == "pckh" else f"PCK@{threshold}",
        "table": tables[-1],
        "stacks": tables,
        "joints": metrics.per_joint(*counts[-1], skeleton),
        "confidence": metrics.confidence(predictions.scores[:, -1][counted], right[counted]),
        "examples": len(labelled),
        "left_out": int((~(reference > 0)).sum()),
    }
    if skeleton.sticks:
        of_stacks = np.moveaxis(predictions.joints, 1, 0)
        limbs = [metrics.table_of_parts(j, predictions.truth, labelled, skeleton) for j in of_stacks]
        scores["pcp"] = {"metric": "PCP@0.5", "table": limbs[-1], "stacks": limbs}
    return scores


def report(scores: dict) -> str:
    """The tables as text: a row for each stack, the last one being the network's answer."""
    lines = _lines(scores)
    if scores["left_out"]:
        lines.append(
            f"{scores['left_out']} of {scores['examples']} people are left out: the length that scales "
            f"{scores['metric']} is not annotated."
        )
    if "pcp" in scores:
        lines += _lines(scores["pcp"])
    sure = scores["confidence"]
    if sure["auroc"] is not None:
        lines.append(
            f"Scores tell right joints from wrong ones with an AUROC of {sure['auroc']:.3f}; best F1 from "
            f"{sure['threshold']:.3f} on."
        )
    return "\n".join(lines)


def _lines(scores):
    lines = [f"{scores['metric']:<10}" + "".join(f"{title:>8}" for title in scores["table"])]
    for s, table in enumerate(scores["stacks"]):
        lines.append(f"stack {s + 1:<4}" + "".join(f"{value:8.2f}" for value in table.values()))
    return lines


def write(workdir, predictions: Predictions, scores: dict, ids: list[str], about: dict) -> None:
    """Writes evaluation.json and predictions.json (the last stack's joints in image pixels)."""
    workdir = pathlib.Path(workdir)
    entries = [
        {"id": id_, "joints": np.round(joints[-1], 3), "scores": np.round(value[-1].astype(float), 4)}
        for id_, joints, value in zip(ids, predictions.joints, predictions.scores, strict=True)
    ]
    files.write_json(workdir / "predictions.json", entries)
    files.write_json(workdir / "evaluation.json", about | scores)


def picture(predictions: Predictions, network: inference.Network) -> np.ndarray:
    """A contact sheet: annotated | predicted | all heatmaps, for each kept example."""
    skeleton, tiles = network.skeleton, []
    zoom = -(-_TILE // network.size)  # small inputs are enlarged, so that the lines stay thin
    for kept in predictions.pictures:
        image = cv2.resize(kept["crop"], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        everything = np.ones(len(skeleton), bool)
        tiles.append(draw.skeleton(image, zoom * kept["truth"], kept["labelled"], skeleton))
        tiles.append(draw.skeleton(image, zoom * kept["joints"], everything, skeleton))
        tiles.append(draw.heatmap(image, kept["heatmaps"].max(axis=-1)))
    return draw.sheet(tiles, columns=6)


def attention(predictions: Predictions) -> np.ndarray | None:
    """A sheet of attention maps, for the first few kept examples; None of a network that has none."""
    kept = [one for one in predictions.pictures[:_ATTENDED] if one["attention"]]
    if not kept:
        return None
    return np.concatenate([draw.attention_sheet(one["crop"], one["attention"]) for one in kept])


def _gather(tree):
    """Global arrays, or every process' part, as numpy on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
