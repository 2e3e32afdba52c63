"""The device mesh, the placement of values on it, and the compilation of programs for it."""

import ctypes
import functools
import glob
import mmap
import os
import pathlib
import platform
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hourglass_jax import files, kept
from hourglass_jax.kernels import platforms

MOST_KEPT = 2**31  # bytes of compiled programs in the user's cache


def mesh() -> Mesh:
    """All devices of all processes along one axis, "data"."""
    # Auto axes: under Explicit ones, the default, vmap over a sharded batch fails.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device, for the state."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first dimension spread over the devices, for a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def platform_of(mesh: Mesh) -> str:
    """JAX's name for the platform of the devices: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def jit(
    function: Callable,
    mesh: Mesh,
    *,
    forms_of: str | None = None,
    keep: tuple[str, Any] | None = None,
    **options,
):
    """`jax.jit` of a function, with the forms of its operations that are fast on the mesh's devices.

    Args:
      function: not compiled yet.
      mesh: its devices are of one platform.
      forms_of: the platform whose forms are used, if the mesh's devices only simulate it.
      keep: the arguments kind and about of `kept.program`, to trace the function once for all processes;
        programs for several devices are not kept.
      options: of `jax.jit`.
    """
    formed = platforms.on(forms_of or platform_of(mesh), function)
    if keep is None or mesh.size > 1:
        return jax.jit(formed, **options)
    kind, about = keep
    return kept.program(kind, about, formed, platform=_exported_for(mesh), **options)


def _exported_for(mesh: Mesh) -> str:
    """The name of the mesh's platform in `jax.export`."""
    if (name := platform_of(mesh)) != "gpu":
        return name
    return "rocm" if "rocm" in mesh.devices.flat[0].client.platform_version else "cuda"


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch -> the global batch on the mesh."""
    return _put(batch, sharded(mesh))


def put_same(values: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Values that are equal in all processes -> complete on every device."""
    return _put(values, replicated(mesh))


def _put(values: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    put = functools.partial(jax.make_array_from_process_local_data, sharding)
    return {name: put(value) for name, value in values.items()}


def free_memory(mesh: Mesh) -> int | None:
    """The free memory of this process's fullest device, in bytes; None for CPUs, which do not report it."""
    reported = [device.memory_stats() or {} for device in mesh.local_devices]
    if not all("bytes_limit" in stats for stats in reported):
        return None
    return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in reported)


def check_divides(batch_size: int, what: str, count: int | None = None) -> None:
    """Raises ValueError unless the batch size is a multiple of the number of devices (default: of all)."""
    count = jax.device_count() if count is None else count
    if batch_size < 1 or batch_size % count:
        raise ValueError(f"{what}={batch_size} must be a positive multiple of the {count} devices.")


def keep_programs() -> pathlib.Path | None:
    """Keeps compiled programs for the next run.

    JAX_COMPILATION_CACHE_DIR names another folder; "" keeps none. At most `MOST_KEPT` bytes are kept; the
    least recently used programs are removed first.

    Returns:
      the folder, in the user's cache; None if another one is set or it cannot be written to.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore
        return None
    if (cache := files.user_cache()) is None:
        return None
    # JAX stores a program for "cpu" without the processor's features: in a shared home an older processor
    # would get instructions that it does not support.
    folder = cache / f"programs-{zlib.crc32(_processor()):08x}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    kept.prune(folder, "*", size=MOST_KEPT)
    keep_programs_in(folder)
    kept.keep(folder / "facts")
    return folder


def keep_programs_in(folder: str | os.PathLike) -> None:
    """Keeps compiled programs in a folder."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Keep small programs, too: a fresh state of eight stacks needs a hundred of them, and takes three times
    # as long without them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> bytes:
    """Identifies the kind of processor: its model and instructions, as the operating system lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return f"{platform.node()} {platform.processor()}".encode()
    names = (b"model", b"flags", b"CPU", b"Features")  # on x86 and on ARM
    return b"".join(sorted({line for line in lines if line.startswith(names)}))


ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep_memory() -> bool:
    """Lets a process that computes on CPUs keep the memory that it frees, in huge pages if possible.

    XLA allocates and frees a program's temporary memory at each call. glibc maps such a large block again
    each time, and each page causes a fault when it is first used: a fifth of a training step.

    Call this before JAX starts its backend: glibc then decides how many heaps its threads may have.

    Returns:
      whether the memory is kept: only with glibc, and only without an accelerator or with JAX_PLATFORMS=cpu.
    """
    platforms_set = jax.config.jax_platforms  # pyright: ignore
    if platforms_set != "cpu" and any(map(glob.glob, ACCELERATORS)):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # Map nothing outside of the heap, return nothing of it, and share one heap between all threads.
    no_maps, no_trim, one_heap = (-4, 0), (-1, -1), (-8, 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
    kept = all(libc.mallopt(*option) for option in (no_maps, no_trim, one_heap))
    _ask_for_huge_pages(libc, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2)
    return kept


def _ask_for_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Requests huge pages for the heap's next bytes: allocates and frees them without using them."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(size)
    if start:
        page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(page, size - (page - start), mmap.MADV_HUGEPAGE)  # if this fails, pages stay small
        libc.free(start)
