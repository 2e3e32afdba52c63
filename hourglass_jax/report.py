"""Writes an evaluated workdir as one HTML page: the papers' tables, curves, worst people, kinds of errors.

    python -m hourglass_jax.report runs/quickstart

The page needs no network and no other file. It reads what training and evaluation wrote (config.json,
metrics.jsonl, evaluation.json, predictions.json, pictures/) and, for the people, the validation data.
"""

import argparse
import base64
import contextlib
import html
import io
import json
import pathlib
import sys

import cv2
import numpy as np
from ml_collections import ConfigDict

from hourglass_jax import console, files
from hourglass_jax.data import pipeline, sources
from hourglass_jax.evaluation import errors, scores
from hourglass_jax.evaluation.scores import Scores
from hourglass_jax.media import draw
from hourglass_jax.pose import crop

COMMAND = "python -m hourglass_jax.report"
WORST = 12  # people
LEAST = 5  # labelled joints that a person needs to be shown
_SIDE = 256  # px of a person's picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.summary th, .summary td { text-align: left; white-space: normal; vertical-align: top; }
img, svg { max-width: 100%; height: auto; }
figure { display: inline-block; margin: 0 10px 14px 0; }
figcaption { font-size: 13px; color: #555; }
.note { color: #555; }
"""


def report(workdir, output=None) -> pathlib.Path:
    """Writes the page of an evaluated workdir.

    Args:
      workdir: of a training that was evaluated (`evaluation.json` and `predictions.json` are there).
      output: the page's file; None for WORKDIR/report.html.

    Returns:
      the page's path.

    Raises:
      FileNotFoundError: the workdir was not evaluated; ValueError: one of its files is damaged.
    """
    workdir = files.path(workdir)
    files.check_output("output", output, (".html", ".htm"))
    for name in ("evaluation.json", "predictions.json"):
        if not files.is_file(workdir / name):
            raise FileNotFoundError(f"{workdir / name}: no such file; evaluate the workdir first.")
    about, config = files.read_json(workdir / "evaluation.json"), None
    if files.is_file(workdir / "config.json"):  # not of `evaluate --checkpoint` into a folder of its own
        config = files.read_json(workdir / "config.json")
    try:
        found = Scores.from_dict(about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{workdir / 'evaluation.json'}: not an evaluation ({error!r}).") from None
    title = f"{config['model']['name'] if config else workdir.name}: {found.metric} {found.table['Mean']:.1f}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        _summary(workdir, about, config),
        "<h2>Tables</h2>",
        _tables(found),
        "<h2>Curves</h2>",
        _figure(_threshold_plot(found), "Share of correct joints over the threshold."),
        _learning_curves(workdir),
        *_people(workdir, config, found),
        *_pictures(workdir),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n"
    )
    output = files.path(output) if output else workdir / "report.html"
    files.write(output, page.encode())
    return output


def _text(value) -> str:
    return html.escape(str(value))


def _table(rows: list[list], head: list) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _rate(value) -> str:
    """A rate in per cent; empty if no joint counts."""
    return "" if value is None or value != value else f"{value:.1f}"


def _summary(workdir, about, config) -> str:
    config = config or {"model": {}}
    model = ", ".join(f"{key} {value}" for key, value in config["model"].items() if value not in ("", ()))
    protocol = {key: about[key] for key in ("crop", "flip", "scales", "decode") if key in about}
    rows = [
        ["workdir", workdir.name],
        ["model", model],
        ["data", f"{about.get('data', '')}, {about.get('examples', '')} people"],
        ["step", about.get("step", "")],
        ["protocol", ", ".join(f"{key} {value}" for key, value in protocol.items())],
        ["seed", config.get("seed", "")],
    ]
    cells = "".join(f"<tr><th>{_text(a)}</th><td>{_text(b)}</td></tr>" for a, b in rows)
    return f'<table class="summary">{cells}</table>'


def _tables(found: Scores) -> str:
    head = list(found.table)
    stacks = [
        [f"stack {number}", *map(_rate, table.values())] for number, table in enumerate(found.stacks, start=1)
    ]
    text = _table(stacks, [found.metric, *head])
    pools = {
        "macro mean": found.macro, "AUC": found.auc, "visible": found.visible, "occluded": found.occluded,
    }  # fmt: skip
    text += _table([[title, _rate(value)] for title, value in pools.items() if value is not None], ["", "%"])
    text += "<h3>By joint</h3>" + _table(
        [[name, _rate(v)] for name, v in found.joints.items()], ["joint", "%"]
    )
    for limbs in filter(None, (found.pcp, found.pcp_average)):
        text += _table([[limbs.metric, *map(_rate, limbs.table.values())]], ["", *limbs.table])
    for name, groups in found.by.items():
        rows = [[group, *map(_rate, table.values())] for group, table in groups.items()]
        text += f"<h3>By {_text(name)}</h3>" + _table(rows, [name, *head])
    if found.left_out:
        text += (
            f'<p class="note">{found.left_out} of {found.examples} people are left out: their reference '
            f"length of {_text(found.metric)} is not annotated.</p>"
        )
    return text


def _figure(picture: bytes, caption: str, kind: str = "png") -> str:
    data = base64.b64encode(picture).decode()
    caption = _text(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _plot(draw_on, size=(6, 4)) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw_on(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _threshold_plot(found: Scores) -> bytes:
    def draw_on(axes):
        for title, rates in found.curve.items():
            if title != "thresholds":
                width = 2.5 if title == "Mean" else 1.2
                axes.plot(found.curve["thresholds"], rates, label=title, linewidth=width)
        axes.set(xlabel="threshold", ylabel="correct (%)", ylim=(0, 100), title=found.metric)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return _plot(draw_on)


def _learning_curves(workdir) -> str:
    path, entries = workdir / "metrics.jsonl", []
    for line in files.read(path).decode().splitlines() if files.is_file(path) else ():
        with contextlib.suppress(json.JSONDecodeError):  # the last line, if the run was killed
            entries.append(json.loads(line))
    text = ""
    for key, label in (("loss", "loss"), ("validation/Mean", "mean score on validation (%)")):
        points = [(entry["step"], entry[key]) for entry in entries if key in entry]
        if len(points) > 1:

            def draw_on(axes, points=points, label=label):
                axes.plot(*np.transpose(points), "o-" if len(points) < 50 else "-")
                axes.set(xlabel="step", ylabel=label)
                axes.grid(alpha=0.3)

            text += _figure(_plot(draw_on, (5, 3.2)), f"Learning curve: {label}.")
    return text


def _people(workdir, config, found: Scores) -> list[str]:
    """Kinds of errors, and the worst people; a note if the data cannot be opened."""
    if config is None:
        return [
            '<p class="note">No pictures of people: config.json, which names the data, is only in the '
            "workdir of a training.</p>"
        ]
    try:
        source = sources.open_source(ConfigDict(config).data, train=False)
        by_id = {str(one["id"]): one for one in files.read_json(workdir / "predictions.json")}
        people = [(i, by_id[id_]) for i, id_ in enumerate(map(str, source.ids)) if id_ in by_id]
        predicted = np.array([one["joints"] for _, one in people], np.float64)
        examples = [source[i] for i, _ in people]
        shown = _shown([one for _, one in people], found)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        return [f'<p class="note">No pictures of people: {_text(console.message(error))}</p>']
    if not people:
        return ['<p class="note">No pictures of people: predictions.json is of other data.</p>']
    truth, visible = (np.array([example[name] for example in examples]) for name in ("joints", "visible"))
    head_size = np.array([example["head_size"] for example in examples], np.float64)
    name = next(key for key, (title, _) in scores.METRICS.items() if found.metric.startswith(f"{title}@"))
    _, reference = scores.choose(name, truth, visible, head_size, source.skeleton)
    threshold = scores.METRICS[name][1]
    of_pictures = _pictures_of([str(example["id"]) for example in examples])
    found_kinds = errors.kinds(
        predicted,
        truth,
        visible > 0,
        reference,
        threshold,
        source.skeleton,
        pictures=of_pictures,
        shown=shown,
    )
    unknown = {"another person": of_pictures is None, "missed": shown is None}
    wrong, counted = (found_kinds > 0).sum(axis=1), (found_kinds >= 0).sum(axis=1)
    share = np.where(counted >= LEAST, wrong / np.maximum(counted, 1), -1.0)
    worst = [i for i in np.argsort(-share, kind="stable")[:WORST] if share[i] > 0]
    parts = ["<h2>Errors</h2>", _kinds_table(found_kinds, source.skeleton.joints, unknown)]
    if worst:
        parts += ["<h2>The worst people</h2>", '<p class="note">Left: annotated. Right: predicted.</p>']
        for i in worst:
            caption = f"{examples[i]['id']}: {wrong[i]} of {counted[i]} joints are wrong"
            picture = _side_by_side(source, people[i][0], predicted[i])
            parts.append(_figure(picture, caption, "jpeg"))
    return parts


def _shown(people: list[dict], found: Scores) -> np.ndarray | None:
    """(n, k) bool: joints whose score is high enough to be drawn; None if that is unknown."""
    threshold = (found.confidence or {}).get("threshold")
    if threshold is None or not all("scores" in one for one in people):
        return None
    return np.array([one["scores"] for one in people], np.float64) >= threshold


def _pictures_of(ids: list[str]) -> list[str] | None:
    """The picture of each of MPII's people, from its id; None for other datasets, whose ids lack it."""
    if not all(id_.startswith("mpii-") for id_ in ids):
        return None
    return [id_.rpartition("-")[0] for id_ in ids]


def _kinds_table(found_kinds: np.ndarray, joints, unknown: dict[str, bool]) -> str:
    rows, kinds = [], [kind for kind in errors.KINDS if not unknown.get(kind)]
    for name, of_joint in [*zip(joints, found_kinds.T, strict=True), ("all", found_kinds.ravel())]:
        count = (of_joint >= 0).sum()
        shares = [
            100 * (of_joint == errors.KINDS.index(kind)).sum() / count if count else np.nan for kind in kinds
        ]
        rows.append([name, int(count), *map(_rate, shares)])
    note = (
        "Per cent of the labelled joints. Mirrored: at the same joint of the other side. Near: within twice "
        "the threshold. Another joint: at another joint of the same person."
    )
    if "another person" in kinds:
        note += " Another person: at a joint of another person in the picture."
    if "missed" in kinds:
        note += " Missed: elsewhere, with a score too low to be drawn."
    return _table(rows, ["joint", "labelled", *kinds]) + f'<p class="note">{note}</p>'


def _side_by_side(source, index: int, predicted: np.ndarray) -> bytes:
    """A JPEG of a person's crop twice: with the annotated and with the predicted joints."""
    example, skeleton = pipeline.load(source, index), source.skeleton
    frame = crop.canvas_from_image(
        np.asarray(example["center"], np.float64),
        np.asarray(example["scale"], np.float64),
        canvas=_SIDE, margin=source.margin,
    )  # fmt: skip
    image = cv2.resize(example["image"], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    labelled = example["visible"] > 0
    left = draw.skeleton(image, crop.apply(frame, example["joints"].astype(np.float64)), labelled, skeleton)
    right = draw.skeleton(image, crop.apply(frame, predicted), np.ones(len(skeleton), bool), skeleton)
    both = cv2.cvtColor(np.concatenate([left, right], axis=1), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", both, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _pictures(workdir) -> list[str]:
    """The sheets that the evaluation drew."""
    names = {
        "evaluation.png": "First people: annotated, predicted, heatmaps.",
        "evaluation_attention.png": "Attention of the first people.",
        "presence.png": "Telling from its heatmap whether a joint is labelled (Newell 5.3).",
    }
    found = [(workdir / "pictures" / name, caption) for name, caption in names.items()]
    figures = [_figure(files.read(path), caption) for path, caption in found if files.is_file(path)]
    return ["<h2>Pictures</h2>", *figures] if figures else []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Writes an evaluated workdir as one HTML page that needs no network."
    )
    parser.add_argument("workdir", help="of a training that was evaluated (hourglass evaluate)")
    parser.add_argument("--output", metavar="FILE", help="the page (default: WORKDIR/report.html)")
    args = parser.parse_args(arguments)
    return console.run(lambda: print(f"Wrote {report(args.workdir, args.output)}."))


if __name__ == "__main__":
    sys.exit(main())
