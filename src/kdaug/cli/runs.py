"""kdaug runs [FOLDER]"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from kdaug.cli.output import percent
from kdaug.cli.parsing import parse

if TYPE_CHECKING:
    from kdaug.runs.status import RunStatus


@dataclass(frozen=True)
class Arguments:
    """List the runs below a folder: state, epochs, errors, and the command that resumes a stopped run."""

    folder: tyro.conf.Positional[str] = "runs"
    """Folder to search, with all its sub-folders."""
    json: bool = False
    """Print one JSON object per run and line."""


def run(arguments: list[str]) -> int:
    """Lists the runs; returns the exit code."""
    args = parse(Arguments, arguments, "kdaug runs")

    from kdaug.runs.status import find_runs

    statuses = list(find_runs(Path(args.folder)))
    if args.json:
        for status in statuses:
            fields = {**asdict(status), "path": str(status.path)}
            fields["next"] = fields.pop("hint")
            print(json.dumps(fields))
    elif statuses:
        _print_table(statuses)
    else:
        print(f"no runs below {args.folder}")
    return 0


def _print_table(statuses: list[RunStatus]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "epochs", "error", "lowest", "student", "views"):
        is_number = heading in ("epochs", "error", "lowest")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for status in statuses:
        cells = (
            str(status.path), status.state, f"{status.epochs_done}/{status.epochs}", percent(status.error),
            percent(status.best), status.student, status.policy,
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))  # Text: a path may contain markup
    console = Console(highlight=False)
    console.width = max(console.width, 240)  # the terminal wraps long lines; rich would cut paths short
    console.print(table, soft_wrap=True)
    for status in statuses:
        if status.state in ("stopped", "damaged"):
            label = "resume" if status.state == "stopped" else "damaged"
            console.print(Text(f"{label}: {status.hint}"), soft_wrap=True)
