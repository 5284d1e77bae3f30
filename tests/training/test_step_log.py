"""The step log: each step is logged once, in order, with finite losses, and TensorBoard gets the same metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.runs import read_lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdaug.data.loader import BatchKey
from kdaug.runs import MetricsWriter, RunDirectory, read_metrics
from kdaug.runs.metrics import truncate_metrics
from kdaug.runs.trackers import TensorBoard
from kdaug.training.state import Diverged
from kdaug.training.step_log import StepLog


def key(step: int, epoch: int = 0) -> BatchKey:
    """Two images, number 10 and 17."""
    return BatchKey(step - 1, epoch, np.array([10, 17]), epoch)


@contextmanager
def open_log(directory: RunDirectory, first_step: int) -> Iterator[StepLog]:
    """The log of a run that starts or resumes at `first_step`, with TensorBoard."""
    truncate_metrics(directory.path, first_step)
    with MetricsWriter(directory.path, [TensorBoard(directory.tensorboard, first_step)]) as metrics:
        yield StepLog(metrics)


def add_steps(log: StepLog, steps: range, steps_per_epoch: int = 100) -> None:
    for step in steps:
        parts = {"loss": torch.tensor([2.0, 4.0]) / step, "cross_entropy": torch.tensor([1.0, 3.0]) / step}
        log.add(step, key(step, (step - 1) // steps_per_epoch), parts, 0.1 / step)


@pytest.mark.parametrize("count", [1, 19, 20, 21, 64])
def test_every_step_is_one_line_in_order(tmp_path: Path, count: int) -> None:
    with open_log(RunDirectory(tmp_path), 0) as log:
        add_steps(log, range(1, count + 1))
        log.flush()
    assert read_lines(tmp_path) == [
        {
            "kind": "step",
            "step": step,
            "epoch": 0,
            "loss": pytest.approx(3 / step),
            "cross_entropy": pytest.approx(2 / step),
            "learning_rate": 0.1 / step,
        }
        for step in range(1, count + 1)
    ]


def test_flushed_lines_can_be_read_during_the_run(tmp_path: Path) -> None:
    with open_log(RunDirectory(tmp_path), 0) as log:
        add_steps(log, range(1, 4))
        log.flush()
        assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
        log.metrics.write("eval", 3, 0, {"top1_error": 12.5})
        assert read_metrics(tmp_path)[-1] == {"kind": "eval", "step": 3, "epoch": 0, "top1_error": 12.5}


def test_losses_are_read_from_the_device_later(tmp_path: Path) -> None:
    """Reading waits for a GPU, so several steps are read together."""

    class Unread:
        def float(self) -> float:
            pytest.fail("read too early")

    with open_log(RunDirectory(tmp_path), 0) as log:
        for step in range(1, 10):
            log.add(step, key(step), {"loss": Unread()}, 0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_is_named_by_step_and_image(tmp_path: Path, bad: float) -> None:
    with open_log(RunDirectory(tmp_path), 0) as log:
        add_steps(log, range(1, 8), steps_per_epoch=4)
        parts = {"loss": torch.tensor([1.0, bad]), "cross_entropy": torch.tensor([1.0, 2.0])}
        log.add(8, key(8, epoch=1), parts, 0.1)
        add_steps(log, range(9, 11))
        with pytest.raises(Diverged) as error:
            log.flush()
    assert str(error.value) == f"the loss is {bad} at step 8 (epoch 1), of image 17"
    assert [line["step"] for line in read_lines(tmp_path)] == list(range(1, 8))


@pytest.mark.parametrize("tail", ["", '{"kind": "step", "step": 8, "lo', "\n\n", "\x00\x00\x00"])
def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path: Path, tail: str) -> None:
    directory = RunDirectory(tmp_path)
    with open_log(directory, 0) as log:
        add_steps(log, range(1, 5))
        log.flush()
        log.metrics.write("eval", 4, 0, {"top1_error": 50.0})
        add_steps(log, range(5, 8))
        log.flush()
        log.metrics.write("eval", 7, 0, {"top1_error": 40.0})
    with open(directory.metrics, "a") as file:
        file.write(tail)
    before = read_metrics(tmp_path)

    with open_log(directory, 4) as log:
        assert read_metrics(tmp_path) == before[:4], "the evaluation after step 4 is repeated"
        log.metrics.write("eval", 4, 0, {"top1_error": 50.0})
        add_steps(log, range(5, 8))
        log.flush()
        log.metrics.write("eval", 7, 0, {"top1_error": 40.0})
    assert read_lines(tmp_path) == before
    assert [line["step"] for line in before] == [1, 2, 3, 4, 4, 5, 6, 7, 7]


def test_starting_again_drops_all_old_lines(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text(json.dumps({"kind": "step", "step": 1, "epoch": 0, "cross_entropy": 1.0}) + "\n")
    with open_log(directory, 0):
        assert read_metrics(tmp_path) == []


def test_epoch_means_are_over_the_steps_of_one_epoch(tmp_path: Path) -> None:
    with open_log(RunDirectory(tmp_path), 0) as log:
        assert log.epoch_means() == {}
        add_steps(log, range(1, 6), steps_per_epoch=3)
        log.flush()
        assert log.epoch_means() == pytest.approx({"loss": (3 / 4 + 3 / 5) / 2, "cross_entropy": (2 / 4 + 2 / 5) / 2})


def test_tensorboard_gets_the_same_figures_after_resuming(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for first_step in (0, 3):  # resumed at step 3: 4 and 5 are repeated
        with open_log(directory, first_step) as log:
            add_steps(log, range(first_step + 1, 6 if first_step == 0 else 8))
            log.flush()
            log.metrics.write("eval", 7 if first_step else 5, 0, {"top1_error": 30.0, "images": 2000})
    board = EventAccumulator(str(directory.tensorboard))
    board.Reload()

    def in_tensorboard(tag: str) -> list[tuple[int, float]]:
        return [(event.step, pytest.approx(event.value)) for event in board.Scalars(tag)]

    def in_metrics(kind: str, name: str) -> list[tuple[Any, ...]]:
        return [(line["step"], line[name]) for line in read_lines(tmp_path) if line["kind"] == kind]

    for name in ("loss", "cross_entropy", "learning_rate"):
        assert in_tensorboard(f"step/{name}") == in_metrics("step", name)
    assert in_tensorboard("eval/top1_error") == in_metrics("eval", "top1_error") == [(7, 30.0)]


def test_resuming_after_the_last_step_repeats_its_evaluation(tmp_path: Path) -> None:
    """A run that was stopped in its last evaluation resumes from the checkpoint before it."""
    directory = RunDirectory(tmp_path)
    with open_log(directory, 0) as log:
        add_steps(log, range(1, 3))
        log.flush()
        log.metrics.write("eval", 2, 0, {"top1_error": 5.0})
        add_steps(log, range(3, 5))
        log.flush()
        log.metrics.write("eval", 4, 1, {"top1_error": 4.0})
        log.metrics.write("end", 4, 1, {"top1_error": 4.0, "top5_error": 1.0, "best_top1_error": 4.0})
    with open_log(directory, 4):
        pass
    kinds = [(line["kind"], line["step"]) for line in read_lines(tmp_path)]
    assert kinds == [("step", 1), ("step", 2), ("eval", 2), ("step", 3), ("step", 4)]
