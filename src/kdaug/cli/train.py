"""kdaug train RECIPE [--section.setting VALUE ...]"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from kdaug.cli.output import print_error, rank
from kdaug.cli.recipe_arguments import (
    find_recipe,
    parse_recipe,
    print_help_if_requested,
    recipe_stem,
    settings_in_flags,
)
from kdaug.config import Recipe
from kdaug.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from kdaug.training import TrainResult

HELP = """usage: kdaug train RECIPE [--section.setting VALUE ...]

Trains a recipe, which is a name (kdaug recipes lists them), a YAML file or a run directory. Every setting is a flag:
  kdaug train table1-small --data.root data --views.magnitude 4
  kdaug train photos --data.root my-photos --minutes 30
  kdaug train runs/x --run.resume
kdaug train RECIPE --help lists all settings with the recipe's values."""
_PHOTOS = "photos"
_DESCRIPTION = "Train a recipe. Flags change its settings."
_PHOTOS_DESCRIPTION = (
    f"{_DESCRIPTION} For the photos and the machine, these are chosen unless a flag sets them, whatever defaults are "
    "shown below: student.name, student.pretrained, teacher.weights, data.image-size, teacher.epochs, "
    "run.evaluate-every, and of optimization: global-batch, optimizer, learning-rate, weight-decay, decay-on, epochs, "
    "warmup-epochs, ema-decay, precision."
)


@dataclass(frozen=True)
class PhotosArguments(Recipe):
    """The recipe photos with its limit of time."""

    minutes: Annotated[float, Gt(0)] | None = None
    """Minutes that the whole command may take, with the teacher and all evaluations: sets the number of epochs. None:
    as many epochs as suit the number of photos."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    started = time.monotonic()
    if print_help_if_requested(arguments, HELP, "kdaug train RECIPE"):
        return 0
    name, flags = arguments[0], arguments[1:]
    found = find_recipe(name)
    if name == _PHOTOS:
        args = _parse_photos(found, flags)
    else:
        _refuse_minutes(flags)
        recipe = parse_recipe(found, flags, f"kdaug train {name}", _DESCRIPTION)

    from rich.console import Console

    from kdaug.training import Interrupted, train

    console = Console()
    try:
        if name == _PHOTOS:
            recipe = _plan_photos(args, settings_in_flags(flags), started, console)
        result = train(_with_directory(recipe, name), console)
    except Interrupted as stop:
        # if another process was lost, torchrun may stop this one before a wait ends
        print_error(str(stop), wait=stop.reason == "interrupted")
        return 130
    if rank() == 0:
        _print_result(result)
        if name == _PHOTOS or _is_photos_run(recipe):
            _print_summary(result, recipe)
    return 0


def _parse_photos(recipe: Recipe, flags: list[str]) -> PhotosArguments:
    default = PhotosArguments(**vars(recipe))
    args = parse_recipe(default, flags, f"kdaug train {_PHOTOS}", _PHOTOS_DESCRIPTION)
    if args.minutes is not None and "optimization.epochs" in settings_in_flags(flags):
        raise InputError("--minutes and --optimization.epochs are both set", "leave one of them out")
    return args


def _refuse_minutes(flags: list[str]) -> None:
    if "minutes" in settings_in_flags(flags):
        raise InputError("--minutes is for the recipe photos", "set optimization.epochs instead")


def _plan_photos(args: PhotosArguments, given: frozenset[str], started: float, console: Console) -> Recipe:
    """The concrete recipe. Its default run.dir follows from what the user has set, not from what is chosen."""
    from kdaug.photos import Request, plan_recipe

    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    directed = _with_directory(recipe, _PHOTOS)
    if recipe.run.dir is None:
        set_by_user = json.dumps([sorted(given - {"run.resume"}), args.minutes]).encode()
        directory = f"{directed.run.dir}-{hashlib.sha256(set_by_user).hexdigest()[:4]}"
        directed = replace(directed, run=replace(directed.run, dir=directory))
    return plan_recipe(Request(directed, given, args.minutes, started), console)


def _is_photos_run(recipe: Recipe) -> bool:
    """Whether a recipe from a file or run directory is like the recipe photos, which checks its image files."""
    return recipe.data.encoded and recipe.data.check


def _print_result(result: TrainResult) -> None:
    run = shlex.quote(str(result.directory))
    print(
        f"error {result.top1_error:.2f} %, lowest {result.best_top1_error:.2f} %\n"
        f"files in {run}:\n"
        f"  last.safetensors   final weights           kdaug eval {run}\n"
        f"  best.safetensors   lowest error            kdaug eval {run} --weights best\n"
        f"  metrics.jsonl      all metrics; curves in  tensorboard --logdir {run}/tensorboard\n"
        f"  recipe.yaml        to train again          kdaug train {run}/recipe.yaml --run.dir OTHER"
    )


def _print_summary(result: TrainResult, recipe: Recipe) -> None:
    from kdaug.photos import summarize_run

    print("\n".join(summarize_run(result.directory, recipe.data.root, recipe.run.device).lines()))


def _with_directory(recipe: Recipe, name: str) -> Recipe:
    """The recipe with its default run.dir, runs/RECIPE-FINGERPRINT, if it has none."""
    if recipe.run.dir is not None:
        return recipe
    from kdaug.runs import recipe_fingerprint
    from kdaug.training.resolve import resolve

    resolved = resolve(replace(recipe, run=replace(recipe.run, dir="runs")))
    directory = f"runs/{recipe_stem(name)}-{recipe_fingerprint(resolved)}"
    return replace(recipe, run=replace(recipe.run, dir=directory))
