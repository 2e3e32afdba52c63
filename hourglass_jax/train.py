"""Training: one loop for all systems."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from hourglass_jax import checkpoint, devices, evaluate, files
from hourglass_jax.console import duration, say
from hourglass_jax.data import feed, pipeline, sources
from hourglass_jax.data.examples import Source
from hourglass_jax.evaluation import results, sheets
from hourglass_jax.evaluation.scores import Scores
from hourglass_jax.media import draw
from hourglass_jax.network import Metadata, Network, network_of
from hourglass_jax.training import finetune, losses, optimizer, phases, processes, writers
from hourglass_jax.training import step as steps
from hourglass_jax.training.log import Log, Profile, Progress
from hourglass_jax.training.stopping import Patience, Stop
from hourglass_jax.training.workdir import Workdir

_NAMED_SHARE = 0.05  # least share of the time spent waiting for input that is shown


def train(
    config, workdir, *, allow_changed_config: bool = False, allow_changed_data: bool = False
) -> Scores | dict:
    """Trains to the end, or until SIGTERM or Ctrl-C; the same call then continues the training.

    Args:
      config: as `configs/common.py` describes.
      workdir: gets config.json, checkpoints/, metrics.jsonl, TensorBoard's files and pictures/.
      allow_changed_config: continue although the config differs from the one with which the workdir started.
      allow_changed_data: continue although the training examples differ from those of the latest checkpoint.

    Returns:
      the last evaluation's scores (`evaluation.scores.Scores`), or {} if the training stopped before it.

    Raises:
      ValueError: wrong values; FileNotFoundError: missing data; FloatingPointError: the loss diverged.
    """
    workdir = Workdir(workdir)
    mesh = devices.mesh()
    processes.together(workdir.check_writable)
    run = processes.together(lambda: prepare(config, mesh))
    initial, remarks = _agreed_start(config, run, workdir, mesh)
    with contextlib.ExitStack() as stack:
        saved = _opened(stack, config, run, workdir, allow_changed_config, allow_changed_data)
        state = make_state(config, run.network, run.optimiser, mesh, saved, initial)
        step, last_step = int(state.step), run.last_step
        before = Metadata() if saved.latest is None else saved.metadata(saved.latest)
        due, patience = bool(before.due), Patience(config.train.stop_after, before.stopping)
        fed = feed.create(
            run.source,
            mesh,
            resident=config.data.source == "device",
            threads=config.data.threads or None,
        )
        validate = Validation(config, run, mesh, workdir)
        stack.enter_context(processes.ending_when_one_is_lost())
        log = stack.enter_context(
            Log(
                workdir,
                step,
                tensorboard=config.train.tensorboard,
                track=config.train.track,
                config=run.metadata.config,
                due=due,
            )
        )
        profile = stack.enter_context(Profile(config.train.profile, log.folder))
        stop = stack.enter_context(Stop())
        processes.introduce()
        describe(config, run.network, state, run.source, run.validation, last_step)
        if not step:
            log.parameters(step, state.params)
        for remark in remarks + run.remarks:
            say(remark)
        batches = fed.batches(
            train=True,
            batch_size=config.train.batch_size,
            seed=config.seed,
            start_step=step,
            steps=max(last_step - step, 0),
            threads=config.data.threads or None,
        )
        stack.enter_context(contextlib.closing(batches))
        progress = Progress(step, last_step)
        lines = _Lines(config, run, workdir, log, progress, saved)
        scores, read = {}, False

        # The run was stopped before it evaluated this step.
        if due and (found := validate(step, state, log, stop)) is not None:
            scores, due = found, False
            patience.add(validate.chosen_by(scores))
            metadata = dataclasses.replace(run.metadata, stopping=patience.to_dict())
            saved.replace(state, metadata, validate.chosen_by(scores))
        for batch in progress.waiting(batches, lines.idle) if not (due or patience.over) else ():
            profile.before(step + 1)
            state, metrics = run.step_for(run.plan.trained(step))(state, fed.put(batch, steps.INPUTS))
            lines.add(metrics)
            step += 1
            profile.after(step, metrics)
            stopped = stop.asked(step)
            evaluated = step % config.train.evaluate_every == 0 or step == last_step
            last = step == last_step or stopped
            kept = evaluated or last or step % config.train.save_every == 0

            if kept or step % config.train.log_every == 0:
                lines.write(step, state)

            due = evaluated
            if evaluated and not stopped:
                start = time.monotonic()
                if (found := validate(step, state, log, stop)) is not None:
                    scores, due = found, False
                    patience.add(validate.chosen_by(scores))
                progress.away(time.monotonic() - start)
                stopped = stopped or due or patience.over

            if kept:
                log.push()  # upload the lines up to this step before the checkpoint that continues after it
                metadata = dataclasses.replace(
                    run.metadata, due="evaluation" if due else "", stopping=patience.to_dict()
                )
                saved.save(state, metadata, validate.chosen_by(scores) if evaluated and not due else None)
                if not read and not stopped:  # before hours of work depend on an unreadable checkpoint
                    saved.read_back(state)
                    read = True
            if last or stopped:
                break
        saved.wait()
    if patience.over:
        say(f"Ended after step {step} of {last_step}: {patience}.")
    elif step < last_step or due:
        say(f"Stopped after step {step}, which is saved; the same command continues from there.")
    elif not scores:
        say(f"Already trained to step {step}. Use `hourglass evaluate`, or choose another --workdir.")
    return scores


def _agreed_start(config, run: "Prepared", workdir: Workdir, mesh) -> tuple[Any, list[str]]:
    """Checks that all processes have the same task, then loads the variables from which a fresh state starts.

    Returns:
      the variables, or None for random ones or if the workdir has a checkpoint; lines for the console.
    """
    begun = workdir.begun
    processes.agree(
        {
            "config": shared_values(run.metadata.config),
            "people in training": len(run.source),
            "people in validation": len(run.validation),
            "training data": run.metadata.data,
            "workdir has a checkpoint": begun,
        }
    )
    if begun or not config.train.init_from:
        return None, []
    return processes.together(lambda: finetune.load(config.train.init_from, run.network, mesh))


def _opened(
    stack: contextlib.ExitStack,
    config,
    run: "Prepared",
    workdir: Workdir,
    allow_changed_config: bool,
    allow_changed_data: bool,
) -> checkpoint.Checkpoints:
    """Locks the workdir and compares it with the run; returns its checkpoints, which `stack` closes."""
    processes.together(lambda: stack.enter_context(workdir.locked()))
    processes.together(
        lambda: workdir.check_config(
            run.metadata.config, allow_changed=allow_changed_config, examples=len(run.source)
        )
    )
    saved = stack.enter_context(checkpoint.Checkpoints(workdir, keep_latest=config.train.keep_latest))
    if not allow_changed_data:
        check_data(workdir, saved, run.metadata.data)
    return saved


class _Lines:
    """The lines of a training in its log and on the console: means over the steps since the previous line."""

    def __init__(self, config, run: "Prepared", workdir: Workdir, log: Log, progress: Progress, saved):
        self._config, self._run, self._workdir = config, run, workdir
        self._log, self._progress, self._saved = log, progress, saved
        self._waiting, self._skipped = [], 0

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of the next step, which the devices may still be computing."""
        self._waiting.append(metrics)

    def idle(self) -> bool:
        """Whether the devices have nothing to do: a step is finished when its metrics are available."""
        return not self._waiting or self._waiting[-1]["loss"].is_ready()

    def write(self, step: int, state: steps.State) -> None:
        """Waits for the steps up to this one, and writes a line.

        Raises:
          FloatingPointError: more of the run's steps than allowed were not finite.
        """
        config, run = self._config, self._run
        values, broken = mean_of(self._waiting, step)
        self._waiting = []
        self._skipped += len(broken)
        if self._skipped > config.train.skip_nonfinite:
            raise diverged(config, run.source, self._workdir, *broken[0], self._saved.latest)
        if broken:
            values["skipped"] = len(broken)
            say(f"Skipped {len(broken)} steps without a finite loss and gradient ({self._skipped} in all).")
        pace, values["input_share"], left = self._progress.lap(step)
        rate = float(np.asarray(run.rate(step - 1)))
        values["learning_rate"] = rate * optimizer.plateau_scale(state.optimizer)
        values["images_per_second"] = config.train.batch_size / pace
        self._log.scalars(step, values)
        say(line(step, run.last_step, values, left))


