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
from kdaug.networks import parameter_count, save_weights
from kdaug.supervision import LabelStore, Teacher, open_store
from kdaug.training.adversary import without_auxiliary_norms
from kdaug.training.checkpoints import (
    Diverged,
    TrainingState,
    all_checkpoints,
    forget_checkpoint,
    load_newest_checkpoint,
    require_finite,
    save_checkpoint,
    whole_weights,
)
from kdaug.training.clean_labels import prepare_trust
from kdaug.training.distributed import Agreement, World, is_lost_connection, joined
from kdaug.training.evaluation import Scores
from kdaug.training.interruption import Interrupted, listen
from kdaug.training.metrics_log import MetricsLog, cut_back
from kdaug.training.optimization import LearningRate, create_average, create_optimizer, create_scaler
from kdaug.training.parallel import place, replicate
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
from kdaug.training.setup import (
    Setup,
    check_training,
    create_student,
    evaluate_network,
    example_input,
    prepare,
    prepare_teacher,
)
from kdaug.training.step import learn
from kdaug.training.trackers import TensorBoard, Tracker, open_trackers
from kdaug.training.viewing import subject_of, training_views

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """A finished run: its directory, the errors in percent of its final weights, and the lowest seen on the way."""

    directory: Path
    top1_error: float
    top5_error: float
    best_top1_error: float


def train(recipe: Recipe, console: Console | None = None) -> Outcome:
    """Trains `recipe` in its run directory; a teacher that must be trained is trained first, once, and reused.

    Under torchrun, all its processes train together. Raises InputError for what the user can mend, and Interrupted
    after Ctrl-C or SIGTERM, with a checkpoint written, or when another of the processes was lost.
    """
    with joined() as world:
        return _train_in(world, recipe, console or Console(quiet=not world.first))


def _train_in(world: World, recipe: Recipe, console: Console) -> Outcome:
    recipe = resolve(recipe)
    directory, finished = world.told_by_first(lambda: _find(recipe))
    if finished:
        say(console, f"{directory.path} is finished already")
        return _outcome(directory, world)
    setup = prepare(recipe, console, world)
    check_training(setup)
    teacher = _given_teacher(setup)
    with ExitStack() as held, listen() as stop:
        world.told_by_first(partial(_hold, held, directory, recipe))
        try:
            _train(setup, teacher or _trained_teacher(setup, directory.path), directory, stop)
        except Diverged as reason:
            kept = "the checkpoint before it is" if all_checkpoints(directory.checkpoints) else "no checkpoint was"
            raise InputError(
                f"{reason}; training stopped, {kept} kept. Lower optimization.learning_rate or supervision.weight, in "
                "a new --run.dir"
            ) from None
        except RuntimeError as error:
            if not world.connected or not is_lost_connection(error):
                raise
            raise Interrupted(directory.path, "another process of this run was lost") from error
    return _outcome(directory, world)


def _find(recipe: Recipe) -> tuple[RunDirectory, bool]:
    directory = find_run(recipe)
    return directory, directory.finished


def _hold(held: ExitStack, directory: RunDirectory, recipe: Recipe) -> None:
    held.enter_context(open_run(directory, recipe))


@dataclass(frozen=True)
class _Run:
    """A run under way: what stays, what changes, and where it is written and shown."""

    setup: Setup
    state: TrainingState
    directory: RunDirectory
    log: MetricsLog
    progress: RunProgress


def _train(setup: Setup, teacher: Teacher | LabelStore | None, directory: RunDirectory, stop: Event) -> None:
    """From the newest checkpoint, or the first step, to the final files."""
    world, report = setup.world, partial(say, setup.console)
    prepare_trust(setup, teacher)
    state = first_state(setup)
    loaded = load_newest_checkpoint(state, directory.checkpoints, report, world)
    world.told_by_first(partial(_begin, setup, directory, state.step, loaded))
    if loaded:
        report(f"continuing at step {state.step} of {setup.steps}")
    report(_announcement(setup, state, directory))
    trackers = _open_trackers(setup, directory, state.step)
    with (
        MetricsLog(directory, trackers, world, setup.dataset.train.name_of) as log,
        show_progress(setup.console) as bar,
    ):
        batch = setup.recipe.optimization.global_batch
        progress = RunProgress(bar, directory.path.name, setup.steps, state.step, batch)
        _run_steps(_Run(setup, state, directory, log, progress), teacher, stop)


