"""Training, from a recipe to a finished run directory. Start reading here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from kdaug.config import Recipe
from kdaug.data.main_guard import exit_if_spawned_worker
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, find_run, keep_threads, list_checkpoints, open_run, read_metrics
from kdaug.supervision import AnyTeacher
from kdaug.training.context import TrainContext, build_context, check_trainable, log_balance
from kdaug.training.data_check import check_data
from kdaug.training.distributed import DistContext, distributed_context, is_lost_connection
from kdaug.training.interrupt import Interrupted, stop_on_signal
from kdaug.training.out_of_memory import explain_out_of_memory, smaller_batch
from kdaug.training.progress import console_logging
from kdaug.training.resolve import resolve, teacher_run_recipes
from kdaug.training.run import raise_if_stopped, start_or_resume
from kdaug.training.state import Diverged, init_state
from kdaug.training.step import TrainStep
from kdaug.training.teacher import cross_fitted_teacher, load_checked_teacher, open_soft_labels, teacher_soft_labels

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its directory, the errors in percent of its final weights, and the lowest error of any epoch.

    seconds: the time that training and evaluations took, without interruptions.
    """

    directory: Path
    top1_error: float
    top5_error: float
    best_top1_error: float
    seconds: float


def train(recipe: Recipe, console: Console | None = None) -> TrainResult:
    """Trains `recipe` in its run directory. A teacher with source "train" is trained first, once, and reused.

    Under torchrun all its processes train together. console: where progress is shown; None: on stdout, unless the
    program has configured logging itself (see `console_logging`). Raises InputError for what the user can fix, and
    Interrupted after Ctrl-C, SIGTERM or SIGHUP, or if another process was lost; the run can then be resumed.
    """
    exit_if_spawned_worker()
    with distributed_context() as dist, console_logging(console if dist.is_rank0 else Console(quiet=True)):
        return train_run(recipe, dist, console or Console(quiet=not dist.is_rank0))


def train_run(recipe: Recipe, dist: DistContext, console: Console) -> TrainResult:
    """`train` with the processes in `dist`; all of a run from here on."""
    resolved = resolve(recipe)
    directory = dist.run_on_rank0(lambda: find_run(resolved))
    if dist.run_on_rank0(lambda: directory.is_finished):
        _logger.info(f"{directory.path} is already finished")
        return _read_result(directory, dist)
    run_settings = dist.run_on_rank0(lambda: keep_threads(resolved.run, directory))
    resumes = dist.run_on_rank0(lambda: directory.has_begun)
    context = replace(build_context(replace(resolved, run=run_settings), console, dist), resumes=resumes)
    check_trainable(context)
    log_balance(context)
    soft_labels = open_soft_labels(context)
    with ExitStack() as lock, stop_on_signal() as stop, _explain_failure(directory, context):
        dist.run_on_rank0(lambda: open_run(directory, resolved, lock))
        dist.run_on_rank0(lambda: check_data(context, directory, partial(raise_if_stopped, stop, directory, dist)))
        if soft_labels is None and resolved.teacher.source == "train":
            soft_labels = teacher_soft_labels(context, train_teacher(context, directory.path))
        if soft_labels is not None:
            soft_labels.prepare(partial(raise_if_stopped, stop, directory, dist))
        state = init_state(context)
        step = TrainStep(context, state, soft_labels)
        with start_or_resume(context, state, directory, stop, soft_labels) as run:
            run.evaluate_if_due()  # repeats an evaluation that was interrupted
            with closing(run.batches(soft_labels.view_cycle if soft_labels is not None else None)) as batches:
                for batch in batches:
                    run.log_step(batch.key, step(batch))
                    run.save_or_stop_if_due()
                    run.evaluate_if_due()
            run.finish()
    return _read_result(directory, dist)


@contextmanager
def _explain_failure(directory: RunDirectory, context: TrainContext) -> Iterator[None]:
    """Turns diverged training and out of memory into an InputError, and a lost process into Interrupted."""
    dist = context.dist
    share = context.recipe.optimization.global_batch // dist.world_size
    images = share // context.accumulation_steps
    try:
        with explain_out_of_memory("training", images, context.device, smaller_batch(share, images)):
            yield
    except Diverged as reason:
        kept = "the previous checkpoint" if list_checkpoints(directory.checkpoints) else "no checkpoint"
        raise InputError(
            f"{reason}; training stopped, {kept} was kept",
            "lower optimization.learning_rate or supervision.weight, in a new run.dir",
        ) from None
    except RuntimeError as error:
        if not dist.is_distributed or not is_lost_connection(error):
            raise
        raise Interrupted(directory.path, "another process of this run was lost") from error


def get_or_train_teacher(context: TrainContext, directory: Path) -> AnyTeacher:
    """The teacher, trained first if necessary. Interrupted names `directory` as the run to resume."""
    source = context.recipe.teacher.source
    return train_teacher(context, directory) if source == "train" else load_checked_teacher(context, source)


def train_teacher(context: TrainContext, directory: Path) -> AnyTeacher:
    """The teacher of source "train", trained unless an earlier run did so. Interrupted names `directory`."""
    recipes, runs = teacher_run_recipes(context.recipe, context.dataset.content), list[Path]()
    threads = torch.get_num_threads()
    for position, recipe in enumerate(recipes, 1):
        which = "" if len(recipes) == 1 else f" ({position} of {len(recipes)}, each without one part of the images)"
        _logger.info(f"training the teacher first{which}: {recipe.run.dir}")
        try:
            runs.append(train_run(recipe, context.dist, context.console).directory)
        except Interrupted as interrupted:
            raise Interrupted(directory, interrupted.reason) from None
    torch.set_num_threads(threads)  # a teacher that was resumed keeps its own
    if context.recipe.teacher.folds is not None:
        return cross_fitted_teacher(context, runs)
    return load_checked_teacher(context, f"run:{runs[0]}")


def _read_result(directory: RunDirectory, dist: DistContext) -> TrainResult:
    lines = dist.run_on_rank0(lambda: read_metrics(directory.path))
    end = next(line for line in lines if line["kind"] == "end")
    return TrainResult(directory.path, end["top1_error"], end["top5_error"], end["best_top1_error"], end["seconds"])
