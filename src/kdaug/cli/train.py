"""kdaug train RECIPE [--section.setting VALUE ...]"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from kdaug.cli.output import print_error, rank
from kdaug.cli.recipe_arguments import apply_flags, find_recipe, print_help_if_asked, recipe_stem
from kdaug.config import Recipe

if TYPE_CHECKING:
    from kdaug.training import TrainResult

HELP = """usage: kdaug train RECIPE [--section.setting VALUE ...]

RECIPE is a name (kdaug recipes lists them) or a YAML file. Every setting can be given as a flag:
  kdaug train cifar100-table1-small --data.root data --views.magnitude 4
  kdaug train photos --data.root my-photos
  kdaug train runs/x/recipe.yaml --run.resume
kdaug train RECIPE --help lists all settings with that recipe's values."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    if print_help_if_asked(arguments, HELP, "kdaug train RECIPE"):
        return 0
    name, flags = arguments[0], arguments[1:]
    recipe = apply_flags(find_recipe(name), flags, f"kdaug train {name}", "Train a recipe; flags change its settings.")

    from kdaug.training import Interrupted, train

    try:
        outcome = train(_with_directory(recipe, name))
    except Interrupted as stop:
        print_error(str(stop))
        return 130
    if rank() == 0:
        _say_where_everything_is(outcome)
    return 0


def _say_where_everything_is(outcome: TrainResult) -> None:
    place = shlex.quote(str(outcome.directory))
    print(
        f"error {outcome.top1_error:.2f} % (top-5 {outcome.top5_error:.2f} %), lowest {outcome.best_top1_error:.2f} %\n"
        f"everything is in {place}:\n"
        f"  last.safetensors   final weights         kdaug eval {place}\n"
        f"  best.safetensors   lowest error          kdaug eval {place} --weights best\n"
        f"  metrics.jsonl      every figure; curves  tensorboard --logdir {place}/tensorboard\n"
        f"  recipe.yaml        to train again        kdaug train {place}/recipe.yaml --run.dir OTHER"
    )


def _with_directory(recipe: Recipe, name: str) -> Recipe:
    """run.dir, where not given: runs/ and the recipe's name, with a fingerprint of its settings."""
    if recipe.run.dir is not None:
        return recipe
    from kdaug.runs import recipe_fingerprint
    from kdaug.training.resolve import resolve

    resolved = resolve(replace(recipe, run=replace(recipe.run, dir="runs")))
    directory = f"runs/{recipe_stem(name)}-{recipe_fingerprint(resolved)}"
    return replace(recipe, run=replace(recipe.run, dir=directory))
