"""Sweeps: a recipe trained with every combination of some settings, on this machine or on a Ray cluster."""

from kdaug.study.sweep.failures import read_failures
from kdaug.study.sweep.grid import expand_grid, read_run_list, run_names
from kdaug.study.sweep.jobs import Job, plan_jobs
from kdaug.study.sweep.local import LocalWorkers
from kdaug.study.sweep.scheduler import JobState, JobStatus, run_jobs
from kdaug.study.sweep.workers import Workers

__all__ = [
    "Job",
    "JobState",
    "JobStatus",
    "LocalWorkers",
    "Workers",
    "expand_grid",
    "plan_jobs",
    "read_failures",
    "read_run_list",
    "run_jobs",
    "run_names",
]
