"""Runs in numbers: sweeps over a recipe's settings, reports on what came out, curves."""

from kdaug.study.curves import curves_svg
from kdaug.study.grid import grid, listed, names_of
from kdaug.study.jobs import Job, plan_jobs
from kdaug.study.report import write_report
from kdaug.study.sweep import Standing, State, do_jobs
from kdaug.study.workers import LocalWorkers, Workers

__all__ = [
    "Job",
    "LocalWorkers",
    "Standing",
    "State",
    "Workers",
    "curves_svg",
    "do_jobs",
    "grid",
    "listed",
    "names_of",
    "plan_jobs",
    "write_report",
]
