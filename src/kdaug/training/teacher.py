"""The soft labels of a run: from a teacher that is loaded or a label store that is opened before training."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug.config import split_source, teacher_network
from kdaug.data.images import fold_of_images
from kdaug.device import compile_if_set
from kdaug.errors import InputError
from kdaug.networks import InputFormat, check_forward, create_network
from kdaug.supervision import (
    AnyTeacher,
    SoftLabelSource,
    StoredSoftLabels,
    Teacher,
    TeacherEnsemble,
    TeacherSoftLabels,
    load_teacher,
    open_label_store,
)
from kdaug.training.batches import dataset_fingerprint
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import evaluate_split, unaugmented_label_log_probs
from kdaug.training.progress import progress_bar

_logger = logging.getLogger(__name__)


def open_soft_labels(context: TrainContext) -> SoftLabelSource | None:
    """The label store or the teacher that the recipe names; None if there is none, or it has yet to be trained."""
    source, labels = context.recipe.teacher.source, context.recipe.teacher.labels
    if labels is not None:
        supervision, epochs = context.recipe.supervision, filter(context.uses_teacher, range(context.epochs))
        stored = StoredSoftLabels(
            open_label_store(Path(labels), dataset_fingerprint(context), supervision, epochs), supervision
        )
        stored.prepare()  # so that damage is reported before the run directory is created
        return stored
    if source in ("none", "train"):
        return None
    return teacher_soft_labels(context, load_checked_teacher(context, source))


def teacher_soft_labels(context: TrainContext, teacher: AnyTeacher) -> TeacherSoftLabels:
    """The soft labels that `teacher` computes for the views of a run."""
    return TeacherSoftLabels(
        teacher,
        context.recipe.supervision,
        lambda before_batch: unaugmented_label_log_probs(context, teacher, before_batch=before_batch),
    )


def untrained_soft_labels(context: TrainContext, network: tuple[str, int] | None = None) -> TeacherSoftLabels | None:
    """The soft labels of a teacher with random weights, for tests and measurements; None if the recipe has no teacher.

    network: (name, image size) of the teacher; None: as the teacher that the recipe trains.
    """
    if context.recipe.teacher.source == "none":
        return None
    default, dataset = teacher_network(context.recipe), context.dataset
    name, side = network or (default.name, None)
    arguments = {} if network else default.arguments
    teacher = create_network(name, len(dataset.classes), dataset.channels, arguments=arguments)
    input_format = InputFormat(dataset.mean, dataset.std, None if side is None else (side, side))
    return teacher_soft_labels(context, Teacher(teacher, input_format).to(context.device))


def load_checked_teacher(context: TrainContext, source: str) -> AnyTeacher:
    """The teacher from `source` (run:DIR, file:PATH, timm:NAME, or several of them) on the device.

    Logs its error on the validation images and warns if it is close to guessing: its classes or its normalization are
    then probably wrong. Raises InputError if it cannot be loaded, does not accept the images, or gives values that are
    not finite.
    """
    members = [_load_checked_member(context, each) for each in split_source(source)]
    return members[0] if len(members) == 1 else _ensemble(context, members)


def cross_fitted_teacher(context: TrainContext, runs: Sequence[Path]) -> TeacherEnsemble:
    """The teachers of `runs`, each for the training images of the fold that it was trained without."""
    members = [_load_checked_member(context, f"run:{run}") for run in runs]
    fold = fold_of_images(context.dataset.train.labels, len(runs))
    return _ensemble(context, members, fold)


def _ensemble(
    context: TrainContext, members: Sequence[Teacher], fold: NDArray[np.int64] | None = None
) -> TeacherEnsemble:
    ensemble = TeacherEnsemble(members, fold)
    _check_error(context, ensemble, f"average of {len(members)} teachers")
    return ensemble


def _load_checked_member(context: TrainContext, source: str) -> Teacher:
    dataset = context.dataset
    teacher = load_teacher(context.recipe.teacher, source, dataset, teacher_network(context.recipe))
    size = teacher.input_format.size or dataset.size
    check_forward(teacher.network, f"of the teacher {source}", 1, dataset.channels, size)
    teacher.to(context.device)
    compile_if_set(teacher.network, context.recipe.run)
    _check_error(context, teacher, source)
    return teacher


def _check_error(context: TrainContext, teacher: AnyTeacher, source: str) -> None:
    """Logs the error on the validation images; see `load_checked_teacher`."""
    with progress_bar(context.console) as bar:
        scores = evaluate_split(context, teacher, bar, "teacher")
    if not math.isfinite(scores.val_loss):
        raise InputError(f"the outputs of the teacher {source} are not finite", "use other weights")
    _logger.info(f"teacher {source}: error {scores.top1_error:.2f} % on the validation images")
    error_of_guessing = 100 - 100 / len(context.dataset.classes)
    if scores.top1_error > 0.9 * error_of_guessing:
        advice = (
            "train it for more epochs, or choose another one with teacher.source"
            if context.recipe.teacher.source == "train"
            else "check that its classes are in the dataset's order and that its normalization (teacher.mean, "
            "teacher.std) is right"
        )
        _logger.warning(f"the teacher is little better than guessing; {advice}")
