"""Named recipes: functions that return a Recipe, one file per family, with the published result of each."""

from __future__ import annotations

from kdaug.config import Recipe
from kdaug.errors import InputError, did_you_mean
from kdaug.recipes.cifar import CIFAR
from kdaug.recipes.demonstration import DEMONSTRATION
from kdaug.recipes.imagenet import IMAGENET
from kdaug.recipes.named import NamedRecipe, counted_operations
from kdaug.recipes.photos import PHOTOS

RECIPES: dict[str, NamedRecipe] = {
    named.name: named for family in (DEMONSTRATION, PHOTOS, CIFAR, IMAGENET) for named in family
}


def named_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises InputError with the nearest known name if there is none."""
    if name not in RECIPES:
        suggestion = did_you_mean(name, list(RECIPES))
        raise InputError(f"there is no recipe {name!r}{suggestion}", "" if suggestion else "kdaug recipes lists them")
    return RECIPES[name].make()


__all__ = ["RECIPES", "NamedRecipe", "counted_operations", "named_recipe"]
