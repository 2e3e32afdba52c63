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

from hourglass_jax import devices, files, inference, loading
from hourglass_jax.config import check_model
from hourglass_jax.console import say
from hourglass_jax.data import feed, pipeline, sources
from hourglass_jax.evaluation import metrics, tables
from hourglass_jax.media import draw
from hourglass_jax.network import Network
from hourglass_jax.pose import crop
from hourglass_jax.transforms import per_example

_TILE = 192  # px, least size of a drawn crop
_ATTENDED = 4  # examples whose attention is drawn: eight stacks have 40 maps each


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network says on a split of n examples, and what the annotations say. All in image pixels.

    Attributes:
      joints: (n, s, k, 2) float64 for each of s stacks; scores (n, s, k) float32.
      truth: (n, k, 2); visible (n, k) flags, see `pipeline`; head_size (n,), 0 where unknown.
      pictures: of the first few examples, what `picture` and `attention` draw.
      means: (n, k) float32, of the last stack's heatmaps over all cells; None where one is for all joints.
    """

    joints: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    head_size: np.ndarray
    pictures: list[dict]
    means: np.ndarray | None = None


class Evaluator:
    """A network with a split: `predict(variables)` compiles once and can be called at every evaluation."""

    def __init__(
        self, network: Network, source, mesh, *, batch_size: int, resident: bool = False, **protocol
    ):
        """resident: the split stays on the devices, see `feed`. protocol: flip, scales and decode, see
        `protocol` and `inference.Estimator`."""
        devices.check_divides(batch_size, "evaluate.batch_size")
        if len(source.skeleton) != len(network.skeleton):
            raise ValueError(
                f"The network has {len(network.skeleton)} joints ({network.skeleton.name}), "
                f"{source.name} has {len(source.skeleton)} ({source.skeleton.name})."
            )
        self.network, self.source, self._batch_size = network, source, batch_size
        self._feed = feed.create(source, mesh, resident=resident)
        estimate = inference.Estimator(network, canvas=source.canvas, margin=source.margin, **protocol)
        self._estimate = per_example.estimator(estimate, mesh)

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
        batches = self._feed.batches(train=False, batch_size=self._batch_size, threads=threads)
        with contextlib.closing(batches):
            for batch in batches:
                canvases = self._feed.put(batch, ("image",))["image"]
                joints, scores, seen = self._estimate(variables, canvases)
                joints, scores, means = _gather((joints, scores, seen.pop("mean")))
                fields = _gather({name: batch[name] for name in (*pipeline.FIELDS, "mask")})
                if len(kept) < pictures:
                    canvases, seen = _gather((canvases, seen))
                    kept += self._keep(batch, canvases, joints, seen, pictures - len(kept))
                parts.append(self._in_image(joints, scores, means, fields))
                progress(min(len(parts) * self._batch_size, len(self.source)))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if whole["means"].shape[1] != len(self.network.skeleton):
            whole["means"] = None
        return Predictions(**whole, pictures=kept)

    def _in_image(self, joints, scores, means, fields) -> dict:
        size = self.network.size
        joints = inference.image_joints(joints, fields["center"], fields["scale"], size=size)
        values = {
            **{"joints": joints, "scores": scores, "means": means, "truth": fields["joints"]},
            **{"visible": fields["visible"], "head_size": fields["head_size"]},
        }
        return {name: value[fields["mask"]] for name, value in values.items()}

    def _keep(self, batch, canvases, joints, seen, count) -> list[dict]:
        """What `picture` and `attention` draw, of the first `count` examples of a batch, in input pixels."""
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


def protocol(options) -> dict:
    """How a config's section `evaluate` wants a network to be asked: options of `inference.Estimator`."""
    return {"flip": options.flip, "scales": tuple(options.scales), "decode": options.decode}


def evaluate(config, workdir, path) -> dict | None:
    """Evaluates a checkpoint on the validation split; its tables and predictions go to the workdir.

    Args:
      config: its `data` and `evaluate` sections are used; the model is the checkpoint's, and has to be the
        config's.
      workdir: gets evaluation.json, predictions.json and pictures/evaluation.png, and of a network with
        attention pictures/evaluation_attention.png.
      path: of the checkpoint, see `loading.load`.

    Returns:
      the scores, see `score`; None where no joint is labelled, as of MPII's test people: then there are
      predictions and pictures alone.
    """
    mesh = devices.mesh()
    network, variables, metadata = loading.load(path, mesh)
    check_model(path, metadata, config)
    source = sources.open_source(config.data, train=False, skeleton=network.skeleton)
    options = protocol(config.evaluate)
    evaluator = Evaluator(network, source, mesh, batch_size=config.evaluate.batch_size, **options)
    # One process shows a bar, and only where somebody looks at it (None: a terminal).
    silent = jax.process_index() > 0 or None
    with tqdm.tqdm(total=len(source), unit=" people", desc="Evaluating", disable=silent) as bar:
        predictions = evaluator.predict(
            variables,
            pictures=config.train.pictures,
            threads=config.data.threads or None,
            progress=lambda done: bar.update(done - bar.n),
        )
    say(f"{source.name}, step {metadata['step']}, {len(source)} people")
    if (predictions.visible > 0).any():
        groups = {name: source.extras[name] for name in ("category", "activity") if name in source.extras}
        scores = score(predictions, network.skeleton, metric=config.evaluate.metric, groups=groups)
        say(report(scores))
    else:
        scores = None
        say("No joint is labelled: there are no scores, only predictions.json.")
    about = {"data": source.name, "step": metadata["step"], **options}
    if jax.process_index() == 0:
        write(workdir, predictions, scores, source.ids, about)
        if predictions.pictures:
            folder = pathlib.Path(workdir) / "pictures"
            draw.save(folder / "evaluation.png", picture(predictions, network))
            if (sheet := attention(predictions)) is not None:
                draw.save(folder / "evaluation_attention.png", sheet)
        with contextlib.suppress(ModuleNotFoundError):  # told already
            if curves := presence(predictions, network.skeleton):
                tables.plot_presence(pathlib.Path(workdir) / "pictures" / "presence.png", curves)
    return scores


