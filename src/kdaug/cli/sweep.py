"""kdaug sweep RECIPE SETTING=VALUES ... [--section.setting VALUE ...]"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kdaug.cli.parsing import parse
from kdaug.cli.recipe_arguments import (
    adapt_to_flags,
    find_recipe,
    print_help_if_requested,
    recipe_stem,
    without_method,
)
from kdaug.cli.workers import WorkerOptions, create_workers, with_job_threads
from kdaug.config import Recipe, to_yaml, with_settings
from kdaug.errors import InputError

HELP = """usage: kdaug sweep RECIPE SETTING=VALUES ... [--dir FOLDER] [--jobs N] [--on ray] [--retry]
                   [--section.setting VALUE ...]

Trains one run for every combination of the values, each in its own directory below FOLDER (default: runs/RECIPE-sweep):
  kdaug sweep table1-small views.magnitude=0,1,2 teacher.source=none,train run.seed=0..2 --data.root data
  kdaug sweep photos supervision.weight=0.5,1,2 supervision.k=3,5,10 --data.root my-photos
  kdaug sweep demo --list runs.txt          one run per line, such as: views.magnitude=5 run.seed=1
                                            or with a name: strong: views.magnitude=5
A teacher that several runs use is trained once. If several runs use the same views, its soft labels are stored once.
A run whose teacher.source is another run of the sweep, such as run:FOLDER/NAME, is trained after it.
The same command again skips finished runs and resumes stopped ones. Run it twice, also on two machines that share the
folder, and both share the work. --retry re-runs failed jobs.

kdaug sweep RECIPE --help lists all settings with the recipe's values."""

SETTING_FLAGS = {"run.dir": "--dir"}
"""Settings whose flag has another name in this command, for error messages."""


@dataclass(frozen=True)
class Arguments:
    """Options of the sweep; all other flags are settings of the recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    workers: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    dir: str
    """Folder for all runs."""
    list: str | None = None
    """File with one run per line, instead of SETTING=VALUES."""
    retry: bool = False
    """Re-run jobs that failed in an earlier call."""
    labels: bool = True
    """Store the teacher's soft labels if several runs use the same views, instead of running it in each."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code, 1 if a run failed."""
    if print_help_if_requested(arguments, HELP, "kdaug sweep RECIPE SETTING=VALUES ..."):
        return 0
    name, axes, flags = arguments[0], *_split(arguments[1:])
    default = Arguments(adapt_to_flags(find_recipe(name), flags), WorkerOptions(), f"runs/{recipe_stem(name)}-sweep")
    description = "Train a recipe with every combination of several settings."
    args = parse(Arguments, flags, f"kdaug sweep {name}", default=default, description=description)
    if args.recipe.run.dir != default.recipe.run.dir:
        raise InputError("--run.dir has no effect, as each run of a sweep has its own directory; use --dir")
    recipes = _recipes(with_job_threads(without_method(args.recipe), args.workers), axes, args.list)

    from kdaug.cli.job_table import run_sweep

    workers = create_workers(args.workers, small_networks=False)
    return run_sweep(recipes, Path(args.dir), workers, share_labels=args.labels, retry=args.retry)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The axes (SETTING=VALUES), which come first, and the flags after them."""
    count = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    late = next((argument for argument in arguments[count:] if re.match(r"[\w-]+\.[\w-]+=", argument)), None)
    if late is not None:
        raise InputError(f"SETTING=VALUES must come before all flags, but {late} comes after {arguments[count]}")
    return arguments[:count], arguments[count:]


def _recipes(base: Recipe, axes: list[str], file: str | None) -> dict[str, Recipe]:
    """The recipe of every run by the run's name."""
    from kdaug.study.sweep.grid import expand_grid, read_run_list, run_names

    if axes and file is not None:
        raise InputError("SETTING=VALUES and --list exclude each other")
    if not axes and file is None:
        raise InputError("the settings to vary are missing; give them as views.magnitude=0,1,2, or give a --list")
    if file is not None:
        runs = read_run_list(Path(file))
    else:
        grid = expand_grid(axes)
        runs = dict(zip(run_names(grid), grid, strict=True))
    fixed = next((name for run in runs.values() for name in run if name in ("run.dir", "run.resume")), None)
    if fixed is not None:
        raise InputError(f"{fixed} cannot vary: a sweep sets the directory of each run and resumes stopped runs")
    recipes = {name: with_settings(base, run, f"run {name}") for name, run in runs.items()}
    names = dict[str, str]()
    for name, recipe in recipes.items():
        same = names.setdefault(to_yaml(recipe), name)
        if same != name:
            raise InputError(f"runs {same} and {name} have the same settings")
    return recipes
