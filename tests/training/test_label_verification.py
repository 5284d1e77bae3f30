"""Verifying a label store: wrong labels and another teacher are found, and only the needed images are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.recipes import with_settings

from kdaug import InputError
from kdaug.config import Recipe, to_yaml
from kdaug.supervision.manifest import read_manifest, write_manifest
from kdaug.training import label_verification
from kdaug.training.label_verification import verify_labels


def test_a_correct_store_is_verified(label_store: Path) -> None:
    result = verify_labels(label_store, 100, None, "cpu", seed=0)
    assert (result.views, result.epochs, result.wrong, result.changed) == (100, 2, 0, [])
    assert max(result.errors.values()) < 1e-5


def shift(column: torch.Tensor) -> torch.Tensor:
    return column + 0.5


def make_nan(column: torch.Tensor) -> torch.Tensor:
    return column * torch.nan


def reverse(column: torch.Tensor) -> torch.Tensor:
    return column.view(torch.int16).flip(1).contiguous().view(torch.uint16)


@pytest.mark.parametrize(
    ("column", "change", "error"),
    [
        ("logits", shift, "log-probability"),
        ("logits", make_nan, "log-probability"),
        ("classes", reverse, "log-probability"),
        ("label", shift, "label"),
        ("log_sum_exp", shift, "log-sum-exp"),
        ("clean", shift, "label without augmentation"),
    ],
)
def test_wrong_labels_are_found(
    column: str, change: Callable[[torch.Tensor], torch.Tensor], error: str, label_store_copy: Path
) -> None:
    digest = read_manifest(label_store_copy).digest
    for path in label_store_copy.glob("clean*" if column == "clean" else "epoch-*"):
        columns = safetensors.torch.load_file(path)
        name = "label" if column == "clean" else column
        columns[name] = change(columns[name])
        path.write_bytes(safetensors.torch.save(columns, {"store": digest}))
    result = verify_labels(label_store_copy, 64, None, "cpu", seed=0)
    assert result.wrong > 60
    assert result.errors[error] > 0.1
    assert all(value < 1e-5 for name, value in result.errors.items() if name != error)
    assert result.changed == []


def test_another_teacher_is_reported(label_store_copy: Path) -> None:
    other = replace(read_manifest(label_store_copy), teacher="another")
    (label_store_copy / "manifest.json").unlink()
    write_manifest(other, label_store_copy)
    for path in label_store_copy.glob("*.safetensors"):
        path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), {"store": other.digest}))
    result = verify_labels(label_store_copy, 10, None, "cpu", seed=0)
    assert len(result.changed) == 1
    assert "teacher: another -> " in result.changed[0]


def test_a_missing_teacher_is_not_trained_again(
    recipe_with_teacher: Recipe, label_store_copy: Path, tmp_path: Path
) -> None:
    moved = with_settings(recipe_with_teacher, {"run.dir": str(tmp_path / "other" / "run"), "views.seed": 0})
    (label_store_copy / "recipe.yaml").write_text(to_yaml(moved))
    message = r"the teacher of this store was trained in .*other.*, which is missing; restore it"
    with pytest.raises(InputError, match=message):
        verify_labels(label_store_copy, 10, None, "cpu", seed=0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("views", "seed", "message"), [(0, 0, "views is 0"), (1, -1, "seed is -1"), (1, 1 << 64, "seed")]
)
def test_invalid_numbers_are_refused(label_store: Path, views: int, seed: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        verify_labels(label_store, views, None, "cpu", seed)


def test_only_the_images_of_the_verified_views_are_computed(label_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = dict[str, set[int]](images=set(), views=set())
    unaugmented_label_log_probs = label_verification.unaugmented_label_log_probs
    compute_records = label_verification.compute_records

    def record_images(context: Any, teacher: Any, indices: Any) -> torch.Tensor:
        computed["images"].update(indices.tolist())
        return unaugmented_label_log_probs(context, teacher, indices)

    def record_views(*arguments: Any) -> Iterator[Any]:
        for indices, records in compute_records(*arguments):
            computed["views"].update(indices.tolist())
            yield indices, records

    monkeypatch.setattr(label_verification, "unaugmented_label_log_probs", record_images)
    monkeypatch.setattr(label_verification, "compute_records", record_views)
    assert verify_labels(label_store, 10, None, "cpu", seed=0).wrong == 0
    assert computed["images"] == computed["views"]
    assert 5 <= len(computed["views"]) <= 10
