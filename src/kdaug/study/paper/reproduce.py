"""The report of a study: our results next to the paper's, cell by cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kdaug.recipes.scales import Scale
from kdaug.study.paper.results import CellResult, cell_results
from kdaug.study.paper.studies import PaperStudy, paper_differences
from kdaug.study.paper.verdicts import Verdict, judge_statements, verdict_table
from kdaug.study.report.compare import Group, group_runs
from kdaug.study.report.figures import comparison_figures
from kdaug.study.report.notes import report_notes
from kdaug.study.report.page import Report
from kdaug.study.report.plotting import CaptionedFigure, style_axes
from kdaug.study.report.tables import (
    Table,
    comparison_table,
    detail_tables,
    format_error,
    format_gain,
    format_value,
    report_json,
)
from kdaug.study.report.write import save_report


def write_reproduction(study: PaperStudy, folder: Path, out: Path) -> tuple[str, list[str]]:
    """Writes a report on the runs of `study` in `folder` to the folder `out`.

    Returns two tables in Markdown, our results next to the paper's and a verdict on each of its statements, and for
    each run that is missing or left out the reason. Raises InputError if no run is finished.
    """
    results, left_out = cell_results(study, folder)
    groups = group_runs(run for result in results if result.group is not None for run in result.group.runs)
    figures = list(comparison_figures(groups))
    if any(result.gain is not None for result in results):
        figures.insert(0, CaptionedFigure("gains", "Gains", _GAINS, gains_figure(results)))
    verdicts = judge_statements(study.statements, {result.cell.name: result.group for result in results})
    report = Report(
        title=f"{study.title} ({study.scale} scale)",
        groups=groups,
        results=[paper_table(results), verdict_table(verdicts)],
        notes=[*scale_notes(study), *report_notes(groups, left_out)],
        figures=figures,
        details=[comparison_table(groups, {}), *detail_tables(groups)],
        json=_reproduction_json(study, results, groups, verdicts),
    )
    return save_report(report, out), left_out


_GAINS = "Points by which the error is lower than the baseline's. Bars: 95 % confidence intervals."


def paper_table(results: Sequence[CellResult]) -> Table:
    """A row per cell: our error and gain next to the paper's."""
    cells = {result.cell.name: result.cell for result in results}
    rows = []
    for result in results:
        cell, group = result.cell, result.group
        baseline = None if cell.baseline is None else cells[cell.baseline]
        rows.append(
            (
                cell.row,
                cell.column,
                "" if group is None else format_error(group),
                "0" if group is None else str(len(group.runs)),
                "" if cell.published is None else f"{cell.published:.1f}",
                format_gain(result.gain),
                "" if result.published_gain is None else f"{result.published_gain:+.1f}",
                "" if baseline is None else baseline.row if baseline.column == cell.column else baseline.column,
            )
        )
    header = (
        "", "", "our error, %", "runs", "paper's error, %", "our gain, points", "paper's gain, points", "gain over",
    )  # fmt: skip
    return Table("Comparison with the paper", header, 2, tuple(rows))


_SMALLER = "Our runs are at a smaller scale and are not expected to reach the paper's errors."
_EFFECTS = f"{_SMALLER} They show which methods gain and in what order, as far as the seeds agree."
_SCALE_NOTES: dict[Scale, str] = {
    "smoke": f"{_SMALLER} They show that everything runs. They are too short to show the direction of an effect.",
    "bundled": _EFFECTS,
    "cpu": _EFFECTS,
    "gpu": _EFFECTS,
    "paper": "Some settings differ from the published ones.",
}


def scale_notes(study: PaperStudy) -> list[str]:
    """How our settings differ from the paper's."""
    differences = [
        f"{name} {', '.join(f'{_format(ours)} (the paper: {_format(paper)})' for paper, ours in pairs)}"
        for name, pairs in paper_differences(study.cells).items()
    ]
    return [f"{_SCALE_NOTES[study.scale]} Settings that differ: {'; '.join(differences)}."] if differences else []


def _format(value: Any) -> str:
    return "not set" if value is None else format_value(value)


def gains_figure(results: Sequence[CellResult]) -> Figure:
    """The gain of each cell that has one, with its 95 % interval, and the published gain."""
    rows = [result.cell.row for result in results if result.gain is not None]
    gains = [result.gain for result in results if result.gain is not None]
    published = [result.published_gain for result in results if result.gain is not None]
    figure = Figure(figsize=(max(5.0, 1.1 * len(gains) + 2), 4), layout="constrained")
    axes = figure.subplots()
    positions = range(len(gains))
    half_widths = [math.nan if gain.half_width is None else gain.half_width for gain in gains]
    axes.errorbar(positions, [gain.mean for gain in gains], half_widths, fmt="o", capsize=3, label="ours")
    points = [(x, gain) for x, gain in zip(positions, published, strict=True) if gain is not None]
    if points:
        axes.plot(*zip(*points, strict=True), "x", color="gray", label="the paper's")
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(positions, [textwrap.fill(row, 14) for row in rows])
    axes.set_ylabel("points gained")
    style_axes(axes)
    axes.legend(frameon=False)
    return figure


def _reproduction_json(
    study: PaperStudy, results: Sequence[CellResult], groups: Sequence[Group], verdicts: Sequence[Verdict]
) -> Mapping[str, Any]:
    return {
        "scale": study.scale,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "cells": [
            {
                "name": result.cell.name,
                "row": result.cell.row,
                "column": result.cell.column,
                "error": None if result.group is None else result.group.mean,
                "deviation": None if result.group is None else result.group.deviation,
                "runs": 0 if result.group is None else len(result.group.runs),
                "published": result.cell.published,
                "over": result.cell.baseline,
                "gain": None if result.gain is None else asdict(result.gain),
                "published_gain": result.published_gain,
            }
            for result in results
        ],
        "differences": {
            name: [{"paper": paper, "ours": ours} for paper, ours in pairs]
            for name, pairs in paper_differences(study.cells).items()
        },
        **report_json(groups, {}),
    }
