"""Doing the jobs of a sweep: what is finished is left alone, what was stopped goes on, what failed is told."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdaug.errors import InputError
from kdaug.runs import RunDirectory
from kdaug.storage.atomic import atomic_write
from kdaug.storage.lock import is_locked
from kdaug.study.sweep.jobs import Job
from kdaug.study.sweep.workers import Workers

JobState = Literal["running", "elsewhere", "failed", "stopped", "finished", "waiting"]
INTERRUPTED = 130
FAILURES = "failed.json"
"""In the folder of a sweep: what failed, by name, and why."""
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass
class JobStatus:
    """How far a job is. elsewhere: another process has its place. said: why it failed, in a line."""

    job: Job
    state: JobState = "waiting"
    message: str = ""


def run_jobs(
    jobs: Sequence[Job], folder: Path, workers: Workers, retry: bool, show: Callable[[Sequence[JobStatus]], None]
) -> list[JobStatus]:
    """Does what is not done of `jobs`, whose dependencies stand before them; how far each came.

    What failed in an earlier call is not tried again unless `retry`; what waits for a job that failed, or was
    interrupted from elsewhere, shares its lot. `show` is called after every look at them. Ctrl-C, SIGTERM and SIGHUP
    stop all jobs, each with a checkpoint, and are raised as KeyboardInterrupt. An error stops them too.
    """
    failures, logs = folder / FAILURES, folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    statuses = _initial_statuses(jobs, {} if retry else read_failures(failures))
    with _as_ctrl_c(signal.SIGTERM, signal.SIGHUP):
        try:
            while True:
                for name, code in workers.ended().items():
                    _note_end(statuses[name], code, logs)
                for status in statuses.values():
                    if status.state in ("waiting", "elsewhere"):
                        _go_on_with(status, statuses, workers, logs)
                _write_failures(failures, statuses)
                show(list(statuses.values()))
                if not any(status.state in ("waiting", "running", "elsewhere") for status in statuses.values()):
                    return list(statuses.values())
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except BaseException:  # or they would train on unseen
            workers.stop()
            raise


@contextmanager
def _as_ctrl_c(*signals: signal.Signals) -> Iterator[None]:
    """Each of `signals` does what Ctrl-C does, unless it is ignored, as nohup has it of SIGHUP."""
    before = {each: handler for each in signals if (handler := signal.getsignal(each)) is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _initial_statuses(jobs: Sequence[Job], failed: Mapping[str, str]) -> dict[str, JobStatus]:
    """Teachers and labels count as finished where all that would wait for them is."""
    statuses, awaited, needed = (
        {job.name: JobStatus(job) for job in jobs},
        {job.depends_on for job in jobs},
        set[str | None](),
    )
    for job in reversed(jobs):
        status = statuses[job.name]
        if _is_finished(job):
            status.state = "finished"
        elif job.name in failed:
            status.state, status.message = "failed", failed[job.name]
        elif job.name in awaited and job.name not in needed:
            status.state = "finished"
        else:
            needed.add(job.depends_on)
    return statuses


def _is_finished(job: Job) -> bool:
    return job.trains and RunDirectory(job.path).is_finished


def _go_on_with(status: JobStatus, statuses: Mapping[str, JobStatus], workers: Workers, logs: Path) -> None:
    """Starts a job if it can be."""
    job = status.job
    before = statuses[job.depends_on] if job.depends_on is not None else None
    if before is not None and before.state != "finished":
        if before.state in ("failed", "stopped"):
            how = "failed" if before.state == "failed" else "was interrupted"
            status.state, status.message = before.state, f"it needs {before.job.name}, which {how}"
    elif is_locked(job.path):
        status.state = "elsewhere"
    elif _is_finished(job):
        status.state = "finished"
    elif workers.has_room():
        workers.start(job, logs / f"{job.name}.log")
        status.state = "running"
    else:
        status.state = "waiting"


def _note_end(status: JobStatus, code: int, logs: Path) -> None:
    job = status.job
    if code == 0 or _is_finished(job):
        status.state = "finished"
    elif is_locked(job.path):  # another process was quicker
        status.state = "elsewhere"
    elif code == INTERRUPTED:
        status.state, status.message = "stopped", "interrupted"
    else:
        status.state, status.message = "failed", _last_words(logs / f"{job.name}.log", code)


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    message = lines[-1].removeprefix("kdaug: ") if lines else "it said nothing"
    killed = f"killed by signal {-code}; " if code < 0 else ""
    return f"{killed}{message} ({log})"


def read_failures(file: Path) -> dict[str, str]:
    """What failed, by name, and why; nothing if there is no such file."""
    if not file.is_file():
        return {}
    try:
        failures = json.loads(file.read_bytes())
    except ValueError:
        failures = None
    if not isinstance(failures, dict) or not all(isinstance(message, str) for message in failures.values()):
        raise InputError(f"{file} is damaged; delete it, and what failed is tried again")
    return failures


def _write_failures(file: Path, statuses: Mapping[str, JobStatus]) -> None:
    """Those of jobs that this call has nothing to do with stay."""
    others = {name: message for name, message in read_failures(file).items() if name not in statuses}
    failures = others | {name: status.message for name, status in statuses.items() if status.state == "failed"}
    text = json.dumps(failures, indent=1) + "\n"
    if not file.is_file() or file.read_text() != text:
        atomic_write(file, text)
