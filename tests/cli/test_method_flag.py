"""--supervision.method in every command that has a recipe's flags."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from kdaug.config import Recipe, Supervision

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
