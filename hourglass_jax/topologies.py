"""Accelerators that are not here, for compiling without them: TPUs by libtpu, GPUs by JAX's CUDA plugin.

A name is that of the chips and their number: "v5e:2x4" is a grid of 8 TPUs, "h100:8" a node of 8 GPUs.
"""

import dataclasses
import importlib
import math
import os
import re

import jax
import numpy as np

from hourglass_jax import extras

TPUS = {"v5e": "v5litepod-{chips}", "v6e": "v6e-{chips}"}  # the chips -> libtpu's name of the machine


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The properties of a GPU that XLA asks for, from NVIDIA's data sheets and XLA's targets.

    Attributes:
      name: as the driver reports it.
      capability: CUDA's compute capability.
      cores: streaming multiprocessors, with `units` float32 units each.
      clock: GHz.
      memory: bytes.
      bandwidth: of the memory, bytes per second.
      cache: bytes of the second level.
      shared: bytes of shared memory of a multiprocessor; a block can use 1 KiB less.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    units: int
    clock: float
    memory: int
    bandwidth: int
    cache: int
    shared: int

    def target(self) -> str:
        """XLA's description of the target, a protocol buffer in its text form."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024
              threads_per_warp: 32
              threads_per_core_limit: 2048
              shared_memory_per_block: 49152
              shared_memory_per_core: {self.shared}
              shared_memory_per_block_optin: {self.shared - 1024}
              core_count: {self.cores}
              fpus_per_core: {self.units}
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              memory_bandwidth: {self.bandwidth}
              l2_cache_size: {self.cache}
              clock_rate_ghz: {self.clock}
              device_memory_size: {self.memory}
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 12 }}
            runtime_version {{ major: 13 }}
            device_description_str: "{self.name}"
        """


GPUS = {
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        units=64,
        clock=1.41,
        memory=80 << 30,
        bandwidth=2_039_000_000_000,
        cache=40 << 20,
        shared=164 << 10,
    ),
    "h100": Gpu(
        name="NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        cores=132,
        units=128,
        clock=1.98,
        memory=80 << 30,
        bandwidth=3_352_000_000_000,
        cache=50 << 20,
        shared=228 << 10,
    ),
}


def mesh_of(topology: str, chips: int | None = None) -> jax.sharding.Mesh:
    """A mesh of a topology's first chips, by default all. Programs can be compiled for it, but not run.

    This process's own programs are for CPUs from now on, and no programs are kept: those for absent chips
    cannot be read back. For TPUs this also sets the variables of `described`, which libtpu reads when it is
    loaded.

    Raises:
      ValueError: an unknown topology.
      ImportError: libtpu, or JAX's CUDA plugin, is not installed.
    """
    from jax.experimental import topologies

    kind, count = parsed(topology)
    compiler = "jax_cuda13_plugin" if kind in GPUS else "libtpu"
    with extras.needed(compiler, f"--topology={topology}"):
        importlib.import_module(compiler)  # JAX loads it by the topology's platform
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    if kind in GPUS:
        shape = {"target_config": GPUS[kind].target(), "topology": f"1x{count}x1"}  # cards of one machine
        found = topologies.get_topology_desc(platform="cuda", **shape)
    else:
        os.environ.update(described(topology))
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    chosen = np.array(found.devices[:chips])
    return jax.sharding.Mesh(chosen, ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def parsed(topology: str) -> tuple[str, int]:
    """(the kind of the chips, their number) of a topology.

    Raises:
      ValueError: it is not of the form "v5e:2x4" or "h100:8".
    """
    kind, _, shape = topology.partition(":")
    form = r"\d+(x\d+)+" if kind in TPUS else r"\d+"
    if kind not in TPUS | GPUS or not re.fullmatch(form, shape) or "0" in shape.split("x"):
        raise ValueError(
            f"--topology={topology}: expected a grid of TPUs, such as v5e:2x4, or a number of GPUs, such as "
            f"h100:8; chips are {', '.join(TPUS | GPUS)}."
        )
    return kind, math.prod(map(int, shape.split("x")))


def described(topology: str) -> dict[str, str]:
    """The environment variables that describe a topology of TPUs to libtpu on a machine without a TPU."""
    kind, chips = parsed(topology)
    return {
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server
        "TPU_ACCELERATOR_TYPE": TPUS[kind].format(chips=chips),
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no TPU to share
        "JAX_PLATFORMS": "cpu",
    }
