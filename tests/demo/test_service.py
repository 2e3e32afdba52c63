"""The page's work without the page: the same results as the command, one predictor per choice, limits."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from hourglass_jax import predict, predictor
from hourglass_jax.demo import command, service
from hourglass_jax.media import pictures, videos

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs", "spots", "one_look")
IMAGE = picture(100, 160, (40, 30), (120, 60), (80, 50), radius=0.02)


@pytest.fixture
def one_look(monkeypatch):
    """Allows one look only: the tests' spots are not a body, so their extent is not a person's size."""
    monkeypatch.setattr(predictor, "LEAST_JOINTS", 99)


def outcome(of, path, choice=None, **maps):
    *lines, found = of.look(path, choice or service.Choice(), **maps)
    assert all(isinstance(line, str) for line in lines)
    return found


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_the_page_gives_the_same_result_as_the_command(tmp_path, name):
    video = name.endswith("mp4")
    if video:
        pytest.importorskip("av")
        with videos.writing(tmp_path / name, Fraction(25)) as write:
            for _ in range(3):
                write(IMAGE)
    else:
        Image.fromarray(IMAGE).save(tmp_path / name)
    assert predict.main([str(tmp_path / name), f"--output={tmp_path / 'out'}", "--checkpoint=any"]) == 0
    found = outcome(service.Service(tmp_path / "service"), tmp_path / name)
    assert found.json.name == "predictions.json" and found.overlay.name == name
    assert found.json.read_bytes() == (tmp_path / "out/predictions.json").read_bytes()
    assert found.overlay.read_bytes() == (tmp_path / "out" / name).read_bytes()
    (row,) = found.people
    assert row[0] == "1" and row[2].endswith(" of 16")
    assert row[3] == ("0.0 to 0.1 s" if video else "160 x 100 px at (0, 0)")
    scores = [score for one in json.loads(found.json.read_text()) for score in one["keypoint_scores"]]
    assert row[1] == f"{np.mean(scores):.2f}"
    where = " in 3 frames" if video else ""
    assert found.note.startswith(f"1 person{where}; joints are drawn from a score of 0.10 on.")


def test_a_choice_keeps_its_predictor_and_the_oldest_is_dropped(tmp_path, spots):
    of = service.Service(tmp_path, open_paths=True)
    first = of.predictor(service.Choice())
    assert of.predictor(service.Choice(weights=" lspet ", detector=service.WHOLE)) is first
    for number in range(service.KEPT_PREDICTORS - 1):
        of.predictor(service.Choice(threshold=0.1 * number))
    assert of.predictor(service.Choice()) is first  # used again: now the newest
    for number in range(service.KEPT_PREDICTORS - 1):
        of.predictor(service.Choice(threshold=0.5 + 0.1 * number))
    assert of.predictor(service.Choice()) is first
    of.predictor(service.Choice(threshold=1.0))
    assert len(of._kept) == service.KEPT_PREDICTORS


def test_maps_are_shown_if_the_network_has_them(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    found = outcome(service.Service(tmp_path / "service"), tmp_path / "a.png", heatmaps=True, attention=True)
    (result,) = service.Service(tmp_path / "other").predictor(service.Choice())([tmp_path / "a.png"])
    assert (found.heatmaps == predict.heatmap_sheet(result)).all() and found.attention is None
    assert found.note.endswith("This network has no attention maps; chu and selvam have them.")


def test_bad_input_gives_an_error_of_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    closed = service.Service(tmp_path / "service", offered=("runs/mine",), detectors=("mine.onnx",))
    assert closed.weights[0] == "runs/mine" and closed.detectors[:2] == (service.WHOLE, "mine.onnx")
    with pytest.raises(pictures.Unreadable, match="a.png: not a picture"):
        outcome(closed, tmp_path / "a.png")
    for choice in (service.Choice(weights="/etc/passwd"), service.Choice(detector="/root/other.onnx")):
        with pytest.raises(ValueError, match="is not offered here"):
            closed.predictor(choice)
    with pytest.raises(ValueError, match="threshold=7"):
        closed.predictor(service.Choice(threshold=7.0))


def test_a_long_video_stops_at_the_limit_and_old_outcomes_are_deleted(tmp_path, monkeypatch):
    pytest.importorskip("av")
    with videos.writing(tmp_path / "a.mp4", Fraction(25)) as write:
        for _ in range(5):
            write(IMAGE)
    monkeypatch.setattr(service, "KEPT_OUTCOMES", 2)
    of = service.Service(tmp_path / "service", frames=3)
    for _ in range(3):
        found = outcome(of, tmp_path / "a.mp4")
    assert found.note.endswith("Only the first 3 frames are read (--frames).")
    assert [one["frame"] for one in json.loads(found.json.read_text())] == [0, 1, 2]
    assert sum(1 for _ in videos.frames(found.overlay)) == 3
    assert sorted(path.name for path in (tmp_path / "service").iterdir()) == ["2", "3"]


def test_a_camera_gives_each_picture_its_own_result(tmp_path):
    of = service.Service(tmp_path)
    next_result = of.live(service.Choice(smooth=True))
    alone = of.predictor(service.Choice())
    for place in ((40, 30), (60, 50)):
        image = picture(100, 160, place, radius=0.02)
        found = next_result(image)
        assert (found.image == image).all() and found.ids == (1,)
    np.testing.assert_allclose(next_result(IMAGE).scores, alone(IMAGE).scores, atol=1e-6)
    assert service.drawn(found).shape == (100, 160, 3)


def test_without_gradio_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command.main([]) == 1
    line = capsys.readouterr().err
    assert (
        line == "Error: The page needs Gradio, which is not installed: pip install 'hourglass_jax[demo]'.\n"
    )


HOSTS = {"127.0.0.1": True, "localhost": True, "::1": True, "0.0.0.0": False, "lab": False}


@pytest.mark.parametrize("host, opens", HOSTS.items())
def test_only_this_machine_may_name_any_path(host, opens, monkeypatch):
    services = []

    def serve(of, **options):
        services.append((of, options))
        raise OSError("seen enough")

    monkeypatch.setattr(command.page, "serve", serve)
    monkeypatch.setattr(command.devices, "keep_programs", lambda: None)
    assert command.main([f"--host={host}", "--megabytes=3", "--weights=a.npz", "--frames=9"]) == 1
    ((of, options),) = services
    assert of.open_paths is opens and of.weights[0] == "a.npz"
    assert options == {"host": host, "port": 7860, "megabytes": 3.0, "browser": False}


def test_by_default_the_page_listens_to_this_machine_only():
    assert command.HOST == "127.0.0.1"
