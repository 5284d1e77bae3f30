"""A run in progress: its log, progress bar, checkpoints and evaluations."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from kdaug.config import to_dict
from kdaug.data.loader import BatchKey, prefetch
from kdaug.errors import InputError
from kdaug.networks import count_parameters, save_weights
from kdaug.runs import (
    MetricsWriter,
    RunDirectory,
    check_resumable,
    describe_environment,
    read_metrics,
    record_environment,
    truncate_metrics,
)
from kdaug.runs.trackers import TensorBoard, Tracker, open_trackers
from kdaug.supervision import LossOutput, SoftLabelSource
from kdaug.training.adversarial import drop_auxiliary_norms
from kdaug.training.batches import ViewBatch, training_batches
from kdaug.training.checkpoints import (
    full_state_dict,
    load_newest_checkpoint,
    remove_checkpoint,
    require_finite,
    save_checkpoint,
)
from kdaug.training.context import TrainContext
from kdaug.training.distributed import DistContext, SyncFlags
from kdaug.training.evaluation import Scores, evaluate_student
from kdaug.training.interrupt import Interrupted
from kdaug.training.progress import progress_bar
from kdaug.training.state import Diverged, TrainState
from kdaug.training.step_log import RunProgress, StepLog
from kdaug.training.view_measures import choose_views, measure_views

_logger = logging.getLogger(__name__)


@contextmanager
def start_or_resume(
    context: TrainContext,
    state: TrainState,
    directory: RunDirectory,
    stop: Event,
    soft_labels: SoftLabelSource | None,
) -> Iterator[TrainingRun]:
    """The run in `directory`, from its newest checkpoint (then loaded into `state`) or from the first step.

    soft_labels: for the fixed views that the run is measured on. stop: is set when the user asks the run to stop.
    Raises InputError if files of the run are missing or damaged.
    """
    resumed = load_newest_checkpoint(state, directory.checkpoints, context.dist)
    context.dist.run_on_rank0(lambda: _prepare_files(context, directory, state.step, resumed))
    if resumed:
        _logger.info(f"continuing at step {state.step} of {context.steps}")
    _logger.info(_describe(context, state, directory))
    recipe, trackers = context.recipe, list[Tracker]()
    if context.dist.is_rank0:
        optional = open_trackers(recipe.run.trackers, directory.path, to_dict(recipe))
        trackers = [TensorBoard(directory.tensorboard, state.step), *optional]
    with MetricsWriter(directory.path, trackers, context.dist.rank) as metrics, progress_bar(context.console) as bar:
        log = StepLog(metrics, context.dist, context.train_images.name_of)
        batch = recipe.optimization.global_batch
        progress = RunProgress(bar, directory.path.name, context.steps, state.step, batch)
        yield TrainingRun(context, state, directory, stop, log, progress, soft_labels)


def _prepare_files(context: TrainContext, directory: RunDirectory, step: int, resumed: bool) -> None:
    """Checks that the files of the run match a start at `step`, and drops metrics of later steps."""
    lines = read_metrics(directory.path)
    evaluations = sum(line["kind"] == "eval" for line in lines)
    if not resumed and directory.best_weights.exists() and evaluations > 1:
        hint = "restore them, or start a new run in another run.dir"
        raise InputError(f"{directory.path} has no checkpoints any more", hint)
    check_resumable(directory, lines, step)
    recipe, dataset, processes = context.recipe, context.dataset, context.dist.world_size
    environment = describe_environment(recipe, context.device, context.precision, dataset, processes)
    record_environment(directory, environment, step)
    truncate_metrics(directory.path, step)


def _describe(context: TrainContext, state: TrainState, directory: RunDirectory) -> str:
    recipe, dataset = context.recipe, context.dataset
    processes = f" x {context.dist.world_size}" if context.dist.world_size > 1 else ""
    unlabelled = "" if dataset.unlabelled is None else f" and {len(dataset.unlabelled):,} unlabelled ones"
    return (
        f"{directory.path}: {recipe.student.name} ({count_parameters(state.network):,} parameters) on "
        f"{len(dataset.train):,} images{unlabelled} of {len(dataset.classes)} classes ({dataset.name}), views "
        f"{recipe.views.policy}, {context.epochs} epochs, {context.device.type}{processes} "
        f"{str(context.precision).removeprefix('torch.')}"
    )


def raise_if_stopped(stop: Event, directory: RunDirectory, dist: DistContext) -> None:
    """Raises Interrupted within a pass over images if asked to stop.

    Several ranks finish the pass: they cannot synchronize within it.
    """
    if stop.is_set() and dist.world_size == 1:
        raise Interrupted(directory.path)


class TrainingRun:
    """A run in progress. The loop calls its methods after each step, in the same order on all ranks."""

    def __init__(
        self,
        context: TrainContext,
        state: TrainState,
        directory: RunDirectory,
        stop: Event,
        log: StepLog,
        progress: RunProgress,
        soft_labels: SoftLabelSource | None,
    ) -> None:
        self._context, self._state, self._directory, self._stop = context, state, directory, stop
        self._log, self._progress = log, progress
        self._flags = SyncFlags(context.dist)
        self._views = choose_views(context, soft_labels)
        self._saved_at, self._saved_step = time.monotonic(), state.step
        self._started_at = time.monotonic() - state.seconds  # as if the run had never been stopped

    def batches(self, view_cycle: int | None) -> Generator[ViewBatch]:
        """This rank's share of all remaining batches, prepared ahead in a thread. view_cycle: see `training_batches`.

        If more images are unreadable than data.max_unreadable allows, a checkpoint is saved before the error ends the
        run. Not with several ranks: the others may not reach the collective call.
        """
        try:
            with closing(prefetch(training_batches(self._context, self._state.step, view_cycle))) as batches:
                yield from batches
        except InputError:
            if not self._context.dist.is_distributed and self._state.step > self._saved_step:
                self._save_checkpoint()
            raise

    def log_step(self, key: BatchKey, losses: LossOutput) -> None:
        """Logs the losses of the step that was just taken, and moves the progress bar."""
        step, learning_rate = self._state.step, self._state.learning_rate.now()
        self._log.add(step, key, losses.log_values(), learning_rate)
        self._progress.step(step, {**self._log.epoch_means(), "learning_rate": learning_rate})

    def save_or_stop_if_due(self) -> None:
        """Saves a checkpoint if due (by time, steps, evaluation or end); raises Interrupted if asked to stop."""
        stopping, saving = self._flags.sync(self._stop.is_set(), self._checkpoint_due())
        if stopping or saving or self._evaluation_due() or self._state.step == self._context.steps:
            self._save_checkpoint()
        if stopping:
            raise Interrupted(self._directory.path)

    def evaluate_if_due(self) -> None:
        """Evaluates after every run.evaluate_every epochs, except the last one, which `finish` evaluates."""
        if self._evaluation_due():
            self._evaluate()

    def finish(self) -> None:
        """The last evaluation, the final weights, and the last line of the metrics."""
        context, state = self._context, self._state
        scores, seconds = self._evaluate(), time.monotonic() - self._started_at
        self._save_weights(self._directory.last_weights)
        unreadable = context.count_unreadable()
        totals = {"best_top1_error": state.best_top1_error, "seconds": seconds, "unreadable": unreadable}
        self._log.metrics.write("end", state.step, context.epochs - 1, {**vars(scores), **totals})
        if unreadable:
            _logger.info(f"{unreadable} unreadable image(s) were left out")
        self._flags.wait()  # the run is finished: a request to stop is for what comes after it

    def _evaluation_due(self) -> bool:
        every = self._context.steps_per_epoch * self._context.recipe.run.evaluate_every
        return self._state.step % every == 0 and 0 < self._state.step < self._context.steps

    def _checkpoint_due(self) -> bool:
        """By steps, or by the clock of rank 0."""
        minutes, steps = self._context.recipe.run.checkpoint_minutes, self._context.recipe.run.checkpoint_steps
        by_clock = self._context.dist.is_rank0 and time.monotonic() - self._saved_at > 60 * minutes
        return by_clock or (steps is not None and self._state.step % steps == 0)

    def _save_checkpoint(self) -> None:
        """Saves a checkpoint, after the metrics up to it. Raises Diverged if the network is not finite."""
        dist, state = self._context.dist, self._state
        self._log.flush(fsync=True)
        require_finite(state, dist)
        state.seconds = time.monotonic() - self._started_at
        save_checkpoint(state, self._directory.checkpoints, dist)
        self._saved_at, self._saved_step = time.monotonic(), state.step

    def _evaluate(self) -> Scores:
        """Evaluates and logs; keeps the weights if they are the best so far."""
        context, state = self._context, self._state
        self._log.flush()
        speed = self._progress.speed()  # flush has waited for the device
        require_finite(state, context.dist)
        check_stop = partial(raise_if_stopped, self._stop, self._directory, context.dist)
        scores = evaluate_student(context, state.eval_model, self._progress.bar, check_stop)
        if not math.isfinite(scores.val_loss):
            context.dist.run_on_rank0(lambda: remove_checkpoint(self._directory.checkpoints, state.step))
            raise Diverged(f"the loss on the validation images is {scores.val_loss} after step {state.step}")
        epoch = max(state.step - 1, 0) // context.steps_per_epoch
        measured, train_error = vars(scores), None
        if context.recipe.run.evaluate_train:
            on_training = evaluate_student(context, state.eval_model, self._progress.bar, check_stop, "train")
            train_error = on_training.top1_error
            measured = {**measured, "train_error": train_error}
        measured = {**measured, **measure_views(context, state.eval_model, self._views)}
        self._log.metrics.write("eval", state.step, epoch, measured)
        self._progress.log_evaluation(
            epoch,
            context.epochs,
            self._log.epoch_means(),
            scores,
            train_error,
            speed,
            len(context.dataset.classes),
            context.val_is_imbalanced,
        )
        if state.best_top1_error is None or scores.top1_error < state.best_top1_error:
            state.best_top1_error = scores.top1_error
            self._save_weights(self._directory.best_weights)
        return scores

    def _save_weights(self, path: Path) -> None:
        weights = drop_auxiliary_norms(full_state_dict(self._state.eval_model))
        self._context.dist.run_on_rank0(lambda: save_weights(weights, self._context.network_info, path))
