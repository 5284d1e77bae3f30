"""The views report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from harness.markdown import (
    format_contenders,
    format_machine,
    format_number,
    format_spread,
    format_table,
    format_targets,
)
from views_benchmark.contenders import CONTENDERS
from views_benchmark.report import Start, ViewsReport, median_sum

_FILTERS = ("nearest", "bilinear")


def views_markdown(report: ViewsReport) -> str:
    """All measurements in tables."""
    parts = [_conditions(report)]
    if report.targets:
        parts += ["### Targets", format_targets(report.targets)]
    if report.timings:
        for batch in report.batches:
            images = f"{batch.images} images: {batch.source}."
            parts += [f"### {batch.size} pixels", images, _timings(report, batch.size)]
        parts += ["### How the contenders differ", format_contenders(report.entrants)]
        absent = _not_measured(report)
        parts += [f"Not part of this run: {absent}."] if absent else []
    if report.ops:
        parts += ["### Single ops", _copying(report), _ops(report)]
    if report.starts:
        parts += ["### Start-up time", _starts(report.starts)]
    return "\n\n".join(parts) + "\n"


def _conditions(report: ViewsReport) -> str:
    gain = ""
    if report.two_threads:
        gain = f" Two threads on independent work were {format_spread(report.two_threads)} times as fast as one."
    return (
        f"{format_machine(report)}{gain}\n"
        f"Policy: `{report.policy}`. Values are medians over rounds, with minimum and maximum in parentheses; every "
        f"round measures all contenders."
    )


def _timings(report: ViewsReport, size: int) -> str:
    header = [""]
    for filter in _FILTERS:
        header += [f"{filter}, µs per image", "speed over torchvision"]
    rows = []
    for contender in report.entrants:
        row = [contender.label]
        for filter in _FILTERS:
            timing = report.timing(contender.name, size, filter)
            ratio = report.ratio("torchvision", contender.name, size, filter)
            row += [format_spread(timing) if timing else "missing", f"{ratio.median:.3g}×" if ratio else ""]
        rows.append(row)
    return format_table(header, rows)


def _not_measured(report: ViewsReport) -> str:
    """The contenders that were added after the run, or that --only left out."""
    names = {one.name for one in report.entrants}
    return "; ".join(one.label for one in CONTENDERS if one.name not in names)


def _copying(report: ViewsReport) -> str:
    speeds = ", ".join(
        f"{format_spread(one.gigabytes_per_second)} GB/s at {one.size} px ({one.bytes_per_image:,} bytes per image)"
        for one in report.copying
    )
    return (
        "µs per image, nearest, one thread. No op can be faster than a plain copy of the batch. The copy reaches "
        f"{speeds}, bytes read and written together."
    )


def _ops(report: ViewsReport) -> str:
    header = ["op"]
    for batch in report.batches:
        header += [f"{batch.size} px: kdaug", "Pillow", "speed over Pillow", "time / copy time"]
    rows = []
    for op in dict.fromkeys(one.op for one in report.ops):
        row = [f"`{op}`"]
        for one in (one for one in report.ops if one.op == op):
            speed = f"{one.pillow.median / one.ours.median:.3g}×"
            row += [format_spread(one.ours), format_number(one.pillow.median), speed, f"{one.times_floor:g}"]
        rows.append(row)
    return format_table(header, rows)


def _starts(starts: Sequence[Start]) -> str:
    rows = [
        [
            start.cache,
            format_spread(start.importing),
            format_spread(start.first_nearest),
            f"{median_sum(start.importing, start.first_nearest):.3g}",
            format_spread(start.first_bilinear),
        ]
        for start in starts
    ]
    header = ["numba cache", "import kdaug, s", "first nearest views, s", "sum, s", "then first bilinear views, s"]
    return format_table(header, rows)
