"""kdaug reproduce STUDY"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kdaug.cli.output import check_output_folder, print_error, print_report
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
    seeds: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[INT [INT ...]]")] = None
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
    given_seeds = None if args.seeds is None else _parse_seeds(args.seeds)

    from kdaug.study.paper import FIGURES, STUDIES, paper_study

    if not args.study:
        raise InputError("a table or figure is missing", f"choose one of {', '.join([*STUDIES, *FIGURES])}")
    if args.study in FIGURES:
        return _inspect(args, FIGURES[args.study], given_seeds or (0,))
    study = paper_study(args.study, args.scale)
    selected = _select_cells(study, args.only)
    if args.list:
        for cell in selected.cells:
            print(f"{cell.name}: {cell.row}, {cell.column}")
        return 0
    default_seeds = (0,) if args.scale == "smoke" else (0, 1, 2)
    return _train_and_report(args, study, selected, given_seeds or default_seeds)


def _train_and_report(args: Arguments, study: PaperStudy, selected: PaperStudy, seeds: tuple[int, ...]) -> int:
    from kdaug.cli.job_table import run_sweep
    from kdaug.study.paper import study_recipes, write_reproduction

    folder, out = _checked_folders(args, f"{args.study}-report")
    if args.workers.on == "here":  # with ray, the jobs run on machines with other devices
        _check_device(args.device)
    data = Data(root=args.root, download=args.download)
    workers = create_workers(args.workers, small_networks=args.scale in ("smoke", "bundled", "cpu"))
    recipes = {
        name: with_job_threads(recipe, args.workers)
        for name, recipe in study_recipes(selected, seeds, data, args.device).items()
    }
    code = run_sweep(recipes, folder, workers, share_labels=True, retry=args.retry)
    try:
        table, left_out = write_reproduction(study, folder, out)
    except InputError as error:
        if code == 0:
            raise
        print_error(error, SETTING_FLAGS)
        return code
    print_report(table, left_out, out)
    return code


def _inspect(args: Arguments, figure: PaperFigure, seeds: tuple[int, ...]) -> int:
    """Writes the inspection that shows a figure; its teacher is shared with the studies of the same folder."""
    if args.only is not None or args.list or args.workers != WorkerOptions() or len(seeds) > 1:
        raise InputError(
            f"{args.study} is one inspection, which trains a teacher only",
            "leave out --only, --list, --on, --jobs, --cpus and --gpus, and give one seed",
        )

    from rich.console import Console

    from kdaug.inspection import InspectionRequest, inspect_recipe
    from kdaug.training import Interrupted

    folder, out = _checked_folders(args, f"{args.study}-inspection")
    _check_device(args.device)
    recipe = figure.recipe(args.scale)
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=args.root, download=args.download),
        run=replace(recipe.run, seed=seeds[0], device=args.device, dir=str(folder / args.study)),
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


def _parse_seeds(words: tuple[str, ...]) -> tuple[int, ...]:
    """Raises InputError if `words` are not different seeds in the range of run.seed."""
    try:
        seeds = tuple(map(int, words))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) >= 1 << 63 or len(set(seeds)) < len(seeds):
        raise InputError("--seeds must be different whole numbers from 0 to 2^63 - 1, such as --seeds 0 1 2")
    return seeds


def _checked_folders(args: Arguments, default_out: str) -> tuple[Path, Path]:
    """The folder of the runs and that of the report. Raises InputError if one of them cannot be written to."""
    folder = f"runs/reproduce-{args.scale}" if args.dir is None else args.dir
    check_output_folder("--dir", folder)
    out = str(Path(folder, default_out)) if args.out is None else args.out
    check_output_folder("--out", out)
    return Path(folder), Path(out)


def _check_device(name: str) -> None:
    """Raises InputError if `name` is not a device of this machine. Uses no GPU memory, which is left to the jobs."""
    import torch

    from kdaug.device import find_device

    if name in ("auto", "cuda") and torch.cuda.is_available():
        return
    try:
        find_device(name)
    except InputError as error:
        raise InputError(error.problem, "set run.device to auto, cpu or cuda") from None


def _select_cells(study: PaperStudy, patterns: tuple[str, ...] | None) -> PaperStudy:
    if patterns is None:
        return study
    matching = (cell for pattern in patterns for cell in study.cells if fnmatchcase(cell.name, pattern))
    cells = tuple(dict.fromkeys(matching))
    if not cells:
        raise InputError(f"no cell matches --only {' '.join(patterns)}".rstrip(), "--list prints all cells")
    return replace(study, cells=cells)
