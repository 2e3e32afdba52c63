"""The training: one loop for all systems."""

import contextlib
import fcntl
import functools
import pathlib
import signal
import time

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from hourglass_jax import checkpoint, devices, evaluate, files
from hourglass_jax.config import completed, differences
from hourglass_jax.console import duration, say
from hourglass_jax.data import feed, pipeline, sources
from hourglass_jax.evaluation import results, sheets
from hourglass_jax.evaluation.scores import Scores
from hourglass_jax.media import draw
from hourglass_jax.network import network_of
from hourglass_jax.training import finetune, losses, optimizer, phases
from hourglass_jax.training import step as steps
from hourglass_jax.training.log import Log, Progress

# Values that may change under a workdir: they alter no step that is still to come (remat: but for rounding).
_FREE = (
    *("train.log_every", "train.evaluate_every", "train.save_every", "train.keep_latest"),
    *(
        "train.pictures",
        "train.tensorboard",
        "train.skip_nonfinite",
        "train.remat",
        "data.data_dir",
        "data.manual_dir",
        "data.packed_dir",
        "data.annotations",
        "data.images",
    ),
    *("data.source", "data.threads", "evaluate"),
)
_TOLD_SHARE = 0.05  # of the time, spent waiting for input


def train(config, workdir, *, allow_changed_config: bool = False) -> Scores | dict:
    """Trains to the end, or until SIGTERM or Ctrl-C; the same call again goes on.

    Args:
      config: as `configs/common.py` describes.
      workdir: gets config.json, checkpoints/, metrics.jsonl, TensorBoard's files and pictures/.
      allow_changed_config: go on although the config differs from the one that the workdir began with.

    Returns:
      the last evaluation's scores (`evaluation.scores.Scores`), {} if stopped before.

    Raises:
      ValueError: wrong values; FileNotFoundError: missing data; FloatingPointError: the loss diverged.
    """
    workdir = pathlib.Path(workdir)
    mesh = devices.mesh()
    devices.check_divides(config.train.batch_size, "train.batch_size")
    source = sources.open_source(config.data, train=True)
    validation = sources.open_source(config.data, train=False, skeleton=source.skeleton)
    metadata = {"config": config.to_dict(), "skeleton": source.skeleton.to_dict()}
    network = network_of(metadata)
    plan = phases.create(config.train.phases, len(source) / config.train.batch_size)
    phases.check(plan, network.model, network.size)
    last_step, rate, optimiser = make_optimizer(config, len(source), network.model, plan)
    step_for = functools.cache(functools.partial(make_step, config, network, source, optimiser, mesh))
    step_for(plan.trained(0))  # what is wrong with its values is said before anything is written

    initial, remarks = None, []
    # A save that was cut off leaves a folder whose name is more than a number.
    begun = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
    if config.train.init_from and not begun:
        initial, remarks = finetune.load(config.train.init_from, network, mesh)

    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(workdir))
        check_config(workdir, metadata["config"], allow_changed_config)
        saved = stack.enter_context(checkpoint.Checkpoints(workdir, keep_latest=config.train.keep_latest))
        state = make_state(config, network, optimiser, mesh, saved, initial)
        step = int(state.step)
        resident = config.data.source == "device"
        threads = config.data.threads or None
        fed = feed.create(source, mesh, resident=resident, threads=threads)
        evaluator = evaluate.Evaluator(
            network,
            validation,
            mesh,
            batch_size=config.evaluate.batch_size,
            resident=resident,
            protocol=evaluate.Protocol.from_config(config.evaluate),
        )
        log = stack.enter_context(Log(workdir, step, tensorboard=config.train.tensorboard))
        stop = stack.enter_context(Stop())
        describe(config, network, state, source, validation, last_step)
        for remark in remarks:
            say(remark)
        if on_test := sources.validates_on_test(config.data):
            say(
                "Validation is on a test split: no checkpoint is chosen by its scores, the latest one counts."
            )
        if plan.round:
            say(f"Phases of training, repeated: {plan}.")
        batches = fed.batches(
            train=True,
            batch_size=config.train.batch_size,
            seed=config.seed,
            start_step=step,
            steps=max(last_step - step, 0),
            threads=threads,
        )
        stack.enter_context(contextlib.closing(batches))
        progress, waiting, scores = Progress(step, last_step), [], {}
        skipped = 0

        # A step is done when its metrics are there; what is logged already is done.
        def idle():
            return not waiting or waiting[-1]["loss"].is_ready()

        for batch in progress.waiting(batches, idle):
            state, metrics = step_for(plan.trained(step))(state, fed.put(batch, steps.INPUTS))
            waiting.append(metrics)
            step += 1
            last = step == last_step or stop.asked(step)
            evaluated = step % config.train.evaluate_every == 0 or step == last_step
            kept = evaluated or last or step % config.train.save_every == 0

            if kept or step % config.train.log_every == 0:
                values, broken = mean_of(waiting, step)
                waiting = []
                skipped += len(broken)
                if skipped > config.train.skip_nonfinite:
                    raise diverged(config, source, workdir, *broken[0], saved.latest)
                if broken:
                    values["skipped"] = len(broken)
                    say(f"Skipped {len(broken)} steps without a finite loss and gradient ({skipped} in all).")
                pace, values["input_share"], left = progress.lap(step)
                values["learning_rate"] = float(rate(step - 1)) * optimizer.plateau_scale(state.optimizer)
                values["images_per_second"] = config.train.batch_size / pace
                log.scalars(step, values)
                say(line(step, last_step, values, left))

            if evaluated:
                start = time.monotonic()
                predictions = evaluator.predict(state.variables, pictures=config.train.pictures)
                scores = results.score_predictions(
                    predictions, network.skeleton, metric=config.evaluate.metric
                )
                log.scalars(step, {f"validation/{k}": v for k, v in scores.scalars().items()})
                say(evaluate.report(scores))
                if jax.process_index() == 0 and predictions.pictures:
                    picture = sheets.predictions_sheet(predictions, network)
                    draw.save(workdir / "pictures" / f"validation_{step:07d}.png", picture)
                    log.pictures(step, {"validation: annotated, predicted, heatmaps": picture})
                    if (picture := sheets.attention_sheet(predictions)) is not None:
                        draw.save(workdir / "pictures" / f"attention_{step:07d}.png", picture)
                        log.pictures(step, {"attention": picture})
                progress.away(time.monotonic() - start)

            if kept:
                chosen_by = scores["table"]["Mean"] if evaluated and not on_test else None
                saved.save(state, metadata, chosen_by)
            if last:
                break
        saved.wait()
    if step < last_step:
        say(f"Stopped after step {step}, which is saved; the same command goes on from there.")
    elif not scores:
        say(f"Trained to step {step} already; --mode=evaluate evaluates it, another --workdir starts anew.")
    return scores


