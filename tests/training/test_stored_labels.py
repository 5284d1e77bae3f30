"""Training from a label store: it equals training with the teacher, and stores of other views are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from support.recipes import with_settings
from support.runs import read_lines, store_content, weight_bytes, without_seconds

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.supervision.manifest import read_manifest
from kdaug.training import train
from kdaug.training.label_verification import verify_labels
from kdaug.training.labeling import LabelRequest, label_views

StudentRecipe = Callable[..., Recipe]
EXACT = LabelRequest(precision="float32")


@pytest.fixture
def student(recipe_with_teacher: Recipe, tmp_path: Path) -> StudentRecipe:
    """`recipe_with_teacher` in tmp_path/run, with the labels in a folder in place of the teacher."""
    return lambda labels, settings=None: with_settings(
        recipe_with_teacher,
        {"teacher.source": "none", "teacher.labels": str(labels), "run.dir": str(tmp_path / "run"), **(settings or {})},
    )


@pytest.mark.parametrize("reading", ["renormalized", "grouped", "as-written"])
def test_exact_labels_train_as_the_teacher_does(
    reading: str,
    recipe_with_teacher: Recipe,
    teacher_run: Path,
    label_store: Path,
    student: StudentRecipe,
    tmp_path: Path,
) -> None:
    settings = {"supervision.reading": reading}
    online = {**settings, "teacher.source": f"run:{teacher_run}", "run.dir": str(tmp_path / "online")}
    with_teacher = train(with_settings(recipe_with_teacher, online)).directory
    with_labels = train(student(label_store, settings)).directory
    for one, other in zip(read_lines(with_teacher), read_lines(with_labels), strict=True):
        for name in ("loss", "cross_entropy", "divergence", "teacher_agreement", "val_loss"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=1e-6, abs=5e-7), (name, one["step"])
    if reading != "grouped":
        assert weight_bytes(with_teacher) == weight_bytes(with_labels)


def test_half_precision_labels_change_weights_by_rounding(
    run_with_teacher: Path, recipe_with_teacher: Recipe, student: StudentRecipe, tmp_path: Path
) -> None:
    label_views(recipe_with_teacher, tmp_path / "half", LabelRequest())
    run = train(student(tmp_path / "half")).directory
    weights, exact = (safetensors.torch.load_file(path / "last.safetensors") for path in (run, run_with_teacher))
    difference = max(float((weights[name].double() - exact[name].double()).abs().max()) for name in weights)
    assert 0 < difference < 1e-3


def test_one_store_serves_students_with_other_settings(label_store: Path, student: StudentRecipe) -> None:
    settings = {
        "student.name": "softmax_regression", "run.seed": 7, "views.seed": 0, "supervision.weight": 0.3,
        "supervision.k": 2, "supervision.temperature": 7.7, "supervision.reading": "renormalized",
        "optimization.epochs": 1,
    }  # fmt: skip
    run = train(student(label_store, settings)).directory
    assert all(line["divergence"] > 0 for line in read_lines(run, "step"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views.seed": 5}, "views.seed: 0 -> 5"),
        ({"run.seed": 5}, "views.seed: 0 -> 5"),
        ({"views.policy": "randaugment-n2-m4@paper-geometric"}, "views.policy: .*m5.* -> .*m4"),
        ({"views.cutout": 8}, "views.cutout: 0 -> 8"),
        ({"views.flip": False}, "views.flip: True -> False"),
        ({"data.train_images": 255}, "samples: 256 -> 255"),
        ({"data.holdout": 0.1}, "data: "),
        ({"optimization.epochs": 3}, "epoch 2 is needed, but epoch-00002-0.safetensors is missing"),
        ({"optimization.epochs": 1, "optimization.clean_epochs": 1}, "clean epochs from: None -> 1"),
        ({"supervision.k": 9}, "holds the top 5 classes, but supervision.k is 9"),
    ],
)
def test_a_store_of_other_views_is_refused(
    settings: dict[str, Any], message: str, label_store: Path, student: StudentRecipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train(student(label_store, settings))
    assert not (tmp_path / "run").exists()


def test_clean_epochs_are_labeled_unaugmented(recipe_with_teacher: Recipe, teacher_run: Path, tmp_path: Path) -> None:
    settings = {
        "optimization.epochs": 1, "optimization.clean_epochs": 1, "teacher.source": f"run:{teacher_run}",
        "run.dir": str(tmp_path / "online"),
    }  # fmt: skip
    recipe = with_settings(recipe_with_teacher, settings)
    label_views(recipe, tmp_path / "store", EXACT)
    stored = with_settings(recipe, {"teacher.labels": str(tmp_path / "store"), "run.dir": str(tmp_path / "stored")})
    with_teacher, with_labels = train(recipe).directory, train(stored).directory
    assert without_seconds(read_lines(with_labels)) == without_seconds(read_lines(with_teacher))


def test_standardized_labels(recipe_with_teacher: Recipe, teacher_run: Path, tmp_path: Path) -> None:
    """They train as the teacher does, are verified, and a wrong standard deviation is found."""
    settings = {
        "optimization.epochs": 1, "teacher.source": f"run:{teacher_run}", "supervision.standardize_logits": True,
        "run.dir": str(tmp_path / "online"),
    }  # fmt: skip
    recipe, store = with_settings(recipe_with_teacher, settings), tmp_path / "store"
    label_views(recipe, store, EXACT)
    stored = with_settings(recipe, {"teacher.labels": str(store), "run.dir": str(tmp_path / "stored")})
    assert weight_bytes(train(stored).directory) == weight_bytes(train(recipe).directory)
    result = verify_labels(store, 32, None, "cpu", seed=0)
    assert result.wrong == 0
    assert result.errors["spread"] < 1e-5
    (path,) = store.glob("epoch-*")
    columns = safetensors.torch.load_file(path)
    columns["spread"] += 0.5
    path.write_bytes(safetensors.torch.save(columns, {"store": read_manifest(store).digest}))
    assert verify_labels(store, 32, None, "cpu", seed=0).wrong == 32


def test_a_cycle_of_epochs_is_used_in_turn(recipe_with_teacher: Recipe, student: StudentRecipe, tmp_path: Path) -> None:
    label_views(recipe_with_teacher, tmp_path / "store", replace(EXACT, cycle=1))
    assert len(list((tmp_path / "store").glob("epoch-*"))) == 1
    run = train(student(tmp_path / "store", {"optimization.epochs": 3})).directory
    divergence = [line["divergence"] for line in read_lines(run, "step")]
    assert len(divergence) == 12
    assert divergence[-1] < divergence[0], "the views are the same in every epoch"


def test_epochs_without_teacher_need_no_labels(
    recipe_with_teacher: Recipe, student: StudentRecipe, tmp_path: Path
) -> None:
    settings = {"optimization.clean_epochs": 1, "supervision.when": "policy"}
    label_views(with_settings(recipe_with_teacher, settings), tmp_path / "store", replace(EXACT, epochs=(0, 2)))
    assert train(student(tmp_path / "store", settings)).directory.exists()


def test_stores_can_be_merged_by_copying_their_epochs(
    recipe_with_teacher: Recipe, label_store: Path, student: StudentRecipe, tmp_path: Path
) -> None:
    for epoch in (0, 1):
        label_views(recipe_with_teacher, tmp_path / f"part{epoch}", replace(EXACT, epochs=(epoch, epoch + 1)))
    message = r"epoch 0 is needed, but .* is missing; run the same kdaug label command again, for epochs 0:2"
    with pytest.raises(InputError, match=message):
        train(student(tmp_path / "part1"))
    shutil.copy(tmp_path / "part0" / "epoch-00000-0.safetensors", tmp_path / "part1")
    assert store_content(tmp_path / "part1") == store_content(label_store)
    label_views(recipe_with_teacher, tmp_path / "part0", EXACT)
    assert store_content(tmp_path / "part0").keys() == store_content(label_store).keys()
