"""The student of a run against plain training: the same network, trained on the same photos without a policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdaug.config import Recipe
from kdaug.inference import Evaluation, evaluation_of_run
from kdaug.inference.predictions import Predictions, error_interval
from kdaug.intervals import Interval, paired_interval
from kdaug.runs import RunDirectory, read_environment
from kdaug.training.resolve import read_resolved_recipe, teacher_run_recipes


@dataclass(frozen=True)
class PlainTraining:
    """The run of plain training, and its evaluation on the validation images of the student's run."""

    directory: Path
    recipe: Recipe
    evaluation: Evaluation


@dataclass(frozen=True)
class Gain:
    """By how many points the student's error is lower, with its 95 % interval, on `images` images of both."""

    points: float
    interval: Interval
    images: int


def find_plain_training(run: Path, root: str, device: str) -> PlainTraining | None:
    """The teacher of `run` if it is plain training: the student's network and initial weights, image size and photos,
    without a policy, cutout, mixing or a teacher of its own. None if the run has no such teacher.

    root, device: see `evaluate_final`.
    """
    recipe = read_resolved_recipe(RunDirectory(run).recipe)
    recipe = replace(recipe, run=replace(recipe.run, dir=str(run)))
    content = read_environment(RunDirectory(run)).get("data")
    kind, _, location = recipe.teacher.source.partition(":")
    if recipe.teacher.labels is not None or recipe.teacher.folds is not None or kind not in ("train", "run"):
        return None
    directory = Path(location if kind == "run" else teacher_run_recipes(recipe, content)[0].run.dir or "")
    directory = directory.parent if directory.name == "recipe.yaml" else directory
    teacher = RunDirectory(directory)
    if not teacher.recipe.is_file() or not teacher.last_weights.is_file():
        return None
    plain = read_resolved_recipe(teacher.recipe)
    if read_environment(teacher).get("data") != content or not _is_plain(plain, recipe):
        return None
    return PlainTraining(directory, plain, evaluate_final(directory, root, device))


def _is_plain(plain: Recipe, recipe: Recipe) -> bool:
    same_photos = all(
        getattr(plain.data, name) == getattr(recipe.data, name)
        for name in ("image_size", "val_fraction", "holdout", "train_images", "omit_fold")
    )
    views = plain.views
    is_unaugmented = views.policy == "none" and not views.cutout and not views.mixes
    has_no_teacher = plain.teacher.source == "none" and plain.teacher.labels is None
    return plain.student == recipe.student and same_photos and is_unaugmented and has_no_teacher


def evaluate_final(run: Path, root: str, device: str) -> Evaluation:
    """Evaluates the final weights of `run` on its validation images, which are at `root`. device: as run.device."""
    return evaluation_of_run(run, "last", root, device, None)


def gain(plain: Predictions, student: Predictions) -> Gain:
    """The difference of their errors on the images that both could read."""
    _, rows, student_rows = np.intersect1d(plain.rows, student.rows, return_indices=True)
    plain_wrong, student_wrong = plain.wrong[rows], student.wrong[student_rows]
    repaired, broken = int((plain_wrong & ~student_wrong).sum()), int((student_wrong & ~plain_wrong).sum())
    low, high = paired_interval(repaired, broken, len(rows))
    return Gain(100 * (repaired - broken) / len(rows), (100 * low, 100 * high), len(rows))


def interval_of(evaluation: Evaluation) -> Interval:
    """Wilson's 95 % interval of the error, in percent."""
    return error_interval(int(evaluation.predictions.wrong.sum()), len(evaluation.predictions))
