"""Run directories: never overwritten, only resumed, by one process at a time and with the recipe they began with."""

from __future__ import annotations

import dataclasses
import json
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

from kdaug import InputError
from kdaug.config import Recipe, read_recipe
from kdaug.runs import recipe_differences, recipe_fingerprint, record_environment
from kdaug.training import RunDirectory, read_metrics, train
from kdaug.training.resolve import resolve

Tiny = Callable[..., Recipe]


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of `folder` with its bytes and the time it was written."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_is_never_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny({"optimization.epochs": 1}))
    before = content(tmp_path)
    with pytest.raises(InputError, match=f"^{tmp_path}/run exists; continue it with --run.resume or choose another"):
        train(tiny({"optimization.epochs": 1}))
    assert content(tmp_path) == before


def test_a_finished_run_resumed_is_left_as_it_is(tiny: Tiny, tmp_path: Path, console: Console) -> None:
    first = train(tiny({"optimization.epochs": 1}))
    before = content(tmp_path)
    assert train(tiny({"optimization.epochs": 1, "run.resume": True}), console) == first
    assert content(tmp_path) == before
    assert "is finished already" in console.file.getvalue()


def test_a_run_resumed_with_another_recipe_is_refused_and_the_setting_named(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny({"optimization.epochs": 1}))
    before = content(tmp_path)
    with pytest.raises(InputError) as refused:
        train(tiny({"optimization.momentum": 0.8, "views.magnitude": 3.0, "run.resume": True}))
    for named in (
        "optimization.epochs: 1 -> 2",
        "optimization.momentum: 0.9 -> 0.8",
        "views.policy: randaugment-n2-m5@paper-geometric -> randaugment-n2-m3@paper-geometric",
    ):
        assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert content(tmp_path) == before


