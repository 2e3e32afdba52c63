"""Comparison of runs and published rows."""

import json
import pathlib
import re

import numpy as np
import pytest

from hourglass_jax import compare
from hourglass_jax.evaluation import published, scores
from hourglass_jax.files import write_json
from hourglass_jax.pose.skeletons import LSP, MPII

SEEDS = pathlib.Path(__file__).parents[2] / "shared" / "seeds"


def run(path, data, error, *, skeleton=MPII, metric="pckh", **options):
    """A json file of three people, one of whom is `error` px off; heads are 10 px, torsos 50."""
    truth = np.random.default_rng(0).uniform(0, 99, (3, len(skeleton), 2))
    joints = truth[:, None] + np.array([0, 0, error])[:, None, None, None] * (0, 1)
    visible, reference = np.full(truth.shape[:2], 2), np.full(3, 10.0 if metric == "pckh" else 50)
    found = scores.score_joints(joints, truth, visible, reference, skeleton, metric=metric, **options)
    write_json(path, {"data": data} | found.to_dict())
    return str(path)


def cells(text):
    """{title: {row: cells}} of the Markdown."""
    found = {}
    for line in text.splitlines():
        if line.startswith("**"):
            rows = found[line.strip("*")] = {}
        elif line.startswith("|"):
            name, *values = [cell.strip() for cell in line.strip("|").split("|")]
            rows[name] = values
    return found


def test_tables_never_mix_data_or_metrics(tmp_path, capsys):
    paths = [
        run(tmp_path / "a.json", "mpii-validation", 6),
        run(tmp_path / "b.json", "mpii-validation", 4),
        run(tmp_path / "c.json", "mpii-test", 4),
        run(tmp_path / "d.json", "mpii-validation", 4, threshold=0.3),
        run(tmp_path / "e.json", "lsp-test", 11, skeleton=LSP, metric="pck"),
    ]
    assert compare.main([*paths, f"--output={tmp_path / 'out'}"]) == 0
    text = capsys.readouterr().out
    found = cells(text)
    own = {title: rows for title, rows in found.items() if "Published" not in title}
    assert list(own["mpii-test: PCKh@0.5, ten hard joints, mean of parts"])[2:] == [paths[2]]
    own = {title: rows for title, rows in own.items() if "hard" not in title}
    assert {title: list(rows)[2:] for title, rows in own.items()} == {
        "mpii-validation: PCKh@0.5": paths[:2],
        "mpii-test: PCKh@0.5": [paths[2]],
        "mpii-validation: PCKh@0.3": [paths[3]],
        "lsp-test: PCK@0.2": [paths[4]],
        "lsp-test: PCP@0.5": [paths[4]],
        "lsp-test: PCP mean": [paths[4]],
    }
    rows = own["mpii-validation: PCKh@0.5"]
    assert rows[""] == [*"Head Sho Elb Wri Hip Knee Ank Mean AUC".split()]
    # One of three is 6 px off, more than 5; the other run's 4 px count at 0.4 and above: 2/3 at 40 of 50
    # steps, then 1: (66.67 * 39.5 + 100 * 10.5) / 50; the step from 0.39 to 0.4 counts half for each.
    assert rows[paths[0]] == ["66.67"] * 9
    assert rows[paths[1]] == ["100.00"] * 8 + [f"{(200 / 3 * 39.5 + 100 * 10.5) / 50:.2f}"]
    printed = [title for title in found if "Published" in title]
    assert printed == [
        f"Published by the papers, their own results on {name}"
        for name in (
            "MPII test: PCKh@0.5",
            "MPII validation: PCKh@0.5",
            "MPII validation, MSSH's ablations (5.2): PCKh@0.5",
            "MPII validation: PCKh@0.5, ten hard joints, mean of parts",
            "MPII validation, Tang's ablations (4.3): PCKh@0.5, ten hard joints, mean of parts",
            "LSP test: PCK@0.2",
            "LSP test with corrected annotations: PCK@0.2",
            "LSP test: PCP@0.5",
            "FLIC test: PCK@0.2",
        )
    ]
    assert found[printed[0]]["Chu et al. 2017"] == "98.50 96.30 91.90 88.10 90.60 88.00 85.00 91.50".split()
    assert (tmp_path / "out" / "compared.md").read_text() == text
    assert len(list((tmp_path / "out").glob("curves_*.png"))) == 4  # one for each data and metric


def test_scores_with_different_crops_never_share_a_table(tmp_path, capsys):
    paths = []
    for crop in ("joints", "image"):
        paths.append(run(tmp_path / f"{crop}.json", "lsp-test", 11, skeleton=LSP, metric="pck"))
        content = json.loads((tmp_path / f"{crop}.json").read_text())
        write_json(paths[-1], content | {"crop": crop})
    assert compare.main(paths) == 0
    found = cells(capsys.readouterr().out)
    titles = [title for title in found if title.endswith("PCK@0.2") and "Published" not in title]
    assert titles == [f"lsp-test, crop: {crop}: PCK@0.2" for crop in ("joints", "image")]


