"""Evaluation of a checkpoint: a network over a whole split, and the papers' tables from its predictions."""

import contextlib
import os

import jax
import tqdm

from hourglass_jax import devices, files, loading
from hourglass_jax.config import check_model
from hourglass_jax.console import say
from hourglass_jax.data import sources
from hourglass_jax.evaluation import plots, published, results, sheets
from hourglass_jax.evaluation.protocol import Protocol
from hourglass_jax.evaluation.results import Predictions
from hourglass_jax.evaluation.run import Evaluator
from hourglass_jax.evaluation.scores import Scores, report
from hourglass_jax.media import draw

__all__ = ["Evaluator", "Predictions", "Protocol", "Scores", "evaluate", "report"]


def evaluate(config, workdir: str | os.PathLike, path: str | os.PathLike) -> Scores | None:
    """Evaluates a checkpoint on the validation split; its tables and predictions go to the workdir.

    Args:
      config: its `data` and `evaluate` sections are used. The model is the checkpoint's, and must equal the
        config's.
      workdir: folder for evaluation.json, predictions.json, curves.csv, and in pictures/ evaluation.png, with
        several stacks evaluation_stacks.png, and with attention evaluation_attention.png.
      path: path of the checkpoint, see `loading.load`.

    Returns:
      the scores, see `results.score_predictions`. None if no joint is labelled, as for MPII's test people;
      then only predictions and pictures are written.
    """
    files.check_writable(workdir)
    mesh = devices.mesh()
    network, variables, metadata = loading.load(path, mesh)
    check_model(path, metadata, config)
    whole = jax.process_count() == 1
    source = sources.open_source(config.data, train=False, skeleton=network.skeleton, whole=whole)
    protocol = Protocol.from_config(config.evaluate, crop=sources.crops(config.data))
    evaluator = Evaluator(network, source, mesh, batch_size=config.evaluate.batch_size, protocol=protocol)
    # Only one process shows a bar, and only in a terminal (None).
    silent = jax.process_index() > 0 or None

    def progress(done: int) -> None:
        bar.update(done - bar.n)

    with tqdm.tqdm(total=len(source), unit=" people", desc="Evaluating", disable=silent) as bar:
        predictions = evaluator.predict(
            variables,
            pictures=config.train.pictures,
            threads=config.data.threads or None,
            progress=progress,
        )
    say(f"{source.name}, step {metadata.step}, {len(source)} people")
    say(str(protocol))
    if (predictions.visible > 0).any():
        groups = published.groups(source.extras)
        scores = results.score_predictions(
            predictions, network.skeleton, metric=config.evaluate.metric, groups=groups
        )
        say(report(scores, details=True))
    else:
        scores = None
        say("No joint is labelled: there are no scores, only predictions.json.")
    about = {"data": source.name, "step": metadata.step, **protocol.to_dict()}
    if jax.process_index() == 0:
        results.write(workdir, predictions, scores, source.ids, about)
        if predictions.pictures:
            folder = files.path(workdir) / "pictures"
            draw.save(folder / "evaluation.png", sheets.predictions_sheet(predictions, network))
            if (sheet := sheets.stacks_sheet(predictions)) is not None:
                draw.save(folder / "evaluation_stacks.png", sheet)
            if (sheet := sheets.attention_sheet(predictions)) is not None:
                draw.save(folder / "evaluation_attention.png", sheet)
        with contextlib.suppress(ModuleNotFoundError):  # Matplotlib; `results.write` has said so
            if curves := results.presence(predictions, network.skeleton):
                plots.plot_presence(files.path(workdir) / "pictures" / "presence.png", curves)
    return scores
