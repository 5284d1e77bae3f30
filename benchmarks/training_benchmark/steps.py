"""The contenders of kdaug: its training loop, parts of it, and the same network in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from kdaug.data.loader import prefetch
from kdaug.device import autocast
from kdaug.runs import MetricsWriter, RunDirectory
from kdaug.runs.trackers import TensorBoard
from kdaug.supervision import SoftLabelSource, TeacherSoftLabels
from kdaug.training.batches import ViewBatch, training_batches
from kdaug.training.context import TrainContext
from kdaug.training.progress import RunProgress, progress_bar
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep
from kdaug.training.step_log import StepLog
from training_benchmark.turns import OpenStep, Step, always
from training_benchmark.workload import TrainWorkload, bench_teacher, first_batch, teacher_network


class BareStep:
    """Forward, backward, clipping and optimiser on one batch in plain PyTorch; with a teacher, its forward first."""

    def __init__(self, context: TrainContext, teacher: nn.Module | None = None) -> None:
        state = init_state(context)
        self._context, self._teacher = context, teacher
        self._network, self._optimizer = state.network.train(), state.optimizer
        self._images, self._labels = first_batch(context)

    def __call__(self) -> Tensor:
        """The loss, a scalar on the device."""
        with autocast(self._context.device, self._context.precision):
            if self._teacher is not None:
                with torch.inference_mode():
                    self._teacher(self._images)
            logits = self._network(self._images)
        loss: Any = functional.cross_entropy(logits.float(), self._labels)
        loss.backward()
        clip_norm = self._context.recipe.optimization.clip_norm
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return torch.as_tensor(loss.detach())


class TrainLoop:
    """kdaug's training loop without evaluation and checkpoints: prefetched views, step, log, progress."""

    def __init__(self, workload: TrainWorkload, name: str, soft_labels: SoftLabelSource | None) -> None:
        """Creates the run directory `name` in the folder of `workload`."""
        directory, context = RunDirectory(workload.folder / name), workload.context
        directory.path.mkdir()
        self._context, self._state = context, init_state(context)
        self._train_step = TrainStep(context, self._state, soft_labels)
        metrics = MetricsWriter(directory.path, [TensorBoard(directory.tensorboard, 0)])
        self._log = StepLog(workload.resources.enter_context(metrics), context.dist)
        batch = context.recipe.optimization.global_batch
        self._progress = RunProgress(progress_bar(Console(quiet=True)), name, context.steps, 0, batch)

    @contextmanager
    def open_step(self) -> Iterator[Step]:
        """A step that continues where the last turn ended."""
        with closing(prefetch(training_batches(self._context, self._state.step))) as batches:
            yield lambda: self._step(next(batches))

    def _step(self, view_batch: ViewBatch) -> None:
        state, log = self._state, self._log
        losses = self._train_step(view_batch)
        log.add(state.step, view_batch.key, losses.log_values(), state.rate.now())
        self._progress.step(state.step, {**log.epoch_means(), "learning_rate": state.rate.now()})


def online_soft_labels(context: TrainContext) -> SoftLabelSource:
    """Soft labels computed by the teacher of all contenders."""

    def no_clean_labels() -> Tensor:
        raise AssertionError("the recipe does not use label trust")

    return TeacherSoftLabels(bench_teacher(context), context.recipe.supervision, no_clean_labels)


def bare_step(workload: TrainWorkload) -> OpenStep:
    return always(BareStep(workload.context))


def bare_step_with_teacher(workload: TrainWorkload) -> OpenStep:
    teacher = teacher_network(workload.context)
    if workload.context.recipe.run.compile:
        teacher.compile()
    return always(BareStep(workload.context, teacher))


def train_loop(workload: TrainWorkload) -> OpenStep:
    return TrainLoop(workload, "loop", None).open_step


def train_loop_with_teacher(workload: TrainWorkload) -> OpenStep:
    return TrainLoop(workload, "loop-with-teacher", online_soft_labels(workload.context)).open_step


def step_on_fixed_batch(workload: TrainWorkload) -> OpenStep:
    """kdaug's step with its teacher, always on the same views, uint8 in main memory; nothing is logged. The loss."""
    context = workload.context
    train_step = TrainStep(context, init_state(context), online_soft_labels(context))
    view_batch = next(training_batches(context, 0))
    return always(lambda: train_step(view_batch).mean.detach())


def views_only(workload: TrainWorkload) -> OpenStep:
    """Sampling and views as in the training loop, without prefetching."""
    return always(partial(next, training_batches(workload.context, 0)))