class Prepared(NamedTuple):
    """A training before its first step.

    Attributes:
      source, validation: the people to train with and the people to evaluate with.
      metadata: of its checkpoints.
      network: without its variables.
      plan: which tasks are trained at which step.
      last_step, rate, optimiser: see `make_optimizer`.
      step_for: tasks of a phase -> the compiled train step.
      remarks: lines for the console.
    """

    source: Source
    validation: Source
    metadata: Metadata
    network: Network
    plan: phases.Phases
    last_step: int
    rate: Callable
    optimiser: Any
    step_for: Callable
    remarks: list[str]


def prepare(config, mesh) -> Prepared:
    """Prepares a training, with all checks that are possible before anything is written."""
    check_seed(config.seed)
    devices.check_divides(config.train.batch_size, "train.batch_size")
    whole = jax.process_count() == 1
    source = sources.open_source(config.data, train=True, whole=whole)
    validation = sources.open_source(config.data, train=False, skeleton=source.skeleton, whole=whole)
    metadata = Metadata(config.to_dict(), source.skeleton.to_dict(), data=getattr(source, "fingerprint", ""))
    network = network_of(metadata)
    plan = phases.plan(config.train.phases, optimizer.epoch_steps(config.train, len(source)))
    phases.check(plan, network.model, network.size)
    last_step, rate, optimiser = make_optimizer(config, len(source), network.model, plan)
    step_for = functools.cache(functools.partial(make_step, config, network, source, optimiser, mesh))
    step_for(plan.trained(0))
    Profile.check(config.train.profile)
    if jax.process_index() == 0:
        writers.trackers(config.train.track)
    remarks = []
    if sources.validates_on_test(config.data):
        if config.train.stop_after:
            raise ValueError("train.stop_after: a test split must not end a training; validate on another.")
        remarks.append(
            "Validation is on a test split: its scores do not choose a checkpoint, the latest one is used."
        )
    if plan.round:
        remarks.append(f"Phases of training, repeated: {plan}.")
    return Prepared(
        source, validation, metadata, network, plan, last_step, rate, optimiser, step_for, remarks
    )


