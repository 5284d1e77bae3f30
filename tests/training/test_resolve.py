"""Resolving: what will be done follows from what was written, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdaug import InputError
from kdaug.config import Recipe, Run, Supervision, Teacher
from kdaug.training.resolve import resolve, teacher_run_recipe

Tiny = Callable[..., Recipe]


@pytest.mark.parametrize(("magnitude", "spec"), [(0.0, "m0"), (3.0, "m3"), (7.5, "m7.5")])
def test_the_magnitude_shorthand_rewrites_the_specification_and_is_gone(
    tiny: Tiny, magnitude: float, spec: str
) -> None:
    views = resolve(tiny({"views.magnitude": magnitude})).views
    assert (views.policy, views.magnitude) == (f"randaugment-n2-{spec}@paper-geometric", None)


def test_a_magnitude_for_a_policy_without_one_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"views.magnitude is 3, but policy none has no magnitude"):
        resolve(tiny({"views.policy": "none", "views.magnitude": 3.0}))


def test_the_seed_of_the_views_follows_the_run_unless_given(tiny: Tiny) -> None:
    assert resolve(tiny({"run.seed": 5})).views.seed == 5
    assert resolve(tiny({"run.seed": 5, "views.seed": 0})).views.seed == 0


def test_resolving_changes_nothing_else_and_twice_is_once(tiny: Tiny, changed: Callable[..., Recipe]) -> None:
    recipe = tiny({"views.magnitude": 4.0, "run.seed": 2})
    resolved = resolve(recipe)
    assert resolve(resolved) == resolved
    views = {"views.magnitude": None, "views.seed": 2, "views.policy": "randaugment-n2-m4@paper-geometric"}
    assert resolved == changed(recipe, views)


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("run.dir", None, "run.dir is missing"),
        ("views.policy", "randaugment-n2-m11@paper-geometric", "magnitude is 11"),
        ("teacher.policy", "randaugmnt", "'randaugmnt'"),
        ("views.crop", "random-resized", "views.crop random-resized needs data.name folder"),
        ("student.name", "wide_resnet10_3", "did you mean wide_resnet10_"),
        ("teacher.network", "wide_resnet10_3", "did you mean wide_resnet10_"),
        ("teacher.source", "rum:x", "there are none, train, run:DIR, file:PATH, timm:NAME"),
        ("teacher.source", "run:", "there are none, train, run:DIR, file:PATH, timm:NAME"),
        ("supervision.k", 0, "supervision.k is 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_done(
    tiny: Tiny, setting: str, value: Any, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        resolve(tiny({setting: value}))


def test_settings_that_the_teacher_cannot_be_trained_with_are_refused_before_anything_is_done(tiny: Tiny) -> None:
    settings = {"optimization.epochs": 9, "optimization.warmup_epochs": 4.0, "teacher.epochs": 3}
    with pytest.raises(InputError, match=r"the teacher's training: optimization.warmup_epochs is 4.0, but must end"):
        resolve(tiny({**settings, "teacher.source": "train"}))
    resolve(tiny({**settings, "teacher.source": "none"}))
    resolve(tiny({**settings, "teacher.source": "train", "teacher.labels": "labels"}))


def test_a_student_may_have_clean_epochs_that_its_teacher_has_not(tiny: Tiny) -> None:
    clean = {"optimization.clean_epochs": 2, "optimization.clean_learning_rate": 0.01, "teacher.source": "train"}
    teacher = teacher_run_recipe(resolve(tiny(clean))).optimization
    assert (teacher.clean_epochs, teacher.clean_learning_rate) == (0, None)


INDIFFERENT = {
    "views.policy": "randaugment-n3-m9@tf-efficientnet",
    "views.magnitude": 2.0,
    "views.cutout": 8,
    "views.seed": 3,
    "run.seed": 7,
    "run.resume": True,
    "run.dir": None,  # another name beside the first; set in the test
    "supervision.weight": 0.1,
    "supervision.k": 2,
    "supervision.temperature": 5.0,
    "data.workers": 0,
}
DECISIVE = {
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


@pytest.mark.parametrize("setting", INDIFFERENT)
def test_students_that_differ_in_what_is_theirs_share_a_teacher(tiny: Tiny, tmp_path: Path, setting: str) -> None:
    value = str(tmp_path / "other") if setting == "run.dir" else INDIFFERENT[setting]
    one, other = (
        teacher_run_recipe(resolve(tiny({"teacher.source": "train", **more}))) for more in ({}, {setting: value})
    )
    assert one.run.dir == other.run.dir
    assert (one.views, one.student, one.optimization) == (other.views, other.student, other.optimization)


@pytest.mark.parametrize("setting", DECISIVE)
def test_students_that_differ_in_what_makes_a_teacher_do_not_share_it(tiny: Tiny, setting: str) -> None:
    wanted = {"teacher.source": "train"}
    one, other = (teacher_run_recipe(resolve(tiny({**wanted, **more}))) for more in ({}, {setting: DECISIVE[setting]}))
    assert one.run.dir != other.run.dir


def test_image_folders_of_other_places_do_not_share_a_teacher(tiny: Tiny, tmp_path: Path) -> None:
    wanted = {"teacher.source": "train", "data.name": "folder"}
    one, other = (teacher_run_recipe(resolve(tiny({**wanted, "data.root": root}))) for root in ("cats", "dogs"))
    assert one.run.dir != other.run.dir


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_teacher_without_a_network_of_its_own_starts_as_its_student_does(tiny: Tiny, pretrained: bool) -> None:
    recipe = teacher_run_recipe(resolve(tiny({"teacher.source": "train", "student.pretrained": pretrained})))
    assert recipe.student.pretrained is pretrained


def test_a_teacher_is_trained_alone_on_its_own_settings_beside_its_student(tiny: Tiny, tmp_path: Path) -> None:
    recipe = teacher_run_recipe(
        resolve(
            tiny(
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
    assert resolve(recipe) == recipe


def test_settings_that_the_teacher_s_source_makes_no_use_of_are_refused() -> None:
    recipe = Recipe(teacher=Teacher(source="run:x", epochs=3), run=Run(dir="x"))
    with pytest.raises(InputError, match=r"teacher.epochs"):
        resolve(recipe)
