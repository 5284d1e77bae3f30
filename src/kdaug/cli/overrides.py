"""Command-line flags on top of a recipe, with tyro: one flag per setting, its docstring the help."""

from __future__ import annotations

from pathlib import Path

import tyro

from kdaug.config import Recipe, check, read_recipe
from kdaug.recipes import named_recipe


def find_recipe(name_or_file: str) -> Recipe:
    """The recipe of a name, or in a YAML file (anything that ends in .yaml or .yml, or has a slash in it)."""
    if name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file:
        return read_recipe(name_or_file)
    return named_recipe(name_or_file)


def with_flags(recipe: Recipe, flags: list[str], program: str, description: str) -> Recipe:
    """`recipe` with the settings that `flags` give; help and errors about flags are tyro's, with exit code 2."""
    changed = tyro.cli(
        Recipe,
        default=recipe,
        args=flags,
        prog=program,
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return check(changed)


def recipe_stem(name_or_file: str) -> str:
    """A short name for the recipe, for its default run directory."""
    return Path(name_or_file).stem
