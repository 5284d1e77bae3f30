"""Runs the jobs of a sweep as processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import torch

from kdaug.errors import InputError
from kdaug.study.sweep.jobs import Job
from kdaug.study.sweep.workers import job_command


def count_gpus() -> int:
    """The number of GPUs of this machine."""
    return torch.cuda.device_count()


class LocalWorkers:
    """Up to `max_jobs` processes on this machine. Each gets an equal part of the cores and, if there are any, a GPU.

    With more jobs than GPUs, several share a GPU: a small network alone leaves most of it idle. Raises InputError if
    `max_jobs` is not from 1 to the number of GPUs or cores, whichever is larger.
    """

    def __init__(self, max_jobs: int) -> None:
        self._cores, self._gpus = sorted(os.sched_getaffinity(0)), count_gpus()
        limit = max(self._gpus, len(self._cores))
        if not 1 <= max_jobs <= limit:
            raise InputError(f"the number of jobs at once is {max_jobs}, but must be from 1 to {limit} on this machine")
        self._slots: list[tuple[Job, subprocess.Popen[bytes]] | None] = [None] * max_jobs

    def can_start(self) -> bool:
        """Whether fewer than `max_jobs` processes run."""
        return None in self._slots

    def start(self, job: Job, log: Path) -> None:
        """Starts `job` in its own session, so that Ctrl-C in the terminal does not reach it a second time."""
        slot = self._slots.index(None)
        with open(log, "ab") as out:
            process = subprocess.Popen(
                job_command(job), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment(slot),
                start_new_session=True,
            )  # fmt: skip
        if len(self._slots) > 1:
            with contextlib.suppress(ProcessLookupError):  # it may have ended already
                os.sched_setaffinity(process.pid, self._cores[slot % len(self._cores) :: len(self._slots)])
        self._slots[slot] = job, process

    def _environment(self, slot: int) -> dict[str, str]:
        if self._gpus < 2:
            return dict(os.environ)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(self._gpus)))).split(",")
        return {**os.environ, "CUDA_VISIBLE_DEVICES": visible[slot % self._gpus]}

    def poll(self) -> dict[str, int]:
        """Exit codes, by job name, of the processes that have ended since the last call."""
        codes = dict[str, int]()
        for slot, running in enumerate(self._slots):
            if running is not None and running[1].poll() is not None:
                codes[running[0].name] = running[1].returncode
                self._slots[slot] = None
        return codes

    def stop(self) -> None:
        """Sends SIGTERM to every process, which makes it write a checkpoint, and waits for them."""
        processes = [running[1] for running in self._slots if running is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
