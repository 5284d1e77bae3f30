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
from kdaug.cli.recipe_arguments import find_recipe, print_help_if_asked
from kdaug.config import Recipe, check
from kdaug.errors import InputError

HELP = """usage: kdaug label RECIPE --out FOLDER [--k K] [--temperatures T ...] [--epochs FIRST:END] [--cycle N]
                                    [--precision float32] [--section.setting VALUE ...]
       kdaug label verify FOLDER [--views N] [--seed SEED] [--data.root DIR]

The teacher of RECIPE looks once at every view that students of it will see, and its top classes are stored:
  kdaug label cifar100-table1-small --data.root data --teacher.source run:runs/teacher --out labels
  kdaug train cifar100-table1-small --data.root data --teacher.labels labels
Given the same again it goes on where it was stopped; under torchrun the processes share the work. Any seed, network,
weight, and K and temperature that are stored serve afterwards; views.seed, the policy and the images must be the same.

kdaug label RECIPE --help lists all settings with that recipe's values."""


@dataclass(frozen=True)
class Labelling:
    """What is stored of a teacher's answers, where, and by which recipe."""

    out: str
    """Folder to write to."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    k: int | None = None
    """Classes kept of each view, the most probable ones; None: supervision.k."""
    temperatures: tuple[float, ...] | None = None
    """Temperatures served with readings other than renormalized; None: supervision.temperature."""
    epochs: str | None = None
    """Epochs to write now, as 0:90 (the end not included); None: all. More can be added later."""
    cycle: int | None = None
    """Store so many epochs, to be used in turn."""
    precision: Literal["float16", "float32"] = "float16"
    """Of the stored log-probabilities; float16 keeps each to one part in 2,000."""


@dataclass(frozen=True)
class Verify:
    """Computes a random part of a store's answers again and compares them."""

    folder: tyro.conf.Positional[str]
    """Of the store."""
    views: int = 1000
    """How many views to look at again."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Where the data are now; None: where they were."""
    device: Annotated[str, tyro.conf.arg(name="run.device")] = "auto"
    """auto, cpu, cuda, ..."""
    seed: int | None = None
    """Which part; None: another one every time."""


def run(arguments: list[str]) -> int:
    """Labels or verifies; returns the exit code, 1 if a store does not hold what it says."""
    if print_help_if_asked(arguments, HELP, "kdaug label RECIPE --out FOLDER"):
        return 0
    if arguments[0] == "verify":
        return _verify(parse(Verify, arguments[1:], "kdaug label verify"))
    return _label(arguments[0], arguments[1:])


def _label(name: str, flags: list[str]) -> int:
    given = parse(
        Labelling,
        flags,
        f"kdaug label {name}",
        default=Labelling(out=tyro.MISSING, recipe=find_recipe(name)),
        description="Store a teacher's answers to every view of a recipe; flags change its settings.",
    )
    recipe = check(given.recipe)

    from kdaug.training import Interrupted
    from kdaug.training.labelling import LabelRequest, label_views

    try:
        request = LabelRequest(given.k, given.temperatures, given.precision, _epochs(given), given.cycle)
        label_views(_placed(recipe, given.out), Path(given.out), request)
    except (Interrupted, KeyboardInterrupt) as stop:
        why = stop.why if isinstance(stop, Interrupted) else "interrupted"
        print_error(f"{why}; the same command goes on from what is written")
        return 130
    if rank() == 0:
        store = shlex.quote(given.out)
        print(f"everything is in {store}:  kdaug train {store}/recipe.yaml --teacher.labels {store} --run.dir NEW")
    return 0


def _placed(recipe: Recipe, out: str) -> Recipe:
    """run.dir, where not given: beside the store, which is where a teacher to be trained is put as well."""
    if recipe.run.dir is not None:
        return recipe
    return replace(recipe, run=replace(recipe.run, dir=str(Path(out).parent / "run")))


def _epochs(given: Labelling) -> tuple[int, int] | None:
    """First and end; None for all."""
    if given.epochs is None:
        return None
    first, colon, end = given.epochs.partition(":")
    if not (colon and first.isdigit() and end.isdigit()):
        raise InputError(f"--epochs is {given.epochs!r}, but must be like 0:90")
    if given.cycle is not None:
        raise InputError("--epochs and --cycle exclude each other; --cycle 10 stores epochs 0:10")
    return int(first), int(end)


def _verify(given: Verify) -> int:
    from kdaug.training.labelling import verify_labels

    seed = time.time_ns() if given.seed is None else given.seed
    seen = verify_labels(Path(given.folder), given.views, given.root, given.device, seed)
    differ = ", ".join(f"{name} {error:.2g}" for name, error in seen.errors.items())
    print(f"{seen.views:,} views of {seen.epochs} epoch(s) of {given.folder} looked at again; they differ at most by:")
    print(differ)
    if seen.wrong:
        print_error(
            f"{given.folder}: {seen.wrong:,} of these views have answers that rounding does not explain; label again"
        )
    for line in seen.changed:
        print_error(line)
    return 1 if seen.changed or seen.wrong else 0
