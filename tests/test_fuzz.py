"""Every reader of untrusted files, with damaged and malicious ones: one line of error, or a correct result.

    FUZZ_CASES=10000 python -m pytest tests/test_fuzz.py

draws new cases at every call. By default the cases are few and always the same.
"""

import contextlib
import faulthandler
import fractions
import gzip
import importlib
import importlib.util
import io
import itertools
import json
import os
import pathlib
import pickle
import resource
import struct
import tempfile
import zipfile

import h5py
import hypothesis
import numpy as np
import pytest
import scipy.io
import yaml
from hypothesis import strategies as st
from PIL import ExifTags, Image

from hourglass_jax import (
    compare,
    files,
    import_torch,
    loading,
    predict,
    predictor,
    score,
    weights,
)
from hourglass_jax.data import packed
from hourglass_jax.data.datasets import (
    coco_annotations,
    dlc_annotations,
    flic,
    labelme_annotations,
    lsp_annotations,
    mpii_annotations,
    yolo_annotations,
)
from hourglass_jax.evaluation import annotations
from hourglass_jax.media import pictures, videos
from hourglass_jax.pose import skeletons

# Unbounded numbers may overflow before they are refused, or give an infinite distance. Hypothesis warns of
# failing cases that are long to print; they are printed all the same.
pytestmark = pytest.mark.filterwarnings(
    "default::RuntimeWarning", "ignore::hypothesis.errors.HypothesisWarning"
)

CASES = int(os.environ.get("FUZZ_CASES", 0))
SECONDS = 60  # for one case, which takes milliseconds: more is a hang even on a busy machine
ROOM = 2**30  # bytes that all cases together may add to the process

fuzzed = hypothesis.settings(
    max_examples=CASES or 30,
    derandomize=not CASES,
    database=None,
    deadline=None,  # `_guarded` reports a hang with its traceback
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=True,
)

# Structures consist of numbers of every kind and size, text (file names, terminals) and nesting.
NUMBERS = [0, -1, 1, 3, 14, 16, 2**31, 2**63, 10**30, 10**400, 0.5, 1e308, float("nan"), float("inf")]
SCALARS = st.sampled_from([None, True, "", "a\nb", "../../x", "\0", "é\ud800", "9" * 5000, *NUMBERS])
VALUES = st.recursive(
    SCALARS | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 14, 16, 17]), max_size=4)
DTYPES = "f2 f4 f8 u1 i4 i8 c16 S3 U3 ? f8 f8".split()


@st.composite
def arrays(draw):
    """An array of any shape and dtype, some with a NaN or another bad value."""
    shape, dtype = draw(SHAPES), np.dtype(draw(st.sampled_from(DTYPES)))
    value = np.zeros(shape, dtype)
    if value.size:
        fill = draw(st.sampled_from([0, 1, 2, 70]))
        value[...] = fill
        if dtype.kind in "fc":
            value.flat[draw(st.integers(0, value.size - 1))] = draw(
                st.sampled_from([np.nan, np.inf, -1, 6e4, 0.5])
            )
    return value


def mutated(content, values=VALUES):
    """Nested lists and dictionaries with one to three entries changed, removed or repeated."""

    @st.composite
    def change(draw):
        new = json.loads(json.dumps(content)) if isinstance(content, (dict, list)) else content
        for _ in range(draw(st.integers(1, 3))):
            at, above, key = new, None, None
            while isinstance(at, (dict, list)) and at and (above is None or draw(st.integers(0, 5))):
                above, key = at, draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
                at = above[key]
            if above is None:
                return draw(values)
            action = draw(st.sampled_from(["change", "change", "remove", "double"]))
            if action == "change":
                above[key] = draw(values)
            elif action == "remove":
                del above[key]
            elif isinstance(above, list):
                above.append(at)
        return new

    return change()


