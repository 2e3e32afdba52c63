"""Every command with its inputs and outputs in a bucket: the same files and lines as on a disk."""

import fractions
import json
import os
import re
import sys
from typing import Any

import cv2
import jax
import numpy as np
import pytest
import scipy.io
from absl import flags

from hourglass_jax import buckets, cli, files, part_groups, weights
from hourglass_jax.media import videos
from hourglass_jax.network import Metadata, abstract, network_of
from hourglass_jax.pose import skeletons
from tests import test_part_groups, test_score, test_submission

pytestmark = pytest.mark.usefixtures("small_model")
TIMED = 128  # bytes at the beginning of a .mat file: text with the time


@pytest.fixture
def inputs(tmp_path, tiny):
    """A local folder with w.npz, weights of a small network, their config.py, and photos/a.png."""
    folder, config = tmp_path / "in", tiny()
    (folder / "photos").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    cv2.imwrite(str(folder / "photos" / "a.png"), image)
    (folder / "config.json").write_text(config.to_json())
    (folder / "config.py").write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({config.to_json()!r}))\n"
    )
    metadata = Metadata(config.to_dict(), skeletons.MPII.to_dict(), 1)
    like, rng = abstract(network_of(metadata), None), np.random.default_rng(0)
    weights.write(
        folder / "w.npz", jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype("f4"), like), metadata
    )
    return folder


@pytest.fixture
def agree(gcs, inputs, tmp_path, monkeypatch, capsys):
    """Runs commands on the disk and then in the bucket: agree("score --json={o}/a.json ...", ...).

    {i} is the folder of inputs, {o} that of outputs; {here} is the local folder of inputs, and {own} a local
    folder for each of the two.

    Returns:
      the contents of all files of {o} by name, which are equal.
    """
    _, bucket = gcs
    monkeypatch.chdir(tmp_path)

    def run(*commands: str) -> dict[str, Any]:
        for name in names(inputs):
            files.write(f"{bucket}/in/{name}", (inputs / name).read_bytes())
        made, lines = [], []
        for source, target in ((inputs, tmp_path / "out"), (f"{bucket}/in", f"{bucket}/out")):
            said, own = "", tmp_path / f"local{len(lines)}"
            for command in commands:
                code = call(command.format(i=source, o=target, here=inputs, own=own))
                printed = capsys.readouterr()
                assert code == 0, printed
                said += plain(printed.out.replace(str(own), "OWN"), source, target)
            lines.append(said)
            made.append(content(source, target))
        assert lines[0] == lines[1]
        assert made[0].keys() == made[1].keys()
        for name, data in made[0].items():
            assert data == made[1][name], name
        assert set(os.listdir(tmp_path)) <= {"cache", "in", "out", "local0", "local1"}  # no folder called gs:
        return made[1]

    return run


