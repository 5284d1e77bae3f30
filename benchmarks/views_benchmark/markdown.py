"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from views_benchmark.report import Report, Start, total
from views_benchmark.rounds import Spread

_FILTERS = ("nearest", "bilinear")


def as_markdown(report: Report) -> str:
    """Everything that was measured, in tables."""
    parts = [_machine(report)]
    if report.targets:
        parts += ["### Targets", _targets(report)]
    sizes = [batch.size for batch in report.batches]
    if report.timings:
        for batch in report.batches:
            parts += [
                f"### {batch.size} pixels",
                f"{batch.images} images: {batch.source}.",
                _timings(report, batch.size),
            ]
        parts += ["### What differs", _differences(report)]
    if report.ops:
        parts += ["### Op by op", _copying(report), _ops(report, sizes)]
    if report.starts:
        parts += ["### Start", _starts(report.starts)]
    return "\n\n".join(parts) + "\n"


def _machine(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gain = ""
    if report.two_threads:
        gain = f", two threads at work that shares nothing {figure(report.two_threads)} times as fast as one"
    load = " and ".join(f"{value:.2f}" for value in report.load)
    return (
        f"Measured on {machine.date} at commit {machine.commit}: {machine.processor}, {machine.cores} cores, "
        f"{machine.system}, load {load} at start and end{gain}; Python {machine.python}, {versions}.\n"
        f"Policy: `{report.policy}`. Medians of rounds in which all took turns; in brackets the lowest and the highest."
    )


def _targets(report: Report) -> str:
    met = {True: "yes", False: "no", None: ""}
    rows = [
        [
            target.what,
            target.wanted,
            "not measured" if target.measured is None else f"{target.measured:g}",
            met[target.met],
        ]
        for target in report.targets
    ]
    return table(["", "wanted", "measured", "met"], rows)


def _timings(report: Report, size: int) -> str:
    header = [""]
    for filter in _FILTERS:
        header += [f"{filter}, µs per image", "against torchvision"]
    rows = []
    for entrant in report.entrants:
        row = [entrant.label]
        for filter in _FILTERS:
            taken, ratio = (
                report.timing(entrant.name, size, filter),
                report.ratio("torchvision", entrant.name, size, filter),
            )
            row += [figure(taken) if taken else "missing", f"{ratio.median:.3g}×" if ratio else ""]
        rows.append(row)
    return table(header, rows)


def _differences(report: Report) -> str:
    lines = []
    for entrant in report.entrants:
        missing = f" **Missing: {entrant.missing}.**" if entrant.missing else ""
        lines.append(f"- {entrant.label}: {entrant.differs}{missing}")
    return "\n".join(lines)


def _copying(report: Report) -> str:
    speeds = ", ".join(
        f"{figure(one.gigabytes_per_second)} GB/s at {one.size} px ({one.bytes_per_image:,} bytes per image)"
        for one in report.copying
    )
    return (
        "µs per image, nearest, one thread. The floor is what it takes to read the batch once and write it once: "
        f"a plain copy, {speeds}, read and written."
    )


def _ops(report: Report, sizes: Sequence[int]) -> str:
    header = ["op"]
    for size in sizes:
        header += [f"{size} px: kdaug", "Pillow", "faster", "kdaug / floor"]
    rows = []
    for op in dict.fromkeys(one.op for one in report.ops):
        row = [f"`{op}`"]
        for one in (one for one in report.ops if one.op == op):
            faster = f"{one.pillow.median / one.ours.median:.3g}×"
            row += [figure(one.ours), number(one.pillow.median), faster, f"{one.times_floor:g}"]
        rows.append(row)
    return table(header, rows)


def _starts(starts: Sequence[Start]) -> str:
    rows = [
        [
            start.cache,
            figure(start.importing),
            figure(start.first_nearest),
            f"{total(start.importing, start.first_nearest):.3g}",
            figure(start.first_bilinear),
        ]
        for start in starts
    ]
    return table(
        ["numba's cache", "import kdaug, s", "first views (nearest), s", "both, s", "then first bilinear views, s"],
        rows,
    )


def figure(spread: Spread) -> str:
    if len(spread.rounds) == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.lowest)}–{number(spread.highest)})"


def number(value: float) -> str:
    """Three digits, but never in the form 1.23e+03."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
