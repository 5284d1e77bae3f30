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
    """Compare finished runs: settings that differ, mean errors over seeds, gains and curves, as files and a page."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run directories, or folders with runs below them, such as that of a sweep."""
    out: str = "report"
    """Directory to write to: report.md, report.json, runs.csv, figures/, index.html."""
    against: tuple[str, ...] = ()
    """Settings of the baseline of the gains, such as teacher.source=none; default: no teacher, or weight 0 for it."""


def run(arguments: list[str]) -> int:
    """Writes the report; returns the exit code."""
    args = parse(Arguments, arguments, "kdaug report")
    if not args.runs:
        raise InputError("no runs to report on", "give run directories, or a folder with runs below it")

    from kdaug.study.report import write_report
    from kdaug.study.sweep import expand_grid

    baseline = None
    if args.against:
        combinations = expand_grid(args.against)
        if len(combinations) > 1:
            raise InputError("--against has several values of a setting, but must have one value of each")
        baseline = combinations[0]
    out = Path(args.out)
    table, left_out = write_report([Path(folder) for folder in args.runs], baseline, out)
    print_report(table, left_out, out)
    return 0
