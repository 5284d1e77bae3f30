"""Flags and main function of the benchmark scripts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.contenders import Contender, update_text
from harness.report import Report, Target
from kdaug.errors import InputError

R = TypeVar("R", bound=Report)


@dataclass(frozen=True)
class Benchmark(Generic[R]):
    """A benchmark that writes a Report. `targets` computes the targets from what was measured."""

    report_type: type[R]
    contenders: Sequence[Contender[Any, Any]]
    measure: Callable[[argparse.Namespace], R]
    targets: Callable[[R], list[Target]]
    to_markdown: Callable[[R], str]


def script_parser(description: str) -> argparse.ArgumentParser:
    """The flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    return parser


def report_parser(description: str, data: str) -> argparse.ArgumentParser:
    """The flags of a benchmark with a Report. `data`: the help of --data."""
    folder = os.environ.get("KDAUG_DATA")
    parser = script_parser(description)
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the Markdown of FILE (written by --json) without measuring"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", default=Path(folder) if folder else None, help=data)
    return parser


def run_benchmark(benchmark: Benchmark[R], parser: argparse.ArgumentParser) -> None:
    """Measures, or reads the file of --table, and prints the Markdown. Exits with 2 after an InputError."""
    args = parser.parse_args()
    if args.table:
        report = benchmark.report_type.read(args.table)
        report.entrants = update_text(report.entrants, benchmark.contenders)
    else:
        try:
            report = benchmark.measure(args)
        except InputError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            sys.exit(2)
    report.targets = benchmark.targets(report)
    if args.json and not args.table:
        report.write(args.json)
    print(benchmark.to_markdown(report), end="")


def positive_int(text: str) -> int:
    """For argparse: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)