def call(command: str) -> int:
    """The exit code of a command in this process."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    before = sys.argv
    try:
        return cli.main(command.split())
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before


def names(folder) -> list[str]:
    """The names of all files in a folder."""
    if files.in_bucket(folder):
        return sorted(buckets.listing(folder))
    return sorted(p.relative_to(folder).as_posix() for p in files.path(folder).rglob("*") if p.is_file())


def plain(text: str, source, target) -> str:
    """A text without its paths, and without the widths of columns, which depend on the paths."""
    text = text.replace(str(source), "IN").replace(str(target), "OUT")
    return re.sub(r"-+", "-", re.sub(r" +", " ", text))


def content(source, target) -> dict[str, Any]:
    """The contents of the files by name, without what depends on the place and the time."""
    found = {}
    for name in names(target):
        with files.opened(f"{target}/{name}") as file:
            data = file.read()
        text = name.endswith((".json", ".md", ".html", ".csv"))
        found[name] = plain(data.decode(), source, target) if text else data
        if name.endswith(".safetensors"):  # the entries of its header have a random order
            end = 8 + int.from_bytes(data[:8], "little")
            found[name] = json.loads(data[8:end]), data[end:]
        if name.endswith(".mat"):
            found[name] = data[TIMED:]
        if name == "compared/curves_1.png":  # the legend has the runs' paths
            found[name] = data[:33]  # the header with the picture's size
    return found


def test_an_evaluation_its_report_its_comparison_and_its_weights(agree):
    pytest.importorskip("safetensors")
    made = agree(
        "evaluate --config={here}/config.py --checkpoint={i}/w.npz --workdir={o}/run",
        "report {o}/run",
        "report {o}/run --output={o}/page.html",
        "weights --workdir={i}/w.npz --evaluation={o}/run/evaluation.json --output={o}/a.npz",
        "weights --workdir={o}/a.npz --card={i}/config.json --output={o}/a.safetensors",
        "evaluate --config={here}/config.py --checkpoint={o}/a.safetensors --workdir={o}/again",
        "compare {o}/run {o}/again --output={o}/compared",
    )
    assert made["run/evaluation.json"] == made["again/evaluation.json"]
    assert made["run/report.html"] == made["page.html"]
    assert made.keys() == {
        *("a.npz", "a.safetensors", "compared/compared.md", "compared/curves_1.png", "page.html"),
        *("run/report.html",),
        *(
            f"{run}/{name}"
            for run in ("run", "again")
            for name in (
                *("curves.csv", "curves.png", "evaluation.json", "pictures/evaluation.png"),
                *("pictures/evaluation_stacks.png", "predictions.json"),
            )
        ),
    }


def test_scores_submissions_and_groups(agree, inputs, monkeypatch):
    monkeypatch.setattr(part_groups, "SEEDS", 1)
    joints = test_score.made(inputs)
    test_score.write(inputs / "preds.mat", joints + 3)
    test_submission.annotations(inputs / "a.mat")
    test_submission.predictions(inputs / "p.json", *test_submission.COUNTED)
    pytest.importorskip("sklearn")
    test_part_groups.write(inputs / "people.json.gz", test_part_groups.scattered(40))
    made = agree(
        "score --dataset=mpii --annotations={i}/valid.h5 --predictions={i}/preds.mat "
        "--json={o}/scores.json --curves={o}/curves.png",
        "compare {o}/scores.json",
        "submission --predictions={i}/p.json --annotations={i}/a.mat --output={o}/pred.mat",
        "groups --annotations={i}/people.json.gz --groups=4 --output={o}/groups",
    )
    assert made.keys() == {
        *("scores.json", "curves.png", "curves.csv", "pred.mat"),
        *("groups/part_groups.json", "groups/part_groups.png"),
    }


def test_predictions(agree, inputs):
    pytest.importorskip("av")
    with videos.writing(inputs / "photos" / "b.mp4", fractions.Fraction(10)) as write:
        for number in range(3):
            write(np.full((32, 32, 3), 80 * number, np.uint8))
    (inputs / "boxes.json").write_text(json.dumps({"a.png": [[2, 3, 30, 40]], "b.mp4": [[0, 0, 32, 32]]}))
    predict = "predict {i}/photos --checkpoint={i}/w.npz --boxes={i}/boxes.json --no-flip --output={o}"
    made = agree(f"{predict} --csv --heatmaps --format=dataset", f"{predict}/results --threshold=0.2")
    assert made.keys() == {
        *("a.png", "a_heatmaps.png", "b.mp4", "predictions.csv", "predictions.json"),
        *(f"results/{name}" for name in ("a.png", "b.mp4", "predictions.json")),
    }


def test_exports(agree):
    pytest.importorskip("onnxruntime")
    export = "export --workdir={i}/w.npz --output={o}"
    made = agree(
        f"{export}/a.stablehlo --format=stablehlo",
        f"{export}/a.onnx --format=onnx --precision=int8 --calibration={{i}}/photos",
    )
    assert made.keys() == {"a.stablehlo", "a.onnx"}


def test_a_prepared_dataset(agree, inputs):
    pytest.importorskip("tensorflow_datasets")
    (inputs / "lspet_dataset" / "images").mkdir(parents=True)
    table = np.random.default_rng(0).uniform(10, 50, (14, 3, 20))
    table[:, 2] = 1
    scipy.io.savemat(inputs / "lspet_dataset" / "joints.mat", {"joints": table})
    for number in range(1, 21):
        picture = np.full((60, 80, 3), 5 * number, np.uint8)
        cv2.imwrite(str(inputs / f"lspet_dataset/images/im{number:05d}.jpg"), picture)
    made = agree(
        "prepare --dataset=lspet --manual_dir={i} --data_dir={own} --canvas=48 --pack={o} "
        "--sheet={o}/sheet.png"
    )
    assert made.keys() == {"lspet-joints-train.npz", "lspet-joints-validation.npz", "sheet.png"}


@pytest.mark.parametrize(
    "command, message",
    [
        ("prepare --dataset=lspet --data_dir={o}", "data_dir={o}: prepared data are read from a disk"),
        ("benchmark inference --output={o}", "--output={o}: benchmarks use local files"),
        ("predict {here}/photos --jsonl --output={o}", "--output={o}: a bucket cannot append lines"),
        (
            "export --workdir={here}/w.npz --format=savedmodel --output={o}",
            "--output={o}: a SavedModel is a folder; write a local one",
        ),
        (
            "train --config=newell:dataset=lspet --config.data.data_dir={o} --workdir={here}/run",
            "data_dir={o}: prepared data are read from a disk",
        ),
        (
            "train --config={o}/config.py --workdir={here}/run",
            "--config={o}/config.py: a config is a program",
        ),
    ],
)
def test_what_needs_a_disk_is_refused_in_one_line(gcs, inputs, command, message, capsys):
    store, bucket = gcs
    assert call(command.format(o=bucket, here=inputs)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {message.format(o=bucket)}") and said.count("\n") == 1
    assert not store.requests and not (inputs / "run").exists()
