"""From a recipe's name or file and the flags after it to one recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdaug.cli.parsing import parse
from kdaug.config import Recipe, check, read_recipe
from kdaug.errors import InputError
from kdaug.recipes import RECIPES, named_recipe

_LEFT_BY_A_RUN = ("checkpoints", "environment.json", "metrics.jsonl", "last.safetensors")


def print_help_if_asked(arguments: list[str], text: str, usage: str) -> bool:
    """Whether help is asked for in place of a recipe, and then prints `text`. InputError if there is nothing at all."""
    if not arguments:
        raise InputError(f"which recipe? kdaug recipes lists them; then: {usage}")
    if arguments[0] not in ("-h", "--help"):
        return False
    print(text)
    return True


def find_recipe(name_or_file: str) -> Recipe:
    """The recipe of a name, in a YAML file (anything that ends in .yaml or .yml, or has a slash in it), or of a run.

    A run is meant by its directory or the recipe.yaml in it, and is that directory wherever it stands by now.
    """
    if name_or_file.startswith("-"):
        raise InputError(f"the recipe comes first, then the flags: RECIPE {name_or_file} ...")
    path = Path(name_or_file)
    if name_or_file not in RECIPES and path.is_dir():
        path = path / "recipe.yaml"
    elif not (name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file):
        return named_recipe(name_or_file)
    recipe = read_recipe(path)
    of_a_run = path.name == "recipe.yaml" and any((path.parent / name).exists() for name in _LEFT_BY_A_RUN)
    return replace(recipe, run=replace(recipe.run, dir=str(path.parent))) if of_a_run else recipe


def apply_flags(recipe: Recipe, flags: list[str], program: str, description: str) -> Recipe:
    """`recipe` with the settings that `flags` give; InputError for a flag that there is not or a value that is none."""
    return check(parse(Recipe, flags, program, default=recipe, description=description))


def recipe_stem(name_or_file: str) -> str:
    """A short name for the recipe, for its default run directory."""
    return Path(name_or_file).stem
