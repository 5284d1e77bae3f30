"""kdaug demo [--out DIR]"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from kdaug.cli.output import check_output_folder, print_error
from kdaug.cli.parsing import parse

SETTING_FLAGS = {"run.dir": "--out", "run.seed": "--seed"}
"""Settings whose flag has another name in this command, for error messages."""


@dataclass(frozen=True)
class Arguments:
    """Train a network plain, with strong augmentation, and with a teacher in addition, on bundled images (minutes on
    2 cores), and write an HTML page."""

    out: str = "runs/demo"
    """Directory for the runs and the page; runs that are finished there are not repeated."""
    seed: int = 0
    """Seed of initial weights, views and order of the images."""


def run(arguments: list[str]) -> int:
    """Runs the demonstration; returns the exit code."""
    args = parse(Arguments, arguments, "kdaug demo")
    check_output_folder("--out", args.out)

    from rich.console import Console

    from kdaug.config import check
    from kdaug.demo import run_demo
    from kdaug.recipes import named_recipe
    from kdaug.training import Interrupted

    recipe = named_recipe("demo")
    recipe = check(replace(recipe, run=replace(recipe.run, seed=args.seed)))
    try:
        result = run_demo(recipe, Path(args.out), Console())
    except (Interrupted, KeyboardInterrupt):
        seed = f" --seed {args.seed}" if args.seed else ""
        print_error(f"interrupted; continue with: kdaug demo --out {shlex.quote(args.out)}{seed}")
        return 130
    print(f"open {result.page} for curves, views and the teacher's predictions")
    print("on your own photos: kdaug train photos --data.root FOLDER-WITH-ONE-SUBFOLDER-PER-CLASS")
    return 0
