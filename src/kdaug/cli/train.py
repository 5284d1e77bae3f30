"""kdaug train RECIPE [--section.setting VALUE ...]"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from kdaug.cli.output import print_error, rank
from kdaug.cli.recipe_arguments import apply_flags, find_recipe, print_help_if_requested, recipe_stem
from kdaug.config import Recipe

if TYPE_CHECKING:
    from kdaug.training import TrainResult

HELP = """usage: kdaug train RECIPE [--section.setting VALUE ...]

Trains a recipe, which is a name (kdaug recipes lists them), a YAML file or a run directory. Every setting is a flag:
  kdaug train cifar100-table1-small --data.root data --views.magnitude 4
  kdaug train photos --data.root my-photos
  kdaug train runs/x --run.resume
kdaug train RECIPE --help lists all settings with the recipe's values."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    if print_help_if_requested(arguments, HELP, "kdaug train RECIPE"):
        return 0
    name, flags = arguments[0], arguments[1:]
    recipe = apply_flags(find_recipe(name), flags, f"kdaug train {name}", "Train a recipe. Flags change its settings.")

    from rich.console import Console

    from kdaug.training import Interrupted, train

    try:
        result = train(_with_directory(recipe, name), Console())
    except Interrupted as stop:
        # if another process was lost, torchrun may stop this one before a wait ends
        print_error(str(stop), wait=stop.reason == "interrupted")
        return 130
    if rank() == 0:
        _print_result(result)
    return 0


def _print_result(result: TrainResult) -> None:
    run = shlex.quote(str(result.directory))
    print(
        f"error {result.top1_error:.2f} % (top-5 {result.top5_error:.2f} %), lowest {result.best_top1_error:.2f} %\n"
        f"files in {run}:\n"
        f"  last.safetensors   final weights           kdaug eval {run}\n"
        f"  best.safetensors   lowest error            kdaug eval {run} --weights best\n"
        f"  metrics.jsonl      all metrics; curves in  tensorboard --logdir {run}/tensorboard\n"
        f"  recipe.yaml        to train again          kdaug train {run}/recipe.yaml --run.dir OTHER"
    )


def _with_directory(recipe: Recipe, name: str) -> Recipe:
    """The recipe with its default run.dir, runs/RECIPE-FINGERPRINT, if it has none."""
    if recipe.run.dir is not None:
        return recipe
    from kdaug.runs import recipe_fingerprint
    from kdaug.training.resolve import resolve

    resolved = resolve(replace(recipe, run=replace(recipe.run, dir="runs")))
    directory = f"runs/{recipe_stem(name)}-{recipe_fingerprint(resolved)}"
    return replace(recipe, run=replace(recipe.run, dir=directory))
