"""Runs the jobs of a sweep on a Ray cluster whose machines share the sweep's folder (the extra kdaug[ray])."""

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
from kdaug.storage import is_locked
from kdaug.study.sweep.jobs import Job
from kdaug.study.sweep.workers import job_command

_MAX_RETRIES = 5
"""How often a job is started again after its machine is lost."""
_EXIT_CODE_LOST = 1
_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


class RayWorkers:
    """Runs each job with `cpus` and `gpus` of its own, at most `max_jobs` at once (None: as many as fit).

    The cluster is that of RAY_ADDRESS, else the one last started on this machine, else a new one on this machine. If a
    machine is lost, its jobs start again on others and resume from their last checkpoints. gpus None: one GPU per job
    if the cluster has any. Raises InputError if Ray is not installed, the cluster cannot be reached, or no machine has
    the resources of one job.
    """

    def __init__(self, cpus: int, gpus: float | None, max_jobs: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise InputError("Ray is not installed", "pip install 'kdaug[ray]'") from None
        self._ray: Any = ray  # much of it has no types
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"the Ray cluster cannot be reached: {str(error).splitlines()[0]}") from None
        self._gpus = float("GPU" in self._ray.cluster_resources()) if gpus is None else gpus
        self._cpus, self._max_jobs = cpus, max_jobs
        self._running = dict[Any, Job]()
        if self._capacity() == 0:
            resources = f"{cpus} CPUs" + f" and {self._gpus:g} GPUs" * (self._gpus > 0)
            raise InputError(f"no machine of the Ray cluster has {resources}", "request fewer CPUs and GPUs per job")
        self._run_job = ray.remote(num_cpus=cpus, num_gpus=self._gpus, max_retries=_MAX_RETRIES)(run_job)

    def _capacity(self) -> int:
        """How many jobs fit on the machines of the cluster if nobody else uses them."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        by_cpus = (machine.get("CPU", 0) // self._cpus for machine in machines)
        by_gpus = (machine.get("GPU", 0) // self._gpus if self._gpus else float("inf") for machine in machines)
        return int(sum(min(jobs) for jobs in zip(by_cpus, by_gpus, strict=True)))

    def can_start(self) -> bool:
        """Whether the cluster and `max_jobs` allow another job."""
        limit = self._capacity() if self._max_jobs is None else min(self._capacity(), self._max_jobs)
        return len(self._running) < limit

    def start(self, job: Job, log: Path) -> None:
        """Submits `job` to the cluster."""
        self._running[self._run_job.remote(job, os.getcwd(), log)] = job

    def poll(self) -> dict[str, int]:
        """Exit codes, by job name, of the jobs that have ended since the last call; 1 for a job lost too often."""
        if not self._running:
            return {}
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return {self._running.pop(task).name: self._exit_code(task) for task in ready}

    def _exit_code(self, task: Any) -> int:
        try:
            code: int = self._ray.get(task)
        except self._ray.exceptions.RayError:
            return _EXIT_CODE_LOST
        return code

    def stop(self) -> None:
        """Cancels every job and waits until none locks its run directory."""
        for task in self._running:
            self._ray.cancel(task)
        while any(is_locked(job.path) for job in self._running.values()):
            time.sleep(_POLL_SECONDS)


def run_job(job: Job, folder: str, log: Path) -> int:
    """Runs the command of `job` in `folder` and appends its output to `log`; its exit code.

    This is the function of a Ray task. The command dies with the worker process of the task.
    """
    with open(Path(folder) / log, "ab") as out:
        process = subprocess.Popen(
            job_command(job), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            while process.poll() is None:  # not wait(): Ray's cancellation does not interrupt a blocking system call
                time.sleep(_POLL_SECONDS)
            return process.returncode
        except KeyboardInterrupt:  # the task was canceled
            process.send_signal(signal.SIGTERM)
            return process.wait()


def _die_with_parent() -> None:
    """Kills this process when the Ray worker dies, so that two processes never train the same run (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
