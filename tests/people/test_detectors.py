"""Adapters to other packages' detectors: their results equal the package's own, as boxes of the picture."""

import cv2
import numpy as np
import pytest

from hourglass_jax.people import detectors, onnx

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)


def as_corners(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


# ONNX files.


def test_pictures_are_placed_as_each_layout_needs():
    image = np.full((20, 40, 3), (250, 100, 0), np.uint8)
    pixels, zoom, start = onnx.placed(image, (32, 32), onnx.LAYOUTS["yolox"])
    assert pixels.dtype == np.float32 and zoom.tolist() == [0.8, 0.8] and start.tolist() == [0, 0]
    assert pixels[:, 0, 0].tolist() == [0, 100, 250] and pixels[:, 15, 31].tolist() == [0, 100, 250]  # BGR
    assert (pixels[:, 16:] == 114).all()
    pixels, zoom, start = onnx.placed(image, (32, 32), onnx.LAYOUTS["yolo"])
    assert start.tolist() == [0, 8] and (pixels[:, :8] == np.float32(114 * np.float32(1 / 255))).all()
    np.testing.assert_allclose(pixels[:, 8, 0], np.array([250, 100, 0]) / 255, rtol=1e-6)
    pixels, zoom, start = onnx.placed(image, (32, 32), onnx.LAYOUTS["boxes"])
    assert zoom.tolist() == [0.8, 1.6] and (pixels[2] == 0).all()


def test_cells_of_yolox_are_decoded():
    size, rows = (32, 64), np.zeros((32 + 8 + 2, 7))
    rows[8 + 3] = [0.5, 0.25, np.log(2), np.log(3), 0.5, 0.1, 0.8]  # of stride 8: row 1 of 8 cells, column 3
    rows[41] = [0, 0, 0, 0, 0.9, 1, 0]  # the last: stride 32, column 1
    outputs = {"output": rows}
    assert [name for name, one in onnx.LAYOUTS.items() if one.fits(outputs, size)] == ["yolox"]
    corners, scores, classes = onnx.LAYOUTS["yolox"].read(outputs, size)
    np.testing.assert_allclose(corners[11], [28 - 8, 10 - 12, 28 + 8, 10 + 12])
    np.testing.assert_allclose(corners[41], [32 - 16, -16, 32 + 16, 16])
    assert (scores[11], classes[11], scores[41], classes[41]) == (pytest.approx(0.4), 1, 0.9, 0)


def test_columns_of_yolo_are_decoded():
    columns = np.zeros((6, 21))  # 32 x 32 px: 16 + 4 + 1 cells
    columns[:, 5] = [10, 20, 4, 8, 0.25, 0.75]
    assert onnx.LAYOUTS["yolo"].fits({"output0": columns}, (32, 32))
    corners, scores, classes = onnx.LAYOUTS["yolo"].read({"output0": columns}, (32, 32))
    np.testing.assert_allclose(corners[5], [8, 16, 12, 24])
    assert (scores[5], classes[5]) == (0.75, 1)


def bright_box(path, layout):
    """An ONNX detector of 64 x 64 px: one box around all bright pixels, class 0, score 0.75."""
    made = pytest.importorskip("onnx")
    helper, float_ = made.helper, made.TensorProto.FLOAT
    node, nodes, values = helper.make_node, [], {}
    values["line"] = np.arange(64, dtype=np.float32)
    values |= {
        "one": np.float32([1]),
        "far": np.float32([64]),
        "half": np.float32([0.5 if layout != "dets" else 128]),
    }
    nodes += [node("ReduceMax", ["image"], ["most"], axes=[0, 1], keepdims=0)]
    nodes += [node("Greater", ["most", "half"], ["bright"])]
    for axis, name in ((0, "x"), (1, "y")):  # the axis that is reduced
        nodes += [
            node("Cast", ["bright"], [f"mask_{name}"], to=float_),
            node("ReduceMax", [f"mask_{name}"], [f"any_{name}"], axes=[axis], keepdims=0),
            node("Mul", [f"any_{name}", "line"], [f"at_{name}"]),
            node("ReduceMax", [f"at_{name}"], [f"last_{name}"], axes=[0]),
            node("Add", [f"last_{name}", "one"], [f"end_{name}"]),
            node("Sub", ["line", "far"], [f"below_{name}"]),
            node("Mul", [f"any_{name}", f"below_{name}"], [f"from_{name}"]),
            node("ReduceMin", [f"from_{name}"], [f"first_{name}"], axes=[0]),
            node("Add", [f"first_{name}", "far"], [f"begin_{name}"]),
        ]  # fmt: skip
    nodes += [node("Concat", ["begin_x", "begin_y", "end_x", "end_y"], ["corners"], axis=0)]
    values |= {"score": np.float32([0.75]), "zero": np.float32([0])}
    inputs = [helper.make_tensor_value_info("image", float_, [1, 3, 64, 64])]
    if layout == "boxes":
        values |= {"box_shape": np.int64([1, 1, 4]), "shape": np.int64([1, 1])}
        inputs += [helper.make_tensor_value_info("orig_target_sizes", made.TensorProto.INT64, [1, 2])]
        nodes += [
            node("Reshape", ["corners", "box_shape"], ["inner"]),
            node("Cast", ["orig_target_sizes"], ["sizes"], to=float_),
            node("Tile", ["sizes", "twice"], ["four"]),
            node("Div", ["four", "far"], ["zoom"]),
            node("Mul", ["inner", "zoom"], ["boxes"]),
            node("Reshape", ["score", "shape"], ["scores"]),
            node("Reshape", ["zero", "shape"], ["labels"]),
        ]  # fmt: skip
        values["twice"] = np.int64([1, 2])
        outputs = ["labels", "boxes", "scores"]
    elif layout == "dets":
        values |= {"row": np.int64([1, 1, 5]), "shape": np.int64([1, 1])}
        nodes += [
            node("Concat", ["corners", "score"], ["five"], axis=0),
            node("Reshape", ["five", "row"], ["dets"]),
            node("Reshape", ["zero", "shape"], ["labels"]),
        ]  # fmt: skip
        outputs = ["dets", "labels"]
    else:
        values["row"] = np.int64([1, 1, 6])
        nodes += [
            node("Concat", ["corners", "score", "zero"], ["six"], axis=0),
            node("Reshape", ["six", "row"], ["output0"]),
        ]  # fmt: skip
        outputs = ["output0"]
    graph = helper.make_graph(
        nodes,
        "bright",
        inputs,
        [helper.make_tensor_value_info(name, float_, None) for name in outputs],
        [made.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    made.save(model, path)
    return path


@pytest.mark.parametrize("layout", ["boxes", "rows", "dets"])
def test_a_file_finds_the_bright_box(tmp_path, layout):
    pytest.importorskip("onnxruntime")
    path = bright_box(tmp_path / "bright.onnx", layout)
    image = np.zeros((128, 256, 3), np.uint8)
    image[32:64, 40:160] = 255
    find = detectors.named(str(path))
    assert find.layout == layout and repr(detectors.named(f"onnx:{path}:{layout}").layout) == repr(layout)
    found = find(image)
    px = 4 if layout != "boxes" else np.array([4, 2, 4, 2])  # px of the picture per px of the input
    assert (np.abs(found.boxes - [[40, 32, 120, 32]]) <= px).all()
    assert found.scores.tolist() == [0.75] and found.labels == ("person",)
    with pytest.raises(ValueError, match="bright.onnx: its outputs, .* do not have the layout yolox: one"):
        onnx.Onnx(path, layout="yolox")


def test_unknown_names_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="detector='yolo' is unknown; choose from torchvision.*any callable"):
        detectors.named("yolo")
    with pytest.raises(ValueError, match="layout='v9' is unknown; choose from boxes, yolox"):
        detectors.named("a.onnx:v9")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="none.onnx: there is no such file"):
        detectors.named("none.onnx")
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="a.onnx: onnxruntime cannot load it") as error:
        detectors.named(str(tmp_path / "a.onnx"))
    assert "\n" not in str(error.value)


