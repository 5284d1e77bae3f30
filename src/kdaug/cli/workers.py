"""Options of sweep and reproduce: where their jobs run, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from kdaug.config import Recipe
from kdaug.errors import InputError

if TYPE_CHECKING:
    from kdaug.study.sweep import Workers


@dataclass(frozen=True)
class WorkerOptions:
    """Where jobs run, and how many at once."""

    on: Literal["here", "ray"] = "here"
    """here: this machine; ray: a Ray cluster whose machines share the folder of the runs (pip install 'kdaug[ray]')."""
    jobs: int | None = None
    """Jobs at once; None: with ray as many as fit; else one per GPU, or one without a GPU (kdaug reproduce at
    scales smoke, bundled and cpu: one per core)."""
    cpus: int = 1
    """With ray: CPU cores per job."""
    gpus: float | None = None
    """With ray: GPUs per job; None: one if the cluster has any, else none."""


def create_workers(options: WorkerOptions, small_networks: bool) -> Workers:
    """The workers that run the jobs. Raises InputError for options that do not fit.

    small_networks: whether one core per job is enough, so that without a GPU one job per core is the default.
    """
    from kdaug.device import available_cores
    from kdaug.study.sweep.local import LocalWorkers, count_gpus

    if options.on == "ray":
        from kdaug.study.sweep.ray import RayWorkers

        if options.cpus < 1 or (options.jobs is not None and options.jobs < 1):
            raise InputError("--cpus and --jobs must be at least 1")
        if options.gpus is not None and not (0 <= options.gpus <= 1 or options.gpus in range(1 << 20)):
            raise InputError(f"--gpus is {options.gpus:g}, but must be from 0 to 1 or a whole number")
        return RayWorkers(options.cpus, options.gpus, options.jobs)
    if options.cpus != 1 or options.gpus is not None:
        raise InputError("--cpus and --gpus require --on ray; without it, jobs share GPUs and cores evenly")
    default = count_gpus() or (available_cores() if small_networks else 1)
    return LocalWorkers(default if options.jobs is None else options.jobs)


def with_job_threads(recipe: Recipe, options: WorkerOptions) -> Recipe:
    """With ray, sets run.threads, if it is None, to the cores of a job."""
    if options.on != "ray" or recipe.run.threads is not None:
        return recipe
    return replace(recipe, run=replace(recipe.run, threads=options.cpus))
