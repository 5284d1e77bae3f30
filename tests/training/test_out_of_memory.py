"""Out of memory is one line that names the setting to lower; evaluation takes no more images than run.device_batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.runs import read_lines
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.labeling import split_into_batches
from kdaug.training.out_of_memory import describe_out_of_memory, explain_out_of_memory, smaller_batch
from kdaug.training.resolve import resolve

TinyRecipe = Callable[..., Recipe]
GPU_TEXT = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which ..."
CPU_TEXT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes. Error code 12"  # noqa: E501


@pytest.mark.parametrize(
    ("error", "device", "text"),
    [
        (torch.OutOfMemoryError(GPU_TEXT), "cuda:1", r"the memory of the GPU \(cuda:1\) .* \(2.50 GiB more\)"),
        (RuntimeError("CUDA error: out of memory"), "cuda:0", r"the memory of the GPU \(cuda:0\) is too small"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "cuda:0", "the memory of the GPU"),
        (RuntimeError(CPU_TEXT), "cpu", r"the main memory .* \(4.0 GiB more\)"),
        (RuntimeError(CPU_TEXT), "cuda:0", "the main memory is too small"),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1,)"), "cpu", r"main.*\(7.45 GiB more"),
        (MemoryError(), "cpu", "the main memory is too small for training with 64 images at once; set"),
    ],
)
def test_out_of_memory_is_one_line(error: Exception, device: str, text: str) -> None:
    with (
        pytest.raises(InputError, match=text) as raised,
        explain_out_of_memory("training", 64, torch.device(device), 32),
    ):
        raise error
    assert "set run.device_batch to 32, or set run.grad_checkpointing" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_description_suggests_nothing() -> None:
    text = describe_out_of_memory(torch.OutOfMemoryError(GPU_TEXT), "predicting", 64, torch.device("cuda:1"))
    assert text == "the memory of the GPU (cuda:1) is too small for predicting with 64 images at once (2.50 GiB more)"


def test_real_allocations_are_recognized() -> None:
    for allocate in (lambda: torch.empty(1 << 55), lambda: np.empty(1 << 55)):
        with (
            pytest.raises(InputError, match=r"the main memory is too small .* more\)"),
            explain_out_of_memory("training", 1, torch.device("cpu"), 0),
        ):
            allocate()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), explain_out_of_memory("training", 1, torch.device("cpu"), 0):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize(
    ("share", "at_once", "smaller"), [(64, 64, 32), (48, 24, 12), (12, 4, 2), (9, 9, 3), (7, 7, 1), (4, 1, 0)]
)
def test_the_smaller_batch_divides_the_share(share: int, at_once: int, smaller: int) -> None:
    assert smaller_batch(share, at_once) == smaller


@pytest.mark.parametrize(("training", "hint"), [(True, "set run.device_batch to 32"), (False, "to 64, or use smaller")])
def test_a_run_without_memory_names_the_setting(tiny_recipe: TinyRecipe, training: bool, hint: str) -> None:
    """In evaluation, the suggestion is first what training takes at once, which changes no training."""

    def fail(module: nn.Module, inputs: object) -> None:
        if module.training == training and type(module).__name__ == "SoftmaxRegression" and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError(GPU_TEXT)

    handle = register_module_forward_pre_hook(fail)
    try:
        with pytest.raises(InputError, match=re.escape(hint)):
            train(tiny_recipe({}))
    finally:
        handle.remove()


@pytest.mark.parametrize(("device_batch", "largest"), [(None, 256), (16, 16), (64, 64), (1024, 256)])
def test_evaluation_respects_the_device_batch(
    tiny_recipe: TinyRecipe, tiny_run: Path, device_batch: int | None, largest: int
) -> None:
    sizes: list[int] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if type(module).__name__ == "SoftmaxRegression" and not module.training:
            sizes.append(len(inputs[0]))

    recipe = tiny_recipe({"run.device_batch": device_batch})
    handle = register_module_forward_pre_hook(record)
    try:
        run = train(recipe).directory
    finally:
        handle.remove()
    assert max(sizes) == largest
    assert len(sizes) >= 2 * 2000 // largest
    scores, expected = ([line for line in read_lines(each) if line["kind"] == "eval"] for each in (run, tiny_run))
    for ours, theirs in zip(scores, expected, strict=True):
        assert ours["images"] == theirs["images"]
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)
    context = build_context(resolve(recipe), Console(quiet=True))
    assert len(split_into_batches(context, 0, np.arange(256))[0]) == largest
