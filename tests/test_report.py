"""The report of a workdir: its numbers, its people, and its errors for missing files."""

import json
import re

import numpy as np
import pytest

from hourglass_jax import report
from hourglass_jax.data import sources
from hourglass_jax.evaluation import errors, scores


@pytest.fixture
def evaluated(tmp_path, tiny):
    """A workdir after an evaluation: all joints are correct except those of the first person."""
    config = tiny()
    source = sources.open_source(config.data, train=False)
    examples = [source[i] for i in range(len(source))]
    truth, visible = (np.array([e[name] for e in examples]) for name in ("joints", "visible"))
    joints = truth.astype(np.float64)
    joints[0] += 500
    head_size = np.array([e["head_size"] for e in examples])
    metric, reference = scores.choose("auto", truth, visible, head_size, source.skeleton)
    found = scores.score_joints(joints[:, None], truth, visible, reference, source.skeleton, metric=metric)
    about = {"data": source.name, "step": 4, "flip": False, "crop": "image"}
    people = [{"id": id_, "joints": places.tolist()} for id_, places in zip(source.ids, joints, strict=True)]
    for name, value in (("evaluation", about | found.to_dict()), ("predictions", people)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value).replace("NaN", "null"))
    (tmp_path / "config.json").write_text(config.to_json())
    lines = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{")
    return tmp_path, found, source


def test_the_page_has_the_numbers_and_the_worst_person(evaluated, capsys):
    workdir, found, source = evaluated
    assert report.main([str(workdir)]) == 0
    page = (workdir / "report.html").read_text()
    assert f"{found.table['Mean']:.1f}" in page and "PCKh@0.5" in page
    (worst,) = re.findall(r"<figcaption>(\S+): (\d+) of (\d+) joints are wrong", page)
    assert worst[0] == source.ids[0] and worst[1] == worst[2]
    cells = re.search(r"<tr><td>all</td>(.*?)</tr>", page)[1]
    count, *shares = re.findall(r"<td>(.*?)</td>", cells)
    wrong = 100 * int(worst[1]) / int(count)
    assert shares == [f"{100 - wrong:.1f}", "0.0", "0.0", "0.0", f"{wrong:.1f}"]
    assert "Learning curve: loss" in page
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}  # nothing external


def test_other_data_and_missing_files_are_named(evaluated, capsys):
    workdir, _, _ = evaluated
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"source": "packed", "dataset": "lspet", "packed_dir": str(workdir / "none")}
    (workdir / "config.json").write_text(json.dumps(config))
    assert report.main([str(workdir), f"--output={workdir / 'other.html'}"]) == 0
    assert "No pictures of people" in (workdir / "other.html").read_text()
    (workdir / "config.json").unlink()
    assert report.main([str(workdir), f"--output={workdir / 'bare.html'}"]) == 0
    bare = (workdir / "bare.html").read_text()
    assert "config.json, which names the data, is only in the workdir of a training" in bare
    assert f"<h1>{workdir.name}: PCKh@0.5" in bare
    (workdir / "evaluation.json").write_text("[1]")
    assert report.main([str(workdir)]) == 1
    assert "evaluation.json" in capsys.readouterr().err
    (workdir / "evaluation.json").unlink()
    assert report.main([str(workdir)]) == 1
    assert "evaluate the workdir first" in capsys.readouterr().err


def test_kinds_that_are_not_known_have_no_column():
    kinds = np.array([[0, errors.KINDS.index("missed"), errors.KINDS.index("another person"), -1]])
    names = ("a", "b", "c", "d")
    page = report._kinds_table(kinds, names, {"another person": False, "missed": False})
    assert page.count("<th>another person</th>") == page.count("<th>missed</th>") == 1
    cells = re.search(r"<tr><td>all</td>(.*?)</tr>", page)[1]
    assert re.findall(r"<td>(.*?)</td>", cells) == ["3", "33.3", "0.0", "0.0", "0.0", "33.3", "33.3", "0.0"]
    assert "<th>missed" not in report._kinds_table(kinds, names, {"missed": True})
    assert report._pictures_of(["mpii-01-0", "mpii-01-1"]) == ["mpii-01", "mpii-01"]
    assert report._pictures_of(["mpii-01-0", "lspet-im01"]) is None
