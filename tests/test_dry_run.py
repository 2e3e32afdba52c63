"""A training up to its first step."""

import re
import sys

import jax
import pytest

from hourglass_jax import dry_run, train
from hourglass_jax.transforms import per_example

pytestmark = pytest.mark.usefixtures("quick_compiles", "small_model")


@pytest.fixture
def programs(tmp_path):
    """The cached programs, by name, in a separate folder."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    compilation_cache.reset_cache()
    jax.clear_caches()
    yield lambda kind: {p.name for p in (tmp_path / "programs").glob(f"jit_{kind}-*-cache")}
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def test_the_training_finds_the_program_of_the_dry_run(tiny, programs, capsys, monkeypatch, tmp_path):
    config = tiny({"train.steps": 1})
    found = dry_run.dry_run(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    checked, step, evaluation, kept = capsys.readouterr().out.splitlines()
    assert checked.startswith("Checked: the config, 40 training and 10 validation people, ")
    assert re.fullmatch(
        r"Step on 1 x cpu, batch 8: each holds \d\.\d{3} GB \(\d\.\d{3} of it temporary\) and "
        r"sends nothing\. Compiled in \d+ s\.",
        step,
    )
    assert re.fullmatch(r"Evaluation, batch 8: Compiled in \d+ s\.", evaluation)
    assert kept.startswith("The programs are cached in ") and found["evaluation"] is None
    assert found["bytes"] > found["temporary"] > 8 * 32 * 32 * 3 * 4 and found["sent"] == {}
    assert found["checkpoint"] > 4 * 688 * 4  # parameters, their averages, and Adam's two moments
    before = {kind: programs(kind) for kind in ("step", "views", "partial", "result")}
    assert [len(names) for names in before.values()] == [1, 1, 1, 1]
    train.train(config, tmp_path / "w")
    assert {kind: programs(kind) for kind in before} == before
    monkeypatch.setattr(per_example, "suits", lambda mesh: False)  # one program, as on accelerators
    found = dry_run.dry_run(config, tmp_path / "w")
    assert found["evaluation"] > 8 * 48 * 48 * 3 + 4 * 688  # the canvases and the parameters
    output = capsys.readouterr().out
    assert "has a checkpoint of step 1, from which" in output
    assert re.search(r"^Evaluation, batch 8: each holds 0\.000 GB\. Compiled in ", output, re.MULTILINE)
    for array in (tmp_path / "w/checkpoints/1/averaged").rglob("d/*"):
        array.write_bytes(b"")
    with pytest.raises(ValueError, match="/1: the checkpoint is damaged"):
        dry_run.dry_run(config, tmp_path / "w")
    config.train.init_from = str(tmp_path / "w")
    with pytest.raises(ValueError, match="/1: the checkpoint is damaged"):
        dry_run.dry_run(config, tmp_path / "new")


def test_a_dry_run_refuses_the_same_as_a_training(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="--workdir=.*file cannot be written"):
        dry_run.dry_run(tiny(), tmp_path / "file" / "w")
    with pytest.raises(FileNotFoundError, match="no such file"):
        dry_run.dry_run(tiny({"data.dataset": "lspet", "data.source": "packed"}), tmp_path / "w")
    with pytest.raises(FileNotFoundError, match="/none"):
        dry_run.dry_run(tiny({"train.init_from": str(tmp_path / "none")}), tmp_path / "w")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"train.track=wandb:pose needs .*hourglass_jax\[wandb\]"):
        dry_run.dry_run(tiny({"train.track": "wandb:pose"}), tmp_path / "w")
    usage = dry_run.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="the checkpoints take up to .* MB, and 0.0 MB are free"):
        dry_run.dry_run(tiny(), tmp_path / "w")
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ImportError, match=r"--topology=v5e:2x4 needs libtpu, .*hourglass_jax\[tpu\]"):
        dry_run.dry_run(tiny(), tmp_path / "w", topology="v5e:2x4")
    assert not (tmp_path / "w").exists()
