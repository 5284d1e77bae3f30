"""Measured times: what is counted, and that measuring leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import kdaug.photos.measure
from kdaug.data import load_dataset
from kdaug.photos import Request
from kdaug.photos.budget import NetworkSeconds
from kdaug.photos.measure import is_faster_in_float32, measure_run, seconds_per_step
from kdaug.training.context import TrainContext
from kdaug.training.distributed import SINGLE_PROCESS


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ([5.0], 5.0),
        ([5.0, 6.0], 1.0),
        ([9.0, 10.0, 11.0], 1.0),
        ([9.0, 9.1, 9.2, 11.2, 13.2], 2.0),  # the first two were decoded ahead
    ],
)
def test_the_first_half_of_the_steps_is_left_out(ends: list[float], seconds: float) -> None:
    assert seconds_per_step(ends, started=0.0) == pytest.approx(seconds)


@pytest.mark.parametrize("source", ["train", "none"])
def test_a_run_is_measured_and_nothing_is_written(
    request_for: Callable[..., Request], tmp_path: Path, console: Console, source: str
) -> None:
    settings = {"teacher.source": source, "optimization.epochs": 1, "optimization.global_batch": 8}
    recipe = request_for(settings).recipe
    measured = measure_run(recipe, load_dataset(recipe.data), SINGLE_PROCESS, console)
    assert measured.steps_per_epoch == 4
    assert (measured.teacher is not None) == (source == "train")
    for network in filter(None, (measured.student, measured.teacher)):
        assert min(network.start, network.step, network.evaluation) > 0
    evaluations = measured.student.evaluation + (2 * measured.teacher.evaluation if measured.teacher else 0)
    assert measured.other > evaluations, "the check of the photos"
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "teachers").exists()


@pytest.mark.parametrize(
    ("precision", "step", "faster"),
    [
        ("bfloat16", 1.2, True),
        ("bfloat16", 1.05, False),  # may be chance
        ("bfloat16", 0.5, False),
        ("float32", 1.2, False),
    ],
)
def test_float32_is_compared_with_the_recipes_precision(
    request_for: Callable[..., Request],
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    step: float,
    faster: bool,
) -> None:
    """`step`: seconds in bfloat16; in float32 it is 1 s."""

    def measure(context: TrainContext, soft_labels: None) -> tuple[NetworkSeconds, None]:
        return NetworkSeconds(0.0, step if context.precision == torch.bfloat16 else 1.0, 0.0), None

    recipe = request_for({"optimization.precision": precision}).recipe
    monkeypatch.setattr("kdaug.photos.measure._measure_steps", measure)
    assert is_faster_in_float32(recipe, load_dataset(recipe.data), SINGLE_PROCESS, console) == faster


def test_steps_are_measured_in_both_precisions(
    request_for: Callable[..., Request], tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = dict[torch.dtype, float]()

    def measure(context: TrainContext, soft_labels: None) -> tuple[NetworkSeconds, nn.Module]:
        measured, network = measure_steps(context, soft_labels)
        steps[context.precision] = measured.step
        return measured, network

    measure_steps = kdaug.photos.measure._measure_steps
    monkeypatch.setattr("kdaug.photos.measure._measure_steps", measure)
    recipe = request_for({"optimization.precision": "bfloat16"}).recipe
    faster = is_faster_in_float32(recipe, load_dataset(recipe.data), SINGLE_PROCESS, console)
    assert faster == (steps[torch.float32] * 1.1 < steps[torch.bfloat16])
    assert not (tmp_path / "run").exists()
