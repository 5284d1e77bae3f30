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
from kdaug.supervision import LabelStore, Teacher
from kdaug.training.loop import first_state
from kdaug.training.metrics_log import MetricsLog
from kdaug.training.optimization import autocast
from kdaug.training.progress import RunProgress, show_progress
from kdaug.training.run_directory import RunDirectory
from kdaug.training.setup import Setup
from kdaug.training.step import learn
from kdaug.training.trackers import TensorBoard
from kdaug.training.viewing import Viewed, training_views
from training_benchmark.turns import Opening, Step, always
from training_benchmark.work import Work, batch_in_place, teacher_network, teacher_of


class BareStep:
    """Forward, backward, clipping and optimiser on a batch in place, in plain PyTorch; with a teacher, its forward."""

    def __init__(self, setup: Setup, teacher: nn.Module | None = None) -> None:
        state = first_state(setup)
        self._setup, self._teacher = setup, teacher
        self._network, self._optimizer = state.network.train(), state.optimizer
        self._images, self._labels = batch_in_place(setup)

    def __call__(self) -> Tensor:
        """The loss, a scalar on the device."""
        with autocast(self._setup.device, self._setup.precision):
            if self._teacher is not None:
                with torch.inference_mode():
                    self._teacher(self._images)
            logits = self._network(self._images)
        loss = functional.cross_entropy(logits.float(), self._labels)
        loss.backward()
        clip_norm = self._setup.recipe.optimization.clip_norm
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class WholeLoop:
    """kdaug.training's loop but for evaluations and checkpoints: order, views made ahead, step, log, progress."""

    def __init__(self, work: Work, name: str, teacher: Teacher | LabelStore | None) -> None:
        """The run directory, a new one, is `name` in the folder of `work`."""
        directory, setup = RunDirectory(work.folder / name), work.setup
        directory.path.mkdir()
        self._setup, self._teacher, self._state = setup, teacher, first_state(setup)
        log = MetricsLog(directory, [TensorBoard(directory.tensorboard, 0)], setup.world)
        self._log = work.held.enter_context(log)
        batch = setup.recipe.optimization.global_batch
        self._progress = RunProgress(show_progress(Console(quiet=True)), name, setup.steps, 0, batch)

    @contextmanager
    def opened(self) -> Iterator[Step]:
        """A step that goes on where the last turn ended."""
        with closing(prefetch(training_views(self._setup, self._state.step))) as batches:
            yield lambda: self._step(next(batches))

    def _step(self, viewed: Viewed) -> None:
        state, log = self._state, self._log
        told = learn(self._setup, state, self._teacher, viewed)
        log.step(state.step, viewed.key, told.parts(), state.rate.now())
        self._progress.step(state.step, {**log.epoch_means(), "learning_rate": state.rate.now()})


class LearningInPlace:
    """kdaug's step with its teacher, again and again on the same views, uint8 in main memory; nothing is logged."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._state, self._teacher = setup, first_state(setup), teacher_of(setup)
        self._viewed = next(training_views(setup, 0))

    def __call__(self) -> Tensor:
        """The loss, a scalar on the device."""
        return learn(self._setup, self._state, self._teacher, self._viewed).total.detach()


def bare(work: Work) -> Opening:
    return always(BareStep(work.setup))


def bare_with_teacher(work: Work) -> Opening:
    teacher = teacher_network(work.setup)
    if work.setup.recipe.run.compile:
        teacher.compile()
    return always(BareStep(work.setup, teacher))


def loop(work: Work) -> Opening:
    return WholeLoop(work, "loop", None).opened


def loop_with_teacher(work: Work) -> Opening:
    return WholeLoop(work, "loop-with-teacher", teacher_of(work.setup)).opened


def learning_in_place(work: Work) -> Opening:
    return always(LearningInPlace(work.setup))


def views_alone(work: Work) -> Opening:
    """Order and views as in the loop, but not ahead of anything."""
    return always(partial(next, training_views(work.setup, 0)))