def _begin(setup: Setup, directory: RunDirectory, step: int, loaded: bool) -> None:
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
    environment = describe_environment(setup.recipe, setup.device, setup.precision, setup.dataset, setup.world)
    record_environment(directory, environment, step, partial(say, setup.console))
    cut_back(directory, step)


def _run_steps(run: _Run, teacher: Teacher | LabelStore | None, stop: Event) -> None:
    """All optimisation steps from the present one on, evaluations and checkpoints on the way, then the last files."""
    setup, state, log = run.setup, run.state, run.log
    agreement, keeper = Agreement(setup.world), _Keeper(run)
    if _evaluation_due(setup, state.step):  # the checkpoint at such a step is written before the evaluation
        _evaluate(run, stop)
    cycle = teacher.cycle if isinstance(teacher, LabelStore) else None
    with closing(prefetch(training_views(setup, state.step, cycle))) as batches:
        for viewed in keeper.until_images_fail(batches):
            told = learn(setup, state, teacher if setup.watches(viewed.key.epoch) else None, viewed)
            log.step(state.step, viewed.key, told.parts(), state.rate.now())
            run.progress.step(state.step, {**log.epoch_means(), "learning_rate": state.rate.now()})
            evaluation_due = _evaluation_due(setup, state.step)
            stopping, saving = agreement.on(stop.is_set(), keeper.due())
            if stopping or saving or evaluation_due or state.step == setup.steps:
                keeper.save()
            if stopping:
                raise Interrupted(run.directory.path)
            if evaluation_due:
                _evaluate(run, stop)
    _finish(run, _evaluate(run, stop), keeper.seconds())
    if agreement.settled_on(stop.is_set(), False)[0]:
        raise Interrupted(run.directory.path)


