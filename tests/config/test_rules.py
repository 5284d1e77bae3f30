"""Rules between settings: combinations that have no effect or exclude each other are refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.recipes import with_settings

from kdaug import InputError
from kdaug.config import (
    Adversary,
    Data,
    Network,
    Optimization,
    Recipe,
    Run,
    Supervision,
    Teacher,
    Views,
    check,
    from_yaml,
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_weight": 0.0}, "label_weight is 0, but there is no teacher; set teacher.source"),
        ({"label_weight": 0.0, "label_trust": True}, "label_trust has no effect if supervision.label_weight is 0"),
        ({"divergence": "hard", "mass": 0.5}, "mass is 0.5, but has no effect with supervision.divergence hard"),
        ({"divergence": "hard", "scale_by_t2": False}, "scale_by_t2 is False"),
        ({"divergence": "hard", "standardize_logits": True}, "standardize_logits is True"),
        ({"divergence": "decoupled", "reading": "grouped"}, "reading is grouped"),
        ({"divergence": "dist", "mass": 0.5}, "mass is 0.5, but has no effect with supervision.divergence dist"),
        ({"non_target_weight": 2.0}, "non_target_weight is 2.0, but has no effect with .* top-k, only with decoupled"),
        ({"divergence": "dist", "drop_worst": 0.1}, "drop_worst cannot be used with supervision.divergence dist"),
        (
            {"divergence": "dist", "min_confidence": 0.2},
            "min_confidence cannot be used with supervision.divergence dist",
        ),
        ({"when": "clean"}, "when is clean, but there are no clean epochs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unused_supervision_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^supervision.{message}"):
        check(Recipe(supervision=Supervision(**settings)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"supervision.label_weight": 0.0, "teacher.source": "train"},
            "has no effect if supervision.label_weight is 0",
        ),
        ({"views.crop": "none"}, "is set, but views.crop none leaves nothing of the image outside"),
        ({"views.mixup": 0.2}, "cannot be combined with mixup or CutMix"),
        ({"supervision.label_smoothing": 0.1}, "cannot be combined with supervision.label_smoothing"),
        ({"adversary.steps": 1}, "cannot be combined with an adversary"),
    ],
)
def test_the_label_is_softened_in_one_way_only(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^supervision\.visible_power {message}"):
        check(with_settings(Recipe(), {"supervision.visible_power": 2.0, **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "folder", "train_images": 5}, r"is for datasets in memory \(bundled, omniglot, .*\), not folder"),
        ({}, "is set, but all training images are trained on; set data.train_images"),
    ],
)
def test_unused_images_are_measured_only_if_there_can_be_some(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^data\.measure_unused {message}"):
        check(Recipe(data=Data(measure_unused=True, **settings)))


@pytest.mark.parametrize("teacher", [Teacher("run:x"), Teacher(labels="x")])
def test_label_weight_may_be_0_with_a_teacher(teacher: Teacher) -> None:
    check(Recipe(teacher=teacher, supervision=Supervision(label_weight=0.0)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clean_learning_rate": 0.3}, "clean_learning_rate has no effect without clean epochs"),
        (
            {"warmup_epochs": 2.0, "epochs": 2},
            "warmup_epochs is 2.0, but must be below optimization.epochs, which is 2",
        ),
        ({"schedule": "milestones", "milestones": (1.0, 7.0), "epochs": 2}, "milestones is .* must be below"),
        ({"schedule": "milestones", "milestones": (2.0, 2.0)}, "milestones is .* but must be in increasing order"),
        ({"schedule": "milestones"}, "schedule is milestones, but optimization.milestones is empty"),
        ({"milestones": (1.0,)}, "milestones has no effect with optimization.schedule cosine"),
        ({"decay_rate": 0.5}, "decay_rate is 0.5, but has no effect with optimization.schedule cosine"),
        ({"schedule": "milestones", "milestones": (1.0,), "decay_epochs": 1.0}, "decay_epochs .*; leave it at 2.4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unused_schedule_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^optimization.{message}"):
        check(Recipe(optimization=Optimization(**settings)))


@pytest.mark.parametrize("source", ["trian", "run:", "http://x", "file", ""])
def test_unknown_teacher_source(source: str) -> None:
    with pytest.raises(InputError, match=r"^teacher\.source is .* none, train, bundled, run:DIR, file:PATH or timm:"):
        check(Recipe(teacher=Teacher(source)))


@pytest.mark.parametrize("std", [(0.5,), (0.5, 0.0), (0.5, -1.0), (0.5, 0.5, 0.5), ()])
def test_teacher_std_is_positive_and_as_long_as_mean(std: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"^teacher\.std"):
        check(Recipe(teacher=Teacher(mean=(0.5, 0.5), std=std)))


def test_teacher_mean_and_std_are_not_empty() -> None:
    with pytest.raises(InputError, match=r"^teacher\.std"):
        check(Recipe(teacher=Teacher(mean=(), std=())))


@pytest.mark.parametrize("settings", [{"mean": (0.5,)}, {"std": (0.5,)}])
def test_teacher_mean_and_std_come_together(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"teacher\.mean and teacher\.std"):
        check(Recipe(teacher=Teacher(**settings)))


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Views(mixup=0.2), "views.mixup"),
        (Views(cutmix=0.2), "views.cutmix"),
        (Supervision(label_weight=0.5), "supervision.label_weight"),
        (Supervision(label_trust=True), "supervision.label_trust"),
        (Supervision(drop_worst=0.2), "supervision.drop_worst"),
        (Supervision(min_confidence=0.2), "supervision.min_confidence"),
    ],
)
def test_advprop_excludes_mixtures_and_label_weights(part: Views | Supervision, name: str) -> None:
    recipe = Recipe(adversary=Adversary(steps=1), **{"views" if isinstance(part, Views) else "supervision": part})
    with pytest.raises(InputError, match=f"^{name} is .*, but AdvProp"):
        check(recipe)


def test_each_tracker_is_named_once() -> None:
    with pytest.raises(InputError, match=r"^recipe: run\.trackers is wandb, wandb, but must name each tracker once"):
        from_yaml("run: {trackers: [wandb, wandb]}")
    check(Recipe(run=Run(trackers=("wandb", "mlflow"))))


@pytest.mark.parametrize("weights", ["run:runs/a", "file:w.pth", "timm:resnet18", "file:w.pth#0123456789"])
def test_weights_are_a_run_a_file_or_timms(weights: str) -> None:
    check(Recipe(student=Network(weights=weights), teacher=Teacher("train", weights=weights)))
    recipe = from_yaml(f"student: {{weights: '{weights}'}}")
    assert recipe.student.initial_weights == weights


@pytest.mark.parametrize("weights", ["none", "train", "", "runs/a", "file:", "Timm:x", "http://x"])
@pytest.mark.parametrize("section", ["student", "teacher"])
def test_other_weights_are_refused(section: str, weights: str) -> None:
    part = Network(weights=weights) if section == "student" else Teacher("train", weights=weights)
    with pytest.raises(
        InputError, match=f"^{section}.weights is '{weights}', but must be run:DIR, file:PATH or timm:NAME$"
    ):
        check(Recipe(**{section: part}))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            Network(pretrained=True, weights="timm:resnet18"),
            "student.pretrained and student.weights timm:resnet18 are both set; leave out student.pretrained",
        ),
        (Network(mean=(0.5,), std=(0.5,)), "student.mean has no effect without student.weights"),
        (Network(mean=(0.5,), std=(0.5,), pretrained=True), "student.mean has no effect without student.weights"),
        (Network(weights="file:w", mean=(0.5,)), "only one of student.mean and student.std is set; set both"),
        (Network(weights="file:w", mean=(0.5,), std=(0.5, 0.5)), r"student.std has 2 value\(s\), but .* has 1"),
        (Network(weights="file:w", mean=(0.5,) * 3, std=(0.5,) * 3), r"student.mean has 3 .* but .* 1 channel"),
        (Network(weights="file:w", mean=(), std=()), "student.std has 0"),
    ],
)  # fmt: skip
def test_initial_weights_that_contradict_are_refused(student: Network, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        check(Recipe(student=student))
    check(Recipe(student=Network(weights="file:w", mean=(0.5,), std=(0.5,))))


@pytest.mark.parametrize("source", ["run:x", "file:w.pth", "timm:resnet18"])
def test_a_teacher_that_is_not_trained_has_no_initial_weights(source: str) -> None:
    with pytest.raises(
        InputError, match=f"^teacher.weights is file:w.pth, but has no effect with teacher.source {source}"
    ):
        check(Recipe(teacher=Teacher(source, weights="file:w.pth")))


def test_a_trained_teacher_has_mean_and_std_only_with_weights() -> None:
    check(Recipe(teacher=Teacher("train", weights="file:w.pth", mean=(0.5,), std=(0.5,))))
    with pytest.raises(InputError, match=r"^teacher.mean is \(0.5,\), but has no effect with teacher.source train"):
        check(Recipe(teacher=Teacher("train", mean=(0.5,), std=(0.5,))))


def test_the_deviation_of_a_soft_crop_needs_a_soft_crop() -> None:
    with pytest.raises(
        InputError, match=r"^views\.soft_crop_deviation is 0\.2, but has no effect with views\.crop pad"
    ):
        check(with_settings(Recipe(), {"views.soft_crop_deviation": 0.2}))
