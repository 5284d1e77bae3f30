"""kdaug data ROOT"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdaug.cli.output import check_output_file
from kdaug.cli.parsing import parse
from kdaug.errors import printable


@dataclass(frozen=True)
class Arguments:
    """Check the images of a dataset before training: images per class, copies, unreadable files.

    kdaug data my-photos
    kdaug data my-photos --csv findings.csv
    """

    root: tyro.conf.Positional[str]
    """Directory of the dataset, as data.root of a recipe."""
    name: Annotated[Literal["folder", "shards", "hub"], tyro.conf.arg(name="data.name")] = "folder"
    """The kind of dataset."""
    val_fraction: Annotated[float, tyro.conf.arg(name="data.val-fraction")] = 0.1
    """Fraction of each class used for validation if there are no validation images."""
    csv: str | None = None
    """File to write all findings to as CSV: path, problem, other, detail."""
    json: bool = False
    """Print the report with all findings as one JSON object."""


def run(arguments: list[str]) -> int:
    """Reads all images and prints what was found; returns the exit code, which does not depend on the findings."""
    args = parse(Arguments, arguments, "kdaug data")
    if args.csv is not None:
        check_output_file("--csv", Path(args.csv))

    from rich.console import Console

    from kdaug.config import Data, Recipe, check
    from kdaug.data.datasets import read_dataset
    from kdaug.data.images import log_dataset
    from kdaug.data.report import make_report, write_table
    from kdaug.training.progress import console_logging, progress_bar

    data = check(Recipe(data=Data(name=args.name, root=args.root, val_fraction=args.val_fraction))).data
    console = Console(stderr=True)
    with console_logging(console):
        dataset = read_dataset(data, data.val_fraction)
        log_dataset(dataset)
        with progress_bar(console) as bar:
            total = len(dataset.train) + len(dataset.val)
            task = bar.add_task("checking images", total=total, speed="", metrics="")
            report = make_report(dataset, lambda done: bar.update(task, completed=done))
    if args.csv is not None:
        write_table(report, Path(args.csv))
    if args.json:
        print(json.dumps(report.as_dict()))
        return 0
    print("\n".join(report.summary()))
    if args.csv is not None:
        print(f"{report.findings:,} finding(s) written to {printable(args.csv)}")
    return 0