def make_optimizer(config, examples: int, model=None, plan: phases.Phases = phases.ALL):
    """The last step, the learning rate by step, and the optimiser; phases need the model's tasks."""
    options = config.optimizer.to_dict()
    epoch = examples / config.train.batch_size  # steps
    last_step = config.train.steps or max(round(config.train.epochs * epoch), 1)
    kind, patience, factor = options.pop("schedule"), options.pop("patience", 0), options["factor"]
    rate = optimizer.schedule(
        steps=last_step,
        kind=kind,
        # A round of phases ends like an epoch of the milestones.
        milestones=[round(m * epoch) for m in options.pop("milestones")] + plan.rounds(last_step),
        **{key: options.pop(key) for key in ("learning_rate", "factor", "warmup_steps")},
    )
    if kind == "plateau":
        if plan.round or patience < 1:
            raise ValueError(
                "optimizer.schedule=plateau needs optimizer.patience of 1 epoch or more, and no train.phases."
            )
        steps = optimizer.create(rate, **options)
        window = max(round(epoch), 1)
        return last_step, rate, optimizer.plateau(steps, factor=factor, patience=patience, window=window)
    if plan.round:
        labels = functools.partial(phases.labels, model)
        return last_step, rate, optimizer.by_label(rate, labels, model.tasks, **options)
    return last_step, rate, optimizer.create(rate, **options)


def make_step(config, network, source, optimiser, mesh, trained=None, *, forms_of: str | None = None):
    """The compiled train step; it trains some tasks of the model (see `phases`), or all that there is.

    `forms_of`: see `devices.jit`.
    """
    options = config.loss.to_dict()
    kernel_weight, activity_weight = options.pop("kernel_weight"), options.pop("activity_weight", 0.0)
    step = steps.make(
        network.model,
        optimiser,
        geometry=steps.Geometry(source.canvas, source.margin, network.size),
        flip_order=network.skeleton.flip,
        seed=config.seed,
        mean=network.mean,
        augmentation=config.augment.to_dict(),
        loss=losses.named(size=network.size, **options),
        measure=losses.measure(size=network.size, **options),
        kernel_weight=kernel_weight,
        activity_weight=activity_weight,
        average_decay=config.train.average_decay,
        accumulate=config.train.accumulate,
        policy=config.train.remat,
        trained=trained,
    )
    return steps.compiled(step, mesh, forms_of=forms_of)


def make_state(config, network, optimiser, mesh, saved, initial=None) -> steps.State:
    """A fresh state, or the workdir's latest one, on the mesh.

    initial: variables with which a fresh state begins, see `finetune.load`; None for random ones.
    """
    fresh = functools.partial(
        steps.init,
        network.model,
        optimiser,
        seed=config.seed,
        size=network.size,
        average=config.train.average_decay > 0,
    )
    same = devices.replicated(mesh)
    if saved.latest is None:
        state = jax.device_put(fresh(), same)
        return state if initial is None else _begin(state, initial, same)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), jax.eval_shape(fresh)
    )
    return saved.restore(saved.latest, like)


