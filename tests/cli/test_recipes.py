"""kdaug recipes: what it prints can be trained from."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from kdaug.config import from_yaml
from kdaug.recipes import RECIPES, named_recipe


def test_the_list_has_every_recipe_with_the_first_line_of_its_documentation(kdaug: Callable) -> None:
    said = kdaug("recipes")
    assert (said.code, said.err) == (0, "")
    for name, make in RECIPES.items():
        assert any(
            line.split(maxsplit=1) == [name, inspect.getdoc(make).splitlines()[0]] for line in said.out.splitlines()
        )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shown_is_yaml_of_that_recipe(kdaug: Callable, name: str) -> None:
    said = kdaug("recipes", "show", name)
    assert (said.code, said.err) == (0, "")
    assert from_yaml(said.out) == named_recipe(name)
    documentation = [line.rstrip() for line in inspect.getdoc(RECIPES[name]).splitlines()]
    comments = [line[1:].strip() for line in said.out.splitlines() if line.startswith("#")]
    assert comments == [line.strip() for line in documentation]
