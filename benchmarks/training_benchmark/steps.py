"""The contenders of kdaug: its training loop, parts of it, and the same network in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdaug.device import autocast, compile_if_set
from kdaug.runs import RunDirectory
from kdaug.supervision import SoftLabelSource
from kdaug.training.batches import ViewBatch, training_batches
from kdaug.training.context import TrainContext
from kdaug.training.run import start_or_resume
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep
from kdaug.training.teacher import teacher_soft_labels
from training_benchmark.turns import OpenStep, Step, always
from training_benchmark.workload import TrainWorkload, bench_teacher, first_batch, teacher_network


class BareStep:
    """Forward, backward, clipping and optimizer on one batch in plain PyTorch; with a teacher, its forward first."""

    def __init__(self, context: TrainContext, teacher: nn.Module | None = None) -> None:
        state = init_state(context)
        self._context, self._teacher = context, teacher
        self._network, self._optimizer = state.network.train(), state.optimizer
        self._images, self._labels = first_batch(context)

    def __call__(self, images: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The loss, a scalar on the device. images, labels: instead of the first batch."""
        images = self._images if images is None else images.contiguous(memory_format=torch.channels_last)
        labels = self._labels if labels is None else labels
        with autocast(self._context.device, self._context.precision):
            if self._teacher is not None:
                with torch.inference_mode():
                    self._teacher(images)
            logits = self._network(images)
        loss: Any = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        clip_norm = self._context.recipe.optimization.clip_norm
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return torch.as_tensor(loss.detach())


class TrainLoop:
    """kdaug's training loop; the recipe's schedule leaves out evaluations and checkpoints."""

    def __init__(self, workload: TrainWorkload, name: str, soft_labels: SoftLabelSource | None) -> None:
        """Creates the run directory `name` in the folder of `workload`."""
        directory, context = RunDirectory(workload.folder / name), workload.context
        directory.path.mkdir()
        state = init_state(context)
        self._step = TrainStep(context, state, soft_labels)
        run = start_or_resume(context, state, directory, Event(), soft_labels)
        self._run = workload.resources.enter_context(run)
        self._view_cycle = soft_labels.view_cycle if soft_labels is not None else None

    @contextmanager
    def open_step(self) -> Iterator[Step]:
        """A step that continues where the last turn ended; as in kdaug.training.loop.train_run."""
        with closing(self._run.batches(self._view_cycle)) as batches:
            yield lambda: self._take_step(next(batches))

    def _take_step(self, batch: ViewBatch) -> None:
        self._run.log_step(batch.key, self._step(batch))
        self._run.save_or_stop_if_due()
        self._run.evaluate_if_due()


def online_soft_labels(context: TrainContext) -> SoftLabelSource:
    """Soft labels that the teacher of all contenders computes."""
    return teacher_soft_labels(context, bench_teacher(context))


def bare_step(workload: TrainWorkload) -> OpenStep:
    return always(BareStep(workload.context))


def bare_step_with_teacher(workload: TrainWorkload) -> OpenStep:
    teacher = teacher_network(workload.context)
    compile_if_set(teacher, workload.context.recipe.run)
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


VIEW_STEPS = 64
"""Timed steps of `views_only`: views of images in memory are made for several batches at once."""


def views_only(workload: TrainWorkload) -> OpenStep:
    """Sampling and views as in the training loop, without prefetching."""
    return always(partial(next, training_batches(workload.context, 0)))
