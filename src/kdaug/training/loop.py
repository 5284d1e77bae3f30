"""Training, from a recipe to a finished run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from rich.console import Console

from kdaug import config
from kdaug.config import Recipe
from kdaug.data.loader import prefetch
from kdaug.errors import InputError
from kdaug.networks import count_parameters, save_weights
from kdaug.runs import (
    MetricsWriter,
    RunDirectory,
    describe_environment,
    find_run,
    open_run,
    read_metrics,
    record_environment,
)
from kdaug.runs.directory import list_checkpoints
from kdaug.runs.metrics import truncate_metrics
from kdaug.runs.trackers import TensorBoard, Tracker, open_trackers
from kdaug.supervision import LabelStore, Teacher, open_label_store
from kdaug.training.adversarial import drop_auxiliary_norms
from kdaug.training.batches import dataset_fingerprint, training_batches
from kdaug.training.checkpoints import (
    full_state_dict,
    load_newest_checkpoint,
    remove_checkpoint,
    require_finite,
    save_checkpoint,
)
from kdaug.training.clean_log_probs import prepare_trust
from kdaug.training.context import (
    TrainContext,
    build_context,
    check_trainable,
    create_student,
    evaluate_on_validation,
    example_input,
    load_checked_teacher,
)
from kdaug.training.distributed import DistContext, SyncFlags, distributed_context, is_lost_connection
from kdaug.training.evaluation import Scores
from kdaug.training.interrupt import Interrupted, stop_on_signal
from kdaug.training.optim import LearningRate, create_ema, create_optimizer, create_scaler
from kdaug.training.parallel import place_network, wrap_ddp
from kdaug.training.progress import RunProgress, print_line, progress_bar
from kdaug.training.resolve import resolve, teacher_run_recipe
from kdaug.training.state import Diverged, TrainState
from kdaug.training.step import train_step
from kdaug.training.step_log import StepLog

T = TypeVar("T")


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its directory, the errors in percent of its final weights, and the lowest seen on the way."""

    directory: Path
    top1_error: float
    top5_error: float
    best_top1_error: float


def train(recipe: Recipe, console: Console | None = None) -> TrainResult:
    """Trains `recipe` in its run directory; a teacher that must be trained is trained first, once, and reused.

    Under torchrun, all its processes train together. Raises InputError for what the user can mend, and Interrupted
    after Ctrl-C or SIGTERM, with a checkpoint written, or when another of the processes was lost.
    """
    with distributed_context() as dist:
        return _train_in(dist, recipe, console or Console(quiet=not dist.is_rank0))


def _train_in(dist: DistContext, recipe: Recipe, console: Console) -> TrainResult:
    recipe = resolve(recipe)
    directory, finished = dist.run_on_rank0(lambda: _find(recipe))
    if finished:
        print_line(console, f"{directory.path} is finished already")
        return _outcome(directory, dist)
    context = build_context(recipe, console, dist)
    check_trainable(context)
    teacher = _given_teacher(context)
    with ExitStack() as held, stop_on_signal() as stop:
        dist.run_on_rank0(partial(_hold, held, directory, recipe))
        try:
            _train(context, teacher or _trained_teacher(context, directory.path), directory, stop)
        except Diverged as reason:
            kept = "the checkpoint before it is" if list_checkpoints(directory.checkpoints) else "no checkpoint was"
            raise InputError(
                f"{reason}; training stopped, {kept} kept. Lower optimization.learning_rate or supervision.weight, in "
                "a new --run.dir"
            ) from None
        except RuntimeError as error:
            if not dist.is_distributed or not is_lost_connection(error):
                raise
            raise Interrupted(directory.path, "another process of this run was lost") from error
    return _outcome(directory, dist)


def _find(recipe: Recipe) -> tuple[RunDirectory, bool]:
    directory = find_run(recipe)
    return directory, directory.is_finished


def _hold(held: ExitStack, directory: RunDirectory, recipe: Recipe) -> None:
    held.enter_context(open_run(directory, recipe))


@dataclass(frozen=True)
class _Run:
    """A run under way: what stays, what changes, and where it is written and shown."""

    context: TrainContext
    state: TrainState
    directory: RunDirectory
    metrics: MetricsWriter
    log: StepLog
    progress: RunProgress


def _train(context: TrainContext, teacher: Teacher | LabelStore | None, directory: RunDirectory, stop: Event) -> None:
    """From the newest checkpoint, or the first step, to the final files."""
    dist, report = context.dist, partial(print_line, context.console)
    prepare_trust(context, teacher)
    state = init_state(context)
    loaded = load_newest_checkpoint(state, directory.checkpoints, report, dist)
    dist.run_on_rank0(partial(_begin, context, directory, state.step, loaded))
    if loaded:
        report(f"continuing at step {state.step} of {context.steps}")
    report(_announcement(context, state, directory))
    trackers = _open_trackers(context, directory, state.step)
    with (
        MetricsWriter(directory.path, trackers, dist.rank) as metrics,
        progress_bar(context.console) as bar,
    ):
        batch = context.recipe.optimization.global_batch
        progress = RunProgress(bar, directory.path.name, context.steps, state.step, batch)
        log = StepLog(metrics, dist, context.dataset.train.name_of)
        _run_steps(_Run(context, state, directory, metrics, log, progress), teacher, stop)


