"""A decoding process is killed, as the system does when memory runs out: an error of one line, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import assert_one_line, running_kdaug
from support.runs import assert_same_run, step_numbers

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")

MESSAGE = ("a process that decodes images was killed", "set --run.resume to continue")
TIMEOUT = 30
"""Seconds until a run that has lost a worker must have ended."""


@pytest.mark.parametrize(
    "steps", [pytest.param(2, id="first epoch", marks=pytest.mark.slow), pytest.param(7, id="second epoch")]
)
def test_a_run_that_loses_a_worker_saves_a_checkpoint(
    kdaug: Callable, photos_command: list[str], tmp_path: Path, photos_run: Path, steps: int
) -> None:
    """Also after an evaluation, which has its own workers."""
    run = tmp_path / "run"
    with running_kdaug(*photos_command, "--run.checkpoint-steps", "2", "--run.dir", run) as command:
        command.wait_for_steps(run, steps)
        os.kill(min(command.children()), signal.SIGKILL)
        result = command.end(TIMEOUT)
    assert result.code == 2
    assert_one_line(result.err, *MESSAGE)
    reached = step_numbers(run)[-1]
    assert (run / "checkpoints" / f"step-{reached:08}").is_dir()
    resumed = kdaug(*photos_command, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert f"continuing at step {reached} of 25" in resumed.out
    assert_same_run(run, photos_run)


@pytest.fixture(scope="module")
def slow_to_evaluate(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` as training images, and 240 validation images that take some seconds to decode."""
    folder, random = tmp_path_factory.mktemp("split"), np.random.default_rng(2)
    shutil.copytree(photos, folder / "train")
    for name in ("red", "green", "blue"):
        (folder / "val" / name).mkdir(parents=True)
        first = folder / "val" / name / "0.jpg"
        Image.fromarray(random.integers(0, 256, (900, 1200, 3), dtype=np.uint8)).save(first)
        for number in range(1, 80):
            first.with_stem(str(number)).hardlink_to(first)
    return folder


@pytest.mark.slow
def test_a_run_that_loses_a_worker_in_an_evaluation_repeats_it(
    kdaug: Callable, photos_command: list[str], slow_to_evaluate: Path, tmp_path: Path
) -> None:
    flags = ["--data.root", slow_to_evaluate, "--optimization.epochs", "2"]
    assert kdaug(*photos_command, *flags, "--run.dir", tmp_path / "uninterrupted").code == 0
    run = tmp_path / "run"
    with running_kdaug(*photos_command, *flags, "--run.dir", run) as command:
        training = command.wait_until(lambda: len(command.children()) == 2 and command.children())
        evaluating = command.wait_until(lambda: command.children() - training)
        os.kill(min(evaluating), signal.SIGKILL)
        result = command.end(TIMEOUT)
    assert result.code == 2
    assert_one_line(result.err, *MESSAGE)
    resumed = kdaug(*photos_command, *flags, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert_same_run(run, tmp_path / "uninterrupted")
