"""Resolving recipes: shorthands are replaced, defaults filled in, and invalid settings refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recipes import TINY, with_settings

from kdaug import InputError
from kdaug.config import Recipe, ResolvedRecipe, Run, Supervision, Teacher, to_dict, to_yaml
from kdaug.training.resolve import read_resolved_recipe, resolve, teacher_run_recipes

TinyRecipe = Callable[..., Recipe]


@pytest.mark.parametrize(("magnitude", "spec"), [(0.0, "m0"), (3.0, "m3"), (7.5, "m7.5")])
def test_the_magnitude_becomes_part_of_the_policy(tiny_recipe: TinyRecipe, magnitude: float, spec: str) -> None:
    views = resolve(tiny_recipe({"views.magnitude": magnitude})).views
    assert (views.policy, views.magnitude) == (f"randaugment-n2-{spec}@paper-geometric", None)


def test_a_magnitude_needs_a_policy_that_has_one(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(InputError, match=r"views.magnitude is 3, but policy none has no magnitude"):
        resolve(tiny_recipe({"views.policy": "none", "views.magnitude": 3.0}))


def test_views_seed_defaults_to_run_seed(tiny_recipe: TinyRecipe) -> None:
    assert resolve(tiny_recipe({"run.seed": 5})).views.seed == 5
    assert resolve(tiny_recipe({"run.seed": 5, "views.seed": 0})).views.seed == 0


def test_resolving_changes_nothing_else(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({"views.magnitude": 4.0, "run.seed": 2})
    resolved = resolve(recipe)
    assert resolve(resolved) == resolved
    views = {"views.magnitude": None, "views.seed": 2, "views.policy": "randaugment-n2-m4@paper-geometric"}
    assert to_dict(resolved) == to_dict(with_settings(recipe, views))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("run.dir", None, "run.dir is missing"),
        ("views.policy", "randaugment-n2-m11@paper-geometric", "magnitude is 11"),
        ("teacher.policy", "randaugmnt", "'randaugmnt'"),
        ("views.crop", "random-resized", "views.crop random-resized needs data.name folder"),
        ("student.name", "wide_resnet10_3", "did you mean wide_resnet10_"),
        ("teacher.network", "wide_resnet10_3", "did you mean wide_resnet10_"),
        ("teacher.source", "rum:x", "but must be none, train, bundled, run:DIR, file:PATH or timm:NAME"),
        ("teacher.source", "run:", "but must be none, train, bundled, run:DIR, file:PATH or timm:NAME"),
        ("supervision.k", 0, "supervision.k is 0"),
    ],
)
def test_an_invalid_setting_is_refused(tiny_recipe: TinyRecipe, setting: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(tiny_recipe({setting: value}))


def test_invalid_settings_of_the_teachers_training_are_refused(tiny_recipe: TinyRecipe) -> None:
    settings = {"optimization.epochs": 9, "optimization.warmup_epochs": 4.0, "teacher.epochs": 3}
    with pytest.raises(
        InputError, match=r"the teacher's training: optimization.warmup_epochs is 4.0, but must be below"
    ):
        resolve(tiny_recipe({**settings, "teacher.source": "train"}))
    resolve(tiny_recipe({**settings, "teacher.source": "none"}))
    resolve(tiny_recipe({**settings, "teacher.source": "train", "teacher.labels": "labels"}))


def test_clean_epochs_are_the_students_alone(tiny_recipe: TinyRecipe) -> None:
    clean = {"optimization.clean_epochs": 2, "optimization.clean_learning_rate": 0.01, "teacher.source": "train"}
    teacher = teacher_run_recipes(resolve(tiny_recipe(clean)))[0].optimization
    assert (teacher.clean_epochs, teacher.clean_learning_rate) == (0, None)


WITHOUT_EFFECT = {
    "views.policy": "randaugment-n3-m9@tf-efficientnet",
    "views.magnitude": 2.0,
    "views.cutout": 8,
    "views.seed": 3,
    "run.seed": 7,
    "run.resume": True,
    "run.dir": None,  # another name in the same folder; set in the test
    "supervision.weight": 0.1,
    "supervision.k": 2,
    "supervision.temperature": 5.0,
    "data.workers": 0,
}
WITH_EFFECT = {
    "teacher.policy": "randaugment-n1-m1@tf-efficientnet",
    "teacher.epochs": 9,
    "teacher.network": "wide_resnet16_1",
    "teacher.cutout": 4,
    "teacher.seed": 1,
    "optimization.learning_rate": 0.01,
    "optimization.global_batch": 32,
    "data.train_images": 128,
    "data.name": "cifar-10",
    "views.crop": "none",
    "views.flip": False,
    "views.pad": 2,
}


@pytest.mark.parametrize("setting", WITHOUT_EFFECT)
def test_settings_of_the_student_alone_keep_the_teacher(tiny_recipe: TinyRecipe, tmp_path: Path, setting: str) -> None:
    value = str(tmp_path / "other") if setting == "run.dir" else WITHOUT_EFFECT[setting]
    one, other = (
        teacher_run_recipes(resolve(tiny_recipe({"teacher.source": "train", **more})))[0]
        for more in ({}, {setting: value})
    )
    assert one.run.dir == other.run.dir
    assert (one.views, one.student, one.optimization) == (other.views, other.student, other.optimization)


@pytest.mark.parametrize("setting", WITH_EFFECT)
def test_settings_of_the_teacher_give_another_teacher(tiny_recipe: TinyRecipe, setting: str) -> None:
    settings = {"teacher.source": "train"}
    one, other = (
        teacher_run_recipes(resolve(tiny_recipe({**settings, **more})))[0]
        for more in ({}, {setting: WITH_EFFECT[setting]})
    )
    assert one.run.dir != other.run.dir


def test_other_image_folders_give_another_teacher(tiny_recipe: TinyRecipe) -> None:
    settings = {"teacher.source": "train", "data.name": "folder"}
    one, other = (
        teacher_run_recipes(resolve(tiny_recipe({**settings, "data.root": root})))[0] for root in ("cats", "dogs")
    )
    assert one.run.dir != other.run.dir


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_teacher_with_the_students_network_starts_from_it(tiny_recipe: TinyRecipe, pretrained: bool) -> None:
    (recipe,) = teacher_run_recipes(resolve(tiny_recipe({"teacher.source": "train", "student.pretrained": pretrained})))
    assert recipe.student.pretrained is pretrained


def test_the_teachers_recipe_has_its_own_settings(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    (recipe,) = teacher_run_recipes(
        resolve(
            tiny_recipe(
                {
                    "teacher.source": "train", "teacher.network": "wide_resnet16_1", "teacher.seed": 4,
                    "teacher.policy": "randaugment-n1-m1@tf-efficientnet", "teacher.cutout": 6, "teacher.epochs": 3,
                    "student.pretrained": True, "views.cutout": 8, "run.seed": 9, "supervision.weight": 2.0,
                }
            )
        )
    )  # fmt: skip
    assert (recipe.teacher, recipe.supervision) == (Teacher(), Supervision())
    assert (recipe.student.name, recipe.student.pretrained) == ("wide_resnet16_1", False)
    assert (recipe.views.policy, recipe.views.cutout) == ("randaugment-n1-m1@tf-efficientnet", 6)
    assert (recipe.views.seed, recipe.run.seed, recipe.optimization.epochs) == (4, 4, 3)
    assert recipe.run.dir.startswith(str(tmp_path / "teachers"))
    assert recipe.run.resume
    assert to_dict(resolve(recipe)) == to_dict(recipe)


def test_settings_without_effect_on_the_teacher_are_refused() -> None:
    recipe = Recipe(teacher=Teacher(source="run:x", epochs=3), run=Run(dir="x"))
    with pytest.raises(InputError, match=r"teacher.epochs"):
        resolve(recipe)


def test_a_written_recipe_is_read_without_its_policy_file(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    resolved = with_settings(resolve(tiny_recipe()), {"views.policy": "file:gone.yaml#0123456789"})
    (tmp_path / "recipe.yaml").write_text(to_yaml(resolved))
    recipe = read_resolved_recipe(tmp_path / "recipe.yaml")
    assert isinstance(recipe, ResolvedRecipe)
    assert recipe == resolved


def test_a_recipe_that_was_not_resolved_is_not_that_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(TINY))
    with pytest.raises(InputError, match=r"is not a run's: run.dir or views.seed is missing; train it first"):
        read_resolved_recipe(tmp_path / "recipe.yaml")
