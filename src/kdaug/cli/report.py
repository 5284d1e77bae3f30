"""kdaug report RUNS ..."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from kdaug.cli.output import print_report
from kdaug.cli.parsing import parse
from kdaug.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Finished runs side by side: what varies, mean errors over seeds, gains and curves, as files and a page."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run directories, or folders with runs below them, as a sweep's."""
    out: str = "report"
    """Folder to write to: report.md, report.json, runs.csv, figures/, index.html."""
    against: tuple[str, ...] = ()
    """Settings that gains are over, as teacher.source=none; if none are given: no teacher, or no weight for it."""


def run(arguments: list[str]) -> int:
    """Reports; returns the exit code."""
    given = parse(Arguments, arguments, "kdaug report")
    if not given.runs:
        raise InputError("on which runs? give their directories, or a folder with runs below it")

    from kdaug.study.report import write_report
    from kdaug.study.sweep import grid

    against = None
    if given.against:
        found = grid(given.against)
        if len(found) > 1:
            raise InputError("--against takes one value of each setting")
        against = found[0]
    out = Path(given.out)
    table, left_out = write_report([Path(folder) for folder in given.runs], against, out)
    print_report(table, left_out, out)
    return 0