def _begin(context: TrainContext, directory: RunDirectory, step: int, loaded: bool) -> None:
    """Checks that the files in the run directory belong to `step`, and brings them there."""
    lines = read_metrics(directory.path)
    if not loaded and directory.best_weights.exists() and len([line for line in lines if line["kind"] == "eval"]) > 1:
        raise InputError(
            f"{directory.path} has lost its checkpoints; bring them back, or train anew in another --run.dir"
        )
    if step > max((line["step"] for line in lines), default=0):
        raise InputError(
            f"{directory.metrics} ends before the checkpoint at step {step}; bring back what is missing, or "
            "train anew in another --run.dir"
        )
    environment = describe_environment(
        context.recipe, context.device, context.precision, context.dataset, context.dist.size
    )
    record_environment(directory, environment, step, partial(print_line, context.console))
    truncate_metrics(directory.path, step)


def _run_steps(run: _Run, teacher: Teacher | LabelStore | None, stop: Event) -> None:
    """All optimisation steps from the present one on, evaluations and checkpoints on the way, then the last files."""
    context, state, log = run.context, run.state, run.log
    agreement, keeper = SyncFlags(context.dist), _Checkpointer(run)
    if _evaluation_due(context, state.step):  # the checkpoint at such a step is written before the evaluation
        _evaluate(run, stop)
    cycle = teacher.cycle if isinstance(teacher, LabelStore) else None
    with closing(prefetch(training_batches(context, state.step, cycle))) as batches:
        for view_batch in keeper.until_images_fail(batches):
            told = train_step(
                context, state, teacher if context.uses_teacher(view_batch.key.epoch) else None, view_batch
            )
            log.add(state.step, view_batch.key, told.parts(), state.rate.now())
            run.progress.step(state.step, {**log.epoch_means(), "learning_rate": state.rate.now()})
            evaluation_due = _evaluation_due(context, state.step)
            stopping, saving = agreement.on(stop.is_set(), keeper.due())
            if stopping or saving or evaluation_due or state.step == context.steps:
                keeper.save()
            if stopping:
                raise Interrupted(run.directory.path)
            if evaluation_due:
                _evaluate(run, stop)
    _finish(run, _evaluate(run, stop), keeper.seconds())
    if agreement.settled_on(stop.is_set(), False)[0]:
        raise Interrupted(run.directory.path)


