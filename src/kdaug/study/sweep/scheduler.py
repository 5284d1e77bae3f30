"""Runs the jobs of a sweep: skips finished jobs, resumes stopped ones, and records failures."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

from kdaug.runs import RunDirectory
from kdaug.storage import is_locked
from kdaug.study.sweep.failures import read_failures, write_failures
from kdaug.study.sweep.jobs import Job
from kdaug.study.sweep.workers import Workers

JobState = Literal["running", "locked", "failed", "stopped", "finished", "waiting"]
INTERRUPTED = 130
"""Exit code of a kdaug command that was interrupted."""
POLL_SECONDS = 0.5


@dataclass
class JobStatus:
    """The state of a job. "locked": another process writes to its directory. message: why it failed or stopped."""

    job: Job
    state: JobState = "waiting"
    message: str = ""


def run_jobs(
    jobs: Sequence[Job], folder: Path, workers: Workers, retry: bool, show: Callable[[Sequence[JobStatus]], None]
) -> list[JobStatus]:
    """Runs the unfinished `jobs` on `workers`; the final status of each. A job comes after the one it depends on.

    Failures are recorded in `folder`. Jobs that failed in an earlier call are skipped unless `retry`. A job whose
    dependency failed or was interrupted gets the same state. `show` is called with all statuses after each poll.
    Ctrl-C, SIGTERM and SIGHUP stop all jobs, each with a checkpoint, and raise KeyboardInterrupt; an error stops them
    too.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    statuses = _initial_statuses(jobs, {} if retry else read_failures(folder))
    with _sigterm_as_keyboard_interrupt(signal.SIGTERM, signal.SIGHUP):
        try:
            while True:
                for name, code in workers.poll().items():
                    _record_exit(statuses[name], code, logs)
                for status in statuses.values():
                    if status.state in ("waiting", "locked"):
                        _update_waiting(status, statuses, workers, logs)
                _record_failures(folder, statuses)
                show(list(statuses.values()))
                if not any(status.state in ("waiting", "running", "locked") for status in statuses.values()):
                    return list(statuses.values())
                time.sleep(POLL_SECONDS)
        except BaseException:  # otherwise the jobs would train on without a scheduler
            workers.stop()
            raise


@contextmanager
def _sigterm_as_keyboard_interrupt(*signals: signal.Signals) -> Iterator[None]:
    """Makes each of `signals` act like Ctrl-C, except those that are ignored, such as SIGHUP under nohup."""
    before = {each: handler for each in signals if (handler := signal.getsignal(each)) is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _initial_statuses(jobs: Sequence[Job], failures: Mapping[str, str]) -> dict[str, JobStatus]:
    """A job that serves others counts as finished if none that still has to run depends on it."""
    statuses = {job.name: JobStatus(job) for job in jobs}
    needed = set[str]()
    order = TopologicalSorter({job.name: job.depends_on for job in jobs}).static_order()
    for job in reversed([statuses[name].job for name in order]):
        status = statuses[job.name]
        if _is_finished(job):
            status.state = "finished"
        elif job.name in failures:
            status.state, status.message = "failed", failures[job.name]
        elif job.serves_others and job.name not in needed:
            status.state = "finished"
        else:
            needed.update(job.depends_on)
    return statuses


def _is_finished(job: Job) -> bool:
    return job.trains and RunDirectory(job.path).is_finished


def _update_waiting(status: JobStatus, statuses: Mapping[str, JobStatus], workers: Workers, logs: Path) -> None:
    """Starts a waiting job if its dependencies are finished, its directory is not locked, and a worker is free."""
    job = status.job
    missing = [statuses[name] for name in job.depends_on if statuses[name].state != "finished"]
    if missing:
        ended = next((each for each in missing if each.state in ("failed", "stopped")), None)
        if ended is not None:
            reason = "failed" if ended.state == "failed" else "was interrupted"
            status.state, status.message = ended.state, f"it depends on {ended.job.name}, which {reason}"
    elif is_locked(job.path):
        status.state = "locked"
    elif _is_finished(job):
        status.state = "finished"
    elif workers.can_start():
        workers.start(job, logs / f"{job.name}.log")
        status.state = "running"
    else:
        status.state = "waiting"


def _record_exit(status: JobStatus, code: int, logs: Path) -> None:
    job = status.job
    if code == 0 or _is_finished(job):
        status.state = "finished"
    elif is_locked(job.path):  # another process locked the directory first
        status.state = "locked"
    elif code == INTERRUPTED:
        status.state, status.message = "stopped", "interrupted"
    else:
        status.state, status.message = "failed", _error_message(logs / f"{job.name}.log", code)


def _error_message(log: Path, code: int) -> str:
    """The last line of the log, the signal that killed the job if one did, and the log's path."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    message = lines[-1].removeprefix("kdaug: ") if lines else "no output"
    killed = f"killed by signal {-code}; " if code < 0 else ""
    return f"{killed}{message} ({log})"


def _record_failures(folder: Path, statuses: Mapping[str, JobStatus]) -> None:
    """Writes the failures of this call. Those of jobs that are not part of it are kept."""
    others = {name: message for name, message in read_failures(folder).items() if name not in statuses}
    failed = {name: status.message for name, status in statuses.items() if status.state == "failed"}
    write_failures(folder, others | failed)
