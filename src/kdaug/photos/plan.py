"""From a recipe for photos to a concrete one: chooses what the user has not set, and estimates the time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from kdaug.config import Network, Recipe, read_recipe, to_dict, with_settings
from kdaug.data import Dataset
from kdaug.data.datasets import read_dataset, select_images
from kdaug.device import find_device
from kdaug.errors import InputError
from kdaug.networks import create_network, native_image_size
from kdaug.photos.budget import RunSeconds, epochs_within, estimate, minutes_needed
from kdaug.photos.measure import measure_run
from kdaug.photos.rules import (
    CHOSEN,
    Facts,
    epochs_by_rule,
    fewest_epochs,
    most_epochs,
    optimizer_settings,
    schedule_settings,
    size_settings,
    smaller_side,
    trains_teacher,
)
from kdaug.photos.start import choose_start
from kdaug.runs import RunDirectory
from kdaug.training.distributed import DistContext, distributed_context
from kdaug.training.progress import console_logging
from kdaug.training.resolve import resolve, teacher_run_recipes

_logger = logging.getLogger(__name__)
_OF_LABELS = frozenset({"data.image_size", "optimization.epochs", "optimization.precision"})
"""Settings that stored labels are made for: they stay those of the recipe, as `kdaug label photos` uses them."""


@dataclass(frozen=True)
class Request:
    """What the user asked for. recipe: with run.dir set. given: the settings that are kept, by dotted name.

    minutes: limit of the whole command; None: no limit. started: when the command started, by time.monotonic().
    """

    recipe: Recipe
    given: frozenset[str]
    minutes: float | None
    started: float


def plan_recipe(request: Request, console: Console) -> Recipe:
    """The recipe to train: with a value for each setting in `CHOSEN` that the user has not set.

    If the run exists already, its values are taken. Otherwise they follow from rules, and the number of epochs also
    from `request.minutes`; training steps are measured, and the estimated time is logged. Raises InputError if a
    setting is impossible or the time is too short.
    """
    with distributed_context() as dist, console_logging(console if dist.is_rank0 else Console(quiet=True)):
        recorded = dist.run_on_rank0(lambda: _recorded(request.recipe))
        if recorded is not None:
            return _choose(request, request.recipe, _chosen_values(recorded))
        stored = request.recipe.teacher.labels is not None
        if request.minutes is not None and (stored or not request.recipe.data.encoded):
            raise InputError(
                "--minutes chooses the number of epochs for image files (folder, shards, hub) without stored labels",
                "set optimization.epochs instead",
            )
        if not request.recipe.data.encoded:
            return request.recipe
        request = replace(request, given=request.given | _OF_LABELS) if stored else request
        return _plan_new(request, dist, console if dist.is_rank0 else Console(quiet=True))


def _recorded(recipe: Recipe) -> Recipe | None:
    """The recipe of the run in run.dir, if it was started before."""
    path = RunDirectory(Path(recipe.run.dir or "")).recipe
    return read_recipe(path) if path.is_file() else None


def _chosen_values(recipe: Recipe) -> dict[str, Any]:
    tree = to_dict(recipe)
    return {name: tree[name.partition(".")[0]][name.partition(".")[2]] for name in CHOSEN}


def _choose(request: Request, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """`recipe` with `values` for the settings that the user has not set."""
    own = {name: value for name, value in values.items() if name not in request.given}
    return with_settings(recipe, own, "settings chosen for the photos")


def _plan_new(request: Request, dist: DistContext, console: Console) -> Recipe:
    recipe = request.recipe
    resolve(recipe)  # for its errors, before anything is downloaded or measured
    dataset = _read(recipe)
    start = dist.run_on_rank0(lambda: choose_start(recipe, request.given))
    recipe = _choose(request, recipe, start.settings)
    facts = _facts(recipe, dataset, dist)
    recipe = _choose(request, recipe, size_settings(facts))
    recipe = _choose(request, recipe, optimizer_settings(recipe, facts))
    if not facts.on_gpu and _has_depthwise_convolutions(recipe.student, dataset):
        recipe = _choose(request, recipe, {"optimization.precision": "float32"})
    for reason in start.reasons:
        _logger.info(reason)
    recipe, seconds = _measure(request, recipe, facts, dist, console)
    recipe = _choose(request, recipe, schedule_settings(recipe, facts, _epochs(request, recipe, facts, seconds, dist)))
    _logger.info(_describe(request, recipe, facts))
    exists = dist.run_on_rank0(lambda: _teacher_exists(recipe, dataset))
    _logger.info(_describe_time(recipe, replace(seconds, teacher=None) if exists else seconds))
    return recipe


def _read(recipe: Recipe) -> Dataset:
    """The images of `recipe`, at its image size."""
    return select_images(read_dataset(recipe.data, recipe.data.val_fraction), recipe.data)


def _measure(
    request: Request, recipe: Recipe, facts: Facts, dist: DistContext, console: Console
) -> tuple[Recipe, RunSeconds]:
    """`recipe` with images that are small enough for the limit of time, and what it takes."""
    _logger.info("measuring training steps")
    while True:
        with _warnings_off():
            seconds = measure_run(recipe, _read(recipe), dist, console)
        side = _smaller_side(request, recipe, facts, seconds, dist)
        if side is None:
            return recipe, seconds
        _logger.info(f"measuring again with images of {side}x{side} pixels, of which more epochs fit into the time")
        recipe = _choose(request, recipe, {"data.image_size": side})


def _smaller_side(request: Request, recipe: Recipe, facts: Facts, seconds: RunSeconds, dist: DistContext) -> int | None:
    """The side of smaller images, if the limit of time leaves too few epochs and the size may be chosen."""
    if request.minutes is None or facts.is_fixed_side or request.given & {"data.image_size", "optimization.epochs"}:
        return None
    epochs, side = fewest_epochs(facts), recipe.data.image_size
    elapsed = dist.run_on_rank0(lambda: time.monotonic() - request.started)
    needed = minutes_needed(seconds, epochs, elapsed, recipe.teacher.epochs, recipe.optimization.clean_epochs)
    return smaller_side(side, request.minutes / needed) if side is not None and needed > request.minutes else None


def _has_depthwise_convolutions(settings: Network, dataset: Dataset) -> bool:
    """Whether the network has depthwise convolutions, which CPUs compute faster in float32 than in bfloat16."""
    network = create_network(settings.name, len(dataset.classes), dataset.channels, arguments=settings.arguments)
    return any(
        isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels for module in network.modules()
    )


def _facts(recipe: Recipe, dataset: Dataset, dist: DistContext) -> Facts:
    on_gpu = find_device(recipe.run.device, dist.local_rank).type != "cpu"
    fine_tunes = recipe.student.initial_weights is not None
    return Facts(len(dataset.train), on_gpu, dist.world_size, fine_tunes, *native_image_size(recipe.student))


@contextmanager
def _warnings_off() -> Iterator[None]:
    """Unreadable images are named when they are met in training."""
    logger = logging.getLogger("kdaug")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _epochs(request: Request, recipe: Recipe, facts: Facts, seconds: RunSeconds, dist: DistContext) -> int:
    if "optimization.epochs" in request.given:
        return recipe.optimization.epochs
    if request.minutes is None:
        return epochs_by_rule(facts)
    elapsed = dist.run_on_rank0(lambda: time.monotonic() - request.started)
    clean_epochs, most = recipe.optimization.clean_epochs, most_epochs(facts)
    return epochs_within(seconds, request.minutes, elapsed, most, recipe.teacher.epochs, clean_epochs)


def _describe(request: Request, recipe: Recipe, facts: Facts) -> str:
    """One line: what was chosen."""
    values = _chosen_values(recipe)
    chosen = [
        f"{name} {value}"
        for name, value in values.items()
        if name not in request.given and not name.endswith(("pretrained", "weights", "student.name"))
        if name != "teacher.epochs" or trains_teacher(recipe)
    ]
    start = "fine-tuning" if facts.fine_tunes else "from scratch"
    device = "GPU" if facts.on_gpu else "CPU"
    return f"chosen for {facts.images:,} training images, {start}, {device}: {', '.join(chosen)}"


def _teacher_exists(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether the teacher to be trained is already there, from another run."""
    if not trains_teacher(recipe):
        return False
    teachers = teacher_run_recipes(resolve(recipe), dataset.content)
    return all(RunDirectory(Path(teacher.run.dir or "")).is_finished for teacher in teachers)


def _describe_time(recipe: Recipe, seconds: RunSeconds) -> str:
    epochs = recipe.optimization.epochs
    parts = estimate(seconds, epochs, recipe.teacher.epochs or epochs, recipe.optimization.clean_epochs)
    teacher = "" if seconds.teacher is None else f"teacher {_minutes(parts.teacher)}, "
    return (
        f"estimated time from now: {_minutes(parts.total)} minutes ({teacher}student {_minutes(parts.student)}, "
        f"checks and last evaluations {_minutes(parts.other)}), from {seconds.student.step:.3g} s per training step of "
        "the student"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"
