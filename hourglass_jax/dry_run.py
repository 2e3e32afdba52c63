"""Runs a training up to its first step: config, data, folders, the first network and the compiled programs.

    hourglass train --mode=compile --config=newell:stacks=2,dataset=lspet --workdir=runs/lspet
    hourglass train --mode=compile ... --topology=v5e:2x4  # or h100:8

Without a topology the step and the evaluation are compiled for the devices of this machine, and cached where
the training finds them (`devices.keep_programs`). With one they are compiled for accelerators that are not
here (`topologies`), to check that they fit. A training there compiles again, because JAX caches programs by
the machine's own devices.
"""

import os
import pathlib
import shutil
import time

import jax

from hourglass_jax import checkpoint, devices, evaluate, files, topologies, train
from hourglass_jax.benchmarks import hlo
from hourglass_jax.benchmarks.common import held
from hourglass_jax.console import say
from hourglass_jax.data import pipeline, sources
from hourglass_jax.training import finetune
from hourglass_jax.training import step as steps
from hourglass_jax.training.workdir import Workdir, changes


def dry_run(config, workdir: str | os.PathLike, *, topology: str = "") -> dict:
    """Checks everything that a training needs and compiles its programs; writes nothing to the workdir.

    Args:
      config: see `config_base.py`.
      workdir: the folder of the training.
      topology: see `topologies`, such as "v5e:2x4" or "h100:8"; "": the devices of this machine.

    Returns:
      the printed values: bytes (held by a device), temporary, sent ({kind of collective: bytes of each}),
      seconds (of compiling both programs), checkpoint (bytes), evaluation (bytes held by a device; None on
      one CPU, which evaluates by several small programs).

    Raises:
      ValueError, OSError, ImportError: as the training would raise.
    """
    mesh = topologies.mesh_of(topology) if topology else devices.mesh()
    run = train.prepare(config, mesh)
    for section in ("train", "evaluate"):
        devices.check_divides(config[section].batch_size, f"{section}.batch_size", mesh.size)
    example = _first_batch(config, run)
    averages = config.train.average_decay > 0
    abstract = steps.abstract(run.network.model, run.optimiser, size=run.network.size, average=averages)
    state = _placed(abstract, devices.replicated(mesh))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    _check_workdir(Workdir(workdir), run, size * (config.train.keep_latest + 2))
    _check_start(Workdir(workdir), config, run, abstract)
    say(
        f"Checked: the config, {len(run.source)} training and {len(run.validation)} validation people, "
        f"{workdir} and its disk; a checkpoint takes {size / 1e6:,.1f} MB."
    )
    place = topology or jax.devices()[0].device_kind
    step, taken = _compiled_step(config, run, state, example, mesh, place)
    evaluation, longer = _compiled_evaluation(config, run, state, mesh)
    if not topology and (folder := jax.config.values["jax_compilation_cache_dir"]):
        say(f"The programs are cached in {folder}, where the training finds them.")
    return step | {"seconds": taken + longer, "checkpoint": size, "evaluation": evaluation}


def _compiled_step(config, run: train.Prepared, state, example, mesh, place: str) -> tuple[dict, float]:
    """Compiles the step and prints its needs; returns that part of `dry_run`'s result, and the seconds."""
    spread = devices.sharded(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((config.train.batch_size, *x.shape[1:]), x.dtype, sharding=spread)
        for name, x in example.items()
    }
    start = time.monotonic()
    program = run.step_for(run.plan.trained(0)).lower(state, batch).compile()
    seconds = time.monotonic() - start
    memory, sent = program.memory_analysis(), hlo.collectives(program.as_text())
    listed = ", ".join(f"{len(sizes)} {kind} of {sum(sizes) / 1e6:.2f} MB" for kind, sizes in sent.items())
    say(
        f"Step on {mesh.size} x {place}, batch {config.train.batch_size}: each holds "
        f"{held(memory) / 1e9:.3f} GB ({memory.temp_size_in_bytes / 1e9:.3f} of it "
        f"temporary) and sends {listed or 'nothing'}. Compiled in {seconds:.0f} s."
    )
    return {"bytes": held(memory), "temporary": memory.temp_size_in_bytes, "sent": sent}, seconds


def _compiled_evaluation(config, run: train.Prepared, state, mesh) -> tuple[int | None, float]:
    """Compiles the evaluation, as `_compiled_step`; None in the place of the bytes on one CPU."""
    start = time.monotonic()
    evaluator = evaluate.Evaluator(  # of which the pictures do not lie on the devices
        run.network,
        run.validation,
        mesh,
        batch_size=config.evaluate.batch_size,
        protocol=evaluate.Protocol.from_config(config.evaluate, crop=sources.crops(config.data)),
    )
    program = evaluator.compiled(state.variables)
    seconds = time.monotonic() - start
    needed = None if program is None else held(program.memory_analysis())
    text = "" if needed is None else f"each holds {needed / 1e9:.3f} GB. "
    say(f"Evaluation, batch {config.evaluate.batch_size}: {text}Compiled in {seconds:.0f} s.")
    return needed, seconds


def _placed(abstract, sharding: jax.sharding.Sharding):
    """Abstract arrays, with a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract)


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
    if files.exists(workdir.config) and (
        found := changes(files.read_json(workdir.config), run.metadata.config)
    ):
        raise ValueError(f"--workdir={workdir} started with another config: {'; '.join(found)}.")


def _check_start(workdir: Workdir, config, run: train.Prepared, abstract) -> None:
    """Reads the state from which the training continues, or the network from which it starts, as it does.

    Raises:
      ValueError, OSError, ImportError: it cannot be read, or is of another network or of other data.
    """
    mesh = devices.mesh()  # of this machine: the topology's devices hold nothing
    if workdir.begun:
        with checkpoint.Checkpoints(workdir, read_only=True) as saved:
            train.check_data(workdir, saved, run.metadata.data)
            step = saved.latest
            assert step is not None  # it has begun
            saved.restore(step, _placed(abstract, devices.replicated(mesh)))
            say(f"{workdir} has a checkpoint of step {step}, from which the training continues.")
    elif config.train.init_from:
        for remark in finetune.load(config.train.init_from, run.network, mesh)[1]:
            say(remark)


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
