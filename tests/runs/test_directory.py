"""Run directories: never overwritten, only resumed with the same recipe and images."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.recipes import with_settings
from support.runs import folder_content

from kdaug import InputError
from kdaug.config import Recipe, ResolvedRun, read_recipe, to_dict
from kdaug.runs import (
    RunDirectory,
    keep_threads,
    read_metrics,
    recipe_differences,
    recipe_fingerprint,
    record_environment,
)
from kdaug.training import train
from kdaug.training.resolve import resolve

TinyRecipe = Callable[..., Recipe]


def test_a_run_is_never_overwritten(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    train(tiny_recipe({"optimization.epochs": 1}))
    before = folder_content(tmp_path)
    with pytest.raises(InputError, match=f"^{tmp_path}/run is a finished run; choose another run.dir$"):
        train(tiny_recipe({"optimization.epochs": 1}))
    assert folder_content(tmp_path) == before
    (tmp_path / "run" / "last.safetensors").unlink()
    message = f"^{tmp_path}/run exists; continue it with run.resume or choose another run.dir$"
    with pytest.raises(InputError, match=message):
        train(tiny_recipe({"optimization.epochs": 1}))


def test_resuming_a_finished_run_changes_nothing(tiny_recipe: TinyRecipe, tmp_path: Path, console: Console) -> None:
    first = train(tiny_recipe({"optimization.epochs": 1}))
    before = folder_content(tmp_path)
    assert train(tiny_recipe({"optimization.epochs": 1, "run.resume": True}), console) == first
    assert folder_content(tmp_path) == before
    assert "is already finished" in console.file.getvalue()


def test_resuming_with_another_recipe_names_the_settings(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    train(tiny_recipe({"optimization.epochs": 1}))
    before = folder_content(tmp_path)
    with pytest.raises(InputError) as error:
        train(tiny_recipe({"optimization.momentum": 0.8, "views.magnitude": 3.0, "run.resume": True}))
    for change in (
        "optimization.epochs: 1 -> 2",
        "optimization.momentum: 0.9 -> 0.8",
        "views.policy: randaugment-n2-m5@paper-geometric -> randaugment-n2-m3@paper-geometric",
    ):
        assert change in str(error.value)
    assert "\n" not in str(error.value)
    assert folder_content(tmp_path) == before


def test_the_recipe_in_the_directory_is_the_resolved_one(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe({"optimization.epochs": 1, "views.magnitude": 2.0, "run.seed": 3, "run.resume": True})
    train(recipe)
    written = read_recipe(tmp_path / "run" / "recipe.yaml")
    assert to_dict(written) == to_dict(with_settings(resolve(recipe), {"run.resume": False}))  # set for each call


def test_the_environment_is_described(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    train(tiny_recipe({"optimization.epochs": 1}))
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"] == version("torch")
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (environment["device"], environment["precision"]) == ("cpu", "float32")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_other_files_and_folders_are_not_changed(tiny_recipe: TinyRecipe, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "run" if kind == "file" else tmp_path / "run" / "thesis.tex"
    other.parent.mkdir(exist_ok=True)
    other.write_text("text")
    before = folder_content(tmp_path)
    for resume in (False, True):
        with pytest.raises(InputError, match=r"exists and is not a run directory; choose another run.dir"):
            train(tiny_recipe({"run.resume": resume}))
    assert folder_content(tmp_path) == before


def test_an_empty_folder_can_become_a_run(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert train(tiny_recipe({"optimization.epochs": 1})).directory == tmp_path / "run"


def test_a_run_directory_cannot_be_in_a_file(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"folder {tmp_path}/file/run cannot be written: Not a directory"):
        train(tiny_recipe({"run.dir": str(tmp_path / "file" / "run")}))


def test_an_incomplete_last_line_is_left_out(tmp_path: Path) -> None:
    lines = [{"kind": "step", "step": step, "epoch": 0, "cross_entropy": 2.5 / step} for step in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for cut in range(len(text) + 1):
        (tmp_path / "metrics.jsonl").write_text(text[:cut])
        complete = sum(cut >= len("".join(json.dumps(line) + "\n" for line in lines[:n])) - 1 for n in (1, 2, 3))
        assert read_metrics(tmp_path) == lines[:complete]


def test_a_run_without_metrics_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("missing", ["last.safetensors", "half of the weights", "end line"])
def test_a_finished_run_has_weights_and_an_end_line(tmp_path: Path, missing: str) -> None:
    metrics = '"top1_error": 9.0, "top5_error": 1.0, "best_top1_error": 8.0, "seconds": 5.0'
    line = '{"kind": "%s", "step": 1, "epoch": 0, ' + metrics + "}\n"
    (tmp_path / "metrics.jsonl").write_text(line % "end")
    safetensors.torch.save_file({"weight": torch.ones(100)}, tmp_path / "last.safetensors")
    assert RunDirectory(tmp_path).is_finished
    if missing == "half of the weights":
        os.truncate(tmp_path / "last.safetensors", 300)
    elif missing == "end line":
        (tmp_path / "metrics.jsonl").write_text(line % "eval" + '{"kind": "end", "st')
    else:
        (tmp_path / "last.safetensors").unlink()
    assert not RunDirectory(tmp_path).is_finished


def other_value(value: Any) -> Any:
    """A different value of the same type; 1 in place of None."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "-other"
        case tuple():
            return (*value, 1.0)
    return 1