def test_the_recipe_in_the_directory_is_the_resolved_one(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny({"optimization.epochs": 1, "views.magnitude": 2.0, "run.seed": 3, "run.resume": True})
    train(recipe)
    written = read_recipe(tmp_path / "run" / "recipe.yaml")
    assert written == dataclasses.replace(
        resolve(recipe), run=dataclasses.replace(recipe.run, resume=False)
    )  # resuming is asked for each time, not part of the experiment


def test_the_environment_says_what_the_result_depends_on(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny({"optimization.epochs": 1}))
    said = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert said["packages"]["torch"] == version("torch")
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (said["device"], said["precision"]) == ("cpu", "float32")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_not_a_run_directory_is_refused_and_left_alone(tiny: Tiny, tmp_path: Path, what: str) -> None:
    other = tmp_path / "run" if what == "file" else tmp_path / "run" / "thesis.tex"
    other.parent.mkdir(exist_ok=True)
    other.write_text("years of work")
    before = content(tmp_path)
    for resume in (False, True):
        with pytest.raises(InputError, match=r"exists and is not a run directory; choose another --run.dir"):
            train(tiny({"run.resume": resume}))
    assert content(tmp_path) == before


def test_an_empty_folder_may_become_a_run(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert train(tiny({"optimization.epochs": 1})).directory == tmp_path / "run"


def test_a_run_directory_inside_a_file_cannot_be(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"folder {tmp_path}/file/run cannot be written: Not a directory"):
        train(tiny({"run.dir": str(tmp_path / "file" / "run")}))


def test_a_last_line_cut_short_anywhere_is_left_out_and_all_before_it_kept(tmp_path: Path) -> None:
    lines = [{"kind": "step", "step": step, "epoch": 0, "cross_entropy": 2.5 / step} for step in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for cut in range(len(text) + 1):
        (tmp_path / "metrics.jsonl").write_text(text[:cut])
        whole = sum(cut >= len("".join(json.dumps(line) + "\n" for line in lines[:n])) - 1 for n in (1, 2, 3))
        assert read_metrics(tmp_path) == lines[:whole]


def test_a_run_without_metrics_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("missing", ["last.safetensors", "half of the weights", "end line"])
def test_a_run_is_finished_only_with_its_weights_and_its_end_line(tmp_path: Path, missing: str) -> None:
    figures = '"top1_error": 9.0, "top5_error": 1.0, "best_top1_error": 8.0, "seconds": 5.0'
    line = '{"kind": "%s", "step": 1, "epoch": 0, ' + figures + "}\n"
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


def other_than(value: Any) -> Any:
    """A value of the same kind, or any at all instead of None."""
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
COUNTING = {"run.seed", "run.evaluate_size"}
INCIDENTAL = {name for name in SETTINGS if name.startswith("run.") and name not in COUNTING} | {
    "data.root", "data.download", "data.workers", "data.max_unreadable",
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_recipes_differ_exactly_when_what_is_learned_differs(changed: Callable[..., Recipe], setting: str) -> None:
    part, key = setting.split(".")
    before = Recipe()
    old = getattr(getattr(before, part), key)
    after = changed(before, {setting: other_than(old)})
    if setting in INCIDENTAL:
        assert recipe_differences(before, after) == []
        assert recipe_fingerprint(before) == recipe_fingerprint(after)
    else:
        shown = [list(value) if isinstance(value, tuple) else value for value in (old, other_than(old))]
        assert recipe_differences(before, after) == [f"{setting}: {shown[0]} -> {shown[1]}"]
        assert recipe_fingerprint(before) != recipe_fingerprint(after)


ENVIRONMENT = {"threads": 1, "precision": "float32", "data": "abc", "recipe": "123"}


def test_the_environment_of_the_beginning_is_kept_and_what_changed_later_added(tmp_path: Path) -> None:
    run, reports = RunDirectory(tmp_path), []
    record_environment(run, ENVIRONMENT, 0, reports.append)
    record_environment(run, ENVIRONMENT, 3, reports.append)
    assert json.loads(run.environment.read_text()) == ENVIRONMENT
    assert reports == []
    record_environment(run, {**ENVIRONMENT, "threads": 2}, 5, reports.append)
    record_environment(run, {**ENVIRONMENT, "precision": "bfloat16"}, 7, reports.append)
    later = [{"step": 5, "threads": 2}, {"step": 7, "precision": "bfloat16"}]
    assert json.loads(run.environment.read_text()) == {**ENVIRONMENT, "resumed": later}
    assert ["threads: 1 -> 2" in reports[0], "precision: float32 -> bfloat16" in reports[1]] == [True, True]


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_environment(run, ENVIRONMENT, 0, pytest.fail)
    with pytest.raises(InputError, match=f"the images are not those that {tmp_path} began with"):
        record_environment(run, {**ENVIRONMENT, "data": "abd"}, 4, pytest.fail)


def test_a_run_does_not_go_on_with_a_recipe_that_was_edited(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_environment(run, ENVIRONMENT, 0, pytest.fail)
    with pytest.raises(InputError, match=r"recipe.yaml has been changed since the run began"):
        record_environment(run, {**ENVIRONMENT, "recipe": "124"}, 4, pytest.fail)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff", b'{"data": "", "recipe": "", "resumed": 1}'])
def test_a_damaged_environment_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "environment.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"environment.json is damaged"):
        record_environment(RunDirectory(tmp_path), ENVIRONMENT, 0, pytest.fail)


@pytest.mark.parametrize("damage", [b"{", b"5", b'{"a": 1}', b"\xff\xfe"])
def test_metrics_damaged_before_their_last_line_are_not_taken_for_a_shorter_run(tmp_path: Path, damage: bytes) -> None:
    line = b'{"kind": "step", "step": 1, "epoch": 0, "cross_entropy": 1.0}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([line, damage, line, b""]))
    with pytest.raises(InputError, match="line 2 is damaged"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([line, damage]))
    assert len(read_metrics(tmp_path)) == 1