def damaged(data: bytes):
    """Changed, removed or truncated bytes; sometimes unrelated bytes."""
    place = st.integers(0, len(data))

    @st.composite
    def damage(draw):
        found = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            at, length = draw(place), draw(st.sampled_from([1, 1, 2, 4, 8, 100]))
            if draw(st.integers(0, 9)) == 0:
                del found[at : at + draw(place)]
            else:
                found[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        return bytes(found[: draw(place)] if draw(st.integers(0, 4)) == 0 else found)

    return damage() | st.binary(max_size=300)


@contextlib.contextmanager
def _guarded():
    """Ends the process if a case hangs, and fails if it takes more than ROOM bytes of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < ROOM


def reads(reader, path):
    """Whether a reader accepts a file; it may only refuse it, in one line that names the file."""
    try:
        with _guarded():
            reader(path)
    except (ValueError, OSError) as error:
        message = str(error)
        assert str(path) in message and len(message.splitlines()) == 1 and len(message) < 20_000, message
        assert isinstance(error, OSError) or type(error) in (ValueError, pictures.Unreadable), repr(error)
        return False
    return True


# A small valid file for each reader, as bytes, and its structure if it has one.


def _mat(content, compress=True) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=compress)
    return file.getvalue()


def _h5(content) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for name, value in content.items():
            value = np.asarray(value)
            h5[name] = value.astype("S") if value.dtype.kind == "U" else value
    return file.getvalue()


def _npz(content) -> bytes:
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def _json(content) -> bytes:
    return json.dumps(content).encode()


def _image(kind) -> bytes:
    file, turned = io.BytesIO(), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    colours = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file, kind, exif=turned)
    return file.getvalue()


K = 16
JOINTS = np.arange(2 * K * 2.0).reshape(2, K, 2) + 1
LSPET = {"joints": np.ones((14, 3, 2))}
VALID = {
    **{"part": JOINTS, "visible": np.ones((2, K)), "normalize": np.full(2, 9.0), "person": np.zeros(2)},
    "imgname": np.array([b"a.jpg", b"b.jpg"]),
}
# Predictions of three people: with two, the order of the axes would be ambiguous.
PREDICTED = np.arange(3 * K * 2.0).reshape(3, K, 2) + 1
TRUTH = annotations.Annotations(
    skeletons.MPII, PREDICTED, np.full((3, K), 2, np.uint8), np.full(3, 9.0), ids=np.array(["1", "2", "3"]),
    pictures=np.array(["a", "b", "b"]),
)  # fmt: skip
PERSON = {
    **{"joint_self": np.ones((K, 3)).tolist(), "joint_others": np.ones((2, K, 3)).tolist()},
    **{"img_paths": "a.jpg", "annolist_index": 1.0, "people_index": 1.0, "objpos": [5.0, 5.0]},
    "scale_provided": 1.0,
}
FILM = {"coords": np.ones((2, 29)), "filepath": "a.jpg", "imgdims": np.array([48.0, 72, 3]), "istrain": 1.0}
FILM |= {"torsobox": np.array([1.0, 2, 30, 40]), "istest": 0.0}
FILMS = {"part": np.ones((2, 11, 2)), "center": np.ones((2, 2))}
OURS = [{"id": str(i + 1), "joints": PREDICTED[i].tolist()} for i in range(3)]
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": i, "keypoints": np.ones(3 * K).tolist()} for i in (1, 2, 2)],
}
OWN = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [
        {"id": i, "image_id": i, "bbox": [1, 2, 3, 4], "iscrowd": 0, "keypoints": [1, 2, 2] * 3}
        for i in (1, 2)
    ],
    "categories": [{"id": 1, "name": "hand", "keypoints": ["l_tip", "r_tip", "palm"], "skeleton": [[1, 3]]}],
}
OWN["categories"][0] |= {"flip_pairs": [[1, 2]], "parts": {"Tip": ["l_tip", 2]}, "torso": ["palm", 1]}
CURVE = {"thresholds": [0.0, 0.5], "Mean": [0.0, 50.0]}
SCORES = {"data": "a", "metric": "PCKh@0.5", "table": {"Mean": 50.0}, "auc": 30.0, "curve": CURVE}
SCORES["by"] = {"category": {"sports": {"Mean": 50.0}}}
BOXES = {"a.jpg": [[1, 2, 30, 40], [5, 6, 7, 8]]}


def _release():
    """The structure of MPII's .mat, as dictionaries that `savemat` turns into structures."""
    point = {"id": 0.0, "x": 5.0, "y": 6.0, "is_visible": 1.0}
    person = {"scale": 1.0, "objpos": {"x": 3.0, "y": 4.0}, "annopoints": {"point": [point, point]}}
    image = {"image": {"name": "a.jpg"}, "annorect": [person | {"x1": 1.0, "y1": 1.0, "x2": 4.0, "y2": 5.0}]}
    act = {"cat_name": "sports", "act_name": "tennis"}
    return {"annolist": [image, image], "img_train": [1.0, 1.0], "act": [act, act]}


def _structs(value):
    """Lists of dictionaries as MATLAB's structure arrays."""
    if isinstance(value, dict):
        return {name or "a": _structs(item) for name, item in value.items()} or 0
    if isinstance(value, list):
        rows = np.empty(len(value), object)
        rows[:] = [_structs(item) for item in value]
        return rows
    return 0 if value is None else min(value, 1e308) if isinstance(value, int) else value


def _film(changes=()) -> bytes:
    """Like FLIC's examples.mat: the same person twice, with changes."""
    film = FILM | dict(changes)
    people = np.empty((1, 2), [(name, object) for name in film])
    for name, value in film.items():
        people[name][0] = [value, value]
    return _mat({"examples": people})


def _packed_arrays():
    meta = {"format": packed.FORMAT, "name": "a", "canvas": 8, "margin": 1.5}
    meta["skeleton"] = skeletons.MPII.to_dict()
    return {
        **{"meta": np.array(json.dumps(meta)), "ids": np.array(["a", "b"]), "bytes": np.ones(6, np.uint8)},
        **{"offsets": np.array([0, 3, 6]), "joints": JOINTS.astype(np.float32)},
        **{"visible": np.ones((2, K), np.uint8), "center": np.ones((2, 2), np.float32)},
        **{"scale": np.ones(2, np.float32), "head_size": np.ones(2, np.float32)},
    }


METADATA = {
    "format": weights.FORMAT,
    "config": {
        "model": {"name": "newell", "stacks": 1, "width": 4, "depth": 1},
        **{
            "data": {"size": 32, "mean": [0.5, 0.5, 0.5]},
            "loss": {"kind": "mean_squared_error", "sigma": 1.0},
        },
    },
    "skeleton": skeletons.LSP.to_dict(),
}


def _weights_arrays(metadata=METADATA, **changes):
    """Arrays of a file of weights, with a valid checksum."""
    content = {"metadata": np.frombuffer(json.dumps(metadata).encode(), np.uint8)}
    content |= {"params/a/kernel": np.ones((1, 1, 3, 4), np.float16)} | changes
    return content | {"checksum": weights._checksum(content)}


def _scored(predicted, read):
    """Every score of such a file is nan or in [0, 100]."""
    with contextlib.suppress(ValueError):  # people without heads, or swapped x and y
        table = score.score_against(predicted, read).table
        assert all(rate is None or np.isnan(rate) or 0 <= rate <= 100 for rate in table.values())


def _annotations(path):
    read = annotations.read(path, "mpii")
    assert read.joints.shape == (*read.visible.shape, 2) == (len(read), K, 2)
    _scored(read.joints, read)


def _predictions(path):
    found = score.read_predictions(path, TRUTH)
    assert found.shape == (3, K, 2) and found.dtype == np.float64
    _scored(found, TRUTH)


def _joints(path):
    joints, visible = lsp_annotations.read_joints(path)
    assert joints.shape == (*visible.shape, 2) and np.isin(visible, (0, 1, 2)).all()


def _people(path):
    for person in mpii_annotations.read(path):
        assert person.joints.shape == (K, 2) and "/" not in person.id
        assert pathlib.PurePath(person.picture).name == person.picture


def _films(path):
    if path.suffix == ".mat":
        people = [person for rows in flic.read_mat(path).values() for person in rows]
    else:
        (path.parent / "names.txt").write_text("a.jpg\nb.jpg\n")
        people = flic.read_h5(path, path.parent / "names.txt")
    for picture, joints, center in people:
        assert joints.shape == (11, 2) and center.shape == (2,) and np.isfinite(center).all()
        assert pathlib.PurePath(picture).name == picture


def _own(path):
    content = coco_annotations.read(path)
    skeleton, people, left_out = content.skeleton, content.people, content.left_out
    assert sorted(skeleton.flip) == list(range(len(skeleton))) and all(left_out.values())
    for one in people:
        assert one.joints.shape == (len(skeleton), 2) and np.isfinite(one.joints).all()
        assert one.visible.any() and np.isin(one.visible, (0, 1, 2)).all()
        assert pathlib.PurePath("/a", one.picture).is_relative_to("/a") and ".." not in one.picture


YOLO = {"train": ".", "val": ["."], "kpt_shape": [2, 3], "flip_idx": [1, 0], "names": {"0": "a", "1": "b"}}
LABELS = b"0 0.5 0.5 0.2 0.4 0.45 0.6 2 0.5 0.5 1\n1 .5 .5 0 0 0 0 0 0 0 2\n"
FRAMES = b"""scorer,,,me,me,me,me
individuals,,,a,a,b,b
bodyparts,,,nose,nose,pawL,pawL
coords,,,x,y,x,y
labeled-data,film,img0.png,1.5,2,3,4
labeled-data,film,img1.png,,,3,4
"""


def _folders(path):
    """A data.yaml, or the labels of one, as the other files want them."""
    folder = path.parent
    (folder / "a.png").write_bytes(_image("png"))
    if path.name != "yolo.yaml":
        listed = {"val": path.name} if path.name == "list.txt" else {}
        (folder / "yolo.yaml").write_text(json.dumps(YOLO | listed))
    if path.name != "a.txt":
        (folder / "a.txt").write_bytes(LABELS)
    try:
        found = yolo_annotations.read(folder / "yolo.yaml")
    finally:
        (folder / "a.png").unlink()
    for content in found:
        for one in content.people:
            assert one.joints.shape == (len(content.skeleton), 2) and np.isfinite(one.joints).all()
            assert one.box is None or np.isfinite(one.box).all()


def _frames(path):
    content = dlc_annotations.read(path)
    for one in content.people:
        assert one.joints.shape == (len(content.skeleton), 2) and np.isfinite(one.joints).all()
        assert one.visible.any() and ".." not in pathlib.PurePath(one.picture).parts


LABELME = {
    "shapes": [
        {"label": "nose", "points": [[1, 2]], "group_id": 1, "shape_type": "point", "flags": {"occluded": 1}},
        {"label": "pawL", "points": [[3, 4]], "group_id": None, "shape_type": "point"},
        {"label": "box", "points": [[1, 2], [5, 9]], "group_id": 1, "shape_type": "rectangle"},
    ],
    **{"imagePath": "../a.jpg", "imageHeight": 80, "imageWidth": 100},
}


def _shapes(path):
    content = labelme_annotations.read(path.parent)
    for one in content.people:
        assert one.joints.shape == (len(content.skeleton), 2) and np.isfinite(one.joints).all()
        assert one.visible.any() and ".." not in pathlib.PurePath(one.picture).parts
        assert one.box is None or np.isfinite(one.box).all()


def _packed(path):
    source = packed.PackedSource(path)
    for example in (source[i] for i in range(len(source))):
        assert isinstance(example["image"], bytes) and example["joints"].shape == (len(source.skeleton), 2)


def _boxes(path):
    for name, boxes in predict._read_boxes(path, [], None, lambda line: None).items():
        predictor._sound(f"{path}: {name}", boxes)


def _picture(path):
    read = pictures.read(path)
    height, width, colours = read.image.shape
    assert 0 < height * width <= pictures.LARGEST and colours == 3 and read.image.dtype == np.uint8


def _video(path):
    for image in (frame.image for frame in videos.frames(path)):
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


def _torch_file(tensors) -> bytes:
    file = io.BytesIO()
    TORCH.save(tensors, file)
    return file.getvalue()


def _port():
    """A state_dict with some of the port's names; not a whole network."""
    shapes = {"score.0.weight": (K, 8, 1, 1), "fc.0.0.weight": (8, 8, 1, 1), "conv1.weight": (4, 3, 7, 7)}
    shapes |= {"layer2.0.conv3.weight": (8, 4, 1, 1), "hg.0.hg.0.0.0.bn1.weight": (8,)}
    shapes |= {"res.0.0.bn1.weight": (8,)}
    return {name: TORCH.ones(shape) for name, shape in shapes.items()}


TORCH = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def replaced(content, write, values=None):
    """Files of arrays with one or two arrays replaced, added or missing."""
    values = arrays() if values is None else values
    changes = st.dictionaries(st.sampled_from([*content, "more"]), values | st.none(), min_size=1, max_size=2)
    return changes.map(
        lambda new: write({name: value for name, value in (content | new).items() if value is not None})
    )


def _written(write, *args):
    """A file's bytes; rejects cases that cannot be written."""
    try:
        return write(*args)
    except Exception:
        hypothesis.reject()


def jsons(content):
    """Json files, plain and compressed."""
    text = mutated(content).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    return text | text.map(lambda data: gzip.compress(data, 1)) | damaged(_json(content))


def structures(content):
    return mutated(content).map(lambda value: _written(_mat, {"RELEASE": _structs(value)}))


def _weights_file(metadata):
    return _npz(_weights_arrays(metadata))


def _packed_file(meta):
    return _npz(_packed_arrays() | {"meta": np.array(json.dumps(meta))})


PREDS = {"preds": PREDICTED}
DETECTIONS = {
    **{"jnt_missing": np.zeros((K, 2)), "pos_gt_src": np.moveaxis(JOINTS, 0, -1)},
    "headboxes_src": np.arange(8.0).reshape(2, 2, 2),
}
IMAGES = {f"picture.{kind}": _image(kind) for kind in ("bmp", "jpeg", "png", "tiff", "webp")}
META = json.loads(_packed_arrays()["meta"].item())
READERS = {
    "joints.mat": (_joints, damaged(_mat(LSPET)) | replaced(LSPET, _mat)),
    "mpii.mat": (_people, damaged(_mat({"RELEASE": _structs(_release())})) | structures(_release())),
    "mpii.json": (_people, jsons([PERSON, PERSON])),
    "flic.mat": (
        _films,
        damaged(_film())
        | st.dictionaries(st.sampled_from([*FILM]), arrays() | SCALARS, max_size=2).map(
            lambda changes: _written(_film, changes)
        ),
    ),
    "flic.h5": (_films, damaged(_h5(FILMS)) | replaced(FILMS, _h5)),
    "detections.mat": (_annotations, damaged(_mat(DETECTIONS)) | replaced(DETECTIONS, _mat)),
    "valid.h5": (_annotations, damaged(_h5(VALID)) | replaced(VALID, _h5)),
    "preds.h5": (_predictions, damaged(_h5(PREDS)) | replaced(PREDS, _h5)),
    "preds.mat": (_predictions, damaged(_mat(PREDS)) | replaced(PREDS, _mat)),
    "preds.json": (_predictions, jsons(OURS) | jsons(COCO) | jsons(PREDICTED.tolist())),
    "own.json": (_own, jsons(OWN)),
    "yolo.yaml": (_folders, jsons(YOLO) | mutated(YOLO).map(lambda value: yaml.safe_dump(value).encode())),
    "a.txt": (_folders, damaged(LABELS)),
    "list.txt": (_folders, damaged(b"./a.png\n\n/other/a.png\n")),
    "shapes.json": (_shapes, jsons(LABELME)),
    "frames.csv": (_frames, damaged(FRAMES)),
    "scores.json": (lambda path: compare.compare([path]), jsons(SCORES)),
    "boxes.json": (_boxes, jsons(BOXES)),
    "skeleton.json": (lambda path: import_torch._skeleton(str(path)), jsons(skeletons.LSP.to_dict())),
    "packed.npz": (
        _packed,
        damaged(_npz(_packed_arrays())) | replaced(_packed_arrays(), _npz) | mutated(META).map(_packed_file),
    ),
    "weights.npz": (
        loading.load,
        damaged(_npz(_weights_arrays()))
        | arrays().map(lambda value: _npz(_weights_arrays(**{"params/b": value})))
        | mutated(METADATA).map(_weights_file),
    ),
    **{name: (_picture, damaged(data)) for name, data in IMAGES.items()},
}
if TORCH:
    tensors = arrays().map(lambda value: TORCH.tensor(value) if value.dtype.kind in "fiub" else {"a": 1})
    READERS["port.pth"] = (
        import_torch.load_checkpoint,
        damaged(_torch_file(_port())) | replaced(_port(), _torch_file, tensors | SCALARS),
    )


if importlib.util.find_spec("av"):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "film.mp4")
        with videos.writing(path, fractions.Fraction(25)) as write:
            for colour in (0, 90, 255):
                write(np.full((16, 24, 3), colour, np.uint8))
        FILMED = path.read_bytes()
    READERS["film.mp4"] = (_video, damaged(FILMED))


