"""kdaug train RECIPE [--section.setting VALUE ...]"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from kdaug.cli.overrides import find_recipe, recipe_stem, with_flags
from kdaug.config import Recipe
from kdaug.errors import InputError

HELP = """usage: kdaug train RECIPE [--section.setting VALUE ...]

RECIPE is a name (kdaug recipes lists them) or a YAML file. Every setting can be given as a flag:
  kdaug train cifar100-table1-small --data.root data --views.magnitude 4
  kdaug train photos --data.root my-photos
  kdaug train runs/x/recipe.yaml --run.resume
kdaug train RECIPE --help lists all settings with that recipe's values."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    if not arguments:
        raise InputError("which recipe? kdaug recipes lists them; then: kdaug train RECIPE")
    if arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    name, flags = arguments[0], arguments[1:]
    if name.startswith("-"):
        raise InputError(f"the recipe comes first, then the flags: kdaug train RECIPE {name} ...")
    recipe = with_flags(find_recipe(name), flags, f"kdaug train {name}", "Train a recipe; flags change its settings.")

    from kdaug.training import Interrupted, train

    try:
        outcome = train(_with_directory(recipe, name))
    except Interrupted as stop:
        print(f"kdaug: {stop}", file=sys.stderr)
        return 130
    print(
        f"error {outcome.top1_error:.2f} % (top-5 {outcome.top5_error:.2f} %), lowest {outcome.best_top1_error:.2f} %"
    )
    place = shlex.quote(str(outcome.directory))
    print(f"everything is in {place}; measure again with: kdaug eval {place}")
    return 0


def _with_directory(recipe: Recipe, name: str) -> Recipe:
    """run.dir, where not given: runs/ and the recipe's name, with a fingerprint of its settings."""
    if recipe.run.dir is not None:
        return recipe
    from kdaug.training.resolving import resolve
    from kdaug.training.run_directory import fingerprint

    resolved = resolve(replace(recipe, run=replace(recipe.run, dir="runs")))
    directory = f"runs/{recipe_stem(name)}-{fingerprint(resolved)}"
    return replace(recipe, run=replace(recipe.run, dir=directory))
