"""A trained network as one program for other runtimes, decoding included.

    python -m hourglass_jax.export --workdir=runs/lspet --format=onnx --output=lspet.onnx

The program takes images (b, size, size, 3) uint8 RGB, which are crops of people as in the network's training.
It returns joints (b, k, 2) float32 in pixels of these images and scores (b, k) float32, or the last heatmaps,
(b, h, w, k) float32, or all three. It includes the input's normalisation; batch norms are folded. There is no
averaging with flipped images.
"""

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hourglass_jax import console, extras, files, inference, loading
from hourglass_jax.data import packed, pipeline
from hourglass_jax.media import pictures
from hourglass_jax.network import Metadata, Network
from hourglass_jax.pose import crop
from hourglass_jax.predictor import THRESHOLD, cut, whole
from hourglass_jax.transforms import fold_norms, onnx_graph

COMMAND = "python -m hourglass_jax.export"


OUTPUTS = ("joints", "heatmaps", "all")
PRECISIONS = ("float32", "float16", "int8")
MOST_CROPS = 128  # for the calibration of int8


def function(network: Network, variables: dict, *, outputs: str = "joints") -> Callable:
    """images (b, size, size, 3) uint8 -> {"joints", "scores"}, {"heatmaps"} or all three, see above.

    The variables are constants of the function. Its operations are plain JAX, for any platform.

    Args:
      outputs: "joints", "heatmaps" or "all".
    """
    network, variables = fold_norms.fold(network, variables)
    variables = jax.device_get(variables)

    def run(images):
        found = network.outputs(variables, images.astype(jnp.float32) / 255, flip=False)
        last = found._replace(heatmaps=found.heatmaps[-1:])
        maps = {"heatmaps": last.heatmaps[-1]} if outputs != "joints" else {}
        if outputs == "heatmaps":
            return maps
        joints, scores = inference.joints_of(network, last)
        return {"joints": joints[:, -1], "scores": scores[:, -1]} | maps

    return run


def stablehlo(run: Callable, size: int, path) -> str:
    """Writes one file for CPUs, GPUs and TPUs, for batches of any size."""
    with extras.needed("flatbuffers", "--format=stablehlo"):
        import flatbuffers  # noqa: F401  jax.export needs it to serialize
    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(_images(size))
    files.write(path, bytes(exported.serialize()))
    return f'jax.export.deserialize(bytearray(open("{path}", "rb").read())).call(images)  # pip install jax'


def savedmodel(run: Callable, size: int, path) -> str:
    """Writes a folder, for batches of any size."""
    tf, convert = _tensorflow()
    module = tf.Module()
    module.run = tf.function(
        convert(run, polymorphic_shapes=["(b, ...)"], with_gradient=False),
        autograph=False,
        input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")],
    )
    try:
        module.run(tf.zeros((1, size, size, 3), tf.uint8))
    except tf.errors.OpError as error:  # programs of JAX 0.12 are newer than TensorFlow 2.21
        raise ImportError(
            f"TensorFlow {tf.__version__} cannot run programs of JAX {jax.__version__}; install a newer "
            "TensorFlow or an older JAX."
        ) from error
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        tf.saved_model.save(module, temporary / "model", signatures={"serving_default": module.run})
        os.rename(temporary / "model", path)  # raises if the path exists
    finally:
        shutil.rmtree(temporary)
    return f'tf.saved_model.load("{path}").run(images)  # pip install tensorflow'


def tflite(run: Callable, size: int, path, batch: int) -> str:
    """Writes a file for one batch size: TensorFlow Lite has no StableHLO operations on unknown sizes."""
    tf, convert = _tensorflow()
    images = tf.TensorSpec((batch, size, size, 3), tf.uint8, name="images")
    module = tf.Module()
    module.run = tf.function(convert(run, with_gradient=False), autograph=False, input_signature=[images])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    files.write(path, converter.convert())
    return (
        f'ai_edge_litert.interpreter.Interpreter("{path}")  # pip install ai-edge-litert; {batch} at a time'
    )


def onnx(
    run: Callable,
    size: int,
    path,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    metadata: dict[str, str] | None = None,
) -> str:
    """Writes a file, for batches of any size.

    Args:
      precision: "float32"; "float16": kernels are stored in float16, and the computation is in float32; or
        "int8": kernels and features.
      calibration: (n, size, size, 3) uint8, crops of people, from which int8 gets the features' ranges.
      metadata: written into the file.
    """
    with extras.needed("onnx", "--format=onnx"):
        import onnx  # noqa: F401
    half = precision == "float16"
    model = onnx_graph.model(run, _images(size), half=half, metadata=metadata or {})
    if precision == "int8":
        model = _int8(model, calibration)
    files.write(path, model.SerializeToString())
    return (
        f'onnxruntime.InferenceSession("{path}").run(None, {{"images": images}})  # pip install onnxruntime'
    )


