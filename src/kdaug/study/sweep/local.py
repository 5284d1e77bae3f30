"""Where the jobs of a sweep run: processes of this machine."""

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
    """GPUs of this machine."""
    return torch.cuda.device_count()


class LocalWorkers:
    """So many processes at once on this machine: each with a GPU of its own, in turn, or its share of the cores."""

    def __init__(self, at_once: int) -> None:
        self._cores, self._gpus = sorted(os.sched_getaffinity(0)), count_gpus()
        if not 1 <= at_once <= max(self._gpus, len(self._cores)):
            raise InputError(f"--jobs is {at_once}, but must be from 1 to {max(self._gpus, len(self._cores))} here")
        self._running: list[tuple[Job, subprocess.Popen[bytes]] | None] = [None] * at_once

    def has_room(self) -> bool:
        """Whether fewer processes run than may."""
        return None in self._running

    def start(self, job: Job, log: Path) -> None:
        """Starts it in a session of its own, so that Ctrl-C comes to it from here and not twice."""
        place = self._running.index(None)
        with open(log, "ab") as out:
            process = subprocess.Popen(
                job_command(job), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment(place),
                start_new_session=True,
            )  # fmt: skip
        if self._gpus == 0 and len(self._running) > 1:
            with contextlib.suppress(ProcessLookupError):  # it may have ended already
                os.sched_setaffinity(process.pid, self._cores[place :: len(self._running)])
        self._running[place] = job, process

    def _environment(self, place: int) -> dict[str, str]:
        if self._gpus < 2:
            return dict(os.environ)
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(self._gpus)))).split(",")
        return {**os.environ, "CUDA_VISIBLE_DEVICES": seen[place % self._gpus]}

    def ended(self) -> dict[str, int]:
        """Name and exit code of each job whose process has ended since it was asked last."""
        codes = dict[str, int]()
        for place, running in enumerate(self._running):
            if running is not None and running[1].poll() is not None:
                codes[running[0].name] = running[1].returncode
                self._running[place] = None
        return codes

    def stop(self) -> None:
        """Asks every process to stop, each with a checkpoint, and waits for it."""
        processes = [running[1] for running in self._running if running is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