def test_activities_are_compared_with_selvams(tmp_path, capsys):
    groups = {"category": np.array(["dancing", "sports", "sports"])}
    path = run(tmp_path / "a.json", "mpii-validation", 6, groups=groups)
    assert compare.main([path]) == 0
    found = cells(capsys.readouterr().out)
    rows = found["mpii-validation: Mean PCKh@0.5 by category"]
    assert (rows[""], rows[path]) == (["dancing", "sports"], ["100.00", "50.00"])
    title = "MPII, by activity: average accuracy, Selvam's groups"
    selvam = found[f"Published by the papers, their own results on {title}"]
    assert selvam["global attention"][2] == "76.67" and "Mountain biking" in selvam[""]


def test_a_workdir_is_read_and_missing_files_are_named(tmp_path, capsys):
    (tmp_path / "workdir").mkdir()
    workdir = str(tmp_path / "workdir")
    run(tmp_path / "workdir" / "evaluation.json", "synthetic-validation", 6)
    assert compare.main([workdir]) == 0 and workdir in capsys.readouterr().out
    (tmp_path / "old.json").write_text(json.dumps({"data": "a", "metric": "b", "table": {}}))
    (tmp_path / "cut.json").write_text("{")
    for runs, message in (
        ([str(tmp_path)], "evaluation.json: no such file; evaluate the run first"),
        ([str(tmp_path / "old.json")], "old.json: lacks 'auc'; evaluate the run again"),
        ([str(tmp_path / "cut.json")], "cut.json: not readable as json"),
        ([workdir, workdir], "A run is given twice"),
    ):
        assert compare.main(runs) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


@pytest.mark.parametrize("table", published.PUBLISHED, ids=lambda table: f"{table.metric}: {table.data}")
def test_published_rows_are_as_the_papers_print_them(table):
    if not SEEDS.exists():
        pytest.skip(f"no {SEEDS}")
    # The text recognition lost some decimal points, made commas of others, and split some numbers into
    # columns.
    text = " ".join(path.read_text() for path in sorted(SEEDS.glob("*.txt")))
    printed = " ".join(
        re.sub(r"(?<=\d),(?=\d)", "", text).replace(".", "").replace("%", " ").replace("(", " ").split()
    )
    printed = f" {printed} "
    for name, row in table.rows.items():
        rates = [rate.replace(".", "") for rate in row.split() if rate != "-"]
        if table.columns[0] == "Torso":  # MSSH prints methods as columns; its own is the last of seven
            for title, rate in zip([*table.columns[:-1], "Total"], rates, strict=True):
                pattern = rf" {title.replace('.', '')}( \d+){{6}} {rate} "
                assert re.search(pattern, printed), title
        elif table.prose:
            assert all(f" {rate} " in printed for rate in rates), name
        else:
            assert f" {' '.join(rates)} " in printed, name


def test_occluded_and_hard_joints_are_compared_with_tangs(tmp_path, capsys):
    # 3 people with heads of 10 px; the last one is 6 px off; knees and wrists are occluded.
    truth = np.random.default_rng(0).uniform(0, 99, (3, 16, 2))
    joints = truth[:, None].copy()
    joints[2, 0, [1, 4, 12, 13], 0] += 6  # knees and shoulders
    visible = np.full((3, 16), 2)
    visible[:, [1, 4, 10, 15]] = 1
    found = scores.score_joints(joints, truth, visible, np.full(3, 10.0), MPII, metric="pckh")
    write_json(tmp_path / "a.json", {"data": "mpii-validation"} | found.to_dict())
    path = str(tmp_path / "a.json")
    assert compare.main([path]) == 0
    tables = cells(capsys.readouterr().out)
    rows = tables["mpii-validation: PCKh@0.5, occluded joints"]
    assert rows[path] == ["-", "-", "-", "100.00", "-", "66.67", "-", "83.33"]
    # Of five parts, the knees have 2 of 3 correct; two parts are occluded, (100 + 66.67) / 2.
    rows = tables["mpii-validation: PCKh@0.5, ten hard joints, mean of parts"]
    assert dict(zip(rows[""], rows[path], strict=True)) == {
        "occluded": "83.33",
        "visible": "100.00",
        "all": "93.33",
    }
    tang = tables["Published by the papers, their own results on MPII validation: PCKh@0.5, occluded joints"]
    assert tang["Tang and Wu 2019, Table 7"] == ["-", "75.14", "64.12", "85.28", "69.92", "63.48", "71.59"]


@pytest.mark.parametrize(
    ("category", "activity", "group"),
    [
        ("bicycling", "bicycling, mountain", "Mountain biking"),
        ("bicycling", "bicycling, general", "Bicycling"),
        ("sports", "volleyball, beach, in sand", "Volleyball"),
        ("winter activities", "skiing, downhill", "Skiing"),
        ("conditioning exercise", "yoga, Power", "Exercising"),
        ("inactivity quiet/light", "standing quietly", "Standing"),
        ("running", "jogging", ""),
    ],
)
def test_the_groups_of_selvams_table(category, activity, group):
    assert published.selvam_group(category, activity) == group
    columns = {"category": np.array([category]), "activity": np.array([activity]), "image_index": np.zeros(1)}
    assert published.groups(columns)[published.SELVAM].tolist() == [group]
