"""The training step: its views, its loss and its update equal the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.recipes import TINY, with_settings
from support.runs import losses, read_lines, weight_bytes
from support.steps import before_each_step
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import apply, create_policy
from kdaug.config import Recipe
from kdaug.data import Dataset, load_dataset
from kdaug.rng import permutation
from kdaug.supervision import Teacher
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve
from kdaug.training.state import init_state
from kdaug.views.policies import Cutout, Flip, PadCrop, Sequential
from kdaug.views.policies.standard import SoftCrop

TinyRecipe = Callable[..., Recipe]
SEEDS = {"run.seed": 3, "views.seed": 7, "views.cutout": 6, "data.train_images": 250}


def expected_batch(recipe: Recipe, dataset: Dataset, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Views and labels of a step (from 0), planned and applied by the test."""
    count, batch = len(dataset.train), recipe.optimization.global_batch
    epoch, position = divmod(step, count // batch)
    seed = recipe.run.seed if recipe.views.seed is None else recipe.views.seed
    indices = permutation(seed, epoch, count)[position * batch :][:batch]
    mean = dataset.fill
    policy = Sequential([create_policy(recipe.views.policy, mean=mean), PadCrop(4, mean), Flip(), Cutout(6, mean)])
    plan = policy.plan(seed, epoch, indices, dataset.size)
    return apply(dataset.train.images[indices], plan), dataset.train.labels[indices]


def normalize(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    return (images / 255 - np.array(dataset.mean)) / np.array(dataset.std)


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def test_teacher_and_student_get_the_planned_views(tiny_recipe: TinyRecipe, teacher_file: Path) -> None:
    recipe = tiny_recipe({**SEEDS, "teacher.source": f"file:{teacher_file}"})
    teacher_inputs: list[Tensor] = []
    student_inputs: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, Teacher) and len(inputs[0]) == 64:  # the batches of evaluations have other sizes
            teacher_inputs.append(inputs[0])

    handle = register_module_forward_pre_hook(note)
    with before_each_step(lambda step, student, x: student_inputs.append(x)):
        train(recipe)
    handle.remove()

    dataset = load_dataset(recipe.data)
    assert len(student_inputs) == len(teacher_inputs) == 6
    for step in range(6):
        views, _ = expected_batch(recipe, dataset, step)
        np.testing.assert_array_equal(teacher_inputs[step].numpy(), views)
        student_views = student_inputs[step].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(student_views, normalize(views, dataset), atol=1e-5)


@pytest.mark.parametrize("weight", [None, 0.7])
def test_a_run_equals_the_formulas_in_float64(
    tiny_recipe: TinyRecipe, teacher_file: Path, weight: float | None
) -> None:
    """Softmax regression: cross-entropy + weight T^2 p ln(p / q) over the top 3, clipping, weight decay, Nesterov."""
    settings = {
        **SEEDS, "optimization.clip_norm": 1.5, "optimization.weight_decay": 0.03, "optimization.momentum": 0.8,
    }  # fmt: skip
    if weight is not None:
        settings |= {
            "teacher.source": f"file:{teacher_file}", "supervision.weight": weight, "supervision.k": 3,
            "supervision.temperature": 4.0,
        }  # fmt: skip
    recipe, first = tiny_recipe(settings), {}
    with before_each_step(lambda step, student, x: first or first.update(copy_state(student))):
        run = train(recipe).directory

    dataset = load_dataset(recipe.data)
    w = np.hstack([first["fc.weight"].double().numpy(), first["fc.bias"].double().numpy()[:, None]])
    teacher = safetensors.torch.load_file(teacher_file)["fc.weight"].double().numpy()
    velocity, expected_losses = np.zeros_like(w), []
    for step in range(6):
        views, labels = expected_batch(recipe, dataset, step)
        x = normalize(views, dataset).reshape(64, 784)
        x1 = np.hstack([x, np.ones((64, 1))])
        logits = x1 @ w.T
        logits_gradient = softmax(logits) - np.eye(10)[labels]
        loss = -np.log(softmax(logits)[np.arange(64), labels]).mean()
        if weight is not None:
            top = np.argsort(-(x @ teacher.T), axis=1)[:, :3]
            p, q = softmax(x @ teacher.T / 4), softmax(logits / 4)
            kept = np.zeros_like(p)
            np.put_along_axis(kept, top, np.take_along_axis(p, top, 1), 1)
            loss += weight * 16 * (kept * np.log(p / q)).sum(1).mean()
            logits_gradient = logits_gradient + weight * 4 * (q * kept.sum(1, keepdims=True) - kept)
        expected_losses.append(loss)
        gradient = logits_gradient.T @ x1 / 64
        gradient *= min(1, 1.5 / np.linalg.norm(gradient))
        gradient += 0.03 * w
        velocity = 0.8 * velocity + gradient
        w = w - 0.05 * (1 + math.cos(math.pi * step / 6)) / 2 * (gradient + 0.8 * velocity)

    assert losses(run) == pytest.approx(expected_losses, rel=1e-4)
    trained = safetensors.torch.load_file(run / "last.safetensors")
    np.testing.assert_allclose(trained["fc.weight"].numpy(), w[:, :-1], atol=2e-5)
    np.testing.assert_allclose(trained["fc.bias"].numpy(), w[:, -1], atol=2e-5)


def test_a_divergence_of_weight_0_has_no_effect(tiny_recipe: TinyRecipe, teacher_file: Path, dropout_run: Path) -> None:
    """The teacher does not draw from the generator that the student's dropout draws from, either."""
    settings = {
        "student.name": "softmax_regression_dropout", "teacher.source": f"file:{teacher_file}",
        "teacher.network": "softmax_regression", "supervision.weight": 0.0,
    }  # fmt: skip
    assert weight_bytes(train(tiny_recipe(settings)).directory) == weight_bytes(dropout_run)


def test_a_divergence_of_small_weight_has_an_effect(
    tiny_recipe: TinyRecipe, teacher_file: Path, tiny_run: Path
) -> None:
    settings = {"teacher.source": f"file:{teacher_file}", "supervision.weight": 0.01}
    assert weight_bytes(train(tiny_recipe(settings)).directory) != weight_bytes(tiny_run)


def test_run_seed_but_not_views_seed_sets_the_initial_weights(tiny_recipe: TinyRecipe) -> None:
    def initial_weights(run_seed: int, views_seed: int) -> Tensor:
        recipe = resolve(tiny_recipe({"run.seed": run_seed, "views.seed": views_seed}))
        return init_state(build_context(recipe, Console(quiet=True))).network.fc.weight

    reference = initial_weights(1, 1)
    assert torch.equal(initial_weights(1, 2), reference)
    assert not torch.equal(initial_weights(2, 1), reference)


def test_label_smoothing_equals_its_formula(tiny_recipe: TinyRecipe) -> None:
    """The first loss, computed from the weights and the input of the first step."""
    first: list[Any] = []
    recipe = tiny_recipe({"supervision.label_smoothing": 0.2, "optimization.epochs": 1})
    with before_each_step(lambda step, student, x: first or first.extend([copy_state(student), x.clone()])):
        run = train(recipe).directory
    weights, x = first
    logits = x.flatten(1).double() @ weights["fc.weight"].double().T + weights["fc.bias"].double()
    _, labels = expected_batch(replace(recipe, views=replace(recipe.views, seed=0)), load_dataset(recipe.data), 0)
    target = np.full((64, 10), 0.02)
    target[np.arange(64), labels] += 0.8
    expected = -(target * logits.log_softmax(1).numpy()).sum(1).mean()
    assert losses(run)[0] == pytest.approx(expected, rel=1e-5)


def test_clean_epochs_use_crop_and_flip_alone(tiny_recipe: TinyRecipe) -> None:
    inputs: list[Tensor] = []
    recipe = tiny_recipe({**SEEDS, "optimization.clean_epochs": 1})
    with before_each_step(lambda step, student, x: inputs.append(x.clone())):
        run = train(recipe).directory
    dataset, seed = load_dataset(recipe.data), recipe.views.seed
    clean = Sequential([PadCrop(4, dataset.fill), Flip()])
    assert len(inputs) == 9
    for position in range(3):
        indices = permutation(seed, 2, 250)[position * 64 :][:64]
        views = apply(dataset.train.images[indices], clean.plan(seed, 2, indices, dataset.size))
        student_views = inputs[6 + position].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(student_views, normalize(views, dataset), atol=1e-5)
    rates = [line["learning_rate"] for line in read_lines(run, "step")]
    assert rates[6:] == pytest.approx([0.0025 * (1 + math.cos(math.pi * step / 3)) for step in range(3)])
    assert read_lines(run)[-1]["epoch"] == 2


@pytest.mark.parametrize(
    ("when", "in_policy_epochs", "in_clean_epochs"),
    [("all", True, True), ("policy", True, False), ("clean", False, True)],
)
def test_supervision_when_selects_the_epochs_with_teacher(
    tiny_recipe: TinyRecipe, teacher_file: Path, when: str, in_policy_epochs: bool, in_clean_epochs: bool
) -> None:
    settings = {
        "teacher.source": f"file:{teacher_file}", "optimization.clean_epochs": 1, "optimization.epochs": 1,
        "supervision.when": when,
    }  # fmt: skip
    has_divergence = ["divergence" in line for line in read_lines(train(tiny_recipe(settings)).directory, "step")]
    assert has_divergence == [in_policy_epochs] * 4 + [in_clean_epochs] * 4


CONVNET = {"student.name": "small_convnet", "optimization.epochs": 1}


@pytest.fixture(scope="module")
def float32_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of CONVNET in float32."""
    recipe = with_settings(TINY, {**CONVNET, "run.dir": str(tmp_path_factory.mktemp("float32") / "run")})
    return losses(train(recipe).directory)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_losses(
    tiny_recipe: TinyRecipe, float32_losses: list[float], precision: str
) -> None:
    half = losses(train(tiny_recipe({**CONVNET, "optimization.precision": precision})).directory)
    assert half != float32_losses
    assert half == pytest.approx(float32_losses, rel=0.02)


def test_the_label_is_softened_by_the_visible_share(tiny_recipe: TinyRecipe) -> None:
    """The first cross-entropy of a run with soft crops, from its first weights and views planned by the test."""
    settings = {**SEEDS, "views.cutout": 0, "views.crop": "soft", "supervision.visible_power": 2.0}
    recipe, first = tiny_recipe(settings), {}
    with before_each_step(lambda step, student, x: first or first.update(copy_state(student))):
        run = train(recipe).directory
    dataset = load_dataset(recipe.data)
    indices = permutation(7, 0, len(dataset.train))[:64]
    parts = [create_policy(recipe.views.policy, mean=dataset.fill), SoftCrop(0.3, dataset.fill), Flip()]
    plan = Sequential(parts).plan(7, 0, indices, dataset.size)
    x = normalize(apply(dataset.train.images[indices], plan), dataset).reshape(64, 784)
    probs = softmax(x @ first["fc.weight"].double().numpy().T + first["fc.bias"].double().numpy())
    height, width = dataset.size
    crops = np.array([crop_of(steps) for steps in map(plan.steps, range(64))])
    visible = (1 - np.abs(crops[:, 0]) / width) * (1 - np.abs(crops[:, 1]) / height)
    own = 1 - 0.9 * (1 - visible) ** 2
    target = np.repeat((1 - own[:, None]) / 9, 10, axis=1)
    target[np.arange(64), dataset.train.labels[indices]] = own
    assert own.min() < 0.5
    assert losses(run)[0] == pytest.approx(-(target * np.log(probs)).sum(1).mean(), rel=1e-5)


def crop_of(steps: list[tuple[Any, ...]]) -> tuple[float, ...]:
    (crop,) = [arguments for name, *arguments in steps if name == "crop"]
    return tuple(crop[0])
