"""Evaluating a run's weights, or timm's published ones, on validation images."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from kdaug import config
from kdaug.calibration import calibration_error
from kdaug.config import ResolvedRecipe, ResolvedRun, ResolvedViews, check
from kdaug.data import Dataset
from kdaug.data.datasets import read_dataset, select_images
from kdaug.data.images import Images, log_passed_over
from kdaug.errors import InputError
from kdaug.inference.finished_run import Weights, load_run
from kdaug.inference.predictions import (
    PredictionRecorder,
    Predictions,
    class_errors,
    error_interval,
)
from kdaug.networks import check_forward, check_published, published_image_size
from kdaug.runs import read_environment
from kdaug.supervision import load_teacher
from kdaug.training.context import build_context
from kdaug.training.evaluation import Scores, evaluate_split, evaluate_student
from kdaug.training.progress import progress_bar

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """The scores on validation images, and what was predicted for each of those that could be read.

    images: the validation images, also the unreadable ones; val_source: where they come from. side: height and width
    in pixels of what the network got.
    """

    scores: Scores
    predictions: Predictions
    classes: tuple[str, ...]
    images: Images
    val_source: str
    side: int

    def as_dict(self) -> dict[str, Any]:
        """The scores, the interval of the error, the calibration error, and the error of each class, for JSON.

        All errors are in percent.
        """
        wrong = int(self.predictions.wrong.sum())
        return {
            **vars(self.scores),
            "top1_error_interval": error_interval(wrong, len(self.predictions)),
            "calibration_error": calibration_error(self.predictions.calibration),
            "classes": [
                {"class": each.name, "images": each.images, "top1_error": each.error}
                for each in class_errors(self.predictions, self.classes)
            ],
        }


def evaluate_run(run: Path, weights: Weights, root: str | None, device: str, evaluate_size: int | None) -> Scores:
    """The scores of `evaluation_of_run`."""
    return evaluation_of_run(run, weights, root, device, evaluate_size).scores


def evaluation_of_run(
    run: Path, weights: Weights, root: str | None, device: str, evaluate_size: int | None
) -> Evaluation:
    """Evaluates a run's weights on the validation images of its recipe, or on other images.

    root: replaces the recipe's data.root. If the images there are not those of the run, all of them are evaluated, or
    those of the validation split if there is one. device: as run.device. evaluate_size: replaces run.evaluate_size.
    Logs what is evaluated. Raises InputError if the run, its weights or its data are not available, or the data have
    other classes.
    """
    loaded = load_run(run, weights)
    recipe = loaded.recipe
    size = recipe.run.evaluate_size if evaluate_size is None else evaluate_size
    data, dataset = _images_to_evaluate(recipe.data, root, read_environment(loaded.directory).get("data"), run)
    recipe = replace(
        recipe,
        data=data,
        views=replace(recipe.views, policy="none"),  # not used, and the policy's file may have been deleted
        run=replace(recipe.run, device=device, evaluate_size=size),
    )
    check(recipe)
    context = build_context(recipe, Console(stderr=True), dataset=dataset)
    if loaded.network_info.classes != context.dataset.classes:
        count = len(loaded.network_info.classes)
        raise InputError(f"{loaded.path} was trained on {count} classes that are not those of {recipe.data.root}")
    network = loaded.network
    if size is not None:
        check_forward(network.eval(), loaded.network_info.network, 1, context.dataset.channels, (size, size))
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _log_evaluated(recipe.data, context.dataset)
    recorder = PredictionRecorder()
    with progress_bar(context.console) as bar:
        scores = evaluate_student(context, network, bar, observe=recorder)
    return _evaluation(scores, recorder, context.dataset, size or context.dataset.size[0])


def _evaluation(scores: Scores, recorder: PredictionRecorder, dataset: Dataset, side: int) -> Evaluation:
    predictions = recorder.predictions()
    return Evaluation(scores, predictions, dataset.classes, dataset.val, dataset.val_source, side)


def _images_to_evaluate(
    data: config.Data, root: str | None, content: str | None, run: Path
) -> tuple[config.Data, Dataset]:
    """The data settings and the images to evaluate a run on.

    data: those of the run's recipe. root: the directory of other images, or of the moved ones. content: the run's
    `Dataset.content`, if it is known.
    """
    data = replace(data, unlabelled=None, unlabelled_share=config.Data().unlabelled_share, omit_fold=None)
    moved = data if root is None else replace(data, root=root)
    is_other = root is not None and os.path.realpath(root) != os.path.realpath(data.root)
    try:
        dataset = select_images(read_dataset(moved, moved.val_fraction), moved)
        is_other = is_other and content != dataset.content
    except InputError:
        if not is_other:
            raise  # other images need not allow a hold-out split or data.holdout
    if is_other:
        moved = replace(moved, holdout=0.0, train_images=None, measure_unused=False)
        dataset = read_dataset(moved, None)
    if content is not None and content != dataset.content:
        _logger.info(f"note: the images differ from those that {run} was trained and evaluated on")
    return moved, dataset


def _log_evaluated(data: config.Data, dataset: Dataset) -> None:
    root = f" of {data.root}" if data.encoded else ""
    _logger.info(f"evaluating on {len(dataset.val):,} images{root}: {dataset.val_source}")
    log_passed_over(dataset)


def evaluation_of_published(
    name: str, kind: Literal["folder", "shards", "hub"], root: str | None, device: str, evaluate_size: int | None
) -> Evaluation:
    """Evaluates timm's published weights `name` on the images of `kind` at `root`: its validation split, or all.

    Image size (unless `evaluate_size` is given) and normalization are their own. Raises InputError if one is missing.
    """
    check_published(name)
    if root is None:
        raise InputError(f"timm:{name}: the images to evaluate on are missing", "set data.root")
    size = evaluate_size or published_image_size(name)
    recipe = ResolvedRecipe(
        data=config.Data(name=kind, root=root, image_size=size),
        views=ResolvedViews(seed=0),
        run=ResolvedRun(dir=".", device=device),  # nothing is written
    )
    check(recipe)
    dataset = read_dataset(recipe.data, None)
    context = build_context(recipe, Console(stderr=True), dataset=dataset)
    network = load_teacher(config.Teacher(image_size=size), f"timm:{name}", context.dataset).to(context.device)
    _log_evaluated(recipe.data, context.dataset)
    recorder = PredictionRecorder()
    with progress_bar(context.console) as bar:
        scores = evaluate_split(context, network, bar, observe=recorder)
    return _evaluation(scores, recorder, context.dataset, context.dataset.size[0])
