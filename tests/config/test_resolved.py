"""Resolved recipes and the teacher's recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdaug import InputError
from kdaug.config import (
    Recipe,
    ResolvedRecipe,
    ResolvedRun,
    ResolvedViews,
    Run,
    Teacher,
    Views,
    check,
    derive_teacher_recipe,
    from_yaml,
    to_dict,
    to_yaml,
    with_settings,
)

PLAIN = Recipe(views=Views(policy="flip", seed=3), run=Run(dir="runs/a", seed=3))
RESOLVED = ResolvedRecipe(
    views=ResolvedViews(policy="flip", seed=3), run=ResolvedRun(dir="runs/a", seed=3), data=PLAIN.data
)


def test_a_resolved_recipe_is_written_like_a_plain_one() -> None:
    assert to_yaml(RESOLVED) == to_yaml(PLAIN)
    assert to_dict(RESOLVED) == to_dict(PLAIN)
    assert from_yaml(to_yaml(RESOLVED)) == PLAIN
    assert with_settings(RESOLVED, {"run.seed": 4}, "x") == with_settings(PLAIN, {"run.seed": 4}, "x")


def test_a_resolved_recipe_is_checked_like_a_plain_one() -> None:
    assert check(RESOLVED) is RESOLVED
    with pytest.raises(InputError, match=r"^views\.seed is -1, but must be at least 0"):
        check(replace(RESOLVED, views=replace(RESOLVED.views, seed=-1)))


def test_a_resolved_recipe_needs_seed_and_directory() -> None:
    with pytest.raises(TypeError, match="seed"):
        ResolvedViews()
    with pytest.raises(TypeError, match="dir"):
        ResolvedRun()


@pytest.mark.parametrize("recipe", [PLAIN, RESOLVED])
def test_the_teacher_recipe_is_plain_and_keeps_the_directory(recipe: Recipe) -> None:
    teacher = derive_teacher_recipe(replace(recipe, teacher=Teacher("train", policy="none", seed=7)))
    assert [type(part) for part in (teacher, teacher.views, teacher.run)] == [Recipe, Views, Run]
    assert (teacher.run.dir, teacher.run.seed, teacher.views.seed, teacher.views.policy) == ("runs/a", 7, 7, "none")
    assert teacher.teacher == Teacher()
