"""Archives: resumed lines, disjoint shards, and the same people as in one run."""

import collections
import fcntl
import fractions
import json
import sys

import numpy as np
import pytest
from conftest import SPOTS, picture
from PIL import Image

from hourglass_jax import archive, predict
from hourglass_jax.media import pictures, videos
from hourglass_jax.pose import skeletons

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs")


@pytest.fixture
def photos(spots, tmp_path):
    """20 pictures in folders, one file that is not a picture, and one of another kind."""
    for i in range(20):
        path = tmp_path / "in" / f"{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(40, 60, (10 + 2 * i, 20))).save(path)
    (tmp_path / "in/1/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "in/1/notes.txt").write_bytes(b"")
    return tmp_path


def run(folder, output, *flags):
    arguments = [str(folder / "in"), f"--output={folder / output}", "--checkpoint=any", "--jsonl", *flags]
    return predict.main(arguments)


def lines(path):
    return sorted(path.read_text().splitlines())


def test_boxes_are_given_by_name(photos, capsys):
    (photos / "boxes.json").write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]'
    )
    assert run(photos, "out", f"--boxes={photos / 'boxes.json'}") == 1
    assert f"{photos / 'boxes.json'}: --jsonl takes boxes by name" in capsys.readouterr().err
    assert not (photos / "out").exists()


def test_a_run_that_stopped_anywhere_resumes_to_the_same_lines(photos, capsys):
    assert run(photos, "whole") == 1  # one file could not be read
    whole = photos / "whole" / "predictions.jsonl"
    found = [json.loads(line) for line in whole.read_text().splitlines()]
    by_name = {line["file_name"]: line for line in found}
    assert len(found) == len(by_name) == 21 and "error" in by_name["1/broken.jpg"]
    for i in range(20):
        line = by_name[f"{i % 3}/{i}.png"]
        assert (line["width"], line["height"]) == (60, 40)
        (person,) = line["people"]
        assert person.keys() == {"keypoints", "keypoint_scores", "score", "bbox"}
        best = int(np.argmax(person["keypoint_scores"]))
        assert abs(person["keypoints"][3 * best] - (10 + 2 * i)) < 4
    # The run is complete: nothing is loaded, and nothing changes.
    before = whole.read_bytes()
    assert run(photos, "whole") == 0 and whole.read_bytes() == before
    assert "Nothing to do: 21 files" in capsys.readouterr().out
    # Killed within the eighth line.
    cut = b"".join(before.splitlines(keepends=True)[:8])[:-10]
    whole.write_bytes(cut)
    run(photos, "whole")
    assert whole.read_bytes().splitlines()[:7] == before.splitlines()[:7]
    assert lines(whole) == sorted(before.decode().splitlines())


def test_videos_get_a_line_for_each_frame_and_begin_again_after_a_stop(spots, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(40, 60, (30, 20))).save(tmp_path / "in/a.png")
    for name, count in (("b.mp4", 5), ("c.mp4", 3)):
        with videos.writing(tmp_path / "in" / name, fractions.Fraction(10)) as write:
            for i in range(count):
                write(picture(40, 60, (10 + 5 * i, 20)))
    (tmp_path / "in/d.mp4").write_bytes(b"no video")
    assert run(tmp_path, "out") == 1
    assert "9 people in 9 pictures and frames of 3 videos, 1 skipped" in capsys.readouterr().out
    file = tmp_path / "out/predictions.jsonl"
    before = file.read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in before]
    assert [line["file_name"] for line in found] == ["a.png"] + ["b.mp4"] * 6 + ["c.mp4"] * 4 + ["d.mp4"]
    assert [line.get("frame") for line in found] == [None, 0, 1, 2, 3, 4, None, 0, 1, 2, None, None]
    assert [line["time"] for line in found[1:6]] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert found[6] == {"file_name": "b.mp4", "frames": 5} and "error" in found[-1]
    # One person is followed through each video.
    assert [line["people"][0]["track_id"] for line in found[1:6]] == [1] * 5
    red = 3 * skeletons.MPII.joints.index(next(iter(SPOTS)))
    assert all(abs(line["people"][0]["keypoints"][red] - 10 - 5 * i) < 4 for i, line in enumerate(found[1:6]))
    assert run(tmp_path, "out") == 0 and "Nothing to do: 4 files" in capsys.readouterr().out
    for end, kept in ((9, 2), (6, 1)):  # killed within c.mp4, and before the last line of b.mp4
        file.write_bytes(b"".join(before[:end]) + before[end][:-10])
        assert run(tmp_path, "out") == 1
        assert file.read_bytes().splitlines(keepends=True) == before
        assert f"{kept} files were done" in capsys.readouterr().out
    assert run(tmp_path, "smooth", "--smooth") == 1
    options = json.loads((tmp_path / "smooth/predictions.about.json").read_text())["options"]
    assert "OneEuro" in options["smooth"]
    assert "smooth" not in json.loads((tmp_path / "out/predictions.about.json").read_text())["options"]