class _Checkpointer:
    """Knows when a checkpoint is due, and writes it together with the log up to it."""

    def __init__(self, run: _Run) -> None:
        self._run, self._saved_at, self._saved_step = run, time.monotonic(), run.state.step
        self._began = time.monotonic() - run.state.seconds  # as if all stretches had been one

    def seconds(self) -> float:
        """What all steps so far took."""
        return time.monotonic() - self._began

    def due(self) -> bool:
        """Whether it is time for one: by steps, or by the clock of the first rank."""
        context, step = self._run.context, self._run.state.step
        minutes, steps = context.recipe.run.checkpoint_minutes, context.recipe.run.checkpoint_steps
        by_clock = context.dist.is_rank0 and time.monotonic() - self._saved_at > 60 * minutes
        return by_clock or (steps is not None and step % steps == 0)

    def save(self) -> None:
        """Writes one, with the log on disk before it; Diverged if the network is not worth keeping."""
        run, dist = self._run, self._run.context.dist
        run.log.flush(fsync=True)
        require_finite(run.state, dist)
        run.state.seconds = self.seconds()
        save_checkpoint(run.state, run.directory.checkpoints, dist)
        self._saved_at, self._saved_step = time.monotonic(), run.state.step

    def until_images_fail(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches. Before images that cannot be had end the run, what was learned is kept; of several ranks, none
        can wait for the others."""
        try:
            yield from batches
        except InputError:
            if not self._run.context.dist.is_distributed and self._run.state.step > self._saved_step:
                self.save()
            raise


def _evaluation_due(context: TrainContext, step: int) -> bool:
    """Whether an epoch after which to evaluate ends with `step`; the last one is evaluated after the loop."""
    every = context.steps_per_epoch * context.recipe.run.evaluate_every
    return step % every == 0 and 0 < step < context.steps


def _evaluate(run: _Run, stop: Event) -> Scores:
    """Scores on the validation images, logged and shown; the best weights so far are kept.

    A single process leaves it at once when it is asked to stop; several could not agree on that.
    """
    context, state, log = run.context, run.state, run.log
    log.flush()
    speed = run.progress.speed()  # the losses were read, so all steps are done
    require_finite(state, context.dist)

    def until_stopped(batches: Iterable[T]) -> Iterator[T]:
        for batch in batches:
            if stop.is_set() and context.dist.size == 1:
                raise Interrupted(run.directory.path)
            yield batch

    scores = evaluate_on_validation(context, state.eval_model, run.progress.bar, until_stopped)
    if not math.isfinite(scores.val_loss):
        context.dist.run_on_rank0(partial(remove_checkpoint, run.directory.checkpoints, state.step))
        raise Diverged(f"the loss on the validation images is {scores.val_loss} after step {state.step}")
    epoch = max(state.step - 1, 0) // context.steps_per_epoch
    run.metrics.write("eval", state.step, epoch, scores.figures())
    run.progress.evaluated(epoch, context.epochs, log.epoch_means(), scores, speed)
    if state.best_top1_error is None or scores.top1_error < state.best_top1_error:
        state.best_top1_error = scores.top1_error
        _save_eval_model(context, state, run.directory.best_weights)
    return scores


def _finish(run: _Run, scores: Scores, seconds: float) -> None:
    """The final weights and the last line of the log."""
    context, state = run.context, run.state
    _save_eval_model(context, state, run.directory.last_weights)
    unreadable = context.count_unreadable()
    figures = {**scores.figures(), "best_top1_error": state.best_top1_error, "seconds": seconds}
    run.metrics.write("end", state.step, context.epochs - 1, {**figures, "unreadable": unreadable})
    if unreadable:
        print_line(context.console, f"{unreadable} unreadable image(s) were left out")


def _save_eval_model(context: TrainContext, state: TrainState, path: Path) -> None:
    weights = drop_auxiliary_norms(full_state_dict(state.eval_model))
    context.dist.run_on_rank0(lambda: save_weights(weights, context.card, path))


def _given_teacher(context: TrainContext) -> Teacher | LabelStore | None:
    """The teacher that is there already, or its stored labels; None if there is none, or if it has to be trained."""
    if context.recipe.teacher.labels is not None:
        folder, supervision = Path(context.recipe.teacher.labels), context.recipe.supervision
        return open_label_store(
            folder, dataset_fingerprint(context), supervision, filter(context.uses_teacher, range(context.epochs))
        )
    source = context.recipe.teacher.source
    return None if source in ("none", "train") else load_checked_teacher(context, source)


def find_teacher(context: TrainContext, directory: Path) -> Teacher:
    """The recipe's teacher itself, trained now if it has to be; Interrupted names `directory` as what is to go on."""
    source = context.recipe.teacher.source
    teacher = _trained_teacher(context, directory) if source == "train" else load_checked_teacher(context, source)
    assert teacher is not None
    return teacher


def _trained_teacher(context: TrainContext, directory: Path) -> Teacher | None:
    """The teacher of the recipe, trained now unless an earlier run has done so; None if it wants none."""
    if context.recipe.teacher.source != "train":
        return None
    first = teacher_run_recipe(context.recipe, context.dataset.content)
    print_line(context.console, f"the teacher comes first: {first.run.dir}")
    try:
        trained = _train_in(context.dist, first, context.console).directory
    except Interrupted as stopped:
        raise Interrupted(directory, stopped.why) from None
    return load_checked_teacher(context, f"run:{trained}")


def init_state(context: TrainContext) -> TrainState:
    """The state before the first step: the student with fresh weights on its device, and all that goes with it."""
    settings, run, device = context.recipe.optimization, context.recipe.run, context.device
    network = create_student(context)
    average = create_ema(network, settings, run.shard)
    if average is not None:
        average.module = place_network(average.module, run.shard, context.dist, device)
    network = place_network(network, run.shard, context.dist, device)
    optimizer = create_optimizer(network, settings)
    rate = LearningRate(optimizer, settings, context.steps_per_epoch)
    if run.compile:
        network.compile()
    forward = wrap_ddp(network, example_input(context), context.dist)
    return TrainState(network, forward, optimizer, rate, create_scaler(device, context.precision), average)


def _open_trackers(context: TrainContext, directory: RunDirectory, step: int) -> list[Tracker]:
    """On the first rank, whatever else the run reports to."""
    if not context.dist.is_rank0:
        return []
    recipe, report = context.recipe, partial(print_line, context.console)
    others = open_trackers(recipe.run.trackers, directory.path, config.to_dict(recipe), report)
    return [TensorBoard(directory.tensorboard, step), *others]


def _announcement(context: TrainContext, state: TrainState, directory: RunDirectory) -> str:
    recipe, dataset = context.recipe, context.dataset
    processes = f" x {context.dist.size}" if context.dist.size > 1 else ""
    return (
        f"{directory.path}: {recipe.student.name} ({count_parameters(state.network):,} parameters) on "
        f"{len(dataset.train):,} images of {len(dataset.classes)} classes ({dataset.name}), views "
        f"{recipe.views.policy}, {context.epochs} epochs, {context.device.type}{processes} "
        f"{str(context.precision).removeprefix('torch.')}"
    )


def _outcome(directory: RunDirectory, dist: DistContext) -> TrainResult:
    lines = dist.run_on_rank0(lambda: read_metrics(directory.path))
    end = next(line for line in lines if line["kind"] == "end")
    return TrainResult(directory.path, end["top1_error"], end["top5_error"], end["best_top1_error"])
