"""kdaug inspect RECIPE --out DIR | inspect show DIR KEY"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from kdaug.cli.output import check_output_file, print_error
from kdaug.cli.parsing import parse
from kdaug.cli.recipe_arguments import adapt_to_flags, find_recipe, print_help_if_requested, without_method
from kdaug.config import Recipe, check
from kdaug.errors import InputError

HELP = """usage: kdaug inspect RECIPE --teacher.source SOURCE --out DIR [--images N] [--views-per-image N]
                                            [--magnitudes M ...] [--section.setting VALUE ...]
       kdaug inspect show DIR KEY [--out view.png]

Shows what the augmentation of RECIPE does to the predictions of a teacher, before anything else is trained. Writes
DIR/index.html (curves, classes, outliers, likely label errors, contact sheet) and DIR/views.csv (a row per view):
  kdaug inspect cifar100-table1 --data.root data --teacher.source run:runs/teacher --out runs/inspection
  kdaug inspect photos --data.root my-photos --teacher.source train --out runs/inspection
  kdaug inspect photos --data.root my-photos --folds 5 --out runs/inspection
  kdaug inspect show runs/inspection image=3,epoch=0,magnitude=5

show makes one view again from its key in views.csv. kdaug inspect RECIPE --help lists all settings."""


@dataclass(frozen=True)
class Inspecting:
    """Options of an inspection; all other flags are settings of the recipe."""

    out: str
    """Folder to write to."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    images: int = 2_000
    """Number of training images, balanced over the classes; all if there are fewer."""
    views_per_image: int | None = None
    """Views of each image under the recipe's own policy; None: 4, or fewer if the recipe has fewer epochs."""
    folds: int | None = None
    """Cross-fitting: train this many teachers, each without one part of the images, and take predictions from the one
    that was not trained on it. Short for --teacher.source train --teacher.folds FOLDS."""
    magnitudes: tuple[float, ...] | None = None
    """Magnitudes of the policy and levels of single ops; None: seven, from 0 to 0.9 of the full level."""


@dataclass(frozen=True)
class Show:
    """Make a view again from its key: write it as a PNG file and print its ops."""

    folder: tyro.conf.Positional[str]
    """Folder of the inspection."""
    key: tyro.conf.Positional[str]
    """Key of the view, from views.csv."""
    out: str = "view.png"
    """PNG file to write."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Directory of the dataset; None: as in the inspection."""


def run(arguments: list[str]) -> int:
    """Inspects a recipe, or shows a view; returns the exit code."""
    if print_help_if_requested(arguments, HELP, "kdaug inspect RECIPE --teacher.source SOURCE --out DIR"):
        return 0
    if arguments[0] == "show":
        return _show(parse(Show, arguments[1:], "kdaug inspect show"))
    return _inspect(arguments[0], arguments[1:])


def _inspect(name: str, flags: list[str]) -> int:
    args = parse(
        Inspecting,
        flags,
        f"kdaug inspect {name}",
        default=Inspecting(out=tyro.MISSING, recipe=adapt_to_flags(find_recipe(name), flags)),
        description="Show what augmentation does to a teacher's predictions. Flags change the recipe's settings.",
    )
    recipe, out = check(_with_folds(without_method(args.recipe), args.folds)), Path(args.out)

    from rich.console import Console

    from kdaug.inspection import InspectionRequest, inspect_recipe
    from kdaug.training import Interrupted

    request = InspectionRequest(args.images, args.views_per_image, args.magnitudes)
    try:
        inspection = inspect_recipe(recipe, request, out, Console())
    except Interrupted as stop:
        print_error(f"{stop.reason}; the same command resumes the teacher's training")
        return 130
    print(f"{len(inspection.table):,} views written to {out / 'views.csv'}; open {out / 'index.html'}")
    return 0


def _with_folds(recipe: Recipe, folds: int | None) -> Recipe:
    if folds is None:
        return recipe
    if recipe.teacher.source not in ("none", "train") or recipe.teacher.folds not in (None, folds):
        raise InputError(
            f"--folds {folds} is short for --teacher.source train --teacher.folds {folds}, but teacher.source is "
            f"{recipe.teacher.source} and teacher.folds {recipe.teacher.folds}",
            "add --teacher.source train, or leave out --folds",
        )
    return replace(recipe, teacher=replace(recipe.teacher, source="train", folds=folds))


def _show(args: Show) -> int:
    if not args.out.endswith(".png"):
        raise InputError(f"--out is {args.out}, but must end in .png")
    check_output_file("--out", Path(args.out))

    from kdaug.inspection.show import show_view

    text = show_view(Path(args.folder), args.key, Path(args.out), args.root)
    print(f"{text}\nwritten to {args.out}")
    return 0
