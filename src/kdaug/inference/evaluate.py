"""Evaluating a run's weights, or timm's published ones, on validation images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from kdaug import config
from kdaug.config import ResolvedRecipe, ResolvedRun, ResolvedViews, check
from kdaug.errors import InputError
from kdaug.inference.load import Weights, load_run
from kdaug.networks import check_forward, check_published, published_image_size
from kdaug.runs import read_environment
from kdaug.supervision import load_teacher
from kdaug.training.context import build_context
from kdaug.training.evaluation import Scores, evaluate_on_validation, evaluate_student
from kdaug.training.progress import progress_bar

_logger = logging.getLogger(__name__)


def evaluate_run(run: Path, weights: Weights, root: str | None, device: str, evaluate_size: int | None) -> Scores:
    """Scores of a run's weights on the validation images of its recipe.

    root: replaces the recipe's data.root. device: as run.device. evaluate_size: replaces run.evaluate_size. Raises
    InputError if the run, its weights or its data are not available, or the data have other classes.
    """
    loaded = load_run(run, weights)
    recipe = loaded.recipe
    size = recipe.run.evaluate_size if evaluate_size is None else evaluate_size
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=root or recipe.data.root),
        views=replace(recipe.views, policy="none"),  # not used, and the policy's file may have been deleted
        run=replace(recipe.run, device=device, evaluate_size=size),
    )
    check(recipe)
    context = build_context(recipe, Console(stderr=True))
    if read_environment(loaded.directory).get("data", context.dataset.content) != context.dataset.content:
        _logger.info(f"note: the images differ from those that {run} was trained and evaluated on")
    if loaded.network_info.classes != context.dataset.classes:
        count = len(loaded.network_info.classes)
        raise InputError(f"{loaded.path} was trained on {count} classes that are not those of {recipe.data.root}")
    network = loaded.network
    if size is not None:
        check_forward(network.eval(), loaded.network_info.network, 1, context.dataset.channels, (size, size))
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with progress_bar(context.console) as bar:
        return evaluate_student(context, network, bar)


def evaluate_published(
    name: str, kind: Literal["folder", "shards", "hub"], root: str | None, device: str, evaluate_size: int | None
) -> Scores:
    """Scores of timm's published weights `name` on the validation images of `kind` at `root`.

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
    context = build_context(recipe, Console(stderr=True))
    network = load_teacher(config.Teacher(image_size=size), f"timm:{name}", context.dataset, "").to(context.device)
    with progress_bar(context.console) as bar:
        return evaluate_on_validation(context, network, bar)
