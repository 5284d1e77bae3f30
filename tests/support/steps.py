"""Watching and stopping the training steps of a run."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from rich.console import Console
from support.networks import STUDENTS
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from kdaug.config import Recipe
from kdaug.training import Interrupted, train


def _is_training(module: nn.Module) -> bool:
    return module.training and torch.is_grad_enabled() and isinstance(module, STUDENTS)


@contextmanager
def before_each_step(callback: Callable[[int, nn.Module, Tensor], None]) -> Iterator[None]:
    """Calls callback(step, student, its input) before each training forward pass, counted from 1."""
    count = itertools.count(1)

    def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if _is_training(module):
            callback(next(count), module, inputs[0])

    handle = register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after_each_forward(callback: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Calls callback(step, logits) after each training forward pass, counted from 1. It may return other logits."""
    count = itertools.count(1)

    def hook(module: nn.Module, inputs: Any, logits: Tensor) -> Tensor | None:
        return callback(next(count), logits) if _is_training(module) else None

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def train_until(recipe: Recipe, step: int, console: Console | None = None) -> Interrupted:
    """Trains and sends SIGINT to this process during step `step` (counted from where the run starts or resumes)."""

    def interrupt(number: int, student: nn.Module, x: Tensor) -> None:
        if number == step:
            signal.raise_signal(signal.SIGINT)

    with before_each_step(interrupt), pytest.raises(Interrupted) as interrupted:
        train(recipe, console)
    return interrupted.value