class Validation:
    """Evaluates the network during a training."""

    def __init__(self, config, run: Prepared, mesh, workdir: Workdir):
        self._config, self._workdir = config, workdir
        self._network, self._people = run.network, run.validation
        self._protocol = evaluate.Protocol.from_config(config.evaluate, crop=sources.crops(config.data))
        self._evaluator = evaluate.Evaluator(
            run.network,
            run.validation,
            mesh,
            batch_size=config.evaluate.batch_size,
            resident=config.data.source == "device",
            protocol=self._protocol,
        )

    def __call__(self, step: int, state: steps.State, log: Log, stop: Stop) -> Scores | None:
        """Evaluates, logs and draws; returns None if the training has to stop before it is done."""

        def progress(done: int) -> None:
            if done < len(self._people) and stop.noticed:
                raise InterruptedError

        try:
            predictions = self._evaluator.predict(
                state.variables, pictures=self._config.train.pictures, progress=progress
            )
        except InterruptedError:
            return None
        scores = results.score_predictions(
            predictions, self._network.skeleton, metric=self._config.evaluate.metric
        )
        log.scalars(step, {f"validation/{k}": v for k, v in scores.scalars().items()})
        say(f"{self._people.name}, step {step}, {len(self._people)} people; {self._protocol}")
        say(evaluate.report(scores))
        if jax.process_index() == 0 and predictions.pictures:
            self._draw(step, predictions, log)
        return scores

    def _draw(self, step: int, predictions: evaluate.Predictions, log: Log) -> None:
        picture = sheets.predictions_sheet(predictions, self._network)
        draw.save(self._workdir.pictures / f"validation_{step:07d}.png", picture)
        log.pictures(step, {"validation: annotated, predicted, heatmaps": picture})
        if (picture := sheets.attention_sheet(predictions)) is not None:
            draw.save(self._workdir.pictures / f"attention_{step:07d}.png", picture)
            log.pictures(step, {"attention": picture})

    def chosen_by(self, scores: Scores | dict) -> float | None:
        """The score by which the best checkpoint is chosen; None on a test split."""
        return None if sources.validates_on_test(self._config.data) else scores["table"]["Mean"]


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that NumPy cannot use, or of which JAX would use only the lower half."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} is out of range; choose 0 to {2**32 - 1}.")


