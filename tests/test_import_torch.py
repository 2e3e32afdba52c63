"""The port's checkpoints: numbers computed by the port itself, names, and refused files."""

import functools
import json
import os
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from configs import newell
from hourglass_jax import import_torch, loading, predict
from hourglass_jax.config import check_model
from hourglass_jax.network import abstract, network_of
from hourglass_jax.pose.skeletons import LSP, MPII
from hourglass_jax.training import finetune
from hourglass_jax.weights import pytorch

torch = pytest.importorskip("torch")

GOLDEN = pathlib.Path(__file__).parents[2] / "shared" / "golden"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="without the port's own numbers")
SMALL = {"name": "newell", "stacks": 2, "width": 8, "depth": 2, "units": 2, "stem": "port"}


def network(skeleton=LSP, size=32, **fields):
    """Our network with the properties that the port's checkpoints imply."""
    config = {"model": SMALL | fields, "data": {"size": size, "mean": (0.4404, 0.4440, 0.4327)}}
    config["loss"] = {"kind": "mean_squared_error", "sigma": 1.0}
    return network_of({"config": config, "skeleton": skeleton.to_dict()})


@functools.cache
def drawn(net):
    """Its variables by their path, all numbers distinct."""
    rng = np.random.default_rng(0)
    shapes = abstract(net, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    return {name: rng.standard_normal(x.shape).astype(np.float32) for name, x in flat.items()}


def state_dict(flat, depth=2):
    """Variables as the port saves them: out, in, height, width; a counter for each norm."""
    found = {}
    for name, value in flat.items():
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        theirs = pytorch.foreign_name(name, depth)
        found[theirs] = torch.tensor(value)
        if theirs.endswith("running_var"):
            found[theirs.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return found


@pytest.fixture
def saved(tmp_path):
    """(state_dict, path) of a small port for LSP's joints."""
    tensors = state_dict(drawn(network()))
    torch.save(tensors, tmp_path / "small.pth")
    return tensors, tmp_path / "small.pth"


def refused(path, **options):
    with pytest.raises(ValueError) as error:
        import_torch.load_checkpoint(path, **options)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


# The port's own numbers.


@golden
def test_outputs_are_the_ports(quick_compiles):
    net, variables = import_torch.load_checkpoint(GOLDEN / "hg_s2_b1_narrow.pth", size=64)
    _, parallel = import_torch.load_checkpoint(GOLDEN / "hg_s2_b1_narrow_dataparallel.pth.tar", size=64)
    jax.tree.map(np.testing.assert_array_equal, variables, parallel)
    assert (net.model.stacks, net.model.width, net.model.depth, net.model.units) == (2, 64, 4, 1)
    with np.load(GOLDEN / "hg_s2_b1_narrow_io.npz") as known:
        images = known["image_nchw"].transpose(0, 2, 3, 1)
        # The port got them as they are; our network subtracts the mean itself.
        found = jax.jit(lambda x: net.outputs(variables, x + np.array(net.mean), flip=False).heatmaps)(images)
        for stack, maps in enumerate(found):
            expected = known[f"heatmaps_stack{stack}_nchw"].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(maps, expected, atol=1e-4)


@golden
def test_the_authors_own_versions_outputs_are_theirs(quick_compiles):
    net, variables, _ = loading.load(GOLDEN / "princeton_2hg_narrow_checkpoint.pt")
    assert (net.model.stacks, net.model.width, net.model.depth, net.model.stem) == (2, 64, 4, "princeton")
    assert net.mean == (0.0, 0.0, 0.0)  # images in [0, 1] without normalisation
    with np.load(GOLDEN / "princeton_2hg_narrow_io.npz") as known:
        found = jax.jit(lambda x: net.outputs(variables, x, flip=False).heatmaps)(known["image_nhwc"])
        for stack, maps in enumerate(found):
            expected = known["heatmaps"][:, stack].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(maps, expected, atol=1e-4)


@golden
def test_an_imported_workdir_finds_the_ports_maxima_in_pictures(tmp_path, quick_compiles):
    content = torch.load(GOLDEN / "hg_s2_b1_narrow_dataparallel.pth.tar", weights_only=True)
    # A first layer of twice the weights sees half the image, whose values of at most 0.5 a picture can hold
    # above the port's mean, which is subtracted on the way.
    content["state_dict"]["module.conv1.weight"] *= 2
    torch.save(content | {"best_acc": torch.tensor(0.9), "optimizer": {"state": {}}}, tmp_path / "a.pth.tar")
    with np.load(GOLDEN / "hg_s2_b1_narrow_io.npz") as known:
        images, maps = known["image_nchw"], known["heatmaps_stack1_nchw"]
    for i, image in enumerate(images):
        values = np.moveaxis(image, 0, 2) / 2 + (0.4404, 0.4440, 0.4327)
        Image.fromarray(np.round(values * 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    workdir = f"--workdir={tmp_path / 'run'}"
    assert import_torch.main([str(tmp_path / "a.pth.tar"), workdir, "--size=64"]) == 0
    pictures = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    assert predict.main([*pictures, workdir, "--no-flip", f"--output={tmp_path / 'out'}"]) == 0
    people = json.loads((tmp_path / "out/predictions.json").read_text())
    found = np.array([person["keypoints"] for person in people]).reshape(2, 16, 3)[..., :2]
    scores = np.array([person["keypoint_scores"] for person in people])
    np.testing.assert_allclose(scores, maps.max(axis=(2, 3)), atol=2e-3)  # pictures have 8 bits
    index = maps.reshape(2, 16, -1).argmax(axis=2)
    # Of 4 px; a quarter of a cell towards the higher neighbour, nothing at the border.
    cells = np.stack([index % 16, index // 16], axis=-1)
    offset = found / 4 - (cells + 0.5)
    np.testing.assert_allclose(np.abs(offset), np.where((cells == 0) | (cells == 15), 0, 0.25), atol=2e-3)


@golden
def test_names_and_shapes_are_those_of_the_full_network():
    lines = (GOLDEN / "state_dict_hg2.txt").read_text().splitlines()
    known = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if "num_batches" not in line}
    found = {}
    for name, x in drawn(network(MPII, size=64, width=256, depth=4, units=1)).items():
        shape = tuple(x.shape[i] for i in (3, 2, 0, 1)) if x.ndim == 4 else x.shape
        found[pytorch.foreign_name(name, 4)] = str(shape)
    assert found == known


def test_names_by_hand():
    # Our level 0 is the finest of four; the port's is the coarsest. 0 skip, 1 down, 2 up, 3 bottom.
    known = {
        "params/stem/conv/kernel": "conv1.weight",
        "batch_stats/stem/norm/mean": "bn1.running_mean",
        "params/stem/unit0/skip/bias": "layer1.0.downsample.0.bias",
        "params/stem/unit2/norm0/scale": "layer3.0.bn1.weight",
        "params/stack1_hourglass/level0_skip0/conv0/kernel": "hg.1.hg.3.0.0.conv1.weight",
        "params/stack0_hourglass/level3_up1/conv2/bias": "hg.0.hg.0.2.1.conv3.bias",
        "batch_stats/stack0_hourglass/bottom2/norm1/var": "hg.0.hg.0.3.2.bn2.running_var",
        "params/stack7_unit0/norm2/bias": "res.7.0.bn3.bias",
        "params/stack0_lin/kernel": "fc.0.0.weight",
        "params/stack0_lin_norm/scale": "fc.0.1.weight",
        "params/stack10_heatmaps/kernel": "score.10.weight",
        "params/stack0_remap_features/bias": "fc_.0.bias",
        "params/stack0_remap_heatmaps/bias": "score_.0.bias",
    }
    assert {name: pytorch.foreign_name(name, 4) for name in known} == known


# Round trips.


@pytest.mark.parametrize(
    "fields",
    [{}, {"stacks": 1, "units": 1, "depth": 3, "width": 16}, {"stacks": 3, "stem": "newell", "depth": 1}],
)
@pytest.mark.parametrize(
    ("place", "prefix"), [("", ""), ("state_dict", "module."), ("model", "_orig_mod.module.")]
)
def test_sizes_are_inferred_and_every_value_arrives(tmp_path, fields, place, prefix):
    net = network(**fields)
    flat = drawn(net)
    content = state_dict(flat, net.model.depth)
    content = {prefix + name: torch.nn.Parameter(value, False) for name, value in content.items()}
    content = {"epoch": 3, place: content} if place else content
    torch.save(content, tmp_path / "a.pth")
    found, variables = import_torch.load_checkpoint(tmp_path / "a.pth", skeleton=LSP, size=32)
    assert found == net
    found = traverse_util.flatten_dict(variables, sep="/")
    assert found.keys() == flat.keys()
    for name in flat:
        np.testing.assert_array_equal(found[name], flat[name], err_msg=name)


def test_an_imported_workdir_is_an_ordinary_one(saved, tmp_path, capsys):
    arguments = [str(saved[1]), f"--workdir={tmp_path / 'run'}", "--size=32"]
    assert import_torch.main([*arguments, "--skeleton=lsp"]) == 0
    said = capsys.readouterr().out
    net, variables, metadata = loading.load(tmp_path / "run")
    expected, direct = import_torch.load_checkpoint(saved[1], skeleton=LSP, size=32)
    assert net == expected and net.mean == (0.4404, 0.4440, 0.4327) and metadata["step"] == 0
    assert net.sigma == 1.0 and not net.logits and net.skeleton == LSP
    jax.tree.map(np.testing.assert_array_equal, variables, direct)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == metadata["config"]
    # The proposed commands are for this network.
    evaluate, further = re.findall(r"hourglass (?:evaluate|train) --config=newell:(\S+) (.*)", said)
    config = newell.get_config(evaluate[0])
    fields = re.findall(r"--config\.([\w.]+)=(\w+)", evaluate[1])
    config.update_from_flattened_dict({k: int(v) if v.isdigit() else v for k, v in fields})
    check_model("printed", metadata, config)
    assert (config.data.dataset, config.data.size) == ("lsp", 32) and further[0] == evaluate[0]
    assert further[1].endswith(f"--config.train.init_from={tmp_path / 'run'} --workdir=NEW")

    assert import_torch.main([*arguments, "--skeleton=lsp"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    other = [str(saved[1]), f"--workdir={tmp_path / 'other'}"]
    (tmp_path / "joints.json").write_text(json.dumps(LSP.to_dict()))
    assert import_torch.main([*other, f"--skeleton={tmp_path / 'joints.json'}"]) == 0
    assert loading.load(tmp_path / "other")[0].skeleton == LSP
    assert import_torch.main([*other, "--skeleton=coco"]) == 1
    assert "--skeleton=coco: choose mpii, lsp, " in capsys.readouterr().err


def test_training_on_other_joints_starts_from_the_trunk_only(tmp_path):
    flat = drawn(network(MPII))
    torch.save(state_dict(flat), tmp_path / "hg.pth")
    taken, said = finetune.load(tmp_path / "hg.pth", network(LSP), None)
    heads = {name for name in flat if "_heatmaps" in name and name != "params/stack0_remap_heatmaps/bias"}
    assert len(heads) == 5 and taken.keys() == flat.keys() - heads
    for name in taken:
        np.testing.assert_array_equal(taken[name], flat[name], err_msg=name)
    assert said == [f"Starts from {tmp_path / 'hg.pth'}; at random: {', '.join(sorted(heads))}."]
    with pytest.raises(ValueError, match="config.model: model.stem: port -> newell; .* and .* more"):
        finetune.load(tmp_path / "hg.pth", network(LSP, stem="newell"), None)


# Refused input.


def test_every_name_that_does_not_fit_is_listed(saved):
    tensors, path = saved
    del tensors["fc_.0.weight"], tensors["hg.1.hg.1.2.0.bn1.running_var"]
    tensors["hg.0.hg.0.3.1.conv2.weight"] = torch.zeros(4, 5, 3, 3)  # 4 and 4 channels
    tensors["layer1.0.bn2.bias"] = torch.zeros(3)
    tensors["more.weight"] = torch.zeros(1)
    torch.save(tensors, path)
    message = refused(path, skeleton=LSP)
    for text in (
        "fc_.0.weight is missing",
        "hg.1.hg.1.2.0.bn1.running_var is missing",
        "more.weight is unexpected",
        "hg.0.hg.0.3.1.conv2.weight is (3, 3, 5, 4) instead of (3, 3, 4, 4)",
        "layer1.0.bn2.bias is (3,) instead of (2,)",
    ):
        assert text in message
    assert message.count(";") == 4  # nothing else is listed


def test_joints_other_than_mpiis_must_be_given(saved):
    message = refused(saved[1])
    assert "has 14 joints, mpii has 16; say which they are: python -m hourglass_jax.import_torch" in message
    assert "--skeleton=mpii|lsp|" in message


def test_a_file_of_other_joints_is_loaded_only_with_their_names(saved):
    with pytest.raises(ValueError, match="small.pth has 14 joints, mpii has 16; say which they are"):
        loading.load(saved[1])


class Harmful:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_program_in_a_pickle_is_never_run(saved, tmp_path):
    tensors, path = saved
    torch.save({"state_dict": tensors, "arch": Harmful(tmp_path / "harm")}, path)
    assert "not a state_dict of tensors only (" in refused(path, skeleton=LSP)
    assert not (tmp_path / "harm").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "harm").exists()  # plain pickle would run it


@pytest.mark.parametrize("content", [b"", b"no pickle", [1, 2], {"a": 3}, {"fc.0.0.weight": torch.zeros(2)}])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    refused(path)


def test_a_missing_file_or_pytorch_is_named_in_one_line(saved, monkeypatch, tmp_path, capsys):
    assert import_torch.main([str(tmp_path / "none.pth"), f"--workdir={tmp_path / 'run'}"]) == 1
    assert "none.pth" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    assert import_torch.main([str(saved[1]), f"--workdir={tmp_path / 'run'}"]) == 1
    missing = "needs PyTorch, which is not installed: pip install 'hourglass_jax[torch]'.\n"
    assert capsys.readouterr().err.endswith(missing)
    assert not (tmp_path / "run").exists()
