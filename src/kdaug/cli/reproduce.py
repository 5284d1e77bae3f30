"""kdaug reproduce STUDY"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kdaug.cli.output import print_error, print_report
from kdaug.cli.parsing import parse
from kdaug.cli.workers import WorkerOptions, create_workers, with_job_threads
from kdaug.config import Data, Recipe
from kdaug.errors import InputError
from kdaug.recipes.scales import Scale

if TYPE_CHECKING:
    from kdaug.study.paper import PaperFigure, PaperStudy

SMOKE_IMAGES = 100
"""Images that figure1 and figure3 show at scale smoke, which only checks that everything works."""
SETTING_FLAGS = {"data.root": "--root", "data.download": "--download", "run.dir": "--dir", "run.device": "--device"}
"""Settings whose flag has another name in this command, for error messages."""


@dataclass(frozen=True)
class Arguments:
    """Train the runs of a table or figure of the paper, and compare their errors with the published ones.

    kdaug reproduce table1                                 on the bundled images, in minutes
    kdaug reproduce table1 --scale bundled                 on bundled characters, to over-fitting, in an hour
    kdaug reproduce table1 --scale cpu --root data         on 4,000 images of CIFAR-10, hours on two cores
    kdaug reproduce section3.4 --scale gpu --root data     on all of CIFAR-100, up to an hour on one GPU
    kdaug reproduce table3 --scale paper --root imagenet   as published, weeks on many GPUs
    kdaug reproduce figure1                                views with the teacher's soft labels; trains only the teacher

    The same command again skips finished runs, resumes stopped ones and rewrites the report. Studies of one scale share
    one folder and in it runs, teachers and stored labels.
    """

    workers: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    study: tyro.conf.Positional[str] = ""
    """table1, table2, table3, figure1, figure2, figure3, figure4 or section3.4."""
    scale: Scale = "smoke"
    """smoke, bundled: bundled images; cpu, gpu: CIFAR or photos, smaller networks; paper: as published."""
    root: str = "data"
    """Directory of CIFAR; for table3 that of your photos (one folder per class) or of ImageNet."""
    download: bool = False
    """Download CIFAR through torchvision if it is not under root."""
    dir: str | None = None
    """Folder for all runs; None: runs/reproduce-SCALE."""
    out: str | None = None
    """Directory for the report; None: STUDY-report (figure1, figure3: STUDY-inspection) in the folder of the runs."""
    seeds: tuple[int, ...] | None = None
    """Seeds, with one run of every cell for each; None: 0 for smoke, else 0, 1 and 2."""
    only: tuple[str, ...] | None = None
    """Train only these cells, by name or pattern such as '*-m5*', in this order; the report has all finished runs."""
    list: bool = False
    """Print the names of the cells and train nothing."""
    device: str = "auto"
    """auto (a GPU if available), cpu, cuda."""
    retry: bool = False
    """Re-run jobs that failed in an earlier call."""


def run(arguments: list[str]) -> int:
    """Trains and reports; returns the exit code, 1 if a run failed."""
    args = parse(Arguments, arguments, "kdaug reproduce", default=Arguments(WorkerOptions()))
    seeds = _seeds(args)

    from kdaug.study.paper import FIGURES, STUDIES, paper_study

    if not args.study:
        raise InputError("a table or figure is missing", f"choose one of {', '.join([*STUDIES, *FIGURES])}")
    if args.study in FIGURES:
        return _inspect(args, FIGURES[args.study])
    study = paper_study(args.study, args.scale)
    selected = _select_cells(study, args.only)
    if args.list:
        for cell in selected.cells:
            print(f"{cell.name}: {cell.row}, {cell.column}")
        return 0
    return _train_and_report(args, study, selected, seeds)


def _train_and_report(args: Arguments, study: PaperStudy, selected: PaperStudy, seeds: tuple[int, ...]) -> int:
    from kdaug.cli.job_table import run_sweep
    from kdaug.study.paper import study_recipes, write_reproduction

    folder = Path(args.dir or f"runs/reproduce-{args.scale}")
    data = Data(root=args.root, download=args.download)
    workers = create_workers(args.workers, small_networks=args.scale in ("smoke", "bundled", "cpu"))
    recipes = {
        name: with_job_threads(recipe, args.workers)
        for name, recipe in study_recipes(selected, seeds, data, args.device).items()
    }
    code = run_sweep(recipes, folder, workers, share_labels=True, retry=args.retry)
    out = Path(args.out) if args.out else folder / f"{args.study}-report"
    try:
        table, left_out = write_reproduction(study, folder, out)
    except InputError as error:
        if code == 0:
            raise
        print_error(error, SETTING_FLAGS)
        return code
    print_report(table, left_out, out)
    return code


def _inspect(args: Arguments, figure: PaperFigure) -> int:
    """Writes the inspection that shows a figure; its teacher is shared with the studies of the same folder."""
    if args.only is not None or args.list or args.workers != WorkerOptions() or len(args.seeds or (0,)) > 1:
        raise InputError(
            f"{args.study} is one inspection, which trains a teacher only",
            "leave out --only, --list, --on, --jobs, --cpus and --gpus, and give one seed",
        )

    from rich.console import Console

    from kdaug.inspection import InspectionRequest, inspect_recipe
    from kdaug.training import Interrupted

    folder = Path(args.dir or f"runs/reproduce-{args.scale}")
    out = Path(args.out) if args.out else folder / f"{args.study}-inspection"
    recipe = figure.recipe(args.scale)
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=args.root, download=args.download),
        run=replace(recipe.run, seed=(args.seeds or (0,))[0], device=args.device, dir=str(folder / args.study)),
    )
    magnitudes = None if figure.all_magnitudes else (_own_magnitude(recipe),)
    images = SMOKE_IMAGES if args.scale == "smoke" else InspectionRequest.images
    request = InspectionRequest(images, magnitudes=magnitudes)
    try:
        inspect_recipe(recipe, request, out, Console())
    except Interrupted as stop:
        print_error(f"{stop.reason}; the same command resumes the teacher's training")
        return 130
    print(f"{figure.title}: open {out / 'index.html'}#{figure.section}")
    return 0


def _own_magnitude(recipe: Recipe) -> float:
    """The magnitude of the recipe's policy, which has one."""
    from kdaug.inspection.design import policy_magnitude

    magnitude = policy_magnitude(recipe.views.policy, recipe.optimization.epochs)
    assert magnitude is not None
    return magnitude


def _seeds(args: Arguments) -> tuple[int, ...]:
    if args.seeds is None:
        return (0,) if args.scale == "smoke" else (0, 1, 2)
    if not args.seeds or min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise InputError("--seeds must be different whole numbers of at least 0, such as --seeds 0 1 2")
    return args.seeds


def _select_cells(study: PaperStudy, patterns: tuple[str, ...] | None) -> PaperStudy:
    if patterns is None:
        return study
    matching = (cell for pattern in patterns for cell in study.cells if fnmatchcase(cell.name, pattern))
    cells = tuple(dict.fromkeys(matching))
    if not cells:
        raise InputError(f"no cell matches --only {' '.join(patterns)}".rstrip(), "--list prints all cells")
    return replace(study, cells=cells)
