"""The training loop: what a run leaves, that it is a pure function of its recipe, and what it refuses."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.recipes import with_settings
from support.runs import folder_content, losses, read_lines, weight_bytes, without_seconds
from support.steps import before_each_step, train_until
from torch import Tensor, nn

from kdaug import InputError
from kdaug.config import Recipe, read_recipe
from kdaug.training import Interrupted, train
from kdaug.training import run as run_module

TinyRecipe = Callable[..., Recipe]

# What a run leaves


def test_a_run_leaves_exactly_these_files(run_with_teacher: Path) -> None:
    names = "recipe.yaml environment.json metrics.jsonl tensorboard checkpoints best.safetensors last.safetensors .lock"
    assert {p.name for p in run_with_teacher.iterdir()} == set(names.split())
    checkpoints = sorted(p.name for p in (run_with_teacher / "checkpoints").iterdir())
    assert checkpoints == ["step-00000004", "step-00000008"]
    assert [p.name.split(".")[:3] for p in (run_with_teacher / "tensorboard").iterdir()] == [
        ["events", "out", "tfevents"]
    ]


def test_every_step_is_logged_with_its_losses_and_rate(run_with_teacher: Path, recipe_with_teacher: Recipe) -> None:
    lines = read_lines(run_with_teacher)
    assert [line["kind"] for line in lines] == [*["step"] * 4, "eval", *["step"] * 4, "eval", "end"]
    steps = read_lines(run_with_teacher, "step")
    assert [(line["step"], line["epoch"]) for line in steps] == [(s, (s - 1) // 4) for s in range(1, 9)]
    for line in steps:
        parts = line["cross_entropy"] + recipe_with_teacher.supervision.weight * line["divergence"]
        assert line["loss"] == pytest.approx(parts, rel=1e-6)
        assert line["divergence"] != 0
        assert line["learning_rate"] == pytest.approx(0.1 * (1 + math.cos(math.pi * (line["step"] - 1) / 8)) / 2)


def test_the_end_line_has_the_last_scores_and_the_best_error(run_with_teacher: Path) -> None:
    evaluations, (end,) = read_lines(run_with_teacher, "eval"), read_lines(run_with_teacher, "end")
    assert [(line["step"], line["epoch"]) for line in evaluations] == [(4, 0), (8, 1)]
    for name in ("step", "epoch", "top1_error", "top5_error", "val_loss", "images", "balanced_error"):
        assert end[name] == evaluations[-1][name]
    assert end["best_top1_error"] == min(line["top1_error"] for line in evaluations)


def test_checkpoints_are_saved_every_n_steps(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({"run.checkpoint_steps": 3, "run.checkpoint_minutes": 60.0, "optimization.epochs": 3})
    newest: list[int] = []

    def note(step: int, student: nn.Module, x: Tensor) -> None:
        names = [path.name for path in (Path(recipe.run.dir) / "checkpoints").glob("step-*")]
        newest.append(int(max(names, default="step-0")[5:]))

    with before_each_step(note):
        train(recipe)
    assert newest == [0, 0, 0, 3, 4, 4, 6, 6, 8, 9, 9, 9]  # after every third step, and at each evaluation


def test_the_batch_may_be_all_images(tiny_recipe: TinyRecipe) -> None:
    run = train(tiny_recipe({"optimization.global_batch": 256})).directory
    assert [(line["step"], line["epoch"]) for line in read_lines(run, "step")] == [(1, 0), (2, 1)]


# The same recipe gives the same run


def test_the_same_recipe_gives_the_same_bits(
    run_with_teacher: Path, teacher_run: Path, recipe_with_teacher: Recipe, tmp_path: Path
) -> None:
    again = train(with_settings(recipe_with_teacher, {"run.dir": str(tmp_path / "other")})).directory
    for name in ("last", "best"):
        assert weight_bytes(again, name) == weight_bytes(run_with_teacher, name)
    (same_teacher,) = (again.parent / "teachers").iterdir()
    assert teacher_run.name == same_teacher.name
    assert weight_bytes(teacher_run) == weight_bytes(same_teacher)
    assert without_seconds(read_lines(again)) == without_seconds(read_lines(run_with_teacher))


def test_the_written_recipe_gives_the_same_run_and_teacher(run_with_teacher: Path, teacher_run: Path) -> None:
    before, steps = folder_content(teacher_run), []
    recipe = read_recipe(run_with_teacher / "recipe.yaml")
    recipe = with_settings(recipe, {"run.dir": str(run_with_teacher.parent / "again")})
    with before_each_step(lambda step, student, x: steps.append(step)):
        again = train(recipe).directory
    assert weight_bytes(again) == weight_bytes(run_with_teacher)
    assert len(steps) == 8, "the teacher must not be trained again"
    assert list((run_with_teacher.parent / "teachers").iterdir()) == [teacher_run]
    assert folder_content(teacher_run) == before


@pytest.mark.slow
def test_compiled_training_gives_the_same_run(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    settings = {"student.name": "wide_resnet10_1", "optimization.epochs": 1, "optimization.learning_rate": 0.01}
    eager, compiled = (
        losses(train(tiny_recipe({**settings, "run.compile": on, "run.dir": str(tmp_path / f"{on}")})).directory)
        for on in (False, True)
    )
    assert compiled == pytest.approx(eager, rel=1e-3)
    assert compiled != eager


@pytest.mark.slow
def test_a_compiled_run_resumes_bit_for_bit(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"student.name": "small_convnet", "run.compile": True, "run.resume": True}
    uninterrupted = train(tiny_recipe({**settings, "run.dir": str(tmp_path / "uninterrupted")})).directory
    log_step = run_module.TrainingRun.log_step

    def stop_after_3(self: Any, *arguments: Any) -> None:  # a hook within the network would be compiled with it
        log_step(self, *arguments)
        if self._state.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.TrainingRun, "log_step", stop_after_3)
        with pytest.raises(Interrupted):
            train(tiny_recipe(settings))
    torch.manual_seed(99)
    resumed = train(tiny_recipe(settings)).directory
    assert weight_bytes(resumed) == weight_bytes(uninterrupted)
    assert without_seconds(read_lines(resumed)) == without_seconds(read_lines(uninterrupted))


# What is refused, printed and restored


def test_fewer_images_than_a_batch_are_refused(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optimization.global_batch is 257, but there are 256 training images"):
        train(tiny_recipe({"optimization.global_batch": 257}))
    assert list(tmp_path.iterdir()) == []


def test_paths_are_printed_without_markup(tiny_recipe: TinyRecipe, tmp_path: Path, console: Console) -> None:
    run = tmp_path / "[bold]a[" / "b] :cat:"
    assert train(tiny_recipe({"run.dir": str(run), "optimization.epochs": 1}), console).directory == run
    assert f"{run}: softmax_regression" in console.file.getvalue()


def test_signal_handlers_are_restored(tiny_recipe: TinyRecipe) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train_until(tiny_recipe(), step=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
