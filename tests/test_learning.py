"""The learning benchmark: recipes, budgets that survive an interruption, and what it writes."""

import json

import cv2
import pytest

from hourglass_jax.benchmarks import learning
from hourglass_jax.data import packed
from hourglass_jax.data.synthetic import SyntheticPeople
from launch import benchmark

pytestmark = pytest.mark.usefixtures("quick_compiles", "shared_programs")

SMALL = "stacks=1,width=8,dataset=lspet,size=32,quick=true"


class Encoded(SyntheticPeople):
    """Drawn people as in a prepared dataset, with canvases as JPEGs."""

    def __init__(self, split, count):
        super().__init__(split=split, examples=count, canvas=192, margin=1.5, variety=0.2)

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return example | {"image": cv2.imencode(".jpg", example["image"])[1].tobytes()}


def test_a_recipe_changes_the_shipped_config():
    recipe = "optimizer.learning_rate=3e-3, augment.scale_normal=(0.3,0.6),loss.kind=mean_squared_error"
    plain, changed = (learning.recipe_config(learning.BASE, "packed", r, 1) for r in ("", recipe))
    assert (plain.optimizer.learning_rate, changed.optimizer.learning_rate) == (1e-3, 3e-3)
    assert changed.augment.scale_normal == (0.3, 0.6) and changed.loss.kind == "mean_squared_error"
    assert changed.seed == 1 and changed.model.to_dict() == plain.model.to_dict()


@pytest.mark.parametrize("recipe", ["optimizer.rate=1", "train.batch_size", "train.batch_size=many"])
def test_invalid_recipes_are_refused(recipe):
    with pytest.raises(ValueError, match="--recipe"):
        learning.recipe_config(learning.BASE, "packed", recipe, 0)


def test_rows_curves_and_budget(small_model, tmp_path, capsys):
    for split, count in (("train", 16), ("validation", 8)):
        for box in ("joints", "image"):
            packed.write(Encoded(split, count), packed.path(tmp_path, "lspet", box, split))
    options = [f"--{name}={tmp_path / name}" for name in ("workdir", "output")]
    options += [f"--packed_dir={tmp_path}", f"--config={SMALL}", "--rounds=1", "--minutes=0.001"]
    options += [f"--results={tmp_path / 'results.jsonl'}", "--recipe=train.batch_size=4"]
    assert benchmark.main(["learning", *options]) == 0
    (workdir,) = (tmp_path / "workdir").iterdir()
    found = json.loads((workdir / "budget.json").read_text())
    assert found["steps"] == max(int(0.06 / found["seconds_a_step"]), 1)
    row = json.loads((tmp_path / "results.jsonl").read_text())
    assert row["steps"] == found["steps"] and row["samples"] == 4 * found["steps"]
    step, score = learning.validation_curve(workdir)[-1]
    assert step == found["steps"] and row["last"] == round(score, 1)
    assert (tmp_path / "output" / "learning.png").stat().st_size > 1000
    assert benchmark.main(["learning", *options, "--minutes=1"]) == 1
    assert "started with 0.001 minutes" in capsys.readouterr().err
