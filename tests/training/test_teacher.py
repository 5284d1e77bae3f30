"""The teacher in training: it is trained once, checked, and stays as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.recipes import with_settings
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import InputError
from kdaug.config import Recipe, derive_teacher_recipe, read_recipe
from kdaug.supervision import Teacher
from kdaug.training import teacher as teacher_module
from kdaug.training import train
from kdaug.training.evaluation import Scores
from kdaug.training.resolve import teacher_run_names

TinyRecipe = Callable[..., Recipe]


def test_the_teacher_does_not_change(teacher_run: Path, recipe_with_teacher: Recipe, tmp_path: Path) -> None:
    """Neither its weights nor the running statistics of its batch norms."""
    teachers: set[Teacher] = set()
    handle = register_module_forward_pre_hook(lambda m, _: teachers.add(m) if isinstance(m, Teacher) else None)
    settings = {"run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run}"}
    train(with_settings(recipe_with_teacher, settings))
    handle.remove()
    (teacher,) = teachers
    before, after = safetensors.torch.load_file(teacher_run / "last.safetensors"), teacher.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_trained_teacher_has_no_clean_epochs(tiny_recipe: TinyRecipe) -> None:
    settings = {"teacher.source": "train", "optimization.epochs": 1, "optimization.clean_epochs": 1}
    run = train(tiny_recipe(settings)).directory
    (teacher,) = (run.parent / "teachers").iterdir()
    assert read_recipe(teacher / "recipe.yaml").optimization.clean_epochs == 0


def test_a_trained_teacher_has_its_own_label_smoothing(tiny_recipe: TinyRecipe) -> None:
    """Off by default, whatever the student's is. Its run has another name only if it is set."""
    plain, smoothed = tiny_recipe({"teacher.source": "train"}), {"teacher.source": "train"}
    assert derive_teacher_recipe(tiny_recipe(smoothed | {"supervision.label_smoothing": 0.2})) == derive_teacher_recipe(
        plain
    )
    own = tiny_recipe(smoothed | {"teacher.label_smoothing": 0.1})
    assert derive_teacher_recipe(own).supervision.label_smoothing == 0.1
    assert teacher_run_names(own) != teacher_run_names(plain)


@pytest.mark.parametrize(("error", "warns"), [(80.5, False), (81.5, True)])
def test_a_teacher_close_to_guessing_is_reported(
    tiny_recipe: TinyRecipe,
    tiny_run: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    error: float,
    warns: bool,
) -> None:
    """Guessing among ten classes has an error of 90 %; the limit is 81 %."""
    evaluate = teacher_module.evaluate_split

    def evaluate_with_error(*arguments: Any) -> Scores:
        return replace(evaluate(*arguments), top1_error=error)

    monkeypatch.setattr(teacher_module, "evaluate_split", evaluate_with_error)
    train(tiny_recipe({"teacher.source": f"run:{tiny_run}", "optimization.epochs": 1}), console)
    assert ("little better than guessing" in console.file.getvalue()) == warns


def test_a_teacher_with_non_finite_outputs_is_refused(tiny_recipe: TinyRecipe, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    with safetensors.safe_open(tiny_run / "last.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) * math.nan for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, tmp_path / "teacher" / "last.safetensors", metadata)
    with pytest.raises(InputError, match=r"the outputs of the teacher .* are not finite; use other weights"):
        train(tiny_recipe({"teacher.source": f"run:{tmp_path / 'teacher'}"}))
    assert not (tmp_path / "run").exists()
