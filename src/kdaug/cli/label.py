"""kdaug label RECIPE --out FOLDER | label verify FOLDER"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdaug.cli.output import print_error, rank
from kdaug.cli.parsing import parse
from kdaug.cli.recipe_arguments import adapt_to_flags, find_recipe, print_help_if_requested, without_method
from kdaug.config import Recipe, check
from kdaug.errors import InputError

HELP = """usage: kdaug label RECIPE --out FOLDER [--k K] [--temperatures T ...] [--epochs FIRST:END] [--cycle N]
                                    [--precision float32] [--section.setting VALUE ...]
       kdaug label verify FOLDER [--views N] [--seed SEED] [--data.root DIR]

Runs the teacher of RECIPE once on every view of its training and stores the top classes, for training without it:
  kdaug label table1-small --data.root data --teacher.source run:runs/teacher --out labels
  kdaug train table1-small --data.root data --teacher.labels labels
The same command again resumes. Under torchrun the processes share the work. Students may have any run.seed, network and
supervision.weight, and the stored k and temperatures; views.seed, the policy and the images must be the same.

kdaug label RECIPE --help lists all settings with the recipe's values."""


@dataclass(frozen=True)
class Labeling:
    """Options of labeling; all other flags are settings of the recipe."""

    out: str
    """Folder to write to."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    k: int | None = None
    """Number of top classes stored per view; None: supervision.k."""
    temperatures: tuple[float, ...] | None = None
    """Temperatures that the labels can be used with, for readings other than renormalized; None: the recipe's."""
    epochs: str | None = None
    """Epochs to label now, such as 0:90 (end excluded); None: all. Others can be added later."""
    cycle: int | None = None
    """Label this many epochs, which then repeat cyclically; None: all epochs."""
    precision: Literal["float16", "float32"] = "float16"
    """Type of the stored log-probabilities; float16 has a relative error of 1/2,000."""


@dataclass(frozen=True)
class Verify:
    """Run the teacher again on some views of a label store and compare."""

    folder: tyro.conf.Positional[str]
    """Folder of the label store."""
    views: int = 1000
    """Number of views to compare."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Directory of the dataset; None: as in the recipe."""
    device: Annotated[str, tyro.conf.arg(name="run.device")] = "auto"
    """auto (a GPU if available), cpu, cuda, ..."""
    seed: int | None = None
    """Seed of the random selection of views; None: a different one each time."""


def run(arguments: list[str]) -> int:
    """Labels or verifies; returns the exit code, 1 if a verified label store is wrong."""
    if print_help_if_requested(arguments, HELP, "kdaug label RECIPE --out FOLDER"):
        return 0
    if arguments[0] == "verify":
        return _verify(parse(Verify, arguments[1:], "kdaug label verify"))
    return _label(arguments[0], arguments[1:])


def _label(name: str, flags: list[str]) -> int:
    args = parse(
        Labeling,
        flags,
        f"kdaug label {name}",
        default=Labeling(out=tyro.MISSING, recipe=adapt_to_flags(find_recipe(name), flags)),
        description="Store a teacher's soft labels for every view of a recipe. Flags change its settings.",
    )
    recipe = check(without_method(args.recipe))

    from rich.console import Console

    from kdaug.training import Interrupted
    from kdaug.training.labeling import LabelRequest, label_views
    from kdaug.training.progress import console_logging

    request = LabelRequest(args.k, args.temperatures, args.precision, _epochs(args), args.cycle)
    try:
        with console_logging(Console(quiet=rank() > 0)):
            label_views(_with_directory(recipe, args.out), Path(args.out), request)
    except (Interrupted, KeyboardInterrupt) as stop:
        reason = stop.reason if isinstance(stop, Interrupted) else "interrupted"
        print_error(f"{reason}; the same command resumes", wait=reason == "interrupted")
        return 130
    if rank() == 0:
        store = shlex.quote(args.out)
        print(f"labels written to {store}:  kdaug train {store}/recipe.yaml --teacher.labels {store} --run.dir NEW")
    return 0


def _with_directory(recipe: Recipe, out: str) -> Recipe:
    """The recipe with a default run.dir next to `out`; a teacher is trained in a folder next to run.dir."""
    if recipe.run.dir is not None:
        return recipe
    return replace(recipe, run=replace(recipe.run, dir=str(Path(out).parent / "run")))


def _epochs(args: Labeling) -> tuple[int, int] | None:
    """First epoch and end; None for all."""
    if args.epochs is None:
        return None
    first, colon, end = args.epochs.partition(":")
    if not (colon and first.isdigit() and end.isdigit()):
        raise InputError(f"--epochs is {args.epochs!r}, but must be like 0:90")
    if args.cycle is not None:
        raise InputError("--epochs and --cycle exclude each other; --cycle 10 labels epochs 0:10")
    return int(first), int(end)


def _verify(args: Verify) -> int:
    from rich.console import Console

    from kdaug.training.label_verification import verify_labels
    from kdaug.training.progress import console_logging

    seed = time.time_ns() if args.seed is None else args.seed
    with console_logging(Console(stderr=True)):
        result = verify_labels(Path(args.folder), args.views, args.root, args.device, seed)
    differences = ", ".join(f"{name} {error:.2g}" for name, error in result.errors.items())
    print(f"compared {result.views:,} views of {result.epochs} epoch(s) of {args.folder}; largest differences:")
    print(differences)
    if result.wrong:
        print_error(f"{args.folder}: {result.wrong:,} of these views differ by more than rounding; label again")
    for line in result.changed:
        print_error(line)
    return 1 if result.changed or result.wrong else 0