def shared_values(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the values that may differ between machines."""
    machine = ("data_dir", "manual_dir", "packed_dir", "annotations", "images", "threads")
    data = {name: value for name, value in config["data"].items() if name not in machine}
    return config | {"data": data}


def check_data(workdir: Workdir, saved: checkpoint.Checkpoints, fingerprint: str) -> None:
    """Compares the training's examples with those of the latest checkpoint, if both are known.

    Raises:
      ValueError: they differ, so that the coming steps would not be those of the run.
    """
    if saved.latest is None:
        return
    before = saved.metadata(saved.latest).data
    if before and fingerprint and before != fingerprint:
        raise ValueError(
            f"{workdir} was trained on other data than the present ones (fingerprints {before[:8]} and "
            f"{fingerprint[:8]}); choose another --workdir, or continue with --allow_changed_data."
        )


def make_optimizer(config, examples: int, model: Any = None, plan: phases.Phases = phases.ALL):
    """The last step, the learning rate as a function of the step, and the optimiser.

    Phases need the model's tasks."""
    options = config.optimizer.to_dict()
    epoch = optimizer.epoch_steps(config.train, examples)
    last_step = optimizer.last_step(config.train, examples)
    kind, patience, factor = options.pop("schedule"), options.pop("patience", 0), options["factor"]
    rate = optimizer.schedule(
        steps=last_step,
        kind=kind,
        # The end of a round of phases counts as a milestone.
        milestones=[round(m * epoch) for m in options.pop("milestones")] + plan.rounds(last_step),
        **{key: options.pop(key) for key in ("learning_rate", "factor", "warmup_steps")},
    )
    if kind == "plateau":
        if plan.round or patience < 1:
            raise ValueError(
                "optimizer.schedule=plateau needs optimizer.patience of 1 epoch or more, and no train.phases."
            )
        steps = optimizer.transformation(rate, **options)
        window = max(round(epoch), 1)
        return last_step, rate, optimizer.plateau(steps, factor=factor, patience=patience, window=window)
    if plan.round:
        labels = functools.partial(phases.labels, model)
        return last_step, rate, optimizer.by_label(rate, labels, model.tasks, **options)
    return last_step, rate, optimizer.transformation(rate, **options)


def make_step(config, network, source, optimiser, mesh, trained=None, *, forms_of: str | None = None):
    """The compiled train step; it trains some tasks of the model (see `phases`), or all of them.

    `forms_of`: see `devices.jit`.
    """
    options = config.loss.to_dict()
    left_out = losses.indices(network.skeleton, options.pop("leave_out", ()))
    kernel_weight, activity_weight = options.pop("kernel_weight"), options.pop("activity_weight", 0.0)
    loss = losses.without(losses.named(size=network.size, **options), left_out)
    assert loss is not None  # `without` returns None for None only
    step = steps.make(
        network.model,
        optimiser,
        geometry=steps.Geometry(source.canvas, source.margin, network.size),
        flip_order=network.skeleton.flip,
        seed=config.seed,
        mean=network.mean,
        augmentation=config.augment.to_dict(),
        loss=loss,
        measure=losses.without(losses.measure(size=network.size, **options), left_out),
        kernel_weight=kernel_weight,
        activity_weight=activity_weight,
        average_decay=config.train.average_decay,
        accumulate=config.train.accumulate,
        policy=config.train.remat,
        norm_group=config.train.norm_group,
        trained=trained,
    )
    return steps.compiled(step, mesh, forms_of=forms_of)


def make_state(config, network, optimiser, mesh, saved, initial=None) -> steps.State:
    """A fresh state, or the workdir's latest state, on the mesh.

    initial: variables from which a fresh state starts, see `finetune.load`; None for random ones.
    """
    options = {"size": network.size, "average": config.train.average_decay > 0}
    same = devices.replicated(mesh)
    if saved.latest is None:
        fresh = steps.init(network.model, optimiser, seed=config.seed, **options)
        state = jax.device_put(fresh, same)
        return state if initial is None else _begin(state, initial, same)
    shapes = steps.abstract(network.model, optimiser, **options)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), shapes)
    return saved.restore(saved.latest, like)