# Packages with random weights: the boxes equal the package's own.


def test_torchvision():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models.detection
    torch.manual_seed(0)
    options = {"box_score_thresh": 0.0, "box_detections_per_img": 5, "min_size": 64, "max_size": 128}
    find = detectors.Torchvision("fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, **options)
    torch.manual_seed(0)
    own = models.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, **options).eval()
    with torch.inference_mode():
        (expected,) = own([torch.from_numpy(IMAGE.transpose(2, 0, 1) / np.float32(255))])
    found = find(IMAGE)
    assert len(found.boxes) == 5 and found.boxes.dtype == np.float64
    np.testing.assert_allclose(as_corners(found.boxes), expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-6)
    names = find._names
    assert names[1] == "person" and found.labels == tuple(names[i] for i in expected["labels"])
    with pytest.raises(ValueError, match="torchvision has no model 'yolo'; choose from .*fasterrcnn"):
        detectors.Torchvision("yolo")


def test_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[64, 64],
        num_detection_tokens=6, id2label={0: "person", 1: "dog"}, label2id={"person": 0, "dog": 1},
    )  # fmt: skip
    own = transformers.YolosForObjectDetection(config).eval()
    processor = transformers.YolosImageProcessor(size={"height": 64, "width": 64})
    own.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = detectors.Transformers(str(tmp_path), least=0.0)(IMAGE)
    with torch.inference_mode():
        outputs = own(**processor(images=IMAGE, return_tensors="pt"))
    share, logits = outputs.pred_boxes[0].numpy(), outputs.logits[0].softmax(-1)[:, :-1]
    assert len(found.boxes) == 6
    np.testing.assert_allclose(found.boxes[:, 2:], share[:, 2:] * (140, 90), rtol=1e-4)
    np.testing.assert_allclose(
        found.boxes[:, :2] + found.boxes[:, 2:] / 2, share[:, :2] * (140, 90), rtol=1e-4
    )
    np.testing.assert_allclose(found.scores, logits.max(-1).values, rtol=1e-4)
    assert found.labels == tuple(("person", "dog")[i] for i in logits.argmax(-1))
    with pytest.raises(ValueError, match="transformers:.*none: loading failed"):
        detectors.Transformers(str(tmp_path / "none"))


