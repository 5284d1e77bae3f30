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
    """The runs below a folder: how far each has come, its best figure, and how it goes on."""

    folder: tyro.conf.Positional[str] = "runs"
    """Folder to look in, with all below it."""
    json: bool = False
    """Print one JSON object per run and line."""


def run(arguments: list[str]) -> int:
    """Lists; returns the exit code."""
    given = parse(Arguments, arguments, "kdaug runs")

    from kdaug.runs.status import find_runs

    runs = list(find_runs(Path(given.folder)))
    if given.json:
        for found in runs:
            print(json.dumps({**asdict(found), "path": str(found.path)}))
    elif runs:
        _print_table(runs)
    else:
        print(f"there are no runs below {given.folder}")
    return 0


def _print_table(runs: list[RunStatus]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "epochs", "error", "lowest", "student", "views"):
        numbers = heading in ("epochs", "error", "lowest")
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    for found in runs:
        cells = (
            str(found.path), found.state, f"{found.epochs_done}/{found.epochs}", percent(found.error),
            percent(found.best), found.student, found.policy,
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))  # Text: nothing in a path is markup
    console = Console(highlight=False)
    console.width = max(console.width, 240)  # a terminal wraps long lines itself; a path cut short is of no use
    console.print(table, soft_wrap=True)
    for found in runs:
        if found.state in ("stopped", "damaged"):
            said = f"to go on: {found.next}" if found.state == "stopped" else f"damaged: {found.next}"
            console.print(Text(said), soft_wrap=True)
