"""Measuring a run's weights again, later or elsewhere."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from kdaug import config
from kdaug.config import check, read_recipe
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.networks import check_forward, check_published, load_network, published_image_size
from kdaug.runs import RunDirectory, read_environment
from kdaug.supervision import load_teacher
from kdaug.training.context import build_context, evaluate_on_validation, validation_batches
from kdaug.training.evaluation import Scores, evaluate
from kdaug.training.progress import print_line, progress_bar, track


def evaluate_run(
    run: str,
    weights: Literal["last", "best"],
    kind: Literal["folder", "shards", "hub"] | None,
    root: str | None,
    device: str,
    evaluate_size: int | None,
) -> Scores:
    """Scores of the `last` or `best` weights in directory `run` on the validation images of its recipe's data.

    Or, if `run` is timm:NAME, of the weights that timm publishes under that name, on the `kind` of data at `root`.
    `root` replaces the recipe's data.root, `evaluate_size` its run.evaluate_size. Raises InputError if the run, its
    weights or its data are not there, or the data now have other classes.
    """
    place = Path(run)
    if run.startswith("timm:"):
        return _evaluate_published(run, kind or "folder", root, device, evaluate_size)
    if kind is not None:
        raise InputError("data.name is for timm:NAME; a run knows its own, only data.root may be another one by now")
    directory = RunDirectory(place.parent if place.name == "recipe.yaml" else place)
    if not directory.recipe.is_file():
        raise InputError(f"{run} is not a run directory: it holds no recipe.yaml")
    path = directory.last_weights if weights == "last" else directory.best_weights
    if not path.is_file():
        raise InputError(
            f"{run} holds no {path.name} yet; is the run finished? "
            f"(kdaug train {shlex.quote(str(directory.path))} --run.resume)"
        )
    recipe = read_recipe(directory.recipe)
    side = recipe.run.evaluate_size if evaluate_size is None else evaluate_size
    changed = replace(
        recipe,
        data=replace(recipe.data, root=root or recipe.data.root),
        views=replace(recipe.views, policy="none"),  # no view is made, and the policy's file may be gone
        run=replace(recipe.run, device=device, evaluate_size=side),
    )
    context = build_context(check(changed), Console(stderr=True))
    if read_environment(directory).get("data", context.dataset.content) != context.dataset.content:
        print_line(
            context.console,
            f"note: these are not the images that {run} was trained and measured on, or not all of them",
        )
    network, card = load_network(path)
    if card.classes != context.dataset.classes:
        raise InputError(f"{path} was trained on {len(card.classes)} classes that are not those of {changed.data.root}")
    if side is not None:
        check_forward(network.eval(), card.network, 1, context.dataset.channels, (side, side))
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with progress_bar(context.console) as bar:
        return evaluate_on_validation(context, network, bar)


def _evaluate_published(
    source: str, kind: Literal["folder", "shards", "hub"], root: str | None, device: str, evaluate_size: int | None
) -> Scores:
    """Scores of timm's weights on the validation images of `kind` at `root`, at their own size and normalisation."""
    name = source.removeprefix("timm:")
    check_published(name)
    if root is None:
        raise InputError(f"{source}: on which images? give them with --data.root")
    side = evaluate_size or published_image_size(name)
    data = config.Data(name=kind, root=root, image_size=side)
    recipe = check(config.Recipe(data=data, run=config.Run(device=device)))
    context = build_context(replace(recipe, views=replace(recipe.views, seed=0)), Console(stderr=True))
    network = load_teacher(config.Teacher(image_size=side), source, context.dataset, "").to(context.device)
    with progress_bar(context.console) as bar, torch.no_grad(), autocast(context.device, context.precision):
        batches = track(bar, "evaluating", validation_batches(context), len(context.dataset.val))
        return evaluate(network, batches, context.device)
