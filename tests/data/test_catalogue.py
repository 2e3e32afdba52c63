"""The list of datasets against their builders."""

import pytest

from hourglass_jax.data import catalogue


@pytest.mark.parametrize("name", [name for name, one in catalogue.DATASETS.items() if not one.drawn])
def test_a_dataset_has_its_builder_and_its_boxes(name):
    dataset, kind = catalogue.DATASETS[name], catalogue.DATASETS[name].builder_class()
    assert kind.name == name
    if not dataset.own:
        assert [config.box for config in kind.BUILDER_CONFIGS] == list(dataset.boxes)
    for split in dataset.unions:
        assert all(part in catalogue.DATASETS for part, _ in dataset.parts(split))


def test_unions_of_splits_and_of_datasets():
    parts = catalogue.find("lspet").parts("train_all")
    assert parts == [("lspet", "train"), ("lspet", "validation"), ("lsp", "train")]
    assert catalogue.find("lsp").parts("auto") == [("lsp", "test")]
