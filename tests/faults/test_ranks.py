"""Under torchrun, one of two processes is killed: the other one stops, and the run can be resumed."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from support.commands import RunningCommand, running_command
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run, step_numbers

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2")
KDAUG = ("-m", "kdaug")
TIMEOUT = 60
"""Seconds until both processes must have ended; torchrun waits 30 s for those that are left."""


def kill_rank(command: RunningCommand, rank: int) -> None:
    os.kill(command.ranks()[rank], signal.SIGKILL)


def lines_of_kdaug(err: str) -> list[str]:
    """What kdaug's processes wrote; torchrun writes messages of its own."""
    return [line for line in err.splitlines() if line.startswith("kdaug: ")]


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SHORT_DEMO by two ranks, never interrupted."""
    run = tmp_path_factory.mktemp("ranks") / "run"
    with running_command(*KDAUG, *SHORT_DEMO, "--run.dir", run, program=TORCHRUN) as command:
        assert command.end().code == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_loses_a_rank_stops_and_resumes(tmp_path: Path, run_of_two: Path, rank: int) -> None:
    run = tmp_path / "run"
    with running_command(*KDAUG, *SHORT_DEMO, "--run.dir", run, program=TORCHRUN) as command:
        command.wait_for_steps(run, 5)
        kill_rank(command, rank)
        result = command.end(TIMEOUT)
    assert result.code == 1  # torchrun's own
    last = lines_of_kdaug(result.err)[-1]
    assert "another process of this run was lost; continue with: " in last
    assert f"train {run} --run.resume" in last
    assert result.err.count("Traceback") == 1, "torchrun's, which names the process that failed"
    assert "ChildFailedError" in result.err
    assert "/kdaug/" not in result.err
    assert not (run / "last.safetensors").exists()
    with running_command(*KDAUG, *SHORT_DEMO, "--run.dir", run, "--run.resume", program=TORCHRUN) as command:
        result = command.end()
    assert (result.code, lines_of_kdaug(result.err)) == (0, [])
    assert re.search(r"^continuing at step \d+ of 16$", result.out, re.MULTILINE)
    assert_same_run(run, run_of_two)


def test_a_run_restarted_by_torchrun_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = (*TORCHRUN, "--max-restarts", "1")
    with running_command(*KDAUG, *SHORT_DEMO, "--run.dir", run, program=program) as command:
        command.wait_for_steps(run, 5)
        kill_rank(command, 1)
        result = command.end()
    assert result.code == 0, result
    assert "Traceback" not in result.err, result
    assert re.search(r"^continuing at step \d+ of 16$", result.out, re.MULTILINE)
    assert step_numbers(run) == list(range(1, 17))


@pytest.mark.slow
def test_a_run_restarted_twice_gives_the_same_result(tmp_path: Path, run_of_two: Path) -> None:
    run = tmp_path / "run"
    program = (*TORCHRUN, "--max-restarts", "2")
    with running_command(*KDAUG, *SHORT_DEMO, "--run.dir", run, program=program) as command:
        for steps, rank in ((4, 0), (10, 1)):
            command.wait_for_steps(run, steps)
            kill_rank(command, rank)
        result = command.end()
    assert result.code == 0, result
    assert "Traceback" not in result.err, result
    assert_same_run(run, run_of_two)