class _Keeper:
    """Knows when a checkpoint is due, and writes it together with the log up to it."""

    def __init__(self, run: _Run) -> None:
        self._run, self._saved_at, self._saved_step = run, time.monotonic(), run.state.step
        self._began = time.monotonic() - run.state.seconds  # as if all stretches had been one

    def seconds(self) -> float:
        """What all steps so far took."""
        return time.monotonic() - self._began

    def due(self) -> bool:
        """Whether it is time for one: by steps, or by the clock of the first rank."""
        setup, step = self._run.setup, self._run.state.step
        minutes, steps = setup.recipe.run.checkpoint_minutes, setup.recipe.run.checkpoint_steps
        by_clock = setup.world.first and time.monotonic() - self._saved_at > 60 * minutes
        return by_clock or (steps is not None and step % steps == 0)

    def save(self) -> None:
        """Writes one, with the log on disk before it; Diverged if the network is not worth keeping."""
        run, world = self._run, self._run.setup.world
        run.log.flush(to_disk=True)
        require_finite(run.state, world)
        run.state.seconds = self.seconds()
        save_checkpoint(run.state, run.directory.checkpoints, world)
        self._saved_at, self._saved_step = time.monotonic(), run.state.step

    def until_images_fail(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches. Before images that cannot be had end the run, what was learned is kept; of several ranks, none
        can wait for the others."""
        try:
            yield from batches
        except InputError:
            if not self._run.setup.world.connected and self._run.state.step > self._saved_step:
                self.save()
            raise


def _evaluation_due(setup: Setup, step: int) -> bool:
    """Whether an epoch after which to evaluate ends with `step`; the last one is evaluated after the loop."""
    every = setup.steps_per_epoch * setup.recipe.run.evaluate_every
    return step % every == 0 and 0 < step < setup.steps


def _evaluate(run: _Run, stop: Event) -> Scores:
    """Scores on the validation images, logged and shown; the best weights so far are kept.

    A single process leaves it at once when it is asked to stop; several could not agree on that.
    """
    setup, state, log = run.setup, run.state, run.log
    log.flush()
    speed = run.progress.speed()  # the losses were read, so all steps are done
    require_finite(state, setup.world)

    def until_stopped(batches: Iterable[T]) -> Iterator[T]:
        for batch in batches:
            if stop.is_set() and setup.world.size == 1:
                raise Interrupted(run.directory.path)
            yield batch

    scores = evaluate_network(setup, state.judged, run.progress.bar, until_stopped)
    if not math.isfinite(scores.val_loss):
        setup.world.told_by_first(partial(forget_checkpoint, run.directory.checkpoints, state.step))
        raise Diverged(f"the loss on the validation images is {scores.val_loss} after step {state.step}")
    epoch = max(state.step - 1, 0) // setup.steps_per_epoch
    log.write("eval", state.step, epoch, scores.figures())
    run.progress.evaluated(epoch, setup.epochs, log.epoch_means(), scores, speed)
    if state.best_top1_error is None or scores.top1_error < state.best_top1_error:
        state.best_top1_error = scores.top1_error
        _save_judged(setup, state, run.directory.best_weights)
    return scores


def _finish(run: _Run, scores: Scores, seconds: float) -> None:
    """The final weights and the last line of the log."""
    setup, state = run.setup, run.state
    _save_judged(setup, state, run.directory.last_weights)
    unreadable = setup.unreadable()
    figures = {**scores.figures(), "best_top1_error": state.best_top1_error, "seconds": seconds}
    run.log.write("end", state.step, setup.epochs - 1, {**figures, "unreadable": unreadable})
    if unreadable:
        say(setup.console, f"{unreadable} unreadable image(s) were left out")


def _save_judged(setup: Setup, state: TrainingState, path: Path) -> None:
    weights = without_auxiliary_norms(whole_weights(state.judged))
    setup.world.told_by_first(lambda: save_weights(weights, setup.card, path))


def _given_teacher(setup: Setup) -> Teacher | LabelStore | None:
    """The teacher that is there already, or its stored labels; None if there is none, or if it has to be trained."""
    if setup.recipe.teacher.labels is not None:
        folder, supervision = Path(setup.recipe.teacher.labels), setup.recipe.supervision
        return open_store(folder, subject_of(setup), supervision, filter(setup.watches, range(setup.epochs)))
    source = setup.recipe.teacher.source
    return None if source in ("none", "train") else prepare_teacher(setup, source)


def find_teacher(setup: Setup, place: Path) -> Teacher:
    """The recipe's teacher itself, trained now if it has to be; Interrupted names `place` as what is to go on."""
    source = setup.recipe.teacher.source
    teacher = _trained_teacher(setup, place) if source == "train" else prepare_teacher(setup, source)
    assert teacher is not None
    return teacher


def _trained_teacher(setup: Setup, place: Path) -> Teacher | None:
    """The teacher of the recipe, trained now unless an earlier run has done so; None if it wants none."""
    if setup.recipe.teacher.source != "train":
        return None
    first = teacher_recipe(setup.recipe, setup.dataset.content)
    say(setup.console, f"the teacher comes first: {first.run.dir}")
    try:
        trained = _train_in(setup.world, first, setup.console).directory
    except Interrupted as stopped:
        raise Interrupted(place, stopped.why) from None
    return prepare_teacher(setup, f"run:{trained}")


def first_state(setup: Setup) -> TrainingState:
    """The state before the first step: the student with fresh weights on its device, and all that goes with it."""
    settings, run, device = setup.recipe.optimization, setup.recipe.run, setup.device
    network = create_student(setup)
    average = create_average(network, settings, run.shard)
    if average is not None:
        average.module = place(average.module, run.shard, setup.world, device)
    network = place(network, run.shard, setup.world, device)
    optimizer = create_optimizer(network, settings)
    rate = LearningRate(optimizer, settings, setup.steps_per_epoch)
    if run.compile:
        network.compile()
    forward = replicate(network, example_input(setup), setup.world)
    return TrainingState(network, forward, optimizer, rate, create_scaler(device, setup.precision), average)


def _open_trackers(setup: Setup, directory: RunDirectory, step: int) -> list[Tracker]:
    """On the first rank, whatever else the run reports to."""
    if not setup.world.first:
        return []
    recipe, report = setup.recipe, partial(say, setup.console)
    others = open_trackers(recipe.run.trackers, directory.path, config.to_dict(recipe), report)
    return [TensorBoard(directory.tensorboard, step), *others]


def _announcement(setup: Setup, state: TrainingState, directory: RunDirectory) -> str:
    recipe, dataset = setup.recipe, setup.dataset
    processes = f" x {setup.world.size}" if setup.world.size > 1 else ""
    return (
        f"{directory.path}: {recipe.student.name} ({parameter_count(state.network):,} parameters) on "
        f"{len(dataset.train):,} images of {len(dataset.classes)} classes ({dataset.name}), views "
        f"{recipe.views.policy}, {setup.epochs} epochs, {setup.device.type}{processes} "
        f"{str(setup.precision).removeprefix('torch.')}"
    )


def _outcome(directory: RunDirectory, world: World) -> Outcome:
    lines = world.told_by_first(lambda: read_metrics(directory.path))
    end = next(line for line in lines if line["kind"] == "end")
    return Outcome(directory.path, end["top1_error"], end["top5_error"], end["best_top1_error"])
