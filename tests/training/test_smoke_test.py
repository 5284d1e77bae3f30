"""A rehearsal finds what is wrong with a recipe before its data and its hours are spent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdaug import InputError
from kdaug.config import Data, Network, Optimization, Recipe, Teacher, Views
from kdaug.training import smoke_test as smoke_test_module
from kdaug.training.batches import ViewBatch
from kdaug.training.smoke_test import smoke_test, smoke_test_in_subprocess

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
def test_a_sound_recipe_takes_two_steps_and_an_evaluation(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, evaluations = [], []
    learn, evaluate = smoke_test_module.train_step, smoke_test_module.evaluate_on_validation

    def note(context: object, state: object, teacher: object, view_batch: ViewBatch) -> object:
        steps.append((teacher is not None, tuple(view_batch.pixels.shape)))
        return learn(context, state, teacher, view_batch)

    monkeypatch.setattr(smoke_test_module, "train_step", note)
    monkeypatch.setattr(
        smoke_test_module, "evaluate_on_validation", lambda *given: evaluations.append(seen := evaluate(*given)) or seen
    )
    seen = smoke_test(recipe, 100)
    side = recipe.data.image_size or 32
    students = [(recipe.teacher.source != "none", (2, side, side, 3))] * 2
    teachers = [(False, (2, side, side, 3))] * 2 if recipe.teacher.source == "train" else []
    assert steps == teachers + students
    assert [scores.images for scores in evaluations] == [2] * (len(steps) // 2)
    assert seen.loss > 0
    assert seen.step_seconds > 0
    assert 1 << 27 < seen.peak_bytes < 1 << 36


def test_a_teacher_that_comes_from_a_run_is_stood_in_for() -> None:
    assert smoke_test(replace(SMALL, teacher=Teacher("run:not-there-yet")), 100, ("wide_resnet10_1", 24)).loss > 0


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("student", Network("resnet5O"), "there is no network"),
        ("student", Network("vit_tiny_patch16_224"), "cannot take 2"),
        ("optimization", Optimization(learning_rate=1e30, clip_norm=None), "not finite|the loss is"),
    ],
)
def test_an_unsound_recipe_is_refused(part: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        smoke_test(replace(SMALL, **{part: value}), 100)


def test_in_a_process_of_its_own_the_same_is_seen_and_what_fails_is_said() -> None:
    seen = smoke_test_in_subprocess(SMALL, 100)
    assert seen.loss == pytest.approx(smoke_test(SMALL, 100).loss, rel=1e-5)
    said = smoke_test_in_subprocess(replace(SMALL, student=Network("resnet5O")), 100)
    assert said.startswith("InputError: there is no network 'resnet5O'")