def test_ultralytics(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    ultralytics = pytest.importorskip("ultralytics")
    import torch

    torch.manual_seed(0)
    find = detectors.Ultralytics("yolov8n.yaml", least=0.0, imgsz=64, max_det=9)
    (expected,) = find._model.predict(IMAGE[..., ::-1].copy(), conf=0.0, imgsz=64, max_det=9, verbose=False)
    found = find(IMAGE)
    assert len(found.boxes) == len(expected.boxes) > 0
    np.testing.assert_allclose(as_corners(found.boxes), expected.boxes.xyxy, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.boxes.conf, atol=1e-6)
    assert found.labels == tuple(ultralytics.YOLO("yolov8n.yaml").names[int(i)] for i in expected.boxes.cls)


@pytest.mark.filterwarnings("ignore")  # torch's warnings about its exporters
def test_an_exported_yolo_finds_what_the_package_finds(tmp_path, monkeypatch):
    """The package's own export, its letterbox and its decoding, against `onnx` in the layout yolo."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    pytest.importorskip("ultralytics")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import torch

    torch.manual_seed(0)
    network = detectors.Ultralytics("yolov8n.yaml")._model.model.eval()
    path = tmp_path / "yolo.onnx"

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images)[0]

    torch.onnx.export(
        First().eval(),
        (torch.zeros(1, 3, 96, 96),),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        dynamo=False,
    )
    find = onnx.Onnx(path)
    assert find.layout == "yolo"
    image = cv2.resize(IMAGE, (96, 64))  # at its own scale: 16 rows of grey above and below
    padded = np.full((96, 96, 3), 114, np.uint8)
    padded[16:80] = image
    with torch.inference_mode():
        expected = network(torch.from_numpy(padded.transpose(2, 0, 1)[None] / np.float32(255)))[0][0].numpy()
    found = find(image)
    middles = found.boxes[:, :2] + found.boxes[:, 2:] / 2
    np.testing.assert_allclose(middles, expected[:2].T - (0, 16), atol=1e-2)
    np.testing.assert_allclose(found.scores, expected[4:].max(axis=0), atol=1e-4)
