"""Stopping and resuming: a resumed run equals an uninterrupted one, bit for bit, and lost files are noticed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from support.images import write_noise
from support.networks import SoftmaxRegression
from support.recipes import DROPOUT, TINY, with_settings
from support.runs import assert_same_run, read_lines, step_numbers, weight_bytes
from support.steps import before_each_step, train_until
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import InputError
from kdaug.config import Recipe, read_recipe
from kdaug.training import Interrupted, evaluation, train
from kdaug.training import context as context_module
from kdaug.training import run as run_module
from kdaug.training.batches import ViewBatch

TinyRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 8])
def test_a_run_stopped_once_equals_an_uninterrupted_run(
    tiny_recipe: TinyRecipe, dropout_run: Path, console: Console, stop_at: int
) -> None:
    recipe = tiny_recipe(DROPOUT)
    stopped = train_until(recipe, stop_at, console).directory
    assert max(p.name for p in (stopped / "checkpoints").iterdir()) == f"step-{stop_at:08d}"
    assert step_numbers(stopped) == list(range(1, stop_at + 1))
    torch.manual_seed(99)  # a new process starts with another state
    run = train(recipe, console).directory
    assert f"continuing at step {stop_at} of 8" in console.file.getvalue()
    assert_same_run(run, dropout_run)


def test_a_run_stopped_at_every_step_equals_an_uninterrupted_run(tiny_recipe: TinyRecipe, dropout_run: Path) -> None:
    for _ in range(8):
        train_until(tiny_recipe(DROPOUT), step=1)
    assert_same_run(train(tiny_recipe(DROPOUT)).directory, dropout_run)


def test_a_stopped_convnet_with_teacher_resumes_bit_for_bit(
    run_with_teacher: Path, recipe_with_teacher: Recipe
) -> None:
    settings = {"run.dir": str(run_with_teacher.parent / "stopped"), "run.resume": True}  # shares the teacher
    recipe = with_settings(recipe_with_teacher, settings)
    train_until(recipe, step=2)
    train_until(recipe, step=4)
    assert_same_run(train(recipe).directory, run_with_teacher)


def test_a_stopped_shake_shake_network_resumes_bit_for_bit(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    settings = {"student.name": "shaken_convnet", "run.resume": True}
    uninterrupted = train(tiny_recipe({**settings, "run.dir": str(tmp_path / "uninterrupted")})).directory
    train_until(tiny_recipe(settings), step=2)
    torch.manual_seed(99)
    assert_same_run(train(tiny_recipe(settings)).directory, uninterrupted)


@pytest.fixture(scope="module")
def photos_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two epochs of four steps on photos, with dropout, without a run directory."""
    photos = write_noise(tmp_path_factory.mktemp("photos"), {"a": 12, "b": 12, "c": 12})
    settings = {
        "data.name": "folder", "data.root": str(photos), "data.train_images": None, "data.image_size": 16,
        "data.workers": 0, "views.crop": "random-resized", "student.name": "small_convnet",
        "optimization.global_batch": 8, "run.resume": True,
    }  # fmt: skip
    return with_settings(TINY, settings)


@pytest.fixture(scope="module")
def photos_run(tmp_path_factory: pytest.TempPathFactory, photos_recipe: Recipe) -> Path:
    """The finished run of `photos_recipe`, never stopped."""
    return train(with_settings(photos_recipe, {"run.dir": str(tmp_path_factory.mktemp("photos") / "run")})).directory


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_run_on_photos_resumes_bit_for_bit(
    photos_recipe: Recipe, photos_run: Path, tmp_path: Path, workers: int
) -> None:
    """Loading files must not draw from the generator that the student's dropout draws from."""
    recipe = with_settings(photos_recipe, {"run.dir": str(tmp_path / "run"), "data.workers": workers})
    train_until(recipe, step=2)
    assert_same_run(train(recipe).directory, photos_run)


