"""kdaug sweep RECIPE SETTING=VALUES ... [--section.setting VALUE ...]"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kdaug.cli.parsing import parse
from kdaug.cli.recipe_arguments import find_recipe, print_help_if_asked, recipe_stem
from kdaug.cli.workers import WorkerOptions, create_workers, with_job_threads
from kdaug.config import Recipe, to_yaml, with_settings
from kdaug.errors import InputError

HELP = """usage: kdaug sweep RECIPE SETTING=VALUES ... [--dir FOLDER] [--jobs N] [--on ray] [--retry]
                   [--section.setting VALUE ...]

One run for every combination, each in a directory of its own below FOLDER (default: runs/RECIPE-sweep):
  kdaug sweep cifar100-table1-small views.magnitude=0,1,2 teacher.source=none,train run.seed=0..2 --data.root data
  kdaug sweep photos supervision.weight=0.5,1,2 supervision.k=3,5,10 --data.root my-photos
  kdaug sweep demo --list runs.txt          a line for each run, as: views.magnitude=5 run.seed=1
A teacher that several runs want is trained once, and where several see the same views it looks once. The same command
again skips what is finished and goes on with what was stopped; given twice, on machines that share the folder too, both
share the work. What failed is tried again with --retry.

kdaug sweep RECIPE --help lists all settings with that recipe's values."""


@dataclass(frozen=True)
class Arguments:
    """What to do, and how; all else is of the recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    where: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    dir: str
    """Folder for all runs."""
    list: str | None = None
    """File with a run a line, in place of a grid."""
    retry: bool = False
    """Try again what failed in an earlier call."""
    labels: bool = True
    """Store what a teacher says of views that several runs see, instead of asking it in each of them."""


def run(arguments: list[str]) -> int:
    """Trains; returns the exit code, 1 if a run failed."""
    if print_help_if_asked(arguments, HELP, "kdaug sweep RECIPE SETTING=VALUES ..."):
        return 0
    name, axes, flags = arguments[0], *_split(arguments[1:])
    base = Arguments(find_recipe(name), WorkerOptions(), f"runs/{recipe_stem(name)}-sweep")
    program = f"kdaug sweep {name}"
    given = parse(
        Arguments, flags, program, default=base, description="Train a recipe with other values of some settings.",
    )  # fmt: skip
    if given.recipe.run.dir != base.recipe.run.dir:
        raise InputError("the runs of a sweep get directories of their own; give the folder of all with --dir")
    recipes = _recipes(with_job_threads(given.recipe, given.where), axes, given.list)

    from kdaug.cli.job_table import run_jobs_with_table
    from kdaug.study.sweep import plan_jobs

    folder, workers = Path(given.dir), create_workers(given.where, small=False)
    return run_jobs_with_table(plan_jobs(recipes, folder, given.labels), folder, workers, given.retry)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The axes, which come first, and the flags after them."""
    first = next((place for place, given in enumerate(arguments) if given.startswith("-")), len(arguments))
    late = next((given for given in arguments[first:] if re.match(r"[\w-]+\.[\w-]+=", given)), None)
    if late is not None:
        raise InputError(f"settings with their values come before all flags; {late} comes after {arguments[first]}")
    return arguments[:first], arguments[first:]


def _recipes(base: Recipe, axes: list[str], file: str | None) -> dict[str, Recipe]:
    """The recipe of every run, by its name."""
    from kdaug.study.sweep.grid import grid, read_run_list, run_names

    if axes and file is not None:
        raise InputError("give a grid or a --list, not both")
    if not axes and file is None:
        raise InputError("what is to vary? give settings with their values, as views.magnitude=0,1,2, or a --list")
    runs = read_run_list(Path(file)) if file is not None else grid(axes)
    own = next((name for run in runs for name in run if name in ("run.dir", "run.resume")), None)
    if own is not None:
        raise InputError(
            f"{own} is not to vary: the sweep gives each run a directory, and goes on with what was stopped"
        )
    recipes = {name: with_settings(base, run, f"run {name}") for name, run in zip(run_names(runs), runs, strict=True)}
    names = dict[str, str]()
    for name, recipe in recipes.items():
        same = names.setdefault(to_yaml(recipe), name)
        if same != name:
            raise InputError(f"runs {same} and {name} are the same; give each once")
    return recipes
