"""Where compiled programs are kept."""

import pathlib

import jax
import pytest

from hourglass_jax import devices, predict


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A user's cache, and nothing said about JAX's."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_users_cache(unset):
    folder = devices.keep_programs()
    assert folder.is_dir() and folder.parent == unset / "hourglass_jax"
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_the_next_prediction_starts_sooner(unset):
    assert predict.main([str(unset / "none.jpg"), f"--output={unset / 'out'}"]) == 1
    assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == unset / "hourglass_jax"


@pytest.mark.parametrize("said", ["", "elsewhere"])
def test_what_the_user_says_is_left_alone(unset, said):
    jax.config.update("jax_compilation_cache_dir", said)
    assert devices.keep_programs() is None and jax.config.jax_compilation_cache_dir == said
    assert not list(unset.iterdir())


def test_each_kind_of_processor_has_its_own(unset, monkeypatch):
    here = devices.keep_programs()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(devices, "_processor", lambda: b"flags : sse2")
    assert devices.keep_programs() != here


def test_the_processor_is_what_does_not_change_from_core_to_core_and_day_to_day(monkeypatch):
    cores = "".join(
        f"processor : {i}\nmodel name : X\ncpu MHz : {2000 + i}\nflags : sse2 avx\n\n" for i in (0, 1)
    )
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: cores.encode())
    assert devices._processor() == b"flags : sse2 avxmodel name : X"


def test_a_cache_that_cannot_be_made_is_done_without(unset, monkeypatch):
    (unset / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(unset / "file"))
    assert devices.keep_programs() is None and jax.config.jax_compilation_cache_dir is None
