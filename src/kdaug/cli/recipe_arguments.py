"""From the recipe argument of a command, and the flags after it, to a Recipe."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from kdaug.cli.parsing import parse
from kdaug.config import METHODS, Recipe, check, read_recipe, with_method, without_unused_settings
from kdaug.errors import InputError
from kdaug.recipes import RECIPES, named_recipe

RecipeT = TypeVar("RecipeT", bound=Recipe)

_RUN_FILES = ("checkpoints", "environment.json", "metrics.jsonl", "last.safetensors")


def print_help_if_requested(arguments: list[str], text: str, usage: str) -> bool:
    """Prints `text` and returns True if the first argument asks for help. Raises InputError without arguments."""
    if not arguments:
        raise InputError(f"a recipe is missing: {usage}", "kdaug recipes lists all recipes")
    if arguments[0] not in ("-h", "--help"):
        return False
    print(text)
    return True


def find_recipe(name_or_path: str) -> Recipe:
    """The recipe with that name, in that YAML file (a path ends in .yaml or .yml or contains a slash), or of that run.

    A run is given by its directory or by the recipe.yaml in it; run.dir of its recipe is set to that directory.
    """
    if name_or_path.startswith("-"):
        raise InputError(f"the recipe comes first, then the flags: RECIPE {name_or_path} ...")
    path = Path(name_or_path)
    if name_or_path not in RECIPES and path.is_dir():
        path = path / "recipe.yaml"
    elif not (name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path):
        return named_recipe(name_or_path)
    recipe = read_recipe(path)
    is_run = path.name == "recipe.yaml" and any((path.parent / name).exists() for name in _RUN_FILES)
    return replace(recipe, run=replace(recipe.run, dir=str(path.parent))) if is_run else recipe


def parse_recipe(default: RecipeT, flags: list[str], program: str, description: str) -> RecipeT:
    """`default` with the settings in `flags`. Raises InputError for an unknown flag or an invalid value."""
    default = adapt_to_flags(default, flags)
    recipe = without_method(parse(type(default), flags, program, default=default, description=description))
    check(recipe)
    return recipe


def adapt_to_flags(recipe: RecipeT, flags: list[str]) -> RecipeT:
    """The defaults for all other `flags` after those that name a method or a teacher.

    With the settings of supervision.method, and without those of the recipe's own teacher that have no effect with the
    teacher.source in `flags`.
    """
    words = [word for flag in flags for word in flag.split("=", 1)]
    values = dict(pairwise(words))
    method = next((name for name in METHODS if name == values.get("--supervision.method")), None)  # tyro reports others
    if method is not None:
        recipe = replace(recipe, supervision=with_method(recipe.supervision, method))
    source = values.get("--teacher.source")
    if source not in (None, "none", "train"):
        recipe = replace(recipe, teacher=without_unused_settings(recipe.teacher, source))
    return recipe


def without_method(recipe: RecipeT) -> RecipeT:
    """`recipe` after its flags have been parsed: what supervision.method names is in the other settings now."""
    return replace(recipe, supervision=replace(recipe.supervision, method=None))


def settings_in_flags(flags: list[str]) -> frozenset[str]:
    """The dotted names of the settings that `flags` set, also to their default: --no-a.b, --a.no-b and --a.b=V too."""
    names = (flag[2:].partition("=")[0].replace("-", "_") for flag in flags if flag.startswith("--"))
    return frozenset(re.sub(r"\.no_", ".", name.removeprefix("no_")) for name in names)


def recipe_stem(name_or_path: str) -> str:
    """A short name for the recipe, used in the name of its default run directory."""
    return Path(name_or_path).stem
