"""Filling label stores: what is refused, and how labeling is resumed, repaired, locked and shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from support.locks import lock_in_other_process
from support.ranks import start_ranks
from support.recipes import with_settings
from support.runs import store_content

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.training import labeling
from kdaug.training.labeling import LabelRequest, label_views

EXACT = LabelRequest(precision="float32")


@pytest.mark.parametrize(
    ("settings", "label_request", "message"),
    [
        ({}, LabelRequest(epochs=(0, 3)), "epochs 0:3 are not within the recipe's epochs 0:2"),
        ({}, LabelRequest(epochs=(1, 1)), "epochs 1:1 are not within"),
        ({}, LabelRequest(cycle=0), "cycle is 0, but must be from 1 to the recipe's 2 epochs"),
        ({}, LabelRequest(k=0), "k is 0, but must be at least 1"),
        ({}, LabelRequest(k=4), "k is 4, but supervision.divergence top-k of the recipe needs 5 classes"),
        ({"supervision.divergence": "dist"}, LabelRequest(k=9), "divergence dist of the recipe needs 10 classes"),
        ({}, LabelRequest(temperatures=(0.0,)), "temperatures contain 0, but all must be above 0"),
        ({"teacher.source": "none"}, LabelRequest(), "teacher.source is none"),
        ({"teacher.labels": "x"}, LabelRequest(), "teacher.labels must not be set when labels are stored"),
        ({"views.policy": "pba-cifar10"}, LabelRequest(cycle=1), "policy pba-cifar10.* depends on the epoch"),
        ({"optimization.clean_epochs": 1}, LabelRequest(cycle=1), "a cycle of views cannot be used with clean epochs"),
    ],
)
def test_labels_that_cannot_be_stored_are_refused(
    settings: dict[str, Any], label_request: LabelRequest, message: str, recipe_with_teacher: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        label_views(with_settings(recipe_with_teacher, settings), tmp_path / "store", label_request)
    assert not (tmp_path / "store").exists()


def test_labeling_resumes_after_the_files_already_written(
    recipe_with_teacher: Recipe, label_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_file, epochs = labeling._compute_file, []

    def stop_in_the_second(*arguments: Any) -> Any:
        epochs.append(arguments[3].epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return compute_file(*arguments)

    monkeypatch.setattr(labeling, "_compute_file", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        label_views(recipe_with_teacher, tmp_path / "store", EXACT)
    label_views(recipe_with_teacher, tmp_path / "store", EXACT)
    assert epochs == [0, 1, 1], "epoch 0 is not computed again"
    assert store_content(tmp_path / "store") == store_content(label_store)


def test_other_folders_and_stores_are_not_overwritten(
    recipe_with_teacher: Recipe, label_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="exists and is not a label store; choose another folder"):
        label_views(recipe_with_teacher, tmp_path, EXACT)
    before = store_content(label_store)
    with pytest.raises(InputError, match=r"is another label store .*k: 5 -> 3"):
        label_views(with_settings(recipe_with_teacher, {"supervision.k": 3}), label_store, EXACT)
    assert store_content(label_store) == before


def test_a_full_disk_is_noticed_before_anything_is_written(
    recipe_with_teacher: Recipe, run_with_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeling.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"the disk has less than .* MB left; store fewer epochs or classes"):
        label_views(recipe_with_teacher, tmp_path / "store", EXACT)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_folders_are_checked_before_the_teacher_is_trained(
    recipe_with_teacher: Recipe, label_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeling, "get_or_train_teacher", lambda *_: pytest.fail("the teacher must not be loaded"))
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="exists and is not a label store"):
        label_views(recipe_with_teacher, tmp_path / "file", EXACT)
    with pytest.raises(InputError, match=r"is another label store \(precision: float32 -> float16\)"):
        label_views(recipe_with_teacher, label_store, LabelRequest())
    monkeypatch.setattr(labeling.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="/proc is not writable; choose another folder"):
        label_views(recipe_with_teacher, Path("/proc/labels"), EXACT)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def remove_a_column(path: Path) -> None:
    columns = safetensors.torch.load_file(path)
    columns.popitem()
    path.write_bytes(safetensors.torch.save(columns))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("manifest.json", remove),
        ("manifest.json", truncate),
        ("recipe.yaml", remove),
        ("clean.safetensors", remove),
        ("clean.safetensors", truncate),
        ("epoch-00001-0.safetensors", remove),
        ("epoch-00001-0.safetensors", truncate),
        ("epoch-00001-0.safetensors", remove_a_column),
    ],
)
def test_the_same_command_restores_damaged_files_only(
    name: str, damage: Callable[[Path], None], recipe_with_teacher: Recipe, label_store: Path, label_store_copy: Path
) -> None:
    folder = label_store_copy
    (folder / f"{name}.123.part").write_bytes(b"left by a killed process")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    damage(folder / name)
    label_views(recipe_with_teacher, folder, EXACT)
    (folder / f"{name}.123.part").unlink(missing_ok=True)
    assert store_content(folder) == store_content(label_store)
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != before[path.name]} == {name}


def test_a_store_that_another_process_fills_is_not_changed(
    recipe_with_teacher: Recipe, label_store: Path, label_store_copy: Path
) -> None:
    folder = label_store_copy
    (folder / "epoch-00001-0.safetensors").unlink()
    before = store_content(folder)
    message = f"{folder} is being filled by another process; wait"
    with lock_in_other_process(folder), pytest.raises(InputError, match=message):
        label_views(recipe_with_teacher, folder, EXACT)
    assert store_content(folder) == before
    label_views(recipe_with_teacher, folder, EXACT)
    assert store_content(folder) == store_content(label_store)


def test_several_processes_share_the_labeling(recipe_with_teacher: Recipe, label_store: Path, tmp_path: Path) -> None:
    ranks = start_ranks(2, label_views, recipe_with_teacher, tmp_path / "store", EXACT)
    assert ranks.wait() == [0, 0]
    assert store_content(tmp_path / "store") == store_content(label_store)
