"""Run directories and label stores written by the first version can still be used.

All three are of the demo recipe: finished-run, stopped-run (killed after step 6 of 8) and label-store (whose teacher is
finished-run).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recipes import with_settings
from support.runs import folder_content, read_lines, step_numbers

from kdaug.config import read_recipe
from kdaug.inference import evaluate_run, load_run
from kdaug.runs import RunDirectory, run_status
from kdaug.study.report.finished import find_finished_runs, read_finished_run
from kdaug.training import train
from kdaug.training.label_verification import verify_labels
from kdaug.training.resolve import read_resolved_recipe

LEGACY = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with copies of the three folders. Recipes name the teacher by a relative path."""
    for name in ("finished-run", "stopped-run", "label-store"):
        shutil.copytree(LEGACY / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["finished-run", "stopped-run", "label-store"])
def test_recipes_are_read(name: str) -> None:
    recipe = read_resolved_recipe(LEGACY / name / "recipe.yaml")
    assert (recipe.student.name, recipe.views.policy) == ("wide_resnet10_1", "randaugment-n2-m5@paper-geometric")
    assert (recipe.views.seed, recipe.data.train_images, recipe.run.threads) == (0, 256, 1)


def test_runs_are_listed(kdaug: Callable, folder: Path) -> None:
    result = kdaug("runs", folder, "--json")
    assert (result.code, result.err) == (0, "")
    runs = {Path(line["path"]).name: line for line in map(json.loads, result.out.splitlines())}
    finished, stopped = runs["finished-run"], runs["stopped-run"]
    assert (finished["state"], finished["error"], finished["epochs_done"]) == ("finished", 85.25, 1)
    assert (stopped["state"], stopped["error"], stopped["epochs_done"]) == ("stopped", 83.25, 1)
    assert run_status(folder / "stopped-run").epochs == 2


def test_a_stopped_run_is_resumed_to_its_end(kdaug: Callable, folder: Path) -> None:
    run = folder / "stopped-run"
    before = read_lines(run)
    result = kdaug("train", run, "--run.resume")
    assert (result.code, result.err) == (0, "")
    assert "continuing at step 6 of 8" in result.out
    assert step_numbers(run) == list(range(1, 9))
    assert read_lines(run)[: len(before)] == before
    assert RunDirectory(run).is_finished
    environment = json.loads((run / "environment.json").read_text())
    assert environment["data"] == "88b0880a27d91a2e"


def test_a_finished_run_is_evaluated(folder: Path) -> None:
    """Up to the rounding of another processor; the run was trained in bfloat16."""
    scores = evaluate_run(folder / "finished-run", "last", None, "cpu", None)
    assert scores.images == 2000
    assert scores.top1_error == pytest.approx(85.25, abs=1)
    assert scores.val_loss == pytest.approx(2.2384, rel=0.02)
    assert load_run(folder / "finished-run").network_info.network == "wide_resnet10_1"


def test_a_finished_run_is_left_unchanged_when_resumed(kdaug: Callable, folder: Path) -> None:
    (folder / "finished-run" / "checkpoints").mkdir()
    before = folder_content(folder / "finished-run")
    assert "is already finished" in kdaug("train", folder / "finished-run", "--run.resume").out
    assert folder_content(folder / "finished-run") == before


def test_a_finished_run_serves_as_teacher(folder: Path) -> None:
    recipe = read_recipe(folder / "finished-run" / "recipe.yaml")
    settings = {"teacher.source": "run:finished-run", "run.dir": str(folder / "student")}
    run = train(with_settings(recipe, settings)).directory
    assert all(line["divergence"] != 0 for line in read_lines(run, "step"))


def test_a_label_store_serves_a_student(kdaug: Callable, folder: Path) -> None:
    """With the command that labelling printed; the teacher is not needed."""
    shutil.rmtree(folder / "finished-run")
    flags = ["--teacher.labels", "label-store", "--run.dir", "student"]
    result = kdaug("train", "label-store/recipe.yaml", *flags)
    assert (result.code, result.err) == (0, "")
    assert all(line["divergence"] != 0 for line in read_lines(folder / "student", "step"))


def test_a_label_store_is_verified(folder: Path) -> None:
    result = verify_labels(folder / "label-store", 64, None, "cpu", seed=0)
    assert (result.views, result.epochs, result.wrong, result.changed) == (64, 1, 0, [])


def test_finished_runs_are_reported(folder: Path) -> None:
    runs, left_out = find_finished_runs([folder])
    assert [run.path.name for run in runs] == ["finished-run"]
    assert any("stopped-run" in reason for reason in left_out)
    run = read_finished_run(folder / "finished-run")
    assert run is not None
    assert (run.top1_error, run.top5_error, run.images, run.measured_on) == (85.25, 37.75, 2000, "test")
    assert run.settings["optimization.learning_rate"] == 0.1