def test_a_run_stopped_while_training_its_teacher_finishes_both(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    settings = {"teacher.source": "train", "run.resume": True}
    stopped = train_until(tiny_recipe(settings), step=3)
    assert stopped.directory == tmp_path / "run"
    assert f"kdaug train {tmp_path}/run --run.resume" in str(stopped)
    resumed = train(tiny_recipe(settings)).directory
    other = tiny_recipe({"teacher.source": "train", "run.dir": str(tmp_path / "other" / "run")})
    assert weight_bytes(resumed) == weight_bytes(train(other).directory)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_ctrl_c_while_the_teacher_is_trained_stops_at_once(
    tiny_recipe: TinyRecipe, tmp_path: Path, capfd: pytest.CaptureFixture[str], first: signal.Signals
) -> None:
    """The teacher is trained within the student's run. The notice is printed once, and all handlers are restored."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    steps = []

    def interrupt_twice(step: int, student: nn.Module, x: Tensor) -> None:
        steps.append(step)
        if step == 3:
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGINT)

    with before_each_step(interrupt_twice), pytest.raises(KeyboardInterrupt):
        train(tiny_recipe({"teacher.source": "train"}))
    assert steps == [1, 2, 3]
    assert capfd.readouterr().err.count("kdaug: stopping after this step") == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not list(tmp_path.glob("**/checkpoints/*"))


def test_a_run_stopped_while_it_computes_label_trust_can_be_resumed(
    tiny_recipe: TinyRecipe, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before the teacher's next batch of unaugmented training images."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 64)
    batches = []

    def stop_in_first_batch(*arguments: Any) -> Iterator[Any]:
        for batch in unaugmented_batches(*arguments):
            batches.append(batch)
            signal.raise_signal(signal.SIGTERM)
            yield batch

    unaugmented_batches = evaluation.unaugmented_batches
    recipe = tiny_recipe({"teacher.source": f"run:{tiny_run}", "supervision.label_trust": True, "run.resume": True})
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "unaugmented_batches", stop_in_first_batch)
        with pytest.raises(Interrupted) as stopped:
            train(recipe)
    assert len(batches) == 1, "not all 4"
    assert train(recipe).directory == stopped.value.directory


def test_a_signal_after_the_end_was_written_leaves_a_finished_run(
    tiny_recipe: TinyRecipe, dropout_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_unreadable = run_module.TrainContext.count_unreadable

    def stop_and_count(context: Any) -> int:  # called once, after the last evaluation
        signal.raise_signal(signal.SIGINT)
        return count_unreadable(context)

    monkeypatch.setattr(run_module.TrainContext, "count_unreadable", stop_and_count)
    assert_same_run(train(tiny_recipe(DROPOUT)).directory, dropout_run)


def test_a_run_stopped_during_an_evaluation_repeats_it(tiny_recipe: TinyRecipe, dropout_run: Path) -> None:
    """The checkpoint is saved before, as an evaluation may take longer than a service manager waits."""
    batches = []

    def stop_in_evaluation(module: nn.Module, inputs: Any) -> None:
        if not module.training and isinstance(module, SoftmaxRegression):
            batches.append(1)
            if len(batches) == 2:
                signal.raise_signal(signal.SIGTERM)

    handle = register_module_forward_pre_hook(stop_in_evaluation)
    try:
        with pytest.raises(Interrupted) as stopped:
            train(tiny_recipe(DROPOUT))
    finally:
        handle.remove()
    assert len(batches) == 2, "not all 8 batches of the 2,000 images"
    (checkpoint,) = (stopped.value.directory / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000004"
    assert_same_run(train(tiny_recipe(DROPOUT)).directory, dropout_run)


def test_an_error_while_loading_saves_a_checkpoint(
    tiny_recipe: TinyRecipe, dropout_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a decoding process is killed: the steps since the last checkpoint are kept."""
    training_batches = run_module.training_batches

    def fail_after_3(*arguments: Any) -> Iterator[ViewBatch]:
        yield from islice(training_batches(*arguments), 3)
        raise InputError("a process that decodes images was killed")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "training_batches", fail_after_3)
        with pytest.raises(InputError, match="was killed"):
            train(tiny_recipe(DROPOUT))
    run = Path(tiny_recipe().run.dir)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert_same_run(train(tiny_recipe(DROPOUT)).directory, dropout_run)