def test_videos_without_pyav_are_refused_before_the_work(spots, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(40, 60, (30, 20))).save(tmp_path / "in/a.png")
    (tmp_path / "in/b.mp4").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "av", None)
    assert run(tmp_path, "out") == 1
    assert "b.mp4: reading it needs PyAV, which is not installed: pip install" in capsys.readouterr().err
    assert not (tmp_path / "out/predictions.jsonl").read_bytes()


def test_shards_are_all_pictures_once(photos):
    run(photos, "whole")
    found = []
    for i in (1, 2, 3):
        run(photos, "parts", f"--shard={i}/3")
        found.append(lines(photos / "parts" / f"predictions-{i}-of-3.jsonl"))
    assert all(found) and sorted(sum(found, [])) == lines(photos / "whole/predictions.jsonl")
    names = [f"{i}.jpg" for i in range(9000)]
    counts = collections.Counter(i for n in names for i in (1, 2, 3) if archive.Shard(i, 3).has(n))
    assert sum(counts.values()) == 9000 and min(counts.values()) > 2700


@pytest.mark.parametrize(
    "variables, found",
    [
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (3, 4)),
        # A job array of which each job has one task.
        (
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
            | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            (3, 3),
        ),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c,d"}, (2, 4)),
    ],
)
def test_a_scheduler_names_the_shard_of_its_process(variables, found, monkeypatch):
    for name in [name for names in archive._SCHEDULERS for name in names if name]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="^--shard=auto: no scheduler says which part this is .SLURM_ARRAY"):
        archive.Shard.parse("auto")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert archive.Shard.parse("auto") == found


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/x", "-1/2"])
def test_shards_are_numbers_from_one(photos, text, capsys):
    assert run(photos, "out", f"--shard={text}") == 1
    assert f"--shard={text}: expected" in capsys.readouterr().err and not (photos / "out").exists()


def test_other_options_damage_and_other_processes_are_refused(photos, capsys):
    run(photos, "out")
    file = photos / "out/predictions.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"\n") + 1])
    assert run(photos, "out", "--no-flip") == 1
    assert "with another options (predictions.about.json); choose another" in capsys.readouterr().err
    assert len(file.read_bytes().splitlines()) == 1
    file.write_bytes(b"{}\n" + whole)
    assert run(photos, "out") == 1 and "line 1 is damaged" in capsys.readouterr().err
    assert file.read_bytes() == b"{}\n" + whole
    with open(file, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(photos, "out") == 1 and "another process is writing" in capsys.readouterr().err
    assert run(photos, "drawn", "--heatmaps") == 1
    assert "draws nothing: leave out --heatmaps" in capsys.readouterr().err


def test_order_and_bounds_of_parallel_decoding():
    begun = []

    def source():
        for i in range(50):
            begun.append(i)
            yield i

    found = pictures.in_parallel(lambda i: [i, -i], source(), 3, depth=4)
    assert [next(found) for _ in range(4)] == [0, 0, 1, -1]
    assert len(begun) <= 4 + 3 + 2  # at most as many as may wait
    assert list(found)[-1] == -49
    failing = pictures.in_parallel(lambda i: [1 // (i - 2)], range(9), 2, depth=2)
    with pytest.raises(ZeroDivisionError):
        list(failing)
