"""Training that diverges: losses and weights that are not finite end a run, and the checkpoint before is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recipes import DROPOUT
from support.runs import assert_same_run, step_numbers
from support.steps import after_each_forward
from torch import Tensor

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.training import run as run_module
from kdaug.training import train
from kdaug.training.evaluation import Scores

TinyRecipe = Callable[..., Recipe]
TOO_FAST = {"optimization.learning_rate": 1e30, "optimization.epochs": 1, "student.name": "wide_resnet10_1"}


def test_a_nan_loss_keeps_valid_checkpoints_to_resume_from(tiny_recipe: TinyRecipe, dropout_run: Path) -> None:
    recipe = tiny_recipe({**DROPOUT, "run.checkpoint_minutes": 0.0})

    def make_nan(step: int, logits: Tensor) -> Tensor | None:
        return logits * math.nan if step == 6 else None

    with after_each_forward(make_nan), pytest.raises(InputError, match=r"the loss is nan at step 6 \(epoch 1\)"):
        train(recipe)
    run = Path(recipe.run.dir)
    assert step_numbers(run) == [1, 2, 3, 4, 5]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000005"]
    assert not (run / "last.safetensors").exists()
    assert_same_run(train(recipe).directory, dropout_run)


def test_non_finite_weights_after_the_last_step_end_the_run(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """The loss of the only step is finite; the weights after it are not."""
    with pytest.raises(InputError, match=r"not finite|is nan|is inf"):
        train(tiny_recipe({**TOO_FAST, "optimization.global_batch": 256}))
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_error_says_if_no_checkpoint_was_kept(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(InputError, match=r"training stopped, no checkpoint was kept; lower optimization.learning_rate"):
        train(tiny_recipe(TOO_FAST))


def test_a_nan_loss_in_an_evaluation_keeps_the_checkpoint_before(
    tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([Scores(50.0, 10.0, 1.0, 2000, 50.0), Scores(90.0, 50.0, math.nan, 2000, 90.0)])
    monkeypatch.setattr(run_module, "evaluate_student", lambda *_: next(scores))
    recipe = tiny_recipe({**DROPOUT, "optimization.epochs": 3})
    message = "loss on the validation images is nan after step 8; training stopped, the previous checkpoint was kept"
    with pytest.raises(InputError, match=message):
        train(recipe)
    assert [path.name for path in (Path(recipe.run.dir) / "checkpoints").iterdir()] == ["step-00000004"]
