"""The smoke test of a recipe: it runs the real networks and steps, and reports what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kdaug import InputError
from kdaug.config import Data, Network, Optimization, Recipe, Teacher, Views
from kdaug.training import smoke_test as smoke_test_module
from kdaug.training.batches import ViewBatch
from kdaug.training.smoke_test import smoke_test, smoke_test_in_subprocess
from kdaug.training.step import TrainStep

SMALL = Recipe(
    data=Data(name="cifar-100"), student=Network("wide_resnet10_1"), views=Views(policy="randaugment-n2-m9@torchvision")
)


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        replace(SMALL, teacher=Teacher("train", network="wide_resnet16_1", policy="autoaugment-cifar10")),
        replace(
            SMALL,
            data=Data(name="folder", image_size=40),
            views=Views(policy="autoaugment-imagenet", crop="random-resized"),
            optimization=Optimization(optimizer="rmsprop-tf", ema_decay=0.99, schedule="staircase"),
        ),
    ],
    ids=["array", "teacher", "folder"],
)
def test_a_recipe_takes_two_steps_and_an_evaluation(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, evaluations = [], []
    evaluate = smoke_test_module.evaluate_student

    class RecordingStep(TrainStep):
        def __call__(self, batch: ViewBatch) -> Any:
            steps.append((self.soft_labels is not None, tuple(batch.pixels.shape)))
            return super().__call__(batch)

    def record_evaluation(*arguments: Any) -> Any:
        evaluations.append(evaluate(*arguments))
        return evaluations[-1]

    monkeypatch.setattr(smoke_test_module, "TrainStep", RecordingStep)
    monkeypatch.setattr(smoke_test_module, "evaluate_student", record_evaluation)
    result = smoke_test(recipe, 100)
    side = recipe.data.image_size or 32
    student_steps = [(recipe.teacher.source != "none", (2, side, side, 3))] * 2
    teacher_steps = [(False, (2, side, side, 3))] * 2 if recipe.teacher.source == "train" else []
    assert steps == teacher_steps + student_steps
    assert [scores.images for scores in evaluations] == [2] * (len(steps) // 2)
    assert result.loss > 0
    assert result.step_seconds > 0
    assert 1 << 27 < result.peak_bytes < 1 << 36


def test_a_teacher_from_a_run_may_be_replaced_by_a_network() -> None:
    assert smoke_test(replace(SMALL, teacher=Teacher("run:not-there-yet")), 100, ("wide_resnet10_1", 24)).loss > 0


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("student", Network("resnet5O"), "there is no network"),
        ("student", Network("vit_tiny_patch16_224"), "cannot take 2"),
        ("optimization", Optimization(learning_rate=1e30, clip_norm=None), "not finite|the loss is"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(part: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        smoke_test(replace(SMALL, **{part: value}), 100)


def test_a_subprocess_returns_the_result_or_the_error() -> None:
    result = smoke_test_in_subprocess(SMALL, 100)
    assert result.loss == pytest.approx(smoke_test(SMALL, 100).loss, rel=1e-5)
    error = smoke_test_in_subprocess(replace(SMALL, student=Network("resnet5O")), 100)
    assert error.startswith("InputError: there is no network 'resnet5O'")
