"""The cache of compiled programs, and freed memory."""

import pathlib
import platform

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from hourglass_jax import devices, predict


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A user's cache, without settings of JAX's cache."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()  # JAX looks at the folder only once
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_are_kept_in_the_users_cache(unset):
    folder = devices.keep_programs()
    assert folder.is_dir() and folder.parent == unset / "hourglass_jax"
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_the_next_prediction_starts_sooner(unset):
    assert predict.main([str(unset / "none.jpg"), f"--output={unset / 'out'}"]) == 1
    assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == unset / "hourglass_jax"


@pytest.mark.parametrize("said", ["", "elsewhere"])
def test_the_users_settings_are_kept(unset, said):
    jax.config.update("jax_compilation_cache_dir", said)
    assert devices.keep_programs() is None and jax.config.jax_compilation_cache_dir == said
    assert not list(unset.iterdir())


def test_each_kind_of_processor_has_its_own(unset, monkeypatch):
    here = devices.keep_programs()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(devices, "_processor", lambda: b"flags : sse2")
    assert devices.keep_programs() != here


def test_the_processors_name_is_equal_for_all_cores_and_on_all_days(monkeypatch):
    cores = "".join(
        f"processor : {i}\nmodel name : X\ncpu MHz : {2000 + i}\nflags : sse2 avx\n\n" for i in (0, 1)
    )
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: cores.encode())
    assert devices._processor() == b"flags : sse2 avxmodel name : X"


def test_without_a_writable_cache_commands_still_work(unset, monkeypatch):
    (unset / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(unset / "file"))
    assert devices.keep_programs() is None and jax.config.jax_compilation_cache_dir is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has such settings")
@pytest.mark.parametrize("keep", [True, False])
def test_temporary_memory_is_mapped_once(run_python, keep):
    ran = run_python("page_faults.py", int(keep))
    assert ran.returncode == 0, ran.stderr
    kept, faults = ran.stdout.split()
    assert kept == str(keep)
    assert int(faults) < 1000 if keep else int(faults) > 10000  # 64 MiB are 16,384 pages


def test_with_an_accelerator_memory_settings_are_not_changed(monkeypatch):
    monkeypatch.setattr(devices, "ACCELERATORS", ("/dev/null",))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    try:
        assert not devices.keep_memory()
    finally:
        jax.config.update("jax_platforms", before)
