"""Exported networks, each run by its own runtime, compared with ours."""

import collections
import functools
import json
import sys
from unittest import mock

import cv2
import jax
import numpy as np
import pytest

from hourglass_jax import export, inference, models, weights
from hourglass_jax.benchmarks import command, exports
from hourglass_jax.network import abstract, network_of
from hourglass_jax.pose.skeletons import MPII, Skeleton
from hourglass_jax.transforms import fold_norms, onnx_graph

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE = 32
SYSTEMS = {
    "newell": {"stacks": 2},
    "chu": {"stacks": 2, "window": 3},  # one stack each of refined and of part attention
    "mssh": {"stacks": 2},
    "selvam": {"stacks": 1, "attention_width": 8},
    "tang": {"stacks": 1, "branch_width": 8},
}


def test_no_system_is_missing():
    assert set(SYSTEMS) == set(models.names())


@functools.cache
def drawn(name):
    """A tiny network of a system, its variables without default values, three images and its outputs."""
    config = {"model": {"name": name, "width": 8, "depth": 1, **SYSTEMS[name]}}
    config |= {"data": {"size": SIZE, "mean": (0.5, 0.4, 0.3)}, "train": {"average_decay": 0.0}}
    config["loss"] = {"kind": "cross_entropy" if name == "newell" else "mean_squared_error", "sigma": 1.0}
    metadata = {"step": 1, "config": config, "skeleton": MPII.to_dict()}
    network = network_of(metadata)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if kind == "kernel" else 0.3
        # Rounded as in a file of weights.
        return (spread * rng.normal(size=leaf.shape)).astype(np.float16).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract(network, None))
    images = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    # The canvases of the three pictures are their crops, as in a predictor.
    estimate = jax.jit(inference.Estimator(network, canvas=SIZE, margin=1.0, flip=False))
    joints, scores, seen = jax.device_get(estimate(variables, images))
    expected = {"joints": joints[:, -1], "scores": scores[:, -1], "heatmaps": seen["heatmaps"]}
    return metadata, network, variables, images, expected


@functools.cache
def folded(name):
    """Network and variables of a system with folded norms, which takes a trace."""
    _, network, variables, _, _ = drawn(name)
    return fold_norms.fold(network, variables)


def function(name, outputs="joints"):
    """The function of a system to export."""
    _, network, variables, _, _ = drawn(name)
    with mock.patch.object(fold_norms, "fold", return_value=folded(name)):
        return export.function(network, variables, outputs=outputs)


def agrees(run, name, outputs, counts):
    """Asserts that run(images) -> {name: array} agrees with our network, for batches of these sizes."""
    _, _, _, images, expected = drawn(name)
    for count in counts:
        found = run(images[:count])
        assert set(found) == set(outputs)
        for key in outputs:
            assert found[key].dtype == np.float32
            np.testing.assert_allclose(found[key], expected[key][:count], atol=1e-4, err_msg=key)


def run_onnx(path):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def run_stablehlo(path):
    return jax.export.deserialize(bytearray(path.read_bytes())).call


def run_savedmodel(path):
    tf = pytest.importorskip("tensorflow")
    module = tf.saved_model.load(path)
    return lambda images: {name: value.numpy() for name, value in module.run(images).items()}


RUNTIMES = {"stablehlo": run_stablehlo, "savedmodel": run_savedmodel}
NEEDED = {"stablehlo": "jax", "savedmodel": "tensorflow", "tflite": "tensorflow"}
JOINTS = ("joints", "scores")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("stablehlo", name) for name in SYSTEMS]
    + [("savedmodel", name) for name in ("newell", "selvam")],  # heatmaps, coordinates
)
def test_every_runtime_finds_our_joints(kind, name, tmp_path):
    pytest.importorskip(NEEDED[kind])
    try:
        export.FORMATS[kind](function(name), SIZE, tmp_path / "a")
    except ImportError as error:
        if kind != "savedmodel" or jax.__version_info__ < (0, 12):
            raise
        pytest.skip(str(error))  # TensorFlow is too old
    # Each batch size of StableHLO needs a compilation.
    counts = (3,) if kind == "stablehlo" and name != "newell" else (1, 3)
    agrees(RUNTIMES[kind](tmp_path / "a"), name, JOINTS, counts)


