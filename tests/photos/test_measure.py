"""Measured times: what is counted, and that measuring leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from kdaug.data import load_dataset
from kdaug.photos import Request
from kdaug.photos.measure import measure_run, seconds_per_step
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
