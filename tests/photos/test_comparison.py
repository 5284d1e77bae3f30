"""The student against plain training: when a teacher counts as that, the gain, and the page at the end of a run."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.images import draw_shapes
from support.recipes import with_settings
from support.runs import read_lines

from kdaug.config import Recipe, read_recipe, to_yaml
from kdaug.inference.predictions import Predictions
from kdaug.photos import summarize_run
from kdaug.photos.comparison import find_plain_training, gain
from kdaug.photos.start import choose_start
from kdaug.recipes import named_recipe
from kdaug.training import train

SETTINGS = {
    "student.name": "wide_resnet10_1", "data.image_size": 16, "data.workers": 0, "data.val_fraction": 0.5,
    "optimization.epochs": 2, "optimization.global_batch": 8, "run.device": "cpu", "run.threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two epochs on half of `shapes`."""
    run = tmp_path_factory.mktemp("runs") / "student"
    return with_settings(named_recipe("photos"), {**SETTINGS, "data.root": str(shapes), "run.dir": str(run)})


@pytest.fixture(scope="module")
def student(recipe: Recipe) -> Path:
    """The finished run of `recipe`; its teacher is in teachers/ next to it."""
    return train(recipe, Console(file=io.StringIO())).directory


@pytest.fixture
def teacher(student: Path) -> Path:
    (directory,) = (student.parent / "teachers").iterdir()
    return directory


def test_errors_gain_and_page(student: Path, teacher: Path, shapes: Path) -> None:
    summary = summarize_run(student, str(shapes), "cpu")
    assert summary.plain is not None
    assert summary.gain is not None
    assert summary.plain.directory == teacher
    plain_error, student_error = (read_lines(run, "end")[0]["top1_error"] for run in (teacher, student))
    lines = summary.lines()
    assert lines[0].startswith(f"plain training (the teacher): error {plain_error:.2f} % [")
    assert lines[1].startswith(f"student: error {student_error:.2f} % [")
    assert lines[2].startswith(f"gain of policy and teacher: {plain_error - student_error:+.2f} points [")
    assert lines[3] == "in brackets: 95 % intervals for 18 validation images, of one run each"
    assert lines[-2:] == [f"predict: kdaug predict {student} PHOTO.jpg FOLDER", f"page: {student}/index.html"]
    page = (student / "index.html").read_text()
    assert page.startswith("<!doctype html>")
    for part in (
        f"{student_error:.2f} % [", "<td>plain training (the teacher)</td>", "balanced error",
        "randaugment-n2-m9@tf-efficientnet", "Confusion matrix",
        "Most confident mistakes", "validation error, by epoch", f"kdaug predict {student} PHOTO.jpg FOLDER",
    ):  # fmt: skip
        assert part in page
    assert page.count("data:image/svg+xml") == 3
    assert page.count("data:image/jpeg") == sum(summary.student.predictions.wrong)


def test_the_gain_of_a_run_without_plain_training_is_not_said(
    recipe: Recipe, student: Path, teacher: Path, shapes: Path
) -> None:
    alone = with_settings(recipe, {"teacher.source": "none", "run.dir": str(student.with_name("alone"))})
    run = train(alone, Console(file=io.StringIO())).directory
    summary = summarize_run(run, str(shapes), "cpu")
    assert summary.plain is None
    assert not any(line.startswith(("gain", "plain")) for line in summary.lines())
    assert summary.lines()[1].startswith("no comparison with plain training")
    assert "No comparison with plain training" in (run / "index.html").read_text()


def test_leaks_and_a_student_that_has_learned_nothing_are_said(student: Path, shapes: Path, tmp_path: Path) -> None:
    """Three classes of equal size; leaks in the report on the images."""
    run = shutil.copytree(student, tmp_path / "run")
    report = json.loads((run / "data-report.json").read_text())
    leak = {"path": "a", "problem": "leak and conflict", "match": "similar", "other": "b"}
    report["copies"] = [leak, {**leak, "problem": "leak"}, {**leak, "problem": "copy"}]
    (run / "data-report.json").write_text(json.dumps(report))
    summary = summarize_run(run, str(shapes), "cpu")
    leaks = "2 validation image(s) are copies of training images, listed in data-report.csv"
    assert [line for line in summary.lines() if leaks in line]
    assert leaks in (run / "index.html").read_text()
    found = summary.student.predictions
    constant = replace(found, predicted=np.full_like(found.predicted, np.bincount(found.labels).argmax()))
    guessing = replace(summary, student=replace(summary.student, predictions=constant))
    assert "not better than one class for all images (66.67 %)" in guessing.warnings[0]