SOUND = {
    **{"flic.mat": _film(), "flic.h5": _h5(FILMS)},
    **{"joints.mat": _mat(LSPET), "mpii.mat": _mat({"RELEASE": _structs(_release())})},
    **{"mpii.json": _json([PERSON, PERSON]), "detections.mat": _mat(DETECTIONS), "valid.h5": _h5(VALID)},
    **{"preds.h5": _h5(PREDS), "preds.mat": _mat(PREDS), "preds.json": _json(OURS)},
    **{"scores.json": _json(SCORES), "boxes.json": _json(BOXES), "packed.npz": _npz(_packed_arrays())},
    **{"skeleton.json": _json(skeletons.LSP.to_dict()), "own.json": _json(OWN)},
    **{"yolo.yaml": _json(YOLO), "a.txt": LABELS, "list.txt": b"a.png\n", "shapes.json": _json(LABELME)},
    "frames.csv": FRAMES,
    **IMAGES,
}


@pytest.mark.parametrize("name", SOUND)
def test_the_undamaged_file_is_accepted(name, tmp_path):
    (tmp_path / name).write_bytes(SOUND[name])
    assert reads(READERS[name][0], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_reader(name, tmp_path):
    reader, contents = READERS[name]
    path, taken = tmp_path / name, []

    @fuzzed
    @hypothesis.given(contents)
    def check(data):
        path.write_bytes(data)
        taken.append(reads(reader, path))

    check()
    print(f"{name}: {len(taken)} files, {sum(taken)} taken")


CONFIGS = "chu mssh newell quickstart selvam tang".split()


@pytest.mark.parametrize("name", CONFIGS)
def test_arguments_of_a_config(name):
    get_config = importlib.import_module(f"configs.{name}").get_config
    keys = st.sampled_from("stacks width size dataset quick variant block attention groups depth".split())
    values = st.sampled_from(["", "2", "-1", "1e9", "true", "NaN", "mpii", "9" * 5000, "hg", "data5", "a\nb"])
    items = st.tuples(keys | st.text(max_size=5), values | st.text(max_size=5)).map("=".join)

    @fuzzed
    @hypothesis.given(st.lists(items | st.text(max_size=20), max_size=4).map(",".join))
    def check(string):
        try:
            get_config(string)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1

    check()


# Random damage does not find these: small files that claim to be large, and programs instead of data.


def _header(shape) -> bytes:
    """An .npy file of 8 numbers that claims to have any shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(32)


def _zip(members, compression=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _unwritten(**options) -> bytes:
    """An HDF5 dataset of 10^12 rows, none of which was written."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5.create_dataset("preds", (10**12, K, 2), "f8", **options)
    return file.getvalue()


def _elsewhere(link) -> bytes:
    """Predictions whose data lie in another file."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        if link:
            h5["preds"] = h5py.ExternalLink("/dev/zero", "/preds")
        else:
            h5.create_dataset("preds", (2, K, 2), "f8", external=[("/dev/zero", 0, 8 * 4 * K)])
    return file.getvalue()


def _cells() -> bytes:
    """A cell array of MATLAB that claims to have 2^62 cells."""
    data = _mat({"joints": np.array([["a", "b", "c"]], object)}, compress=False)
    return data.replace(struct.pack("<2i", 1, 3), struct.pack("<2i", 2**31 - 1, 2**31 - 1), 1)


class Program:
    """A pickle of this runs a function when it is read."""

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("executed"),))


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Program()], object), allow_pickle=True)
    return file.getvalue()


DEEP = b"[" * 200_000
TRAPS = {
    "deep json": ("preds.json", lambda: DEEP),
    "deep boxes": ("boxes.json", lambda: b'{"a.jpg": ' + DEEP),
    "deep annotations": ("mpii.json", lambda: gzip.compress(DEEP)),
    "deep scores": ("scores.json", lambda: DEEP),
    "number without end": ("preds.json", lambda: b"9" * 10**6),
    "gzip bomb": ("preds.json", lambda: gzip.compress(b" " * 2**22)),
    "MATLAB bomb": ("joints.mat", lambda: _mat({"joints": np.zeros((14, 3, 2**14))})),
    "MATLAB cells": ("preds.mat", _cells),
    # SciPy uses the type of an element (9: float64) as an index without a check, and the process crashes.
    "MATLAB kind": (
        "joints.mat",
        lambda: _mat(LSPET, compress=False).replace(struct.pack("<2I", 9, 672), struct.pack("<2I", 133, 672)),
    ),
    "unwritten": ("preds.h5", _unwritten),
    "unwritten chunks": ("preds.h5", lambda: _unwritten(chunks=(1000, K, 2), compression="gzip")),
    "other file": ("preds.h5", lambda: _elsewhere(link=False)),
    "link to a file": ("preds.h5", lambda: _elsewhere(link=True)),
    "zip bomb": ("weights.npz", lambda: _zip({"a.npy": bytes(2**22)}, zipfile.ZIP_DEFLATED)),
    "packed bomb": ("packed.npz", lambda: _zip({"a.npy": bytes(2**22)}, zipfile.ZIP_DEFLATED)),
    "header": ("weights.npz", lambda: _zip({"checksum.npy": _header((10**12,))})),
    "packed header": ("packed.npz", lambda: _zip({"ids.npy": _header((10**12,))})),
    "bare header": ("weights.npz", lambda: _header((10**12,))),
    "overflow": ("packed.npz", lambda: _zip({"ids.npy": _header((2**40, 2**40))})),
    "long format": ("packed.npz", lambda: _packed_file(META | {"format": ["9" * 9999] * 9})),
    "pickle in weights": ("weights.npz", lambda: _zip({"checksum.npy": _objects()})),
    "pickle in packed": ("packed.npz", lambda: _zip({"meta.npy": _objects()})),
    "pickle": ("weights.npz", lambda: pickle.dumps(Program())),
    "more layers than arrays": (
        "weights.npz",
        lambda: _weights_file(METADATA | {"config": METADATA["config"] | {"model": {"stacks": 10**9}}}),
    ),
    "too wide": (
        "weights.npz",
        lambda: _weights_file(METADATA | {"config": METADATA["config"] | {"model": {"width": 10**6}}}),
    ),
    "too large": (
        "weights.npz",
        lambda: _weights_file(
            METADATA | {"config": METADATA["config"] | {"data": {"size": 10**6, "mean": [0.5] * 3}}}
        ),
    ),
}
if TORCH:
    TRAPS |= {
        "pickle in a checkpoint": ("port.pth", lambda: _torch_file({"state_dict": Program()})),
        # PyTorch's search for the end of the archive then seeks to a position before its start.
        "cut": ("port.pth", lambda: _torch_file(_port())[:4097]),
        "old pickle": ("port.pth", lambda: pickle.dumps(Program())),
        "stacks": ("port.pth", lambda: _torch_file(_port() | {"score.999999999.weight": TORCH.ones(1)})),
        "depth": (
            "port.pth",
            lambda: _torch_file(
                _port()
                | {
                    f"{name}.{i}.weight": TORCH.ones(1)
                    for i, name in itertools.product(range(300), ("score", "hg.0.hg", "res.0"))
                }
            ),
        ),
        "repeated": (
            "port.pth",
            lambda: _torch_file(_port() | {"a": TORCH.ones(1, dtype=TORCH.float16).expand(10**11)}),
        ),
    }


@pytest.mark.parametrize("name", TRAPS)
def test_trap(name, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 2**20)
    monkeypatch.chdir(tmp_path)
    file, make = TRAPS[name]
    (tmp_path / file).write_bytes(make())
    assert (tmp_path / file).stat().st_size < 2**20
    assert not reads(READERS[file][0], tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == [file]


# Outputs stay in their folder, with any names in the files.


@pytest.mark.parametrize("picture", ["../../etc/passwd", "/etc/passwd", "a/b.jpg", "a\nb.jpg"])
def test_pictures_elsewhere_are_refused(tmp_path, picture):
    (tmp_path / "mpii.json").write_text(json.dumps([PERSON | {"img_paths": picture}]))
    with pytest.raises(ValueError, match="mpii.json: a picture is named .*; expected a name without folders"):
        mpii_annotations.read(tmp_path / "mpii.json")


def test_names_of_overlays_are_not_paths():
    paths = ["../../a.jpg", "/etc/..jpg", "b/...png", "b/c.mp4", "d\n.jpg", "a.jpg"]
    names = [
        name for both in predict._names(map(pathlib.Path, paths), ("heatmaps",)).values() for name in both
    ]
    assert len(set(names)) == 2 * len(paths)
    assert all(pathlib.PurePath(name).name == name and name not in (".", "..") for name in names)
