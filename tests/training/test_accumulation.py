"""Options that save memory (smaller device batches, recomputed activations) do not change what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.runs import losses
from support.steps import before_each_step

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.training import train
from kdaug.training.batches import training_batches
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep

TinyRecipe = Callable[..., Recipe]


def test_accumulated_gradients_equal_those_of_the_whole_batch(tiny_recipe: TinyRecipe, tiny_run: Path) -> None:
    """Up to rounding, for a network without batch norms."""
    sizes: list[int] = []
    with before_each_step(lambda step, student, x: sizes.append(len(x))):
        run = train(tiny_recipe({"run.device_batch": 16})).directory
    assert sizes == [16] * 32
    whole, parts = (safetensors.torch.load_file(path / "last.safetensors") for path in (tiny_run, run))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)
    assert losses(run) == pytest.approx(losses(tiny_run), rel=1e-5)


@pytest.mark.parametrize("name", ["wide_resnet10_1", "test_efficientnet"])
def test_grad_checkpointing_gives_the_same_weights(tiny_recipe: TinyRecipe, name: str) -> None:
    """Batch norms count each batch once, although its activations are computed twice."""
    states = []
    for recompute in (False, True):
        settings = {
            "student.name": name, "run.grad_checkpointing": recompute, "data.train_images": 16,
            "optimization.global_batch": 8, "optimization.epochs": 1,
        }  # fmt: skip
        context = build_context(resolve(tiny_recipe(settings)), Console(quiet=True))
        state = init_state(context)
        step = TrainStep(context, state, None)
        for batch in training_batches(context, 0):
            step(batch)
        states.append(state.network.state_dict())
    assert all(value == 2 for key, value in states[1].items() if key.endswith("num_batches_tracked"))
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, msg=key)


def test_drop_rates_and_checkpointing_reach_the_network(tiny_recipe: TinyRecipe) -> None:
    observed: list[Any] = []
    settings = {
        "student.name": "recording_convnet", "student.drop_path": 0.2, "student.dropout": 0.3,
        "run.grad_checkpointing": True, "optimization.epochs": 1,
    }  # fmt: skip
    with before_each_step(lambda step, student, x: observed.append((student.rates, student.checkpointing))):
        train(tiny_recipe(settings))
    assert set(observed) == {((0.2, 0.3), True)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"student.drop_path": 0.2},
            "network softmax_regression_strict does not support student.drop_path; leave it at 0",
        ),
        ({"run.grad_checkpointing": True}, "network softmax_regression_strict does not support run.grad_checkpointing"),
    ],
)
def test_options_that_a_network_does_not_support_are_refused(
    tiny_recipe: TinyRecipe, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(tiny_recipe({**settings, "student.name": "softmax_regression_strict"}))