SETTINGS = [
    f"{part.name}.{field.name}"
    for part in dataclasses.fields(Recipe)
    for field in dataclasses.fields(type(getattr(Recipe(), part.name)))
]
WITH_EFFECT = {"run.seed", "run.evaluate_size"}
WITHOUT_EFFECT = {name for name in SETTINGS if name.startswith("run.") and name not in WITH_EFFECT} | {
    "data.root", "data.download", "data.workers", "data.max_unreadable", "data.check",
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_recipes_differ_in_the_settings_with_effect(setting: str) -> None:
    part, key = setting.split(".")
    before = Recipe()
    old = getattr(getattr(before, part), key)
    after = with_settings(before, {setting: other_value(old)})
    if setting in WITHOUT_EFFECT:
        assert recipe_differences(before, after) == []
        assert recipe_fingerprint(before) == recipe_fingerprint(after)
    else:
        shown = [list(value) if isinstance(value, tuple) else value for value in (old, other_value(old))]
        assert recipe_differences(before, after) == [f"{setting}: {shown[0]} -> {shown[1]}"]
        assert recipe_fingerprint(before) != recipe_fingerprint(after)


ENVIRONMENT = {"threads": 1, "precision": "float32", "data": "abc", "recipe": "123"}


def test_a_changed_environment_is_added_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunDirectory(tmp_path)
    caplog.set_level(logging.INFO, "kdaug")
    record_environment(run, ENVIRONMENT, 0)
    record_environment(run, ENVIRONMENT, 3)
    assert json.loads(run.environment.read_text()) == ENVIRONMENT
    assert caplog.messages == []
    record_environment(run, {**ENVIRONMENT, "threads": 2}, 5)
    record_environment(run, {**ENVIRONMENT, "precision": "bfloat16"}, 7)
    later = [{"step": 5, "threads": 2}, {"step": 7, "precision": "bfloat16"}]
    assert json.loads(run.environment.read_text()) == {**ENVIRONMENT, "resumed": later}
    first, second = caplog.messages
    assert "threads: 1 -> 2" in first
    assert "precision: float32 -> bfloat16" in second


def test_other_images_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_environment(run, ENVIRONMENT, 0)
    with pytest.raises(InputError, match=f"the dataset has changed since {tmp_path} was started"):
        record_environment(run, {**ENVIRONMENT, "data": "abd"}, 4)


def test_an_edited_recipe_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_environment(run, ENVIRONMENT, 0)
    with pytest.raises(InputError, match=r"recipe.yaml has changed since the run began"):
        record_environment(run, {**ENVIRONMENT, "recipe": "124"}, 4)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff", b'{"data": "", "recipe": "", "resumed": 1}'])
def test_a_damaged_environment_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "environment.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"environment.json is damaged"):
        record_environment(RunDirectory(tmp_path), ENVIRONMENT, 0)


@pytest.mark.parametrize("damage", [b"{", b"5", b'{"a": 1}', b"\xff\xfe"])
def test_damaged_lines_before_the_last_are_refused(tmp_path: Path, damage: bytes) -> None:
    line = b'{"kind": "step", "step": 1, "epoch": 0, "cross_entropy": 1.0}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([line, damage, line, b""]))
    with pytest.raises(InputError, match="line 2 is damaged"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([line, damage]))
    assert len(read_metrics(tmp_path)) == 1


def test_a_resumed_run_keeps_its_threads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, settings = RunDirectory(tmp_path), ResolvedRun(dir=str(tmp_path))
    assert keep_threads(settings, run) == settings
    record_environment(run, {**ENVIRONMENT, "threads": 10_000}, 0)
    assert keep_threads(dataclasses.replace(settings, threads=2), run).threads == 2
    assert caplog.messages == []
    assert keep_threads(settings, run).threads == 10_000
    (warning,) = caplog.messages
    assert warning.startswith("the run began with 10000 threads and keeps them, but there are ")
