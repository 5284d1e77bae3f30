"""Local workers: GPUs and slots are assigned in turn, exit codes are reported, and stop() sends SIGTERM."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.study.sweep import Job, LocalWorkers, local


@pytest.fixture(autouse=True)
def _shell_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument of a job is a shell command; the machine has two GPUs, which CUDA_VISIBLE_DEVICES calls 3 and 5."""
    monkeypatch.setattr(local, "job_command", lambda job: ["sh", "-c", job.arguments[0]])
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


def start(workers: LocalWorkers, name: str, command: str, log: Path) -> None:
    workers.start(Job(name, Path(name), (command,)), log)


def wait(workers: LocalWorkers, count: int) -> dict[str, int]:
    """Polls until `count` jobs have ended; their exit codes."""
    codes = dict[str, int]()
    while len(codes) < count:
        codes |= workers.poll()
        time.sleep(0.01)
    return codes


def test_each_job_has_its_own_gpu_and_its_exit_code(tmp_path: Path) -> None:
    workers = LocalWorkers(2)
    start(workers, "a", "echo $CUDA_VISIBLE_DEVICES; exit 3", tmp_path / "a")
    assert workers.can_start()
    start(workers, "b", "echo $CUDA_VISIBLE_DEVICES", tmp_path / "b")
    assert not workers.can_start()
    assert wait(workers, 2) == {"a": 3, "b": 0}
    assert workers.can_start()
    assert workers.poll() == {}
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["3\n", "5\n"]


def test_jobs_that_share_a_gpu_share_the_cores_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Affinity is set on the shell after it has started, so the command waits for it."""
    monkeypatch.setattr(local, "count_gpus", lambda: 1)
    cores = len(os.sched_getaffinity(0))
    workers = LocalWorkers(cores)
    for slot in range(cores):
        start(workers, f"{slot}", "sleep 0.5; nproc", tmp_path / f"{slot}")
    assert wait(workers, cores) == {f"{slot}": 0 for slot in range(cores)}
    assert [(tmp_path / f"{slot}").read_text() for slot in range(cores)] == ["1\n"] * cores


def test_stop_sends_sigterm_and_waits(tmp_path: Path) -> None:
    workers, log = LocalWorkers(1), tmp_path / "log"
    start(workers, "a", "trap 'echo stopped; exit 130' TERM; echo started; while true; do sleep 0.01; done", log)
    while not (log.is_file() and "started" in log.read_text()):
        time.sleep(0.01)
    workers.stop()
    assert log.read_text() == "started\nstopped\n"
    assert workers.poll() == {"a": 130}


@pytest.mark.parametrize("max_jobs", [0, 1000])
def test_number_of_jobs_is_limited_by_gpus_or_cores(max_jobs: int) -> None:
    limit = max(2, len(os.sched_getaffinity(0)))
    with pytest.raises(InputError, match=f"is {max_jobs}, but must be from 1 to {limit} on this machine"):
        LocalWorkers(max_jobs)
