"""A process that decodes images is killed, as the system does when memory runs out: one line, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

SAID = ("a process that decodes images was killed", "continue with --run.resume")
AT_ONCE = 30
"""Seconds within which a run without one of its workers has given up."""


@pytest.mark.parametrize(
    "steps", [pytest.param(2, id="first epoch", marks=pytest.mark.slow), pytest.param(7, id="second epoch")]
)
def test_a_run_that_loses_a_worker_keeps_what_it_has_learned(
    started: Callable,
    kdaug: Callable,
    photos_command: list[str],
    tmp_path: Path,
    uninterrupted_photos: Path,
    steps_of: Callable,
    assert_one_line: Callable,
    assert_same_run: Callable,
    steps: int,
) -> None:
    """Also after an evaluation, which has had workers of its own."""
    run = tmp_path / "run"
    with started(*photos_command, "--run.checkpoint-steps", "2", "--run.dir", run) as command:
        command.wait_for_steps(run, steps)
        os.kill(min(command.children()), signal.SIGKILL)
        said = command.end(patience=AT_ONCE)
    assert said.code == 2
    assert_one_line(said.err, *SAID)
    reached = steps_of(run)[-1]
    assert (run / "checkpoints" / f"step-{reached:08}").is_dir()
    resumed = kdaug(*photos_command, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert f"continuing at step {reached} of 50" in resumed.out
    assert_same_run(run, uninterrupted_photos)


@pytest.fixture(scope="module")
def many_to_evaluate(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos to train on, and 240 for validation that take some seconds to decode."""
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
def test_a_run_that_loses_a_worker_while_it_evaluates_does_not_lose_the_evaluation(
    started: Callable,
    kdaug: Callable,
    photos_command: list[str],
    many_to_evaluate: Path,
    tmp_path: Path,
    assert_one_line: Callable,
    assert_same_run: Callable,
) -> None:
    flags = ["--data.root", many_to_evaluate, "--optimization.epochs", "2"]
    assert kdaug(*photos_command, *flags, "--run.dir", tmp_path / "uninterrupted").code == 0
    run = tmp_path / "run"
    with started(*photos_command, *flags, "--run.dir", run) as command:
        learning = command.wait_until(lambda: len(command.children()) == 2 and command.children())
        evaluating: Any = command.wait_until(lambda: command.children() - learning)
        os.kill(min(evaluating), signal.SIGKILL)
        said = command.end(patience=AT_ONCE)
    assert said.code == 2
    assert_one_line(said.err, *SAID)
    resumed = kdaug(*photos_command, *flags, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert_same_run(run, tmp_path / "uninterrupted")