@pytest.mark.parametrize(
    ("settings", "is_plain"),
    [
        ({}, True),
        ({"views.policy": "randaugment-n2-m5@timm"}, True),
        ({"data.image_size": 24}, False),
        ({"data.val_fraction": 0.3}, False),
        ({"student.arguments": {"zero_init_last": True}}, False),
    ],
)
def test_a_run_as_teacher_counts_if_it_is_plain_training(
    student: Path, teacher: Path, shapes: Path, tmp_path: Path, settings: dict[str, Any], is_plain: bool
) -> None:
    run = shutil.copytree(student, tmp_path / "run")
    write_recipe(run, {"teacher.source": f"run:{teacher}", **settings})
    assert (find_plain_training(run, str(shapes), "cpu") is not None) == is_plain


@pytest.mark.parametrize(
    "settings", [{"views.policy": "randaugment-n2-m5@timm"}, {"views.cutout": 4}, {"views.mixup": 0.2},
                 {"teacher.source": "run:x"}, {"student.name": "wide_resnet16_1"}],
)  # fmt: skip
def test_a_teacher_that_is_trained_otherwise_is_not_plain_training(
    student: Path, teacher: Path, shapes: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    run, other = shutil.copytree(student, tmp_path / "run"), shutil.copytree(teacher, tmp_path / "other")
    write_recipe(run, {"teacher.source": f"run:{other}"})
    assert find_plain_training(run, str(shapes), "cpu") is not None
    write_recipe(other, settings)
    assert find_plain_training(run, str(shapes), "cpu") is None


def test_a_teacher_of_other_photos_is_not_plain_training(
    student: Path, teacher: Path, shapes: Path, tmp_path: Path
) -> None:
    run, other = shutil.copytree(student, tmp_path / "run"), shutil.copytree(teacher, tmp_path / "other")
    write_recipe(run, {"teacher.source": f"run:{other}"})
    environment = other / "environment.json"
    environment.write_text(environment.read_text().replace('"data": "', '"data": "0'))
    assert find_plain_training(run, str(shapes), "cpu") is None


def test_photos_that_were_moved(student: Path, tmp_path: Path) -> None:
    moved = draw_shapes(tmp_path / "moved")
    run = shutil.copytree(student.parent, tmp_path / "runs") / "student"
    write_recipe(run, {"data.root": str(tmp_path / "gone")})
    summary = summarize_run(run, str(moved), "cpu")
    assert summary.plain is not None
    assert len(summary.student.predictions) == 18


def write_recipe(run: Path, settings: dict[str, Any]) -> None:
    """Changes the recipe.yaml of `run`."""
    (run / "recipe.yaml").write_text(to_yaml(with_settings(read_recipe(run / "recipe.yaml"), settings)))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_gain_is_that_of_the_images_that_both_could_read(images: list[tuple[bool, bool, bool, bool]]) -> None:
    def predictions(seen: int, wrong: int) -> Predictions:
        rows = np.array([row for row, image in enumerate(images) if image[seen]], np.int64)
        predicted = np.array([int(images[row][wrong]) for row in rows], np.int64)
        return Predictions(rows, np.zeros_like(rows), predicted, np.ones(len(rows)))

    both = [image for image in images if image[0] and image[1]]
    if not both:
        return
    found = gain(predictions(0, 2), predictions(1, 3))
    assert found.images == len(both)
    errors = [100 * sum(image[which] for image in both) / len(both) for which in (2, 3)]
    assert found.points == pytest.approx(errors[0] - errors[1])
    assert found.interval[0] <= found.points + 1e-9
    assert found.points - 1e-9 <= found.interval[1]


@pytest.mark.parametrize("given", [{"student.weights"}, {"student.weights", "student.name"}])
def test_weights_of_a_run_choose_its_network(student: Path, given: set[str]) -> None:
    for weights in (f"run:{student}", f"file:{student}/best.safetensors"):
        start = choose_start(with_settings(named_recipe("photos"), {"student.weights": weights}), given)
        expected = {"student.name": "wide_resnet10_1"} if "student.name" not in given else {}
        assert start.settings == expected
        assert start.reasons == [f"student.name is wide_resnet10_1, the network of {weights}"] * len(expected)
