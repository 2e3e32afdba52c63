"""Runs a training up to its first step: config, data, folders and the compiled program.

    hourglass train --mode=compile --config=newell:stacks=2,dataset=lspet --workdir=runs/lspet
    hourglass train --mode=compile ... --topology=v5e:2x4

Without a topology the step is compiled for the devices of this machine, and cached where the training finds
it (`devices.keep_programs`). For a TPU's topology libtpu compiles it without a TPU, to check that it fits. A
training on the slice compiles again, because JAX caches programs by the machine's own devices.
"""

import functools
import os
import pathlib
import shutil
import time

import jax

from hourglass_jax import checkpoint, devices, extras, files, train
from hourglass_jax.benchmarks import scaling, tpu
from hourglass_jax.console import say
from hourglass_jax.data import pipeline
from hourglass_jax.training import step as steps
from hourglass_jax.training.workdir import Workdir, changes


def dry_run(config, workdir: str | os.PathLike, *, topology: str = "") -> dict:
    """Checks everything that a training needs and compiles its step; writes nothing to the workdir.

    Args:
      config: see `config_base.py`.
      workdir: the folder of the training.
      topology: a topology of TPUs, such as "v5e:2x4"; "": the devices of this machine.

    Returns:
      the printed values: bytes (held by a device), temporary, sent ({kind of collective: bytes of each}),
      seconds (of compiling), checkpoint (bytes).

    Raises:
      ValueError, OSError, ImportError: as the training would raise.
    """
    mesh = _mesh(topology) if topology else devices.mesh()
    run = train.prepare(config, mesh)
    if config.train.batch_size % mesh.size:
        raise ValueError(
            f"train.batch_size={config.train.batch_size} is not a multiple of {mesh.size} devices."
        )
    example = _first_batch(config, run)
    same, spread = devices.replicated(mesh), devices.sharded(mesh)
    fresh = functools.partial(
        steps.init,
        run.network.model,
        run.optimiser,
        seed=config.seed,
        size=run.network.size,
        average=config.train.average_decay > 0,
    )
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), jax.eval_shape(fresh)
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    _check_workdir(Workdir(workdir), run, size * (config.train.keep_latest + 2))
    say(
        f"Checked: the config, {len(run.source)} training and {len(run.validation)} validation people, "
        f"{workdir} and its disk; a checkpoint takes {size / 1e6:,.1f} MB."
    )
    batch = {
        name: jax.ShapeDtypeStruct((config.train.batch_size, *x.shape[1:]), x.dtype, sharding=spread)
        for name, x in example.items()
    }
    start = time.monotonic()
    program = run.step_for(run.plan.trained(0)).lower(state, batch).compile()
    seconds = time.monotonic() - start
    memory, text = program.memory_analysis(), program.as_text()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    sent = scaling.collectives(text)
    found = ", ".join(f"{len(sizes)} {kind} of {sum(sizes) / 1e6:.2f} MB" for kind, sizes in sent.items())
    place = topology or jax.devices()[0].device_kind
    say(
        f"Step on {mesh.size} x {place}, batch {config.train.batch_size}: each holds "
        f"{(held + memory.temp_size_in_bytes) / 1e9:.3f} GB ({memory.temp_size_in_bytes / 1e9:.3f} of it "
        f"temporary) and sends {found or 'nothing'}. Compiled in {seconds:.0f} s."
    )
    if not topology and (folder := jax.config.values["jax_compilation_cache_dir"]):
        say(f"The program is cached in {folder}, where the training finds it.")
    return {
        "bytes": held + memory.temp_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "sent": sent,
        "seconds": seconds,
        "checkpoint": size,
    }


def _mesh(topology: str) -> jax.sharding.Mesh:
    with extras.needed("libtpu", f"--topology={topology}"):
        import libtpu  # noqa: F401  JAX loads it by the topology's platform
    os.environ.update(tpu.described(topology))  # libtpu reads it when it is loaded
    jax.config.update("jax_platforms", "cpu")
    return tpu.mesh_of(topology)


def _first_batch(config, run: train.Prepared) -> dict:
    """A training example, as a batch of one; also reads a validation example."""
    read = {"batch_size": 1, "steps": 1, "threads": 1}
    next(pipeline.batches(run.validation, train=False, loader=run.validation.loader, **read))
    one = next(pipeline.batches(run.source, train=True, seed=config.seed, loader=run.source.loader, **read))
    return {name: one[name] for name in steps.INPUTS}


def _check_workdir(workdir: Workdir, run: train.Prepared, needed: int) -> None:
    """Raises OSError for a folder that is not writable or too small, ValueError for that of another run."""
    if files.in_bucket(workdir.path):  # a bucket has no size limit
        workdir.check_writable()
    else:
        _check_folder(workdir.path, needed)
    if workdir.config.exists() and (found := changes(files.read_json(workdir.config), run.metadata.config)):
        raise ValueError(f"--workdir={workdir} started with another config: {'; '.join(found)}.")
    if workdir.begun:
        with checkpoint.Checkpoints(workdir, read_only=True) as saved:
            train.check_data(workdir, saved, run.metadata.data)
            say(f"{workdir} has a checkpoint of step {saved.latest}, from which the training continues.")


def _check_folder(workdir: pathlib.Path, needed: int) -> None:
    """Raises OSError for a local folder that is not writable, or whose disk has fewer free bytes."""
    folder = next(path for path in (workdir, *workdir.resolve().parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"--workdir={workdir}: {folder} cannot be written; choose another one.")
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"--workdir={workdir}: the checkpoints take up to {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free; choose another one."
        )
