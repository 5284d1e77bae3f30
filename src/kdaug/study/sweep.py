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
from kdaug.files import write_whole
from kdaug.study.jobs import Job
from kdaug.study.workers import Workers
from kdaug.training.holding import is_held
from kdaug.training.run_directory import RunDirectory

State = Literal["running", "elsewhere", "failed", "stopped", "finished", "waiting"]
INTERRUPTED = 130
FAILURES = "failed.json"
"""In the folder of a sweep: what failed, by name, and why."""
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass
class Standing:
    """How far a job is. elsewhere: another process has its place. said: why it failed, in a line."""

    job: Job
    state: State = "waiting"
    said: str = ""


def do_jobs(
    jobs: Sequence[Job], folder: Path, workers: Workers, retry: bool, show: Callable[[Sequence[Standing]], None]
) -> list[Standing]:
    """Does what is not done of `jobs`, whose dependencies stand before them; how far each came.

    What failed in an earlier call is not tried again unless `retry`; what waits for a job that failed, or was
    interrupted from elsewhere, shares its lot. `show` is called after every look at them. Ctrl-C, SIGTERM and SIGHUP
    stop all jobs, each with a checkpoint, and are raised as KeyboardInterrupt. An error stops them too.
    """
    failures, logs = folder / FAILURES, folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    standings = _first_standings(jobs, {} if retry else read_failures(failures))
    with _as_ctrl_c(signal.SIGTERM, signal.SIGHUP):
        try:
            while True:
                for name, code in workers.ended().items():
                    _note_end(standings[name], code, logs)
                for standing in standings.values():
                    if standing.state in ("waiting", "elsewhere"):
                        _go_on_with(standing, standings, workers, logs)
                _write_failures(failures, standings)
                show(list(standings.values()))
                if not any(standing.state in ("waiting", "running", "elsewhere") for standing in standings.values()):
                    return list(standings.values())
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


def _first_standings(jobs: Sequence[Job], failed: Mapping[str, str]) -> dict[str, Standing]:
    """Teachers and labels count as finished where all that would wait for them is."""
    standings, awaited, needed = (
        {job.name: Standing(job) for job in jobs},
        {job.after for job in jobs},
        set[str | None](),
    )
    for job in reversed(jobs):
        standing = standings[job.name]
        if _is_finished(job):
            standing.state = "finished"
        elif job.name in failed:
            standing.state, standing.said = "failed", failed[job.name]
        elif job.name in awaited and job.name not in needed:
            standing.state = "finished"
        else:
            needed.add(job.after)
    return standings


def _is_finished(job: Job) -> bool:
    return job.trains and RunDirectory(job.place).finished


def _go_on_with(standing: Standing, standings: Mapping[str, Standing], workers: Workers, logs: Path) -> None:
    """Starts a job if it can be."""
    job = standing.job
    before = standings[job.after] if job.after is not None else None
    if before is not None and before.state != "finished":
        if before.state in ("failed", "stopped"):
            how = "failed" if before.state == "failed" else "was interrupted"
            standing.state, standing.said = before.state, f"it needs {before.job.name}, which {how}"
    elif is_held(job.place):
        standing.state = "elsewhere"
    elif _is_finished(job):
        standing.state = "finished"
    elif workers.has_room():
        workers.start(job, logs / f"{job.name}.log")
        standing.state = "running"
    else:
        standing.state = "waiting"


def _note_end(standing: Standing, code: int, logs: Path) -> None:
    job = standing.job
    if code == 0 or _is_finished(job):
        standing.state = "finished"
    elif is_held(job.place):  # another process was quicker
        standing.state = "elsewhere"
    elif code == INTERRUPTED:
        standing.state, standing.said = "stopped", "interrupted"
    else:
        standing.state, standing.said = "failed", _last_words(logs / f"{job.name}.log", code)


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("kdaug: ") if lines else "it said nothing"
    killed = f"killed by signal {-code}; " if code < 0 else ""
    return f"{killed}{said} ({log})"


def read_failures(file: Path) -> dict[str, str]:
    """What failed, by name, and why; nothing if there is no such file."""
    if not file.is_file():
        return {}
    try:
        failures = json.loads(file.read_bytes())
    except ValueError:
        failures = None
    if not isinstance(failures, dict) or not all(isinstance(said, str) for said in failures.values()):
        raise InputError(f"{file} is damaged; delete it, and what failed is tried again")
    return failures


def _write_failures(file: Path, standings: Mapping[str, Standing]) -> None:
    """Those of jobs that this call has nothing to do with stay."""
    others = {name: said for name, said in read_failures(file).items() if name not in standings}
    failures = others | {name: standing.said for name, standing in standings.items() if standing.state == "failed"}
    text = json.dumps(failures, indent=1) + "\n"
    if not file.is_file() or file.read_text() != text:
        write_whole(file, text)
