"""Measures what a run will take: real training steps and evaluations on its own photos, without writing anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from rich.console import Console
from torch import nn

from kdaug.config import Recipe, derive_teacher_recipe, split_source, teacher_network
from kdaug.data import Dataset, EncodedImages
from kdaug.data.fingerprints import fingerprint_images
from kdaug.data.loader import UnreadableImages, prefetch
from kdaug.photos.budget import NetworkSeconds, RunSeconds
from kdaug.photos.rules import trains_teacher
from kdaug.supervision import SoftLabelSource, TeacherEnsemble, load_teacher
from kdaug.training.batches import training_batches
from kdaug.training.context import TrainContext, build_context, check_trainable
from kdaug.training.distributed import DistContext
from kdaug.training.evaluation import evaluate_student
from kdaug.training.progress import progress_bar
from kdaug.training.resolve import resolve
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep
from kdaug.training.teacher import teacher_soft_labels, untrained_soft_labels

_FEWEST_STEPS, _MOST_STEPS = 4, 32
_SECONDS = 4.0
"""After the fewest steps, steps are taken until this time is over."""
_IMAGES = 128
"""Images of the measured evaluation, and of the measured check of the photos."""


def measure_run(recipe: Recipe, dataset: Dataset, dist: DistContext, console: Console) -> RunSeconds:
    """What training `recipe` on `dataset` takes in its parts. All ranks call it; all get the times of rank 0.

    A teacher that has yet to be trained has random weights here. Raises InputError if the recipe cannot be trained.
    """
    context = _lenient(build_context(resolve(recipe), console, dist, dataset))
    check_trainable(context)
    _compile_kernels(context)
    student = _measure_network(context, with_teacher=True)
    teacher = None
    if trains_teacher(recipe):
        labelled = replace(dataset, unlabelled=None)
        teacher_context = build_context(resolve(derive_teacher_recipe(context.recipe)), console, dist, labelled)
        one = _measure_network(_lenient(teacher_context), with_teacher=False)
        # RunSeconds has the steps of the student's epoch, which differ with unlabelled images.
        per_student_step = one.step * teacher_context.steps_per_epoch / context.steps_per_epoch
        teacher = _of_all_folds(replace(one, step=per_student_step), recipe.teacher.folds)
    has_teacher = recipe.teacher.source != "none" and recipe.teacher.labels is None
    evaluations = student.evaluation + (2 * (teacher or student).evaluation if has_teacher else 0.0)
    measured = RunSeconds(context.steps_per_epoch, student, teacher, evaluations + _check_seconds(context))
    return dist.run_on_rank0(lambda: measured)


def _lenient(context: TrainContext) -> TrainContext:
    """`context` without a limit of unreadable images: training names them all and stops at the limit."""
    counts = len(context.train_images), len(context.dataset.val)
    train, val = (UnreadableImages(count, 1.0) for count in counts)
    return replace(context, unreadable_train=train, unreadable_val=val)


def _compile_kernels(context: TrainContext) -> None:
    """Makes one batch and one fingerprint: the kernels for images, compiled here, are not compiled again by the run."""
    in_process = replace(context.recipe, data=replace(context.recipe.data, workers=0))
    next(training_batches(replace(context, recipe=in_process), 0))
    if isinstance(context.dataset.train, EncodedImages):
        fingerprint_images(context.dataset.train.subset(np.zeros(1, np.int64)))


def _of_all_folds(one: NetworkSeconds, folds: int | None) -> NetworkSeconds:
    """The seconds of teacher.folds teachers together: each is trained on all images except one part."""
    if folds is None:
        return one
    return NetworkSeconds(folds * one.start, (folds - 1) * one.step, folds * one.evaluation)


def _measure_network(context: TrainContext, with_teacher: bool) -> NetworkSeconds:
    """with_teacher: whether the steps need the teacher of the recipe."""
    started = time.perf_counter()
    # The pass over all images that label trust begins with is left out; weights and their files need no time here.
    supervision = replace(context.recipe.supervision, label_trust=False)
    context = replace(context, recipe=replace(context.recipe, supervision=supervision), resumes=True)
    soft_labels = _soft_labels(context) if with_teacher else None
    state = init_state(context)
    step, ends = TrainStep(context, state, soft_labels), list[float]()
    with closing(prefetch(training_batches(context, 0))) as batches:
        for batch in islice(batches, _MOST_STEPS):
            step(batch)
            ends.append(_now(context))
            seconds = context.dist.run_on_rank0(lambda: ends[-1] - ends[0])
            if len(ends) >= _FEWEST_STEPS and seconds > _SECONDS:
                break
    evaluation = _evaluation_seconds(context, state.eval_model)
    return NetworkSeconds(ends[0] - started, seconds_per_step(ends, started), evaluation)


def seconds_per_step(ends: Sequence[float], started: float) -> float:
    """The mean time of the second half of the steps, which ended at `ends`; the first one started at `started`.

    The first steps are left out: they take longer because memory is allocated and code compiled, or less because
    workers have decoded their batches ahead.
    """
    if len(ends) == 1:
        return ends[0] - started
    middle = (len(ends) - 1) // 2
    return (ends[-1] - ends[middle]) / (len(ends) - 1 - middle)


def _now(context: TrainContext) -> float:
    if context.device.type == "cuda":
        torch.cuda.synchronize(context.device)
    return time.perf_counter()


def _soft_labels(context: TrainContext) -> SoftLabelSource | None:
    """Those of the recipe's teacher. None with stored labels too, which hardly take time."""
    source = context.recipe.teacher.source
    if context.recipe.teacher.labels is not None:
        return None
    if source in ("none", "train"):
        return untrained_soft_labels(context)
    network = teacher_network(context.recipe)
    members = [
        load_teacher(context.recipe.teacher, each, context.dataset, network).to(context.device)
        for each in split_source(source)
    ]
    return teacher_soft_labels(context, members[0] if len(members) == 1 else TeacherEnsemble(members))


def _evaluation_seconds(context: TrainContext, network: nn.Module) -> float:
    """Seconds of an evaluation on all images that the recipe evaluates, from one on some of them."""
    dataset, count = context.dataset, len(context.dataset.val)
    rows = np.linspace(0, count - 1, min(count, _IMAGES)).astype(np.int64)
    some = replace(context, dataset=replace(dataset, val=dataset.val.subset(rows)))
    started = time.perf_counter()
    with progress_bar(context.console) as bar:
        evaluate_student(some, network, bar)
    images = count + (len(dataset.train) if context.recipe.run.evaluate_train else 0)
    return (_now(context) - started) * images / len(rows)


def _check_seconds(context: TrainContext) -> float:
    """Seconds of the check of all photos, from reading some of them."""
    images = context.dataset.train
    if not context.recipe.data.check or not isinstance(images, EncodedImages):
        return 0.0
    rows = np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(np.int64)
    started = time.perf_counter()
    fingerprint_images(images.subset(rows))
    return (time.perf_counter() - started) * (len(images) + len(context.dataset.val)) / len(rows)
