"""The interface between the scheduler and the machines that run its jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from kdaug.study.sweep.jobs import Job


class Workers(Protocol):
    """Runs jobs as processes and reports their exit codes."""

    def can_start(self) -> bool:
        """Whether another job can be started now."""

    def start(self, job: Job, log: Path) -> None:
        """Starts `job` and appends its output to the file `log`."""

    def poll(self) -> dict[str, int]:
        """Exit codes, by job name, of the jobs that have ended since the last call."""

    def stop(self) -> None:
        """Tells all jobs to stop, each with a checkpoint, and waits for them."""


def job_command(job: Job) -> list[str]:
    """The command line of `job`, for the current Python."""
    return [sys.executable, "-m", "kdaug", *job.arguments]
