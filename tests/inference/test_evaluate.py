"""Evaluating runs: the scores are those of training, on the same or on other images."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.images import write_noise
from support.networks import SmallConvNet
from support.recipes import with_settings
from support.runs import read_lines
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import InputError
from kdaug.config import read_recipe, to_yaml
from kdaug.inference import evaluate_run, evaluation_of_published

NAMES = ("top1_error", "top5_error", "val_loss", "images", "balanced_error")


def logged_scores(run: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in NAMES} for line in read_lines(run, "eval")]


def test_scores_are_those_of_the_last_evaluation(run_with_teacher: Path) -> None:
    assert evaluate_run(run_with_teacher, "last", None, "cpu", None).__dict__ == logged_scores(run_with_teacher)[-1]


def test_best_weights_have_the_lowest_error(run_with_teacher: Path) -> None:
    scores = evaluate_run(run_with_teacher, "best", None, "cpu", None).__dict__
    assert scores == min(logged_scores(run_with_teacher), key=lambda scores: scores["top1_error"])


def test_the_policy_file_is_not_needed(run_with_teacher: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_with_teacher, tmp_path / "run")
    recipe = with_settings(read_recipe(run / "recipe.yaml"), {"views.policy": "file:gone.yaml#0123456789"})
    (run / "recipe.yaml").write_text(to_yaml(recipe))
    assert evaluate_run(run, "last", None, "cpu", None).__dict__ == logged_scores(run)[-1]


def test_evaluate_size_replaces_that_of_the_run(photos_run: Path) -> None:
    sizes: set[tuple[int, ...]] = set()

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, SmallConvNet):
            sizes.add(tuple(inputs[0].shape[2:]))

    handle = register_module_forward_pre_hook(note)
    evaluate_run(photos_run, "last", None, "cpu", 24)
    handle.remove()
    assert sizes == {(24, 24)}


def test_images_may_have_moved(
    photos_run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kdaug")
    moved = shutil.copytree(photos, tmp_path / "moved")
    assert evaluate_run(photos_run, "last", str(moved), "cpu", None).__dict__ == logged_scores(photos_run)[-1]
    (message,) = caplog.messages
    assert message == f"evaluating on 12 images of {moved}: 30 % of each class held out of training (data.val_fraction)"


def test_other_images_are_noted(
    photos_run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kdaug")
    fewer = shutil.copytree(photos, tmp_path / "fewer")
    (fewer / "a" / "000.png").unlink()
    evaluate_run(photos_run, "last", str(fewer), "cpu", None)
    note, evaluated = caplog.messages
    assert note.startswith("note: the images differ from those")
    assert evaluated == f"evaluating on 35 images of {fewer}: all its images"


def test_a_plain_folder_is_evaluated_whole(photos_run: Path, tmp_path: Path) -> None:
    """Also one that allows no hold-out split, because a class has one image."""
    other = write_noise(tmp_path / "other", {"a": 7, "b": 1, "c": 3}, (20, 20))
    assert evaluate_run(photos_run, "last", str(other), "cpu", None).images == 11


def test_the_validation_split_of_another_folder_is_evaluated(photos_run: Path, tmp_path: Path) -> None:
    for split, count in (("train", 9), ("val", 4)):
        write_noise(tmp_path / "other" / split, dict.fromkeys("abc", count), (20, 20))
    assert evaluate_run(photos_run, "last", str(tmp_path / "other"), "cpu", None).images == 12


def test_the_folder_of_the_run_by_another_path_is_not_evaluated_whole(photos_run: Path, photos: Path) -> None:
    again = photos / "a" / ".."
    assert evaluate_run(photos_run, "last", str(again), "cpu", None).__dict__ == logged_scores(photos_run)[-1]


def test_other_classes_are_refused(photos_run: Path, tmp_path: Path) -> None:
    write_noise(tmp_path / "other", {"a": 12, "b": 12, "d": 12})
    with pytest.raises(InputError, match="was trained on 3 classes that are not those of"):
        evaluate_run(photos_run, "last", str(tmp_path / "other"), "cpu", None)


def test_published_weights_need_a_name_and_images() -> None:
    with pytest.raises(InputError, match="timm has no published weights for wide_resnet10_1"):
        evaluation_of_published("wide_resnet10_1", "folder", ".", "cpu", None)
    with pytest.raises(InputError, match=r"timm:resnet18: the images to evaluate on are missing; set data\.root"):
        evaluation_of_published("resnet18", "folder", None, "cpu", None)
