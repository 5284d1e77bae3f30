"""Markdown of the parts that all reports share."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import ContenderRecord, Report, Target
from harness.rounds import Spread


def format_machine(report: Report, device: str = "cpu") -> str:
    """Two sentences: date, commit and machine; then versions."""
    machine = report.machine
    accelerator = "" if device == "cpu" else f", {device}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    load = " and ".join(f"{value:.2f}" for value in report.load)
    return (
        f"Measured on {machine.date} at commit {machine.commit}: {machine.processor}, {machine.cores} cores"
        f"{accelerator}, {machine.system}, load average {load} at start and end. Python {machine.python}, {versions}."
    )


def format_targets(targets: Sequence[Target]) -> str:
    """A table of the targets."""
    met = {True: "yes", False: "no", None: ""}
    rows = [
        [one.what, one.wanted, "not measured" if one.measured is None else f"{one.measured:g}", met[one.met]]
        for one in targets
    ]
    return format_table(["", "target", "measured", "met"], rows)


def format_contenders(contenders: Sequence[ContenderRecord]) -> str:
    """A list of what each contender does, and of those that are missing."""
    lines = []
    for contender in contenders:
        missing = f" **Missing: {contender.missing}.**" if contender.missing else ""
        lines.append(f"- {contender.label}: {contender.differs}{missing}")
    return "\n".join(lines)


def format_spread(spread: Spread) -> str:
    """The median, with minimum and maximum in parentheses."""
    return add_range(format_number(spread.median), spread.lowest, spread.highest)


def add_range(text: str, lowest: float, highest: float) -> str:
    """`text` with the range in parentheses; `text` alone if all values are equal."""
    return text if lowest == highest else f"{text} ({format_number(lowest)}–{format_number(highest)})"


def format_number(value: float) -> str:
    """Three significant digits, never in the form 1.23e+03."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
