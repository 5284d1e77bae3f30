"""Training, from a recipe to a finished run directory."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from kdaug.config import Recipe
from kdaug.data.loader import Batch, prefetch
from kdaug.errors import InputError
from kdaug.networks import create_network, parameter_count, save_weights
from kdaug.supervision import Teacher, Told, supervise
from kdaug.training.checkpoints import (
    Diverged,
    TrainingState,
    all_checkpoints,
    load_newest_checkpoint,
    require_finite,
    save_checkpoint,
)
from kdaug.training.evaluation import Scores
from kdaug.training.interruption import Interrupted, listen
from kdaug.training.metrics_log import MetricsLog
from kdaug.training.optimization import autocast, create_optimizer, create_schedule
from kdaug.training.progress import RunProgress, say, show_progress
from kdaug.training.resolving import resolve, teacher_recipe
from kdaug.training.run_directory import (
    RunDirectory,
    describe_environment,
    find_run,
    open_run,
    read_metrics,
    record_environment,
)
from kdaug.training.setup import Setup, check_training, evaluate_network, prepare, prepare_teacher, training_views


@dataclass(frozen=True)
class Outcome:
    """A finished run: its directory, the errors in percent of its final weights, and the lowest seen on the way."""

    directory: Path
    top1_error: float
    top5_error: float
    best_top1_error: float


def train(recipe: Recipe, console: Console | None = None) -> Outcome:
    """Trains `recipe` in its run directory; a teacher that must be trained is trained first, once, and reused.

    Raises InputError for what the user can mend, and Interrupted after Ctrl-C or SIGTERM, with a checkpoint written.
    """
    console = console or Console()
    recipe = resolve(recipe)
    directory = find_run(recipe)
    if directory.finished:
        say(console, f"{directory.path} is finished already")
        return _outcome(directory)
    setup = prepare(recipe, console)
    check_training(setup)
    teacher = _given_teacher(setup)
    with open_run(directory, recipe), listen() as stop:
        try:
            _train(setup, teacher or _trained_teacher(setup, directory), directory, stop)
        except Diverged as reason:
            kept = "the checkpoint before it is" if all_checkpoints(directory.checkpoints) else "no checkpoint was"
            raise InputError(
                f"{reason}; training stopped, {kept} kept. Lower optimization.learning_rate or supervision.weight, in "
                "a new --run.dir"
            ) from None
    return _outcome(directory)


def _train(setup: Setup, teacher: Teacher | None, directory: RunDirectory, stop: Event) -> None:
    """From the newest checkpoint, or the first step, to the final files."""
    state = _first_state(setup)
    if load_newest_checkpoint(state, directory.checkpoints, partial(say, setup.console)):
        say(setup.console, f"continuing at step {state.step} of {setup.steps}")
    elif directory.best_weights.exists() and len(_evaluations(directory)) > 1:
        raise InputError(
            f"{directory.path} has lost its checkpoints; bring them back, or train anew in another --run.dir"
        )
    if state.step > max((line["step"] for line in read_metrics(directory.path)), default=0):
        raise InputError(
            f"{directory.metrics} ends before the checkpoint at step {state.step}; bring back what is missing, or "
            "train anew in another --run.dir"
        )
    environment = describe_environment(setup.recipe, setup.device, setup.precision, setup.dataset)
    record_environment(directory, environment, state.step, partial(say, setup.console))
    say(setup.console, _announcement(setup, state.network, directory))
    with (
        MetricsLog(directory, state.step, setup.steps) as log,
        show_progress(setup.console) as bar,
    ):
        progress = RunProgress(
            bar, directory.path.name, setup.steps, state.step, setup.recipe.optimization.global_batch
        )
        _run_steps(setup, teacher, state, directory, log, progress, stop)


def _run_steps(
    setup: Setup,
    teacher: Teacher | None,
    state: TrainingState,
    directory: RunDirectory,
    log: MetricsLog,
    progress: RunProgress,
    stop: Event,
) -> None:
    """All optimisation steps from state.step on, with evaluations and checkpoints on the way, then the final files."""
    recipe = setup.recipe
    started = saved = time.monotonic()
    with closing(prefetch(training_views(setup, state.step))) as batches:
        for batch, views in batches:
            state.step = batch.key.step + 1
            if len(batch.labels) >= min(2, recipe.optimization.global_batch):  # batch norm cannot do with one image
                told, learning_rate = _learn(setup, teacher, state, batch, views)
                log.step(state.step, batch.key.epoch, told.parts(), learning_rate)
            state.schedule.step()
            progress.step(state.step, log.epoch_means())
            evaluation_due = _evaluation_due(setup, state.step)
            if evaluation_due:
                _evaluate(setup, state, directory, log, progress)
            due = evaluation_due or state.step == setup.steps or stop.is_set()
            if due or time.monotonic() - saved > 60 * recipe.run.checkpoint_minutes:
                log.flush(to_disk=True)
                require_finite(state)
                save_checkpoint(state, directory.checkpoints)
                saved = time.monotonic()
            if stop.is_set():
                raise Interrupted(directory.path)
    scores = _evaluate(setup, state, directory, log, progress)
    save_weights(state.network, setup.card, directory.last_weights)
    figures = {**scores.figures(), "best_top1_error": state.best_top1_error, "seconds": time.monotonic() - started}
    unreadable = len(setup.unreadable_train.seen) + len(setup.unreadable_val.seen)
    log.write("end", state.step, recipe.optimization.epochs - 1, {**figures, "unreadable": unreadable})
    if unreadable:
        say(setup.console, f"{unreadable} unreadable image(s) were left out")
    if stop.is_set():
        raise Interrupted(directory.path)


def _learn(
    setup: Setup, teacher: Teacher | None, state: TrainingState, batch: Batch, views: Tensor
) -> tuple[Told, float]:
    """One optimisation step on a batch; what the student was told, and the learning rate."""
    views = views.to(setup.device, non_blocking=True)
    labels = torch.from_numpy(batch.labels).to(setup.device)
    to_input = setup.card.input_format.prepare
    state.network.train()
    with autocast(setup.device, setup.precision):
        teacher_logits = teacher(views) if teacher else None
        told = supervise(setup.recipe.supervision, state.network(to_input(views)), teacher_logits, labels)
    return told, _optimize(state, told.total, setup.recipe.optimization.clip_norm)


def _optimize(state: TrainingState, loss: Tensor, clip_norm: float | None) -> float:
    """One step downhill; returns the learning rate it was made with."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    learning_rate = float(state.schedule.get_last_lr()[0])
    state.optimizer.step()
    return learning_rate


