"""What must hold on a GPU. Most tests also run on the CPU; `pytest -m gpu` runs them on the GPU only."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.recipes import WITH_TEACHER, with_settings
from support.runs import assert_same_run, read_lines, weight_bytes
from support.steps import before_each_step, train_until
from torch import Tensor, nn

import kdaug
from kdaug.config import Recipe
from kdaug.device import find_precision
from kdaug.inference import evaluation_of_run
from kdaug.training import Interrupted, train
from kdaug.training.batches import training_batches
from kdaug.training.checkpoints import load_newest_checkpoint, save_checkpoint
from kdaug.training.context import TrainContext, build_context
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import resolve, teacher_run_recipes
from kdaug.training.run import TrainingRun
from kdaug.training.state import TrainState, init_state
from kdaug.training.step import TrainStep

DeviceRecipe = Callable[..., Recipe]


GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])
on_gpu = pytest.mark.parametrize("device", [GPU], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def recipe(device: str, tmp_path_factory: pytest.TempPathFactory) -> DeviceRecipe:
    """Two epochs of four steps of a convolutional network with dropout and a teacher, in automatic precision."""
    folder = tmp_path_factory.mktemp(device)

    def make(run: str, settings: dict[str, object] | None = None) -> Recipe:
        changes = {"run.dir": str(folder / run), "run.device": device, "optimization.precision": "auto"}
        return with_settings(WITH_TEACHER, {**changes, "run.resume": True, **(settings or {})})

    return make


@pytest.fixture(scope="module")
def finished(recipe: DeviceRecipe) -> Path:
    """The finished run, never stopped. Its teacher is shared by all runs of this module."""
    return train(recipe("reference"), Console(file=io.StringIO())).directory


def _context(recipe: Recipe) -> TrainContext:
    return build_context(resolve(recipe), Console(quiet=True))


def _state(recipe: Recipe) -> tuple[TrainContext, TrainState]:
    context = _context(with_settings(recipe, {"teacher.source": "none"}))
    return context, init_state(context)


def test_training_twice_gives_the_same_bytes(recipe: DeviceRecipe, finished: Path) -> None:
    assert_same_run(train(recipe("again")).directory, finished)


@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_stopped_run_resumes_bit_for_bit(recipe: DeviceRecipe, finished: Path, stop_at: int) -> None:
    stopped = recipe(f"stopped-{stop_at}")
    train_until(stopped, stop_at)
    torch.manual_seed(99)  # of all devices: a new process starts with other generators
    assert_same_run(train(stopped).directory, finished)


def test_a_checkpoint_restores_the_generator_of_the_device(recipe: DeviceRecipe, device: str, tmp_path: Path) -> None:
    _, state = _state(recipe("generators"))
    torch.manual_seed(5)
    torch.rand(3, device=device)
    save_checkpoint(state, tmp_path)
    expected = torch.rand(4, device=device)
    torch.manual_seed(6)
    assert load_newest_checkpoint(state, tmp_path)
    assert torch.equal(torch.rand(4, device=device), expected)


def test_views_are_pinned_for_the_transfer_to_a_gpu(recipe: DeviceRecipe, device: str) -> None:
    context = _context(recipe("pinned"))
    batch = next(training_batches(context, 0))
    assert batch.pixels.is_pinned() == (device == "cuda")
    moved = batch.to(context.device)
    assert moved.pixels.device.type == device
    assert torch.equal(moved.pixels.cpu(), batch.pixels)


def test_a_step_uses_the_precision_of_the_device_and_channels_last(recipe: DeviceRecipe, device: str) -> None:
    context, state = _state(recipe("precision"))
    seen: dict[str, object] = {}

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.update(input=inputs[0], output=output, weight=module.weight)

    next(m for m in state.network.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(note)
    TrainStep(context, state, None)(next(training_batches(context, 0)))
    expected = find_precision(context.recipe.optimization, context.device)
    assert seen["output"].dtype == expected
    if device == "cuda":
        assert expected == torch.bfloat16
    assert seen["weight"].dtype == torch.float32
    for name in ("weight", "output"):
        assert seen[name].device.type == device
        assert seen[name].is_contiguous(memory_format=torch.channels_last), name


@on_gpu
def test_training_in_float16(recipe: DeviceRecipe) -> None:
    run = train(recipe("float16", {"optimization.precision": "float16"})).directory
    assert all(line["loss"] > 0 for line in read_lines(run, "step"))


def test_stored_labels_equal_those_of_the_teacher(recipe: DeviceRecipe, finished: Path, tmp_path: Path) -> None:
    teacher = teacher_run_recipes(resolve(recipe(finished.name)))[0].run.dir
    online = recipe("online", {"teacher.source": f"run:{teacher}"})
    label_views(online, tmp_path / "store", LabelRequest(precision="float32"))
    stored = recipe("stored", {"teacher.source": "none", "teacher.labels": str(tmp_path / "store")})
    assert weight_bytes(train(stored).directory) == weight_bytes(train(online).directory)


def test_a_loaded_run_predicts_on_the_device_as_in_evaluation(finished: Path, device: str) -> None:
    model, evaluation = kdaug.load(finished, device), evaluation_of_run(finished, "last", None, device, None)
    assert model.device.type == device
    assert {tensor.device.type for tensor in model.network.state_dict().values()} == {device}
    top = [each[0] for each in model.predict(evaluation.images.images)]
    confidence, tolerance = evaluation.predictions.confidence, 0 if device == "cpu" else 0.02
    assert [probability for _, probability in top] == pytest.approx(confidence.tolist(), rel=tolerance)
    assert model.preprocess(evaluation.images.images[0]).device.type == device


@on_gpu
@pytest.mark.parametrize("setting", ["compile", "cuda_graphs"])
def test_a_compiled_run_resumes_bit_for_bit(
    recipe: DeviceRecipe, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    settings = {f"run.{setting}": True, "teacher.source": "none"}
    uninterrupted = train(recipe(f"{setting}-uninterrupted", settings)).directory
    log_step = TrainingRun.log_step

    def stop_after_3(self: TrainingRun, *arguments: Any) -> None:  # a hook within the network would be compiled with it
        log_step(self, *arguments)
        if self._state.step == 3:
            signal.raise_signal(signal.SIGINT)

    stopped = recipe(f"{setting}-stopped", settings)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "log_step", stop_after_3)
        with pytest.raises(Interrupted):
            train(stopped)
    torch.manual_seed(99)
    assert_same_run(train(stopped).directory, uninterrupted)


@on_gpu
def test_no_step_waits_for_the_gpu(recipe: DeviceRecipe) -> None:
    """torch reports every synchronizing call of a step as an error."""
    context, state = _state(recipe("waits"))
    step, batches = TrainStep(context, state, None), training_batches(context, 0)
    step(next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_student_gets_its_input_on_the_device(recipe: DeviceRecipe, device: str) -> None:
    devices = set()
    with before_each_step(lambda step, student, x: devices.add(x.device.type)):
        train(recipe("devices"))
    assert devices == {device}