def _begin(state, taken: dict, sharding) -> steps.State:
    """A fresh state with some of its variables replaced, by their names (`finetune.load`)."""
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    values = traverse_util.flatten_dict(jax.device_get(fresh), sep="/") | taken
    values = traverse_util.unflatten_dict(values, sep="/")
    state = state.replace(**jax.device_put(values, sharding))
    # Make a second copy: the step reuses the memory of each array.
    return state.replace(averaged=jax.device_put(values, sharding) if state.averaged is not None else None)


def mean_of(metrics: list[dict], last: int) -> tuple[dict[str, float], list[tuple[int, dict]]]:
    """Fetches the metrics from the devices and averages them over the steps up to `last`.

    Returns:
      the means over the steps with a finite loss and gradient, and (step, values) of the other steps.
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
    """The error that ends a run; the step's batch is written to the workdir for inspection.

    The step changed nothing, and training from the checkpoint before it reaches it again with the same bits.
    """
    name = "loss" if not np.isfinite(values["loss"]) else "gradient_norm"
    again = {"batch_size": config.train.batch_size, "seed": config.seed, "loader": source.loader}
    batches = pipeline.batches(source, train=True, start_step=step - 1, steps=1, **again)
    path = workdir.diverged(step)
    with contextlib.closing(batches):
        batch = next(batches)
    ids = [source[int(i)]["id"] for i in batch["index"]]  # `source.ids` may read a whole split on each host
    if jax.process_index() == 0:
        with files.replacing(path) as file:
            arrays: dict[str, Any] = batch | {f"step_{k}": v for k, v in values.items()}
            np.savez(file, ids=ids, **arrays)
    last = "nothing is saved yet" if saved_step is None else f"the last checkpoint has step {saved_step}"
    what = {"loss": "loss", "gradient_norm": "gradient's norm"}[name]
    return FloatingPointError(
        f"The {what} is {values[name]} at step {step}; {last}. A smaller optimizer.learning_rate or a limit "
        f"optimizer.clip_norm may help; train.skip_nonfinite skips single steps. The batch is in {path}: "
        f"{', '.join(ids[:4])}{' ...' if len(ids) > 4 else ''}."
    )


def line(step: int, last_step: int, values: dict, left: float) -> str:
    """One line of progress; it shows the wait for input if that is more than a few per cent."""
    share = values["input_share"]
    waits = f"input {100 * share:.0f}% of the time  " if share > _NAMED_SHARE else ""
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
        say(f"Continues after step {step} of {last_step}.")
