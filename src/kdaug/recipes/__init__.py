"""Named recipes: plain functions that return a Recipe and say in their docstring where its settings come from."""

from __future__ import annotations

from collections.abc import Callable

from kdaug.config import Recipe
from kdaug.errors import InputError, nearest
from kdaug.recipes.cifar import cifar100_table1, cifar100_table1_small
from kdaug.recipes.demonstration import demo
from kdaug.recipes.photos import photos

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "photos": photos,
    "cifar100-table1": cifar100_table1,
    "cifar100-table1-small": cifar100_table1_small,
}


def named_recipe(name: str) -> Recipe:
    """The recipe called `name`; InputError with the nearest name if there is none."""
    if name not in RECIPES:
        suggestion = nearest(name, list(RECIPES)) or f"; there are {', '.join(RECIPES)}"
        raise InputError(f"there is no recipe {name!r}{suggestion}")
    return RECIPES[name]()


__all__ = ["RECIPES", "named_recipe"]