def _int8(model, crops):
    """The model with 8 bits in its convolutions and between them; decoding stays as it is."""
    import onnx

    with extras.needed("onnxruntime", "--precision=int8"):
        from onnxruntime import quantization
    batches = iter([crops[i : i + 8] for i in range(0, len(crops), 8)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises to optimise the model, which is done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "int8.onnx")
            quantization.quantize_static(
                model,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "Resize"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return onnx.load(path)
    finally:
        logging.getLogger().setLevel(level)


def crops_of(path, size: int, most: int = MOST_CROPS) -> np.ndarray:
    """At most (most, size, size, 3) uint8 crops, evenly spaced in the source.

    Args:
      path: a packed split (`data.prepare --pack`), or a folder or a glob of pictures that each show one
        person.

    Raises:
      ValueError: there are no pictures.
    """
    if str(path).endswith(".npz"):
        source = packed.PackedSource(path)
        view = crop.input_from_canvas(canvas=source.canvas, margin=source.margin, size=size)
        canvases = (pipeline.decode(source[i]["image"]) for i in _spread(len(source), most))
        return np.stack([crop.cut(canvas, view, size) for canvas in canvases if canvas is not None])
    items = [item for item in pictures.search([path]).items if not pictures.is_video(item)]
    if not items:
        raise ValueError(f"--calibration={path}: there are no pictures.")
    read = (picture for i in _spread(len(items), most) for picture in pictures.of(items[i]))
    return np.stack([cut(picture, whole(picture.size), size) for picture in read])


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def about(network: Network, metadata: Metadata) -> dict[str, str]:
    """Facts about a file for its users, such as input and joints; values are json."""
    threshold = THRESHOLD if metadata.threshold is None else metadata.threshold
    facts = {
        "input": "images (b, size, size, 3) uint8 RGB; the normalisation is inside",
        "size": network.size,
        "mean": network.mean,
        "joints": network.skeleton.joints,
        "skeleton": network.skeleton.to_dict(),
        "threshold": threshold,  # joints with at least this score are drawn
        "step": metadata.step,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


FORMATS = {"stablehlo": stablehlo, "savedmodel": savedmodel, "tflite": tflite, "onnx": onnx}


def _images(size):
    (b,) = jax.export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)


def _tensorflow():
    with extras.needed("tensorflow", "this format", extra="export"):
        import tensorflow as tf
    from jax.experimental import jax2tf

    return tf, jax2tf.convert


def export(
    workdir,
    output,
    *,
    format: str,
    outputs: str = "joints",
    batch: int = 1,
    precision: str = "float32",
    calibration=None,
) -> str:
    """Writes a network atomically; for the arguments see `main`.

    Returns:
      an expression that loads and runs it.

    Raises:
      ImportError: the format's converter is not installed.
      ValueError: the converter cannot convert the network, and the message names the operation; or the
        arguments do not fit together.
    """
    for name, value, known in (("format", format, FORMATS), ("outputs", outputs, OUTPUTS)):
        if value not in known:
            raise ValueError(f"--{name}={value!r} is unknown; choose from {', '.join(known)}.")
    _check_precision(format, precision, calibration)
    if files.in_bucket(output) and format == "savedmodel":
        raise ValueError(f"--output={output}: a SavedModel is a folder; write a local one, and copy it.")
    if files.is_dir(output):
        raise ValueError(f"--output={output} is an existing folder; choose another name.")
    files.check_output("output", output)
    network, variables, metadata = loading.load(workdir)
    options: dict = {"batch": batch} if format == "tflite" else {}
    if format == "onnx":
        # Runtimes do not support bfloat16 on CPUs.
        network = dataclasses.replace(network, model=network.model.clone(dtype=jnp.float32))
        crops = crops_of(calibration, network.size) if calibration else None
        options = {"precision": precision, "calibration": crops, "metadata": about(network, metadata)}
    try:
        return FORMATS[format](function(network, variables, outputs=outputs), network.size, output, **options)
    except (ImportError, OSError):
        raise
    except Exception as error:  # each converter has its own exceptions
        name = type(network.model).__module__.rpartition(".")[2]
        message = f"--format={format} cannot convert the network {name!r}: {_reason(error)}"
        raise ValueError(message) from error


def _check_precision(format, precision, calibration) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"--precision={precision!r} is unknown; choose from {', '.join(PRECISIONS)}.")
    if precision != "float32" and format != "onnx":
        raise ValueError(f"--precision={precision} is for --format=onnx; {format} has only float32.")
    if (precision == "int8") != bool(calibration):
        raise ValueError(
            "--precision=int8 and --calibration=PICTURES need each other: int8 gets its ranges from about a "
            "hundred crops of people; give a folder of pictures that each show one person, or a packed split."
        )


def _reason(error) -> str:
    """The operation that a converter's message names, or the beginning of the message."""
    text = str(error)
    found = re.search(r"'([\w.]+)' op\b|primitive '?([\w.-]+)", text)
    operation = f"there is no operation {found[1] or found[2]} ({{}})" if found else "{}"
    return operation.format(" ".join(text.split())[:200])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Writes a network for another runtime.")
    parser.add_argument(
        "--workdir", required=True, help="a training's workdir, one of its checkpoints, or weights"
    )
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--output", required=True, help="file to write; for savedmodel a new folder")
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument(
        "--outputs", choices=OUTPUTS, default="joints", help="joints with scores, heatmaps, or all three"
    )
    outputs.add_argument(
        "--heatmaps", dest="outputs", action="store_const", const="heatmaps", help="as --outputs=heatmaps"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="for onnx: float16 halves the file and computes in float32; int8 needs --calibration "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", metavar="PICTURES",
        help="for int8: a folder of pictures that each show one person, or a packed split (*.npz)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=1, help="for tflite: its only batch size (default: 1)")
    args = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.ERROR)

    def command() -> None:
        usage = export(**vars(args))
        given = {"joints": "joints and scores", "all": "joints, scores and heatmaps"}
        given = given.get(args.outputs, args.outputs)
        print(f"{args.output}: images of uint8 RGB in, {given} out")
        print(usage)

    return console.run(command)


if __name__ == "__main__":
    sys.exit(main())
