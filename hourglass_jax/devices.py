"""The device mesh, where values lie on it, and how programs are compiled for it."""

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
    """The same on every device: the state."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first dimension spread over the devices: a batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def platform_of(mesh: Mesh) -> str:
    """The name that JAX gives its devices: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def jit(
    function: Callable,
    mesh: Mesh,
    *,
    forms_of: str | None = None,
    keep: tuple[str, Any] | None = None,
    **options,
):
    """`jax.jit` of a function whose operations take the forms that are fast on the mesh's devices.

    Args:
      function: not compiled yet.
      mesh: of one platform.
      forms_of: the platform whose forms are taken, where the mesh's devices only simulate it.
      keep: kind and about of `kept.program`, for a function that is traced once for all processes; programs
        of several devices are not kept.
      options: of `jax.jit`.
    """
    formed = platforms.on(forms_of or platform_of(mesh), function)
    if keep is None or mesh.size > 1:
        return jax.jit(formed, **options)
    kind, about = keep
    return kept.program(kind, about, formed, platform=_exported_for(mesh), **options)


def _exported_for(mesh: Mesh) -> str:
    """The mesh's platform as `jax.export` names it."""
    if (name := platform_of(mesh)) != "gpu":
        return name
    return "rocm" if "rocm" in mesh.devices.flat[0].client.platform_version else "cuda"


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process' part of a batch -> the global batch on the mesh."""
    return _put(batch, sharded(mesh))


def put_same(values: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Values that are equal in all processes -> whole on every device."""
    return _put(values, replicated(mesh))


def _put(values: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    put = functools.partial(jax.make_array_from_process_local_data, sharding)
    return {name: put(value) for name, value in values.items()}


def free_memory(mesh: Mesh) -> int | None:
    """Bytes that each of this process' devices has left at least; None for CPUs, which report nothing."""
    reported = [device.memory_stats() or {} for device in mesh.local_devices]
    if not all("bytes_limit" in stats for stats in reported):
        return None
    return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in reported)


def check_divides(batch_size: int, what: str) -> None:
    """Raises ValueError unless the devices divide the batch."""
    if batch_size < 1 or batch_size % jax.device_count():
        raise ValueError(
            f"{what}={batch_size} must be a positive multiple of the {jax.device_count()} devices."
        )


def keep_programs() -> pathlib.Path | None:
    """Keeps compiled programs for the next run; JAX_COMPILATION_CACHE_DIR says where else, "" nowhere.

    At most `MOST_KEPT` bytes of them: those that were used least recently are removed first.

    Returns:
      the folder, in the user's cache; None where it is set already or cannot be written.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore
        return None
    if (cache := files.user_cache()) is None:
        return None
    # JAX stores a program for "cpu" whatever that supports: in a shared home an older processor would get
    # instructions that it does not have.
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
    # Small ones, too: a fresh state of eight stacks takes a hundred of them, and three times as long without.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> bytes:
    """Identifies the kind of processor: model and instructions, as the kernel lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return f"{platform.node()} {platform.processor()}".encode()
    names = (b"model", b"flags", b"CPU", b"Features")  # on x86 and on ARM
    return b"".join(sorted({line for line in lines if line.startswith(names)}))


ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep_memory() -> bool:
    """Lets a process that computes on CPUs keep the memory that it frees, in huge pages where there are any.

    XLA allocates a program's temporary memory at each call and frees it. glibc maps so large a block again
    each time, and each page costs a fault at its first touch: a fifth of a training step.

    Call it before JAX starts its backend: glibc decides then how many heaps its threads may have.

    Returns:
      whether it does: under glibc, and where no accelerator is in sight or JAX_PLATFORMS=cpu.
    """
    platforms_set = jax.config.jax_platforms  # pyright: ignore
    if platforms_set != "cpu" and any(map(glob.glob, ACCELERATORS)):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # Nothing is mapped outside the heap, nothing of it is returned, and all threads share one.
    no_maps, no_trim, one_heap = (-4, 0), (-1, -1), (-8, 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
    kept = all(libc.mallopt(*option) for option in (no_maps, no_trim, one_heap))
    _ask_for_huge_pages(libc, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2)
    return kept


def _ask_for_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """For the heap's next bytes, which are allocated and freed for that, and not touched."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(size)
    if start:
        page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(page, size - (page - start), mmap.MADV_HUGEPAGE)  # where refused, pages stay small
        libc.free(start)
