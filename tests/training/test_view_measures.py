"""The measures on a fixed sample of views: against predictions made again from the files that a run leaves on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from support.recipes import with_settings
from torch import Tensor

from kdaug.config import Recipe
from kdaug.data.images import balanced_subset
from kdaug.networks import load_network
from kdaug.runs import read_metrics
from kdaug.training import train
from kdaug.training.context import TrainContext, build_context
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import read_resolved_recipe, resolve
from kdaug.training.view_measures import choose_views
from kdaug.views import apply
from kdaug.views.magnitude import planned_magnitude

TinyRecipe = Callable[..., Recipe]
POLICY = {"views.policy": "randaugment-n2-m5@paper-geometric", "optimization.precision": "float32"}


def last_evaluation(run: Path) -> dict[str, Any]:
    return [line for line in read_metrics(run) if line["kind"] == "eval"][-1]


def predictions(weights: Path, pixels: Tensor) -> Tensor:
    network, info = load_network(weights)
    with torch.no_grad():
        probs: Tensor = network.eval()(info.input_format.normalize(pixels)).double().softmax(1)
    return probs


def views_of(context: TrainContext, count: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Pixels, labels and magnitudes of the views of epoch 0 of `count` images, made from the policy alone."""
    train_images = context.dataset.train
    indices = balanced_subset(train_images.labels, count)
    plan = context.policy.plan(context.recipe.views.seed, 0, indices, context.dataset.size)
    pixels = apply(train_images.images[indices], plan)  # type: ignore[attr-defined]
    return torch.from_numpy(pixels), train_images.labels[indices], planned_magnitude(plan)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return 100 * total


def test_measures_of_a_finished_run(
    recipe_with_teacher: Recipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    settings = {**POLICY, "run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run}", "supervision.k": 3}
    run = train(with_settings(recipe_with_teacher, settings), console).directory
    context = build_context(read_resolved_recipe(run / "recipe.yaml"), console)
    pixels, labels, magnitude = views_of(context, min(50, len(context.dataset.train)))
    student = predictions(run / "last.safetensors", pixels).numpy()
    teacher = predictions(teacher_run / "last.safetensors", pixels).numpy()
    correct, agrees = student.argmax(1) == labels, student.argmax(1) == teacher.argmax(1)
    past = (np.argsort(-teacher, axis=1)[:, :3] != labels[:, None]).all(1)
    weak, strong = np.quantile(magnitude, [1 / 3, 2 / 3])
    expected = {
        "view_error": 100 * np.mean(~correct),
        "view_calibration_error": expected_calibration_error(student.max(1), correct),
        "view_past_recognition": 100 * np.mean(past),
        "view_agreement": 100 * np.mean(agrees),
        "view_agreement_weak": 100 * np.mean(agrees[magnitude <= weak]),
        "view_agreement_medium": 100 * np.mean(agrees[(magnitude > weak) & (magnitude <= strong)]),
        "view_agreement_strong": 100 * np.mean(agrees[magnitude > strong]),
    }
    found = {name: value for name, value in last_evaluation(run).items() if name.startswith("view_")}
    assert found == pytest.approx(expected, abs=1e-3)
    assert 0 < found["view_agreement"] < 100
    assert 0 < found["view_past_recognition"] < 100


def test_every_evaluation_measures_the_same_views(
    recipe_with_teacher: Recipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    """What depends on the teacher alone stays the same while the student learns."""
    settings = {**POLICY, "run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run}"}
    run = train(with_settings(recipe_with_teacher, settings), console).directory
    evaluations = [line for line in read_metrics(run) if line["kind"] == "eval"]
    assert len(evaluations) > 1
    assert len({line["view_past_recognition"] for line in evaluations}) == 1
    assert len({line["view_calibration_error"] for line in evaluations}) > 1


def test_stored_labels_give_the_same_measures(
    recipe_with_teacher: Recipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    recipe = with_settings(recipe_with_teacher, {**POLICY, "teacher.source": f"run:{teacher_run}", "run.threads": 1})
    label_views(
        with_settings(recipe, {"run.dir": str(tmp_path / "a")}), tmp_path / "labels", LabelRequest(precision="float32")
    )
    past = []
    for name, settings in (("online", {}), ("stored", {"teacher.labels": str(tmp_path / "labels")})):
        run = train(with_settings(recipe, {"run.dir": str(tmp_path / name), **settings}), console).directory
        past.append(last_evaluation(run)["view_past_recognition"])
    assert past[0] == past[1] > 0


def test_hard_labels_have_no_top_k(
    recipe_with_teacher: Recipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    settings = {"run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run}"}
    hard = {"supervision.divergence": "hard", "supervision.k": 5, "optimization.epochs": 1}
    run = train(with_settings(recipe_with_teacher, {**settings, **hard}), console).directory
    assert "view_past_recognition" not in last_evaluation(run)
    assert "view_agreement" in last_evaluation(run)


def test_without_a_teacher_only_the_student_is_measured(tiny_recipe: TinyRecipe) -> None:
    run = train(tiny_recipe(POLICY)).directory
    names = {name for name in last_evaluation(run) if name.startswith("view_")}
    assert names == {"view_error", "view_calibration_error"}


def test_mixed_views_are_compared_with_the_teacher_only(
    recipe_with_teacher: Recipe, teacher_run: Path, tmp_path: Path
) -> None:
    settings = {"run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run}", "views.mixup": 0.5}
    run = train(with_settings(recipe_with_teacher, settings)).directory
    names = {name for name in last_evaluation(run) if name.startswith("view_")}
    assert "view_agreement" in names
    assert not names & {"view_error", "view_calibration_error", "view_past_recognition"}


@pytest.mark.parametrize(
    ("images", "every", "views"), [(40, 1, 40), (2_500, 1, 50), (4_000, 12, 960), (10_000, 1, 200), (10_000, 50, 2_000)]
)
def test_the_sample_is_small(console: Console, tmp_path: Path, images: int, every: int, views: int) -> None:
    """At most a fiftieth of the images that are trained on between two evaluations, but 50 to 2,000."""
    recipe = with_settings(
        Recipe(), {"run.dir": str(tmp_path), "data.train_images": images, "run.evaluate_every": every}
    )
    chosen = choose_views(build_context(resolve(recipe), console), None)
    assert sum(len(batch.labels) for batch in chosen.batches) == views


def test_ranks_share_the_sample(console: Console, tmp_path: Path) -> None:
    """Together they have each view once, in the same number of batches."""
    recipe = with_settings(Recipe(), {"run.dir": str(tmp_path), "data.train_images": 1001, "run.evaluate_every": 40})
    context = build_context(resolve(recipe), console)
    parts = [
        choose_views(replace(context, dist=replace(context.dist, rank=rank, world_size=3)), None) for rank in range(3)
    ]
    indices = np.concatenate([batch.key.indices for part in parts for batch in part.batches])
    assert np.array_equal(np.sort(indices), balanced_subset(context.dataset.train.labels, 801))
    assert len({len(part.batches) for part in parts}) == 1
