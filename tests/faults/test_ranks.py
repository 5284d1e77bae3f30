"""One of two processes that train together under torchrun is killed: the other stops, and the run can go on."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2")
KDAUG = ("-m", "kdaug")
AT_ONCE = 60
"""Seconds within which both have ended; torchrun gives those that are left 30 of them."""


def kill_rank(command: Any, rank: int) -> None:
    """kill -9 of this very process."""
    of_rank = [pid for pid, environment in command.environments().items() if environment.get("RANK") == str(rank)]
    os.kill(min(of_rank), signal.SIGKILL)


def of_kdaug(err: str) -> list[str]:
    """What our processes wrote; torchrun has a lot to say of its own."""
    return [line for line in err.splitlines() if line.startswith("kdaug: ")]


def assert_traceback_is_torchruns(err: str) -> None:
    """It ends with one that says which process failed; none comes from us."""
    assert err.count("Traceback") == 1
    assert "ChildFailedError" in err
    assert "/kdaug/" not in err


@pytest.fixture(scope="module")
def uninterrupted(started: Callable, short: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of SHORT by two ranks that nobody stopped."""
    run = tmp_path_factory.mktemp("ranks") / "run"
    with started(*KDAUG, *short, "--run.dir", run, program=TORCHRUN) as command:
        assert command.end().code == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_loses_a_rank_stops_at_once_and_goes_on_when_started_again(
    started: Callable, short: list[str], tmp_path: Path, uninterrupted: Path, assert_same_run: Callable, rank: int
) -> None:
    run = tmp_path / "run"
    with started(*KDAUG, *short, "--run.dir", run, program=TORCHRUN) as command:
        command.wait_for_steps(run, 5)
        kill_rank(command, rank)
        said = command.end(AT_ONCE)
    assert said.code == 1  # torchrun's own
    last = of_kdaug(said.err)[-1]
    assert "another process of this run was lost; continue with: " in last
    assert f"train {run}/recipe.yaml --run.resume" in last
    assert_traceback_is_torchruns(said.err)
    assert not (run / "last.safetensors").exists()
    with started(*KDAUG, *short, "--run.dir", run, "--run.resume", program=TORCHRUN) as command:
        said = command.end()
    assert (said.code, of_kdaug(said.err)) == (0, [])
    assert re.search(r"^continuing at step \d+ of 16$", said.out, re.MULTILINE)
    assert_same_run(run, uninterrupted)


def test_a_run_that_loses_a_rank_goes_on_by_itself_if_torchrun_may_start_it_again(
    started: Callable, short: list[str], tmp_path: Path, steps_of: Callable
) -> None:
    run = tmp_path / "run"
    with started(*KDAUG, *short, "--run.dir", run, program=(*TORCHRUN, "--max-restarts", "1")) as command:
        command.wait_for_steps(run, 5)
        kill_rank(command, 1)
        said = command.end()
    assert said.code == 0, said
    assert "Traceback" not in said.err, said
    assert re.search(r"^continuing at step \d+ of 16$", said.out, re.MULTILINE)
    assert steps_of(run) == list(range(1, 17))


@pytest.mark.slow
def test_a_run_that_loses_one_rank_after_the_other_and_goes_on_by_itself_learns_the_same(
    started: Callable, short: list[str], tmp_path: Path, uninterrupted: Path, assert_same_run: Callable
) -> None:
    run = tmp_path / "run"
    with started(*KDAUG, *short, "--run.dir", run, program=(*TORCHRUN, "--max-restarts", "2")) as command:
        for steps, rank in ((4, 0), (10, 1)):
            command.wait_for_steps(run, steps)
            kill_rank(command, rank)
        said = command.end()
    assert said.code == 0, said
    assert "Traceback" not in said.err, said
    assert_same_run(run, uninterrupted)
