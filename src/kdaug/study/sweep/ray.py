"""Jobs of a sweep on a Ray cluster whose machines share the sweep's folder (the extra kdaug[ray])."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kdaug.errors import InputError
from kdaug.storage.lock import is_locked
from kdaug.study.sweep.jobs import Job
from kdaug.study.sweep.workers import job_command

_TRIES_AFTER_A_LOSS = 5
_LOST = 1
_SECONDS_BETWEEN_LOOKS = 0.2
_PR_SET_PDEATHSIG = 1


class RayWorkers:
    """Runs jobs where the cluster has room, each with `cpus` and `gpus` of its own (None: a GPU if there are any).

    The cluster is that of RAY_ADDRESS, or the one started last on this machine; without one, this machine is it. The
    job of a lost machine is tried again on another, where it goes on from its last checkpoint. Raises InputError if Ray
    is not installed, the cluster cannot be reached, or none of its machines has room for a job.
    """

    def __init__(self, cpus: int, gpus: float | None, at_once: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise InputError("--on ray needs Ray; pip install 'kdaug[ray]'") from None
        self._ray: Any = ray  # much of it has no types
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"the Ray cluster cannot be reached: {str(error).splitlines()[0]}") from None
        self._gpus = float("GPU" in self._ray.cluster_resources()) if gpus is None else gpus
        self._cpus, self._at_once = cpus, at_once
        self._running = dict[Any, Job]()
        if self._places() == 0:
            wanted = f"{cpus} CPUs" + f" and {self._gpus:g} GPUs" * (self._gpus > 0)
            raise InputError(f"no machine of the Ray cluster has {wanted}; give less with --cpus and --gpus")
        self._carry_out = ray.remote(num_cpus=cpus, num_gpus=self._gpus, max_retries=_TRIES_AFTER_A_LOSS)(run_job)

    def _places(self) -> int:
        """How many jobs the machines that are there have room for, if nobody else uses them."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        by_cpus = (machine.get("CPU", 0) // self._cpus for machine in machines)
        by_gpus = (machine.get("GPU", 0) // self._gpus if self._gpus else float("inf") for machine in machines)
        return int(sum(min(places) for places in zip(by_cpus, by_gpus, strict=True)))

    def has_room(self) -> bool:
        """Whether fewer jobs run than may."""
        most = self._places() if self._at_once is None else min(self._places(), self._at_once)
        return len(self._running) < most

    def start(self, job: Job, log: Path) -> None:
        """Hands it to the cluster."""
        self._running[self._carry_out.remote(job, os.getcwd(), log)] = job

    def ended(self) -> dict[str, int]:
        """Name and exit code of each job that has ended since it was asked last; 1 for one lost again and again."""
        if not self._running:
            return {}
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return {self._running.pop(task).name: self._code(task) for task in ready}

    def _code(self, task: Any) -> int:
        try:
            code: int = self._ray.get(task)
        except self._ray.exceptions.RayError:
            return _LOST
        return code

    def stop(self) -> None:
        """Asks every job to stop, and waits until none holds its run directory."""
        for task in self._running:
            self._ray.cancel(task)
        while any(is_locked(job.path) for job in self._running.values()):
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def run_job(job: Job, folder: str, log: Path) -> int:
    """The task of a job: its command, run in `folder`, prints to `log`; its exit code. It dies with its worker."""
    with open(Path(folder) / log, "ab") as out:
        process = subprocess.Popen(
            job_command(job), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=_die_with_the_worker,
        )  # fmt: skip
        try:
            while process.poll() is None:  # Ray's cancelling does not wake what waits in the kernel
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            return process.returncode
        except KeyboardInterrupt:  # the task was cancelled
            process.send_signal(signal.SIGTERM)
            return process.wait()


def _die_with_the_worker() -> None:
    """So that a lost worker's command does not train on beside the one that follows it (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