def _evaluation_due(setup: Setup, step: int) -> bool:
    """Whether an epoch after which to evaluate ends with `step`; the last one is evaluated after the loop."""
    every = setup.steps_per_epoch * setup.recipe.run.evaluate_every
    return step % every == 0 and step < setup.steps


def _evaluate(
    setup: Setup, state: TrainingState, directory: RunDirectory, log: MetricsLog, progress: RunProgress
) -> Scores:
    """Scores on the validation images, logged and shown; the best weights so far are kept."""
    log.flush()
    require_finite(state)
    scores = evaluate_network(setup, state.network, progress.bar)
    if not math.isfinite(scores.val_loss):
        raise Diverged(f"the loss on the validation images is {scores.val_loss} after step {state.step}")
    epoch = max(state.step - 1, 0) // setup.steps_per_epoch
    log.write("eval", state.step, epoch, scores.figures())
    progress.evaluated(epoch, setup.recipe.optimization.epochs, log.epoch_means(), scores)
    if state.best_top1_error is None or scores.top1_error < state.best_top1_error:
        state.best_top1_error = scores.top1_error
        save_weights(state.network, setup.card, directory.best_weights)
    return scores


def _given_teacher(setup: Setup) -> Teacher | None:
    """The teacher that is there already; None if there is none, or if it has to be trained."""
    source = setup.recipe.teacher.source
    return None if source in ("none", "train") else prepare_teacher(setup, source)


def _trained_teacher(setup: Setup, directory: RunDirectory) -> Teacher | None:
    """The teacher of the recipe, trained now unless an earlier run has done so; None if it wants none."""
    if setup.recipe.teacher.source != "train":
        return None
    first = teacher_recipe(setup.recipe, setup.dataset.content)
    say(setup.console, f"the teacher comes first: {first.run.dir}")
    try:
        trained = train(first, setup.console).directory
    except Interrupted:
        raise Interrupted(directory.path) from None
    return prepare_teacher(setup, f"run:{trained}")


def _first_state(setup: Setup) -> TrainingState:
    recipe, dataset = setup.recipe, setup.dataset
    torch.manual_seed(recipe.run.seed)
    network = create_network(recipe.student.name, len(dataset.classes), dataset.channels, recipe.student.pretrained)
    network = network.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer(network, recipe.optimization)
    return TrainingState(network, optimizer, create_schedule(optimizer, setup.steps))


def _announcement(setup: Setup, network: nn.Module, directory: RunDirectory) -> str:
    recipe, dataset = setup.recipe, setup.dataset
    return (
        f"{directory.path}: {recipe.student.name} ({parameter_count(network):,} parameters) on {len(dataset.train):,} "
        f"images of {len(dataset.classes)} classes ({dataset.name}), views {recipe.views.policy}, "
        f"{recipe.optimization.epochs} epochs, {setup.device.type} {str(setup.precision).removeprefix('torch.')}"
    )


def _evaluations(directory: RunDirectory) -> list[dict[str, Any]]:
    return [line for line in read_metrics(directory.path) if line["kind"] == "eval"]


def _outcome(directory: RunDirectory) -> Outcome:
    end = next(line for line in read_metrics(directory.path) if line["kind"] == "end")
    return Outcome(directory.path, end["top1_error"], end["top5_error"], end["best_top1_error"])
