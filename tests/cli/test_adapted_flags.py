"""Flags that change what is the default of others, in every command that has a recipe's flags."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from kdaug.cli.recipe_arguments import parse_recipe
from kdaug.config import Recipe, Supervision, Teacher
from kdaug.errors import InputError
from kdaug.recipes import named_recipe

DKD = Supervision(divergence="decoupled", weight=3.0, temperature=4.0, k=20)
"""The published method with another weight; the recipe demo has K = 20."""
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "label": ("kdaug.training.labeling.label_views", ["--out", "labels"]),
    "inspect": ("kdaug.inspection.inspect_recipe", ["--out", "inspection"]),
    "recommend": ("kdaug.inspection.recommend", []),
    "sweep": ("kdaug.cli.job_table.run_sweep", []),
    "train": ("kdaug.training.train", []),
}


class Reached(Exception):
    """Ends the command with the recipe that it would use."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_method_is_the_default_of_the_other_flags(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, flags = COMMANDS[command]

    def stop(recipe: Recipe | dict[str, Recipe], *arguments: Any, **options: Any) -> None:
        raise Reached(recipe)

    monkeypatch.setattr(function, stop)
    axis = ["run.seed=0"] if command == "sweep" else []
    arguments = ["demo", *axis, "--supervision.weight", "3", "--supervision.method", "dkd", *flags]
    with pytest.raises(Reached) as reached:
        importlib.import_module(f"kdaug.cli.{command}").run(arguments)
    (recipe,) = reached.value.args
    recipe = recipe["seed=0"] if command == "sweep" else recipe
    assert recipe.supervision == DKD


@pytest.mark.parametrize("source", ["run:a", "run:a,run:b", "timm:resnet18", "bundled"])
def test_another_teacher_drops_what_the_recipe_says_of_its_own(source: str) -> None:
    """table1-small trains a teacher with network, policy and epochs of its own."""
    recipe = parse_recipe(named_recipe("table1-small"), ["--teacher.source", source], "kdaug train", "")
    assert recipe.teacher == Teacher(source=source)
    with pytest.raises(InputError, match=r"teacher\.epochs is 3, but has no effect"):
        parse_recipe(named_recipe("table1-small"), [f"--teacher.source={source}", "--teacher.epochs", "3"], "train", "")


@pytest.mark.parametrize("source", ["none", "train"])
def test_without_another_teacher_the_settings_stay(source: str) -> None:
    recipe = parse_recipe(named_recipe("table1-small"), ["--teacher.source", source], "kdaug train", "")
    assert recipe.teacher.policy == "randaugment-n2-m2@paper-geometric"
