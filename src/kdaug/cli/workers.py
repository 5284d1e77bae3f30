"""Flags of sweep and reproduce: on which machines their jobs run, and how many at once."""

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
    """How many at once. None: on ray as many as there is room for; here one for each GPU; without any one for each core
    in reproduce at the scales smoke and cpu, whose networks are small, and else one."""
    cpus: int = 1
    """Cores of each job on ray."""
    gpus: float | None = None
    """GPUs of each job on ray; None: one if the cluster has any."""


def create_workers(where: WorkerOptions, small: bool) -> Workers:
    """small: whether all networks are."""
    from kdaug.device import available_cores
    from kdaug.study.sweep.local import LocalWorkers, count_gpus

    if where.on == "ray":
        from kdaug.study.sweep.ray import RayWorkers

        if where.cpus < 1 or (where.jobs is not None and where.jobs < 1):
            raise InputError("--cpus and --jobs must be at least 1")
        if where.gpus is not None and not (0 <= where.gpus <= 1 or where.gpus in range(1 << 20)):
            raise InputError(f"--gpus is {where.gpus:g}, but must be a share of one, from 0 to 1, or a whole number")
        return RayWorkers(where.cpus, where.gpus, where.jobs)
    if where.cpus != 1 or where.gpus is not None:
        raise InputError("--cpus and --gpus are for --on ray; here jobs share GPUs and cores evenly")
    usual = count_gpus() or (available_cores() if small else 1)
    return LocalWorkers(usual if where.jobs is None else where.jobs)


def with_job_threads(recipe: Recipe, where: WorkerOptions) -> Recipe:
    """The recipe with as many threads as its job has cores, but for one that makes views, unless it says how many."""
    if where.on != "ray" or recipe.run.threads is not None:
        return recipe
    return replace(recipe, run=replace(recipe.run, threads=max(1, where.cpus - 1)))
