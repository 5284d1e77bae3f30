"""The contenders of kdaug: its whole loop, parts of it, and the same network in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from kdaug.data.loader import prefetch
from kdaug.device import autocast
from kdaug.runs import MetricsWriter, RunDirectory
from kdaug.runs.trackers import TensorBoard
from kdaug.supervision import LabelStore, Teacher
from kdaug.training.batches import ViewBatch, training_batches
from kdaug.training.context import TrainContext
from kdaug.training.loop import init_state
from kdaug.training.progress import RunProgress, progress_bar
from kdaug.training.step import train_step
from kdaug.training.step_log import StepLog
from training_benchmark.turns import Opening, Step, always
from training_benchmark.work import Work, batch_in_place, teacher_network, teacher_of


class BareStep:
    """Forward, backward, clipping and optimiser on a batch in place, in plain PyTorch; with a teacher, its forward."""

    def __init__(self, context: TrainContext, teacher: nn.Module | None = None) -> None:
        state = init_state(context)
        self._context, self._teacher = context, teacher
        self._network, self._optimizer = state.network.train(), state.optimizer
        self._images, self._labels = batch_in_place(context)

    def __call__(self) -> Tensor:
        """The loss, a scalar on the device."""
        with autocast(self._context.device, self._context.precision):
            if self._teacher is not None:
                with torch.inference_mode():
                    self._teacher(self._images)
            logits = self._network(self._images)
        loss = functional.cross_entropy(logits.float(), self._labels)
        loss.backward()
        clip_norm = self._context.recipe.optimization.clip_norm
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class WholeLoop:
    """kdaug.training's loop but for evaluations and checkpoints: order, views made ahead, step, log, progress."""

    def __init__(self, work: Work, name: str, teacher: Teacher | LabelStore | None) -> None:
        """The run directory, a new one, is `name` in the folder of `work`."""
        directory, context = RunDirectory(work.folder / name), work.context
        directory.path.mkdir()
        self._context, self._teacher, self._state = context, teacher, init_state(context)
        metrics = MetricsWriter(directory.path, [TensorBoard(directory.tensorboard, 0)])
        self._log = StepLog(work.held.enter_context(metrics), context.dist)
        batch = context.recipe.optimization.global_batch
        self._progress = RunProgress(progress_bar(Console(quiet=True)), name, context.steps, 0, batch)

    @contextmanager
    def opened(self) -> Iterator[Step]:
        """A step that goes on where the last turn ended."""
        with closing(prefetch(training_batches(self._context, self._state.step))) as batches:
            yield lambda: self._step(next(batches))

    def _step(self, view_batch: ViewBatch) -> None:
        state, log = self._state, self._log
        told = train_step(self._context, state, self._teacher, view_batch)
        log.add(state.step, view_batch.key, told.parts(), state.rate.now())
        self._progress.step(state.step, {**log.epoch_means(), "learning_rate": state.rate.now()})


class LearningInPlace:
    """kdaug's step with its teacher, again and again on the same views, uint8 in main memory; nothing is logged."""

    def __init__(self, context: TrainContext) -> None:
        self._context, self._state, self._teacher = context, init_state(context), teacher_of(context)
        self._viewed = next(training_batches(context, 0))

    def __call__(self) -> Tensor:
        """The loss, a scalar on the device."""
        return train_step(self._context, self._state, self._teacher, self._viewed).total.detach()


def bare(work: Work) -> Opening:
    return always(BareStep(work.context))


def bare_with_teacher(work: Work) -> Opening:
    teacher = teacher_network(work.context)
    if work.context.recipe.run.compile:
        teacher.compile()
    return always(BareStep(work.context, teacher))


def loop(work: Work) -> Opening:
    return WholeLoop(work, "loop", None).opened


def loop_with_teacher(work: Work) -> Opening:
    return WholeLoop(work, "loop-with-teacher", teacher_of(work.context)).opened


def learning_in_place(work: Work) -> Opening:
    return always(LearningInPlace(work.context))


def views_alone(work: Work) -> Opening:
    """Order and views as in the loop, but not ahead of anything."""
    return always(partial(next, training_batches(work.context, 0)))
