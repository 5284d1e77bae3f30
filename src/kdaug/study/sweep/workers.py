"""What the scheduler needs of the machines that run its jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from kdaug.study.sweep.jobs import Job


class Workers(Protocol):
    """Takes jobs, and says which have ended."""

    def has_room(self) -> bool:
        """Whether another job can be started."""

    def start(self, job: Job, log: Path) -> None:
        """Starts it; what it prints is added to `log`."""

    def ended(self) -> dict[str, int]:
        """Name and exit code of each job that has ended since it was asked last."""

    def stop(self) -> None:
        """Asks all jobs to stop, each with a checkpoint, and waits for them."""


def job_command(job: Job) -> list[str]:
    """Of its process, with this Python."""
    return [sys.executable, "-m", "kdaug", *job.arguments]
