"""A trained network as one program for other runtimes, decoding included.

    python -m hourglass_jax.export --workdir=runs/lspet --format=onnx --output=lspet.onnx

It takes images (b, size, size, 3) uint8 RGB, crops of people as the network has been trained on, and gives
joints (b, k, 2) float32 in pixels of these and scores (b, k) float32; or the last heatmaps, (b, h, w, k).
The input's normalisation is inside; there is no averaging with mirrored images.
"""

import argparse
import contextlib
import io
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
from hourglass_jax.network import Network

COMMAND = "python -m hourglass_jax.export"


def function(network: Network, variables: dict, *, heatmaps: bool = False) -> Callable:
    """images (b, size, size, 3) uint8 -> {"joints", "scores"} or {"heatmaps"}, see above.

    The variables are constants of the function. Its operations are plain JAX, for any platform.
    """
    variables = jax.device_get(variables)

    def run(images):
        outputs = network.outputs(variables, images.astype(jnp.float32) / 255, flip=False)
        if heatmaps:
            return {"heatmaps": outputs.heatmaps[-1]}
        last = outputs._replace(heatmaps=outputs.heatmaps[-1:])
        joints, scores = inference.joints_of(network, last)
        return {"joints": joints[:, -1], "scores": scores[:, -1]}

    return run


def stablehlo(run: Callable, size: int, path) -> str:
    """One file for CPUs, GPUs and TPUs, of any batch."""
    with extras.needed("flatbuffers", "--format=stablehlo"):
        import flatbuffers  # noqa: F401  jax.export serializes by it
    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(_images(size))
    files.write(path, bytes(exported.serialize()))
    return f'jax.export.deserialize(bytearray(open("{path}", "rb").read())).call(images)  # pip install jax'


def savedmodel(run: Callable, size: int, path) -> str:
    """A folder, of any batch."""
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
            f"TensorFlow {tf.__version__} cannot run what JAX {jax.__version__} writes; install a newer "
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
    """A file of one fixed batch: TensorFlow Lite has none of StableHLO's operations on unknown sizes."""
    tf, convert = _tensorflow()
    images = tf.TensorSpec((batch, size, size, 3), tf.uint8, name="images")
    module = tf.Module()
    module.run = tf.function(convert(run, with_gradient=False), autograph=False, input_signature=[images])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    files.write(path, converter.convert())
    return (
        f'ai_edge_litert.interpreter.Interpreter("{path}")  # pip install ai-edge-litert; {batch} at a time'
    )


def onnx(run: Callable, size: int, path) -> str:
    """A file, of any batch."""
    with extras.needed("jax2onnx", "--format=onnx"):
        from jax2onnx import to_onnx
    names = list(jax.eval_shape(run, _images(size)))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every convolution
        model = to_onnx(
            lambda images: tuple(run(images)[name] for name in names),
            inputs=[_images(size)],
            input_names=["images"],
            output_names=names,
        )
    files.write(path, model.SerializeToString())
    return (
        f'onnxruntime.InferenceSession("{path}").run(None, {{"images": images}})  # pip install onnxruntime'
    )


FORMATS = {"stablehlo": stablehlo, "savedmodel": savedmodel, "tflite": tflite, "onnx": onnx}


def _images(size):
    (b,) = jax.export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)


def _tensorflow():
    with extras.needed("tensorflow", "this format", extra="export"):
        import tensorflow as tf
    from jax.experimental import jax2tf

    return tf, jax2tf.convert


def export(workdir, output, *, format: str, heatmaps: bool = False, batch: int = 1) -> str:
    """Writes a network, whole or not at all; for the arguments see `main`.

    Returns:
      an expression that loads and runs it.

    Raises:
      ImportError: the format's converter is not installed.
      ValueError: it cannot convert the network; the message names the operation.
    """
    if format not in FORMATS:
        raise ValueError(f"--format={format!r} is unknown; choose from {', '.join(FORMATS)}.")
    if pathlib.Path(output).is_dir():
        raise ValueError(f"--output={output} is a folder that is there already; choose another name.")
    network, variables, _ = loading.load(workdir)
    options = {"batch": batch} if format == "tflite" else {}
    try:
        return FORMATS[format](
            function(network, variables, heatmaps=heatmaps), network.size, output, **options
        )
    except (ImportError, OSError):
        raise
    except Exception as error:  # each converter has its own
        name = type(network.model).__module__.rpartition(".")[2]
        raise ValueError(f"--format={format} cannot take a network {name!r}: {_reason(error)}") from error


def _reason(error) -> str:
    """The operation that a converter names, or the beginning of its message."""
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
    parser.add_argument("--output", required=True, help="the file; for savedmodel a new folder")
    parser.add_argument("--heatmaps", action="store_true", help="heatmaps instead of joints and scores")
    parser.add_argument("--batch", type=int, default=1, help="of tflite, which has no other (default: 1)")
    args = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.ERROR)

    def command() -> None:
        usage = export(**vars(args))
        given = "heatmaps" if args.heatmaps else "joints and scores"
        print(f"{args.output}: images of uint8 RGB in, {given} out")
        print(usage)

    return console.run(command)


if __name__ == "__main__":
    sys.exit(main())
