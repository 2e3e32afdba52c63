"""Several datasets with one joint set: joints that a dataset lacks never count."""

import jax
import numpy as np
import pytest

from configs import common
from hourglass_jax.data import mixture, pipeline, sources
from hourglass_jax.evaluation import metrics
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import skeletons
from hourglass_jax.training import losses

pytestmark = pytest.mark.usefixtures("quick_compiles")
LSP, MPII = skeletons.LSP, skeletons.MPII


class People(list):
    """A source of one person whose joint k is at (k + 1, 10 (k + 1)), the first one not labelled."""

    canvas, margin, extras, loader = 48, 1.5, {}, "threads"

    def __init__(self, skeleton):
        k = len(skeleton)
        self.name, self.skeleton, self.ids = skeleton.name, skeleton, [skeleton.name]
        joints = np.outer(np.arange(1, k + 1), (1, 10)).astype(np.float32)
        visible = np.array([0, 1] + [2] * (k - 2), np.uint8)  # the type in older files
        joints[0] = 0
        example = {"image": np.zeros((48, 48, 3), np.uint8), "joints": joints, "visible": visible}
        example |= {"center": np.ones(2), "scale": 1, "head_size": 0, "id": skeleton.name}
        super().__init__([example])


def batch_of(skeleton):
    source = mixture.Mixture([People(LSP), People(MPII)], skeleton)
    return next(pipeline.batches(source, train=False, batch_size=2, loader="threads"))


def test_14_and_16_joints_in_one_batch():
    batch = batch_of(MPII)
    assert batch["visible"].dtype == np.int8 and batch["joints"].shape == (2, 16, 2)
    # LSP has neither pelvis (6) nor thorax (7); its neck is MPII's upper neck (8); legs, arms follow by name.
    assert batch["visible"].tolist() == [[0, 1, 2, 2, 2, 2, -1, -1] + [2] * 8, [0, 1] + [2] * 14]
    assert batch["joints"][0, :, 0].tolist() == [0, 2, 3, 4, 5, 6, 0, 0, 13, 14, 7, 8, 9, 10, 11, 12]
    batch = batch_of(LSP)
    assert batch["visible"].tolist() == [[0, 1] + [2] * 12] * 2  # MPII has all joints of LSP
    assert batch["joints"][1, :, 0].tolist() == [0, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16, 9, 10]


VISIBLE = np.array([[2, 0, -1]], np.int8)
OPTIONS = {"size": 16, "sigma": 1.0}


def gradient(**options):
    """The loss and its gradient for maps (1, 4, 4, 3) of 0.5: labelled, not labelled, not in the dataset."""
    joints = np.array([[[8, 8], [0, 0], [0, 0]]], np.float32)
    loss = losses.named(**OPTIONS, heatmap_weight=1.0, **options)

    def value(maps):
        return loss(Outputs(heatmaps=(maps, maps)), joints, VISIBLE)[0]

    return jax.jit(jax.value_and_grad(value))(np.full((1, 4, 4, 3), 0.5, np.float32))


@pytest.mark.parametrize("kind", ["mean_squared_error", "cross_entropy"])
@pytest.mark.parametrize("mask_unlabelled", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_joints_that_the_set_lacks_have_no_gradient(kind, mask_unlabelled, adaptive):
    _, grads = gradient(kind=kind, mask_unlabelled=mask_unlabelled, adaptive=adaptive)
    grads = np.asarray(grads)
    assert (grads[..., 2] == 0).all() and (grads[..., 0] != 0).any()
    # Newell's zero map counts only if the dataset has the joint.
    assert (grads[..., 1] != 0).any() == (kind == "mean_squared_error" and not mask_unlabelled)


def test_the_mean_is_over_the_joints_that_the_set_has():
    both, _ = gradient(kind="mean_squared_error", mask_unlabelled=False)
    one, _ = gradient(kind="mean_squared_error", mask_unlabelled=True)
    # Two stacks of (first + 0.5^2) / 2, the second joint's zero map, against two stacks of first / 1.
    assert float(both) == pytest.approx(float(one) / 2 + 0.25, rel=1e-6)


def test_coordinates_that_the_set_lacks_have_no_gradient():
    loss = losses.named(kind="coordinates", **OPTIONS, heatmap_weight=0.0)
    maps = (np.zeros((1, 4, 4, 1), np.float32),)
    joints = np.full((1, 3, 2), 8, np.float32)

    def value(found):
        return loss(Outputs(heatmaps=maps, coordinates=found), joints, VISIBLE)[0]

    # d/dx (x - 8 / 16)^2 at 0 is -1 for the labelled joint.
    grads = jax.jit(jax.grad(value))(np.zeros((1, 3, 2), np.float32))
    assert grads.tolist() == [[[-1, -1], [0, 0], [0, 0]]]


def test_scores_do_not_count_joints_that_the_set_lacks():
    flags = np.array([[2, 1, 0, -1]], np.int8)
    hits, counts = metrics.correct(np.zeros((1, 4)), flags, np.ones(1), 0.5)
    assert hits.tolist() == counts.tolist() == [1, 1, 0, 0]
    joints = np.array([[(0, 0), (3, 4), (0, 0), (1, 0)]])
    hits, counts = metrics.correct_parts(joints, joints, flags, [((0,), (1,)), ((0,), (3,))])
    assert counts.tolist() == [1, 0]


# By config.


@pytest.fixture
def opened():
    """(dataset, split) of all opened sources."""
    return []


@pytest.fixture
def data(monkeypatch, opened):
    """config.data whose datasets are `People`."""
    known = {"lsp": LSP, "lspet": LSP, "mpii": MPII}

    def open_(data, dataset, box, split, train, *_):
        opened.append((dataset.name, split))
        return People(known[dataset.name])

    monkeypatch.setattr(sources, "_open", open_)
    return common.base().data


@pytest.mark.parametrize("dataset", ["lsp,mpii", "lsp+mpii", "lsp + mpii"])
def test_a_mixture_is_in_the_joints_of_its_first(data, dataset):
    data.dataset = dataset
    train, validation = (sources.open_source(data, train=train) for train in (True, False))
    assert train.ids == ["lsp", "mpii"] and train.skeleton == LSP
    assert validation.ids == ["lsp"] and validation.skeleton == LSP


def test_joints_and_validation_by_config(data, opened):
    data.update(dataset="lsp+mpii", joints="mpii", validation_dataset="lspet,mpii")
    train = sources.open_source(data, train=True)
    assert train.skeleton == MPII and (train[0]["visible"] == -1).sum() == 2
    assert sources.open_source(data, train=False).ids == ["lsp", "mpii"]
    data.update(validation_dataset="mpii", joints="")
    validation = sources.open_source(data, train=False, skeleton=LSP)  # the training's, or the network's
    assert validation.ids == ["mpii"] and validation.skeleton == LSP
    data.validation_dataset = "lsp+mpii"
    sources.open_source(data, train=False)
    assert opened[-2:] == [("lsp", "test"), ("mpii", "validation")]
    data.joints = "mars"
    with pytest.raises(ValueError, match="data.joints='mars' is unknown; choose from mpii, lsp, flic"):
        sources.open_source(data, train=True)
