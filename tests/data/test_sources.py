"""Opening the data that a config names."""

import cv2
import numpy as np
import pytest

from configs import common
from hourglass_jax.data import packed, sources
from hourglass_jax.pose import skeletons


class OnePerson:
    """A source of one grey canvas, ready to be packed."""

    name, skeleton, canvas, margin = "lspet-train", skeletons.LSP, 48, 1.5
    extras = {"category": np.array(["sports"])}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        grey = np.full((48, 48, 3), 128, np.uint8)
        return {
            **{"image": cv2.imencode(".jpg", grey)[1].tobytes(), "id": f"person-{range(1)[index]}"},
            **{"joints": np.ones((14, 2), np.float32), "visible": np.full(14, 2, np.uint8)},
            **{"center": np.ones(2, np.float32), "scale": np.float32(1), "head_size": np.float32(0)},
        }


@pytest.fixture
def data(tmp_path):
    packed.write(OnePerson(), packed.path(tmp_path, "lspet", "joints", "train"))
    data = common.base().data
    data.update(dataset="lspet", source="packed", packed_dir=str(tmp_path), canvas=48, size=32)
    return data


def test_drawn_figures_follow_the_config():
    data = common.base().data
    data.update(examples=(7, 3), canvas=48, margin=1.25, variety=0.5)
    train, validation = (sources.open_source(data, train=train) for train in (True, False))
    assert (len(train), len(validation)) == (7, 3)
    assert (train.canvas, train.margin, train.variety) == (48, 1.25, 0.5)
    assert train[0]["id"].startswith("synthetic-train") and train.ids[6] == train[6]["id"]
    assert validation[0]["id"].startswith("synthetic-validation")


def test_a_packed_file_is_found_by_dataset_box_and_split(data):
    source = sources.open_source(data, train=True)
    assert source.ids == ["person-0"] and source.extras["category"].tolist() == ["sports"]
    assert source[0]["category"] == "sports"
    assert sources.loader(source) == "threads"  # needs no TensorFlow


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "mars"}, ValueError, "choose from.*lspet"),
        ({"source": "disk"}, ValueError, "choose tfds, packed or device"),
        ({"packed_dir": "nowhere"}, FileNotFoundError, "nowhere.*prepare --pack"),
        ({"box": "image"}, FileNotFoundError, "lspet-image-train.npz"),
        ({"canvas": 96}, ValueError, r"--config.data.canvas=48 .*--canvas=96"),
        ({"margin": 1.25}, ValueError, r"--config.data.margin=1.5"),
    ],
)
def test_what_does_not_fit_says_what_would(data, change, error, message):
    data.update(change)
    with pytest.raises(error, match=message) as caught:
        sources.open_source(data, train=True)
    assert "\n" not in str(caught.value)
