"""kdaug reproduce STUDY"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kdaug.cli.job_table import run_jobs_with_table
from kdaug.cli.output import print_error, print_report
from kdaug.cli.parsing import parse
from kdaug.cli.workers import WorkerOptions, create_workers, with_job_threads
from kdaug.config import Data
from kdaug.errors import InputError
from kdaug.recipes.scales import Scale

if TYPE_CHECKING:
    from kdaug.study.paper.studies import PaperStudy


@dataclass(frozen=True)
class Arguments:
    """A table or figure of the paper: trains what it needs, and sets what came out beside the paper's figures.

    kdaug reproduce table1                                 on the bundled images, in minutes
    kdaug reproduce table1 --scale cpu --root data         on CIFAR-100, in hours on two cores
    kdaug reproduce section3.4 --scale gpu --root data     CIFAR-100 whole, up to an hour on one GPU
    kdaug reproduce table3 --scale paper --root imagenet   as published, for weeks on many GPUs

    The same command again skips what is finished, goes on with what was stopped, and writes the report anew. Studies of
    one scale share their folder, and in it runs, teachers and labels.
    """

    where: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    study: tyro.conf.Positional[str] = ""
    """table1, table2, table3, figure2, figure4 or section3.4."""
    scale: Scale = "smoke"
    """smoke: the bundled images; cpu, gpu: CIFAR or photos, smaller networks for less long; paper: as published."""
    root: str = "data"
    """Folder that holds CIFAR; for table3 the photos, one folder per class, or ImageNet."""
    download: bool = False
    """Fetch CIFAR through torchvision if it is not under root."""
    dir: str | None = None
    """Folder for all runs; None: runs/reproduce-SCALE."""
    out: str | None = None
    """Folder for the report; None: STUDY-report in the folder of the runs."""
    seeds: tuple[int, ...] | None = None
    """A run of every cell for each of these; None: 0 for smoke, else 0 and 1."""
    only: tuple[str, ...] | None = None
    """Runs for these cells alone, by name or pattern, as '*-m5*'; the report is on all that is there."""
    list: bool = False
    """Name the cells, and train nothing."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda."""
    retry: bool = False
    """Try again what failed in an earlier call."""


def run(arguments: list[str]) -> int:
    """Trains and reports; returns the exit code, 1 if a run failed."""
    given = parse(Arguments, arguments, "kdaug reproduce", default=Arguments(WorkerOptions()))
    seeds = _seeds(given)

    from kdaug.study.paper.studies import STUDIES, paper_study

    if not given.study:
        raise InputError(f"which table or figure? There are {', '.join(STUDIES)}")
    study = paper_study(given.study, given.scale)
    chosen = _only(study, given.only)
    if given.list:
        for cell in chosen.cells:
            print(f"{cell.name}: {cell.row}, {cell.column}")
        return 0

    from kdaug.study.paper.reproduce import recipes_of, write_reproduction
    from kdaug.study.sweep import plan_jobs

    folder = Path(given.dir or f"runs/reproduce-{given.scale}")
    data = Data(root=given.root, download=given.download)
    workers = create_workers(given.where, small=given.scale in ("smoke", "cpu"))
    recipes = recipes_of(chosen, seeds, data, given.device)
    fitting = {name: with_job_threads(recipe, given.where) for name, recipe in recipes.items()}
    try:
        jobs = plan_jobs(fitting, folder, share_labels=True)
    except InputError as error:
        raise InputError(_in_our_words(str(error))) from None
    code = run_jobs_with_table(jobs, folder, workers, given.retry)
    out = Path(given.out) if given.out else folder / f"{given.study}-report"
    try:
        table, left_out = write_reproduction(study, folder, out)
    except InputError as error:
        if code == 0:
            raise
        print_error(str(error))
        return code
    print_report(table, left_out, out)
    return code


def _in_our_words(said: str) -> str:
    """What a message says of a recipe's settings, as this command calls them."""
    return said.replace("--data.", "--").replace("data.root", "--root")


def _seeds(given: Arguments) -> tuple[int, ...]:
    if given.seeds is None:
        return (0,) if given.scale == "smoke" else (0, 1)
    if not given.seeds or min(given.seeds) < 0 or len(set(given.seeds)) < len(given.seeds):
        raise InputError("--seeds takes whole numbers, at least 0, each once, as --seeds 0 1 2")
    return given.seeds


def _only(study: PaperStudy, patterns: tuple[str, ...] | None) -> PaperStudy:
    if patterns is None:
        return study
    cells = tuple(cell for cell in study.cells if any(fnmatchcase(cell.name, pattern) for pattern in patterns))
    if not cells:
        raise InputError(f"no cell is called {' or '.join(patterns) or 'nothing'}; --list names them")
    return replace(study, cells=cells)