def score(
    predictions: Predictions, skeleton, *, metric: str = "auto", groups: dict[str, np.ndarray] | None = None
) -> dict:
    """The tables of a split.

    Args:
      predictions: of `Evaluator.predict`.
      skeleton: the joint set.
      metric: "auto", "pckh" (0.5 of the head size) or "pck" (0.2 of the torso), ..., see `tables.choose`.
      groups: see `tables.score`.

    Returns:
      those of `tables.score`, "confidence": how well the last stack's scores tell right joints from wrong
      ones, see `metrics.confidence`, and "presence": how well its heatmaps tell labelled joints from others,
      see `presence`, without the curves.
    """
    truth, visible = predictions.truth, predictions.visible
    metric, reference = tables.choose(metric, truth, visible, predictions.head_size, skeleton)
    options = {"metric": metric, "groups": groups}
    scores = tables.score(predictions.joints, truth, visible, reference, skeleton, **options)
    distance = metrics.distances(predictions.joints[:, -1], truth)
    right, counted = metrics.judged(distance, visible > 0, reference, tables.METRICS[metric][1])
    scores["confidence"] = metrics.confidence(predictions.scores[:, -1][counted], right[counted])
    scores["presence"] = {
        part: {name: {k: found[name][k] for k in ("average_precision", "accuracy")} for name in found}
        for part, found in presence(predictions, skeleton).items()
    }
    return scores


def presence(predictions: Predictions, skeleton) -> dict[str, dict[str, dict]]:
    """Whether a joint is labelled at all, from its heatmap's maximum and mean (Newell 5.3, Figure 11).

    MPII leaves out joints that are severely occluded or outside of the picture, and Newell's targets are
    empty there. After a spatial cross-entropy every map has the same mean, which then says nothing.

    Returns:
      {row of the table: {"max" and "mean": see `metrics.presence`}}; rows whose joints are all labelled are
      left out.
    """
    values = {"max": predictions.scores[:, -1]}
    if predictions.means is not None:
        values["mean"] = predictions.means
    found = {}
    for part, joints in skeleton.parts:
        flags = predictions.visible[:, list(joints)]
        labelled, known = flags > 0, flags >= 0  # -1: the set has no such joint
        if labelled.any() and not labelled[known].all():
            found[part] = {
                name: metrics.presence(value[:, list(joints)][known], labelled[known])
                for name, value in values.items()
            }
    return found


def scalars(scores: dict) -> dict[str, float]:
    """What a training logs of `score`: the rows of its tables."""
    rows = scores["table"] | {"AUC": scores["auc"]}
    limbs = scores["pcp"]["table"] if "pcp" in scores else {}
    return rows | {f"PCP/{title}": rate for title, rate in limbs.items()}


def report(scores: dict) -> str:
    """The tables as text: a row for each stack, the last one being the network's answer."""
    lines, sure = [tables.report(scores)], scores["confidence"]
    if sure["auroc"] is not None:
        lines.append(
            f"Scores tell right joints from wrong ones with an AUROC of {sure['auroc']:.3f}; best F1 from "
            f"{sure['threshold']:.3f} on."
        )
    rows = scores["presence"]
    for name in ("max", "mean") if rows else ():
        known = ", ".join(f"{part} {row[name]['accuracy']:.1f}" for part, row in rows.items() if name in row)
        lines.append(f"Is it labelled? Accuracy by a heatmap's {name} (Newell 5.3): {known or 'unknown'}.")
    return "\n".join(lines)


def write(workdir, predictions: Predictions, scores: dict | None, ids: list[str], about: dict) -> None:
    """Writes evaluation.json, predictions.json and curves.csv, and curves.png where Matplotlib is installed.

    Without scores (None) it writes predictions.json alone, and an earlier evaluation's files stay: they name
    their data. predictions.json has for each person the last stack's joints in image pixels and their
    scores, and under "stacks" those of every stack.
    """
    workdir, entries = pathlib.Path(workdir), []
    for id_, joints, values in zip(ids, predictions.joints, predictions.scores, strict=True):
        stacks = [
            {"joints": np.round(places, 3), "scores": np.round(value.astype(float), 4)}
            for places, value in zip(joints, values, strict=True)
        ]
        entries.append({"id": id_} | stacks[-1] | {"stacks": stacks})
    files.write_json(workdir / "predictions.json", entries)
    if scores is None:
        return
    files.write_json(workdir / "evaluation.json", about | scores)
    tables.write_curve(workdir / "curves.csv", scores)
    rows = dict(scores["curve"])
    try:
        tables.plot_curves(workdir / "curves.png", rows, rows.pop("thresholds"), scores["metric"])
    except ModuleNotFoundError:
        say("curves.png is not drawn: Matplotlib is not installed.")


def picture(predictions: Predictions, network: Network) -> np.ndarray:
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