@pytest.mark.parametrize(("name", "batch"), [("newell", 3), ("selvam", 1)])
def test_tflite_finds_our_joints_in_its_one_batch(name, batch, tmp_path):
    tf = pytest.importorskip("tensorflow")
    *_, images, expected = drawn(name)
    export.tflite(function(name), SIZE, tmp_path / "a", batch)
    runner = tf.lite.Interpreter(str(tmp_path / "a")).get_signature_runner()
    found = runner(images=images[:batch])
    for key in JOINTS:
        np.testing.assert_allclose(found[key], expected[key][:batch], atol=1e-4, err_msg=key)


# Only ONNX.


@functools.cache
def modelled(name, **options):
    """The graph of a tiny network, with all outputs."""
    pytest.importorskip("onnx")
    return onnx_graph.model(function(name, "all"), export._images(SIZE), metadata={"size": "32"}, **options)


def operations(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def stored(model):
    """Bytes of the constants."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


@pytest.mark.parametrize("name", SYSTEMS)
def test_onnx_finds_ours_and_has_each_weight_once_in_its_own_layout(name, tmp_path):
    model = modelled(name)
    (tmp_path / "a").write_bytes(model.SerializeToString())
    agrees(run_onnx(tmp_path / "a"), name, (*JOINTS, "heatmaps"), (1, 3))
    parameters = sum(value.size for value in jax.tree.leaves(folded(name)[1]))
    # In addition to the parameters: zeros and ones of norms, and shapes.
    assert 0.98 * 4 * parameters < stored(model) < 4 * parameters + 16_000
    counts = operations(model)
    # Bytes of the image in; heatmaps out, but those of one channel or that Tang stacks joint by joint; and
    # Selvam's matrix reads its features by (row, column, channel).
    assert counts["Transpose"] == (1 if name == "tang" else 2)
    assert counts["Resize"] and counts["MaxPool"] and not counts["Expand"] and not counts["Einsum"]
    assert [(p.key, p.value) for p in model.metadata_props] == [("size", "32")]


def test_onnx_of_an_hourglass_has_only_its_layers():
    # By hand, for two stacks of depth 1: the stem's convolution and three units of which two widen (a
    # convolution more), each stack's hourglass of four units, one unit after it, and two 1x1; between the
    # stacks two more.
    units = 3 + 2 * (4 + 1)
    counts = operations(modelled("newell"))
    assert counts["Conv"] == 1 + 3 * units + 2 + 2 * 2 + 2
    # Each unit's first norm follows a sum; the first of all, a pool; the other norms are in convolutions.
    assert counts["BatchNormalization"] == units
    assert counts["Relu"] == 1 + 3 * units + 2
    assert (counts["MaxPool"], counts["Resize"]) == (1 + 2, 2)


def test_onnx_stores_kernels_as_float16_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "LEAST_HALF", 32)
    whole, half = modelled("newell"), modelled("newell", half=True)
    onnx = pytest.importorskip("onnx")
    kernels = [tensor for tensor in half.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1]
    assert {tensor.data_type for tensor in kernels if np.prod(tensor.dims) >= 32} == {
        onnx.TensorProto.FLOAT16
    }
    assert 0.5 < stored(half) / stored(whole) < 0.7
    (tmp_path / "a").write_bytes(half.SerializeToString())
    *_, images, expected = drawn("newell")
    found = run_onnx(tmp_path / "a")(images)["heatmaps"]
    error, most = np.abs(found - expected["heatmaps"]).max(), np.abs(expected["heatmaps"]).max()
    assert 0 < error < 5e-3 * most  # float16 keeps 11 bits


def test_int8_computes_on_bytes_and_finds_about_the_same(file, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    *_, images, expected = drawn("newell")
    folder = tmp_path / "people"
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    np.testing.assert_array_equal(export.crops_of(folder, SIZE), images)
    np.testing.assert_array_equal(export.crops_of(folder, SIZE, most=2), images[[0, 2]])
    arguments = [f"--workdir={file}", "--format=onnx", f"--output={tmp_path / 'a'}", "--precision=int8"]
    assert export.main(arguments) == 1
    assert "--calibration=PICTURES need each other" in capsys.readouterr().err
    assert export.main([*arguments, f"--calibration={folder}", "--heatmaps"]) == 0
    assert not capsys.readouterr().err
    found = run_onnx(tmp_path / "a")(images)["heatmaps"]
    error, size = np.abs(found - expected["heatmaps"]), np.abs(expected["heatmaps"])
    assert 0 < error.mean() < 0.1 * size.mean()
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tmp_path / "a")
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1]
    assert kernels and {tensor.data_type for tensor in kernels} == {onnx.TensorProto.INT8}
    props = {p.key: p.value for p in model.metadata_props}
    assert json.loads(props["size"]) == SIZE and json.loads(props["threshold"]) == 0.1
    assert json.loads(props["mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(props["joints"]) == list(MPII.joints)
    assert Skeleton.from_dict(json.loads(props["skeleton"])) == MPII


def test_precision_is_only_for_onnx(file, tmp_path, capsys):
    arguments = [f"--workdir={file}", "--format=stablehlo", f"--output={tmp_path / 'a'}"]
    assert export.main([*arguments, "--precision=float16"]) == 1
    assert "--precision=float16 is for --format=onnx" in capsys.readouterr().err


# The command.


@pytest.fixture
def file(tmp_path):
    """Weights of a small network."""
    metadata, _, variables, _, _ = drawn("newell")
    weights.write(tmp_path / "w.npz", variables, metadata)
    return tmp_path / "w.npz"


def test_command_writes_heatmaps_and_says_how_to_load(file, tmp_path, capsys):
    output = tmp_path / "made" / "a.stablehlo"
    arguments = [f"--workdir={file}", "--format=stablehlo", f"--output={output}", "--heatmaps"]
    assert export.main(arguments) == 0
    said = capsys.readouterr().out
    assert "images of uint8 RGB in, heatmaps out" in said and "pip install jax" in said
    exported = jax.export.deserialize(bytearray(output.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    agrees(exported.call, "newell", ("heatmaps",), (3,))
    assert [path.name for path in output.parent.iterdir()] == ["a.stablehlo"]


def test_existing_files_survive(file, tmp_path, capsys, monkeypatch):
    (tmp_path / "folder").mkdir()
    arguments = [f"--workdir={file}", "--format=savedmodel", f"--output={tmp_path / 'folder'}"]
    assert export.main(arguments) == 1
    assert "is an existing folder; choose another name" in capsys.readouterr().err
    (tmp_path / "a.onnx").write_text("before")

    def refusing(*args, **options):
        raise NotImplementedError("[converter] No plugins registered for primitive 'fft'")

    monkeypatch.setitem(export.FORMATS, "onnx", refusing)
    assert export.main([f"--workdir={file}", "--format=onnx", f"--output={tmp_path / 'a.onnx'}"]) == 1
    message = capsys.readouterr().err
    assert "--format=onnx cannot convert the network 'newell': there is no operation fft" in message
    assert message.count("\n") == 1 and (tmp_path / "a.onnx").read_text() == "before"


def test_operation_that_tflite_lacks_is_named():
    error = RuntimeError(
        "layers.py:50:18: error: 'vhlo.dynamic_gather_v1' op is not part of the vhlo support"
    )
    assert export._reason(error).startswith("there is no operation vhlo.dynamic_gather_v1 (layers.py:50")
    assert export._reason(RuntimeError("disk\nfull")) == "disk full"


@pytest.mark.parametrize(
    ("kind", "module", "needs"),
    [
        ("onnx", "onnx", "pip install 'hourglass_jax[export]'"),
        ("tflite", "tensorflow", "pip install 'hourglass_jax[export]'"),
        ("stablehlo", "flatbuffers", "pip install 'hourglass_jax[export]'"),
    ],
)
def test_missing_converters_are_named_in_one_line(file, tmp_path, kind, module, needs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert export.main([f"--workdir={file}", f"--format={kind}", f"--output={tmp_path / 'a'}"]) == 1
    assert needs in capsys.readouterr().err and not (tmp_path / "a").exists()


def test_a_tensorflow_that_cannot_run_it_is_named_and_nothing_written(monkeypatch, tmp_path):
    tf = pytest.importorskip("tensorflow")

    def convert(run, **options):
        def failing(images):
            tf.debugging.Assert(tf.shape(images)[0] < 0, ["newer than this TensorFlow"])
            return {"joints": images}

        return failing

    monkeypatch.setattr(export, "_tensorflow", lambda: (tf, convert))
    with pytest.raises(
        ImportError, match=f"TensorFlow {tf.__version__} cannot run programs of JAX {jax.__version__}"
    ):
        export.savedmodel(None, SIZE, tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_benchmark_compares_formats_with_the_predictors_program(file):
    pytest.importorskip("onnxruntime")
    flags = [f"--weights={file}", "--rounds=1", "--formats", "onnx"]
    found = exports.run(command.parser().parse_args(["exports", *flags]))
    ours, onnx = found["rows"]
    assert (ours["format"], onnx["format"]) == ("ours", "onnx") and float(onnx["MB"]) < 0.1
    assert ours["99 of 100 within"] == "0 px" and float(onnx["99 of 100 within"].split()[0]) < 1e-4