def _begin(state, taken: dict, sharding) -> steps.State:
    """A fresh state with some of its variables taken from elsewhere, by their names (`finetune.load`)."""
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    values = traverse_util.flatten_dict(jax.device_get(fresh), sep="/") | taken
    values = traverse_util.unflatten_dict(values, sep="/")
    state = state.replace(**jax.device_put(values, sharding))
    # Copies: the step gives away the memory of each.
    return state.replace(averaged=jax.device_put(values, sharding) if state.averaged is not None else None)


def mean_of(metrics: list[dict], last: int) -> tuple[dict[str, float], list[tuple[int, dict]]]:
    """Means over the steps up to `last`, fetched from the devices.

    Returns:
      the means over the steps with a finite loss and gradient, and (step, values) of the others.
    """
    fetched = [{k: float(v) for k, v in values.items()} for values in jax.device_get(metrics)]
    numbered = list(enumerate(fetched, start=last - len(fetched) + 1))
    sound, broken = [], []
    for step, values in numbered:
        finite = np.isfinite([values["loss"], values["gradient_norm"]]).all()
        (sound if finite else broken).append((step, values))
    used = [values for _, values in sound or broken]
    return {name: float(np.mean([values[name] for values in used])) for name in used[0]}, broken


def diverged(config, source, workdir, step: int, values: dict, saved_step: int | None) -> FloatingPointError:
    """The error that ends a run; the step's batch is written to the workdir, to look at.

    The step changed nothing, and the checkpoint before it leads to it again, bit by bit.
    """
    name = "loss" if not np.isfinite(values["loss"]) else "gradient_norm"
    again = {"batch_size": config.train.batch_size, "seed": config.seed, "loader": source.loader}
    batches = pipeline.batches(source, train=True, start_step=step - 1, steps=1, **again)
    path = workdir / f"diverged_{step:07d}.npz"
    with contextlib.closing(batches):
        batch = next(batches)
    ids = [source.ids[i] for i in batch["index"]]
    if jax.process_index() == 0:
        with files.replacing(path) as file:
            np.savez(file, ids=ids, **batch, **{f"step_{k}": v for k, v in values.items()})
    last = "nothing is saved yet" if saved_step is None else f"the last checkpoint is of step {saved_step}"
    what = {"loss": "loss", "gradient_norm": "gradient's norm"}[name]
    return FloatingPointError(
        f"The {what} is {values[name]} at step {step}; {last}. A smaller optimizer.learning_rate or a limit "
        f"optimizer.clip_norm may help; train.skip_nonfinite skips single steps. The batch is in {path}: "
        f"{', '.join(ids[:4])}{' ...' if len(ids) > 4 else ''}."
    )


def line(step: int, last_step: int, values: dict, left: float) -> str:
    """One line of progress; it names the wait for input where that is more than a few per cent."""
    share = values["input_share"]
    waits = f"input {100 * share:.0f}% of the time  " if share > _TOLD_SHARE else ""
    return (
        f"step {step}/{last_step} ({100 * step / last_step:.0f}%)  loss {values['loss']:.5f}  "
        f"lr {values['learning_rate']:.2e}  {values['images_per_second']:.1f} images/s  {waits}"
        f"left {duration(left)}"
    )


def describe(config, network, state, source, validation, last_step) -> None:
    """The run's first lines: model, data, devices."""
    count = sum(x.size for x in jax.tree.leaves(state.params))
    say(
        f"{config.model.name}: {count:,} parameters, {network.size} px, {config.model.dtype}; "
        f"{source.name}: {len(source)} people, validation {len(validation)}; "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, batch {config.train.batch_size}."
    )
    if step := int(state.step):
        say(f"Goes on after step {step} of {last_step}.")


class Stop:
    """Notices SIGTERM and Ctrl-C; a second Ctrl-C stops at once."""

    def __init__(self):
        self._noticed = False

    def __enter__(self):
        self._before = {s: signal.signal(s, self._notice) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number, frame):
        if self._noticed and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._noticed = True
        say(f"{signal.Signals(number).name}: saving after this step.")

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; all processes agree."""
        if jax.process_count() == 1:
            return self._noticed
        if step % 10:  # the processes have to talk about it, so not at every step
            return False
        return bool(multihost_utils.process_allgather(np.array(self._noticed)).any())


@contextlib.contextmanager
def locked(workdir: pathlib.Path):
    """Keeps a second training out of the workdir; the lock ends with the process, however it ends."""
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index():
        yield
        return
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{workdir}: another training is running in this workdir.") from None
        yield


def check_config(workdir: pathlib.Path, config: dict, allow_changed: bool) -> None:
    """Writes config.json, or compares with the one that is there.

    Raises:
      ValueError: the config differs in what the coming steps depend on; the message lists it.
    """
    path = workdir / "config.json"
    if path.exists() and not allow_changed:
        differ = differences(completed(files.read_json(path), config), config)
        differ = [text for text in differ if not text.startswith(_FREE)]
        if differ:
            raise ValueError(
                f"{workdir} began with another config: {'; '.join(differ)}. Choose another --workdir, or "
                "go on with --allow_changed_config."
            )
    if jax.process_index() == 0:
        files.write_json(path, config)
