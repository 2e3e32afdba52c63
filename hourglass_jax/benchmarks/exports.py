"""Compares exports: size, time, and the distance of their joints and scores from the predictor's own program.

    hourglass benchmark exports --weights=lspet-small --calibration=packed/lspet-joints-train.npz \\
        --split=packed/lspet-joints-validation.npz

Each runs one picture at a time, in turn with the others, with its default number of threads.
"""

import functools
import importlib.util
import pathlib
import tempfile
import time

import jax
import numpy as np

from hourglass_jax import devices, export, inference, loading
from hourglass_jax.benchmarks.common import interleaved
from hourglass_jax.data import packed
from hourglass_jax.evaluation import results
from hourglass_jax.evaluation.results import Predictions
from hourglass_jax.pose import crop
from hourglass_jax.transforms import fold_norms, per_example

FORMS = {
    "stablehlo": ("stablehlo", "float32"),
    "savedmodel": ("savedmodel", "float32"),
    "tflite": ("tflite", "float32"),
    "onnx": ("onnx", "float32"),
    "onnx float16": ("onnx", "float16"),
    "onnx int8": ("onnx", "int8"),
}
NEEDED = {"savedmodel": "tensorflow", "tflite": "tensorflow", "onnx": "onnxruntime"}


def add(command) -> None:
    parser = command("exports", help="a network in each format: size, time, difference, score")
    argument = parser.add_argument
    argument("--weights", default="lspet-small", help="see --checkpoint of predict (default: %(default)s)")
    argument("--calibration", help="pictures or a packed split, which int8 needs")
    argument("--split", help="a packed split to score on (default: only compare joints, on random images)")
    argument("--formats", nargs="+", choices=FORMS, default=list(FORMS), help="(default: all)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for the predictor's own program without flipped images, and one for each format."""
    network, variables, _ = loading.load(args.weights)
    images = np.random.default_rng(0).integers(0, 256, (16, network.size, network.size, 3), np.uint8)
    source = packed.PackedSource(args.split) if args.split else None
    if source is not None:
        images = export.crops_of(args.split, network.size, len(source))
    calls, facts = {"ours": _ours(network, variables)}, {"ours": {"MB": "", "to write": ""}}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.formats:
            kind, precision = FORMS[name]
            calibration = args.calibration if precision == "int8" else None
            missing = kind in NEEDED and importlib.util.find_spec(NEEDED[kind]) is None
            if missing or (precision == "int8" and not calibration):
                continue
            path = pathlib.Path(folder) / name.replace(" ", "_")
            start = time.perf_counter()
            export.export(args.weights, path, format=kind, precision=precision, calibration=calibration)
            written = time.perf_counter() - start
            inside = path.rglob("*") if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in inside if file.is_file())
            facts[name] = {"MB": f"{size / 1e6:.1f}", "to write": f"{written:.0f} s"}
            calls[name] = LOADERS[kind](path)
        seconds = interleaved(
            {name: functools.partial(call, images[:1]) for name, call in calls.items()}, args.rounds
        )
        found = {name: _all(call, images) for name, call in calls.items()}
    rows = []
    for name, (low, median, high) in seconds.items():
        joints, scores = found[name]
        apart = np.abs(joints - found["ours"][0]).max(axis=-1)
        time_of = f"{1000 * median:.1f} ms ({1000 * low:.1f} to {1000 * high:.1f})"
        differs = {
            "median": f"{np.median(apart):.2g} px",
            "99 of 100 within": f"{np.quantile(apart, 0.99):.2g} px",
        }
        rows.append({"format": name, **facts[name], "a picture": time_of, **differs})
        if source is not None:
            rows[-1]["score"] = _score(joints, scores, source, network)
    return {"title": f"Exports of {args.weights}, {network.size} px, one picture at a time", "rows": rows}


def _ours(network, variables):
    folded, values = fold_norms.fold(network, variables)
    mesh = devices.mesh()
    estimator = inference.Estimator(folded, canvas=network.size, margin=1.0, flip=False)
    estimate, values = per_example.estimator(estimator, mesh), jax.device_put(values)

    def call(images):
        joints, scores, _ = estimate(values, images)
        return np.asarray(joints)[:, -1], np.asarray(scores)[:, -1]

    return call


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(["joints", "scores"], {"images": images})


def _stablehlo(path):
    program = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: _pair(jax.device_get(program(images)))


def _savedmodel(path):
    import tensorflow as tf

    module = tf.saved_model.load(path)  # the function keeps a reference
    return lambda images: _pair({name: v.numpy() for name, v in module.run(images).items()})


def _tflite(path):
    import tensorflow as tf

    runner = tf.lite.Interpreter(str(path), num_threads=2).get_signature_runner()
    return lambda images: _pair(runner(images=images))


def _pair(found):
    return found["joints"], found["scores"]


LOADERS = {"stablehlo": _stablehlo, "savedmodel": _savedmodel, "tflite": _tflite, "onnx": _onnx}


def _all(call, images):
    """Joints (n, k, 2) and scores (n, k), one picture at a time."""
    joints, scores = zip(*(call(images[i : i + 1]) for i in range(len(images))), strict=True)
    return np.concatenate(joints), np.concatenate(scores)


def _score(joints, scores, source, network) -> str:
    fields = ("joints", "visible", "center", "scale", "head_size")
    rows = [source[i] for i in range(len(source))]
    truth, visible, center, scale, heads = (np.stack([row[name] for row in rows]) for name in fields)
    joints = inference.image_joints(joints, center, scale, size=network.size)
    sides = scale.astype(np.float64) * crop.REFERENCE
    predictions = Predictions(
        joints=joints[:, None], scores=scores[:, None], truth=truth, visible=visible, head_size=heads,
        crop_size=sides, pictures=[], means=None,
    )  # fmt: skip
    found = results.score_predictions(predictions, network.skeleton, metric="pck", groups={})
    return f"{found.table['Mean']:.1f} {found.metric}"