def test_seconds_are_those_of_all_parts_of_a_run(tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that advances by 10 s in every step, and shows another time after the run was resumed."""
    now = [500.0]
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def advance(step: int, student: nn.Module, x: Tensor) -> None:
        now[0] += 10
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    recipe = tiny_recipe(DROPOUT)
    with before_each_step(advance), pytest.raises(Interrupted):
        train(recipe)
    now[0] = 7.0
    with before_each_step(lambda step, student, x: now.__setitem__(0, now[0] + 10)):
        run = train(recipe).directory
    assert read_lines(run)[-1]["seconds"] == 80


# Lost and damaged files


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    tiny_recipe: TinyRecipe, dropout_run: Path, console: Console
) -> None:
    """The log has lines beyond that checkpoint, and the last one is incomplete. No step may be logged twice."""
    recipe = tiny_recipe({**DROPOUT, "run.checkpoint_minutes": 0.0})
    stopped = train_until(recipe, step=7).directory
    (stopped / "checkpoints" / "step-00000007" / "state.pt").write_bytes(b"")
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "step": 8, "epo')
    run = train(recipe, console).directory
    assert "is damaged" in console.file.getvalue()
    assert "continuing at step 6 of 8" in console.file.getvalue()
    assert_same_run(run, dropout_run)


def test_damaged_checkpoints_must_be_removed_to_start_again(tiny_recipe: TinyRecipe, dropout_run: Path) -> None:
    stopped = train_until(tiny_recipe(DROPOUT), step=6).directory
    for file in (stopped / "checkpoints").glob("*/weights.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match=f"no valid checkpoint in {stopped / 'checkpoints'}"):
        train(tiny_recipe(DROPOUT))
    for path in (stopped / "checkpoints").iterdir():
        shutil.rmtree(path)
    assert_same_run(train(tiny_recipe(DROPOUT)).directory, dropout_run)


def test_a_run_without_its_metrics_or_checkpoints_is_refused(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({**DROPOUT, "optimization.epochs": 3})
    stopped = train_until(recipe, step=10).directory
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    (stopped / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"metrics.jsonl ends before the checkpoint at step 10"):
        train(recipe)
    (stopped / "metrics.jsonl").write_bytes(before[stopped / "metrics.jsonl"])
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoints/ any more; restore it"):
        train(recipe)
    (stopped / "checkpoints").mkdir()
    with pytest.raises(InputError, match="has no checkpoints any more; restore them"):
        train(recipe)
    for name in ("metrics.jsonl", "best.safetensors"):
        assert (stopped / name).read_bytes() == before[stopped / name]


def test_a_run_without_checkpoints_or_evaluations_is_refused(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({**DROPOUT, "run.evaluate_every": 2})
    stopped = train_until(recipe, step=5).directory
    before = (stopped / "metrics.jsonl").read_bytes()
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoints/ any more; restore it"):
        train(recipe)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_an_edited_recipe_is_refused(tiny_recipe: TinyRecipe) -> None:
    stopped = train_until(tiny_recipe(DROPOUT), step=3).directory
    text = (stopped / "recipe.yaml").read_text()
    (stopped / "recipe.yaml").write_text(text.replace("learning_rate: 0.05", "learning_rate: 0.01"))
    recipe = read_recipe(stopped / "recipe.yaml")
    with pytest.raises(InputError, match=r"recipe.yaml has changed since the run began"):
        train(replace(recipe, run=replace(recipe.run, resume=True)))


def test_a_run_resumed_on_fewer_cores_keeps_its_threads(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread the sums of a convolution's gradient would be rounded in another order."""
    settings = {"student.name": "small_convnet", "run.threads": None, "run.resume": True}
    monkeypatch.setattr(context_module, "available_cores", lambda: 3)
    uninterrupted = train(tiny_recipe({**settings, "run.dir": str(tmp_path / "uninterrupted")})).directory
    train_until(tiny_recipe(settings), step=5)
    monkeypatch.setattr(context_module, "available_cores", lambda: 1)
    resumed = train(tiny_recipe(settings)).directory
    assert_same_run(resumed, uninterrupted)
    environment = json.loads((resumed / "environment.json").read_text())
    assert (environment["threads"], environment.get("resumed")) == (3, None)
