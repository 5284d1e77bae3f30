"""Writes reports on finished runs: Markdown, JSON, CSV, figures and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdaug.storage import atomic_write
from kdaug.study.report.compare import check_baseline, default_baseline, group_runs
from kdaug.study.report.figures import comparison_figures
from kdaug.study.report.finished import find_finished_runs
from kdaug.study.report.notes import report_notes
from kdaug.study.report.page import Report, report_page
from kdaug.study.report.plotting import save_pdf, to_svg
from kdaug.study.report.tables import Table, comparison_table, detail_tables, report_json, runs_as_csv


def write_report(folders: Sequence[Path], against: Mapping[str, Any] | None, out: Path) -> tuple[str, list[str]]:
    """Writes a report on the finished runs below `folders` to the folder `out`.

    against: settings of the baseline that gains are relative to. None: no teacher, or supervision.weight 0, if that
    varies. Returns the main table in Markdown, and for each run that was left out the reason. Raises InputError if
    there is no finished run or no such baseline.
    """
    runs, left_out = find_finished_runs(folders)
    groups = group_runs(runs)
    if against is None:
        against = default_baseline(groups)
    check_baseline(against, groups)
    report = Report(
        title=f"{len(groups)} recipe{'s' if len(groups) > 1 else ''} compared",
        groups=groups,
        results=[comparison_table(groups, against)],
        notes=report_notes(groups, left_out),
        figures=list(comparison_figures(groups)),
        details=detail_tables(groups),
        json=report_json(groups, against),
    )
    return save_report(report, out), left_out


def save_report(report: Report, out: Path) -> str:
    """Writes report.md, report.json, runs.csv, index.html and figures/ to `out`. Returns the results in Markdown."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    svgs = {each.name: to_svg(each.figure) for each in report.figures}
    for each in report.figures:
        atomic_write(out / "figures" / f"{each.name}.svg", svgs[each.name])
        save_pdf(each.figure, out / "figures" / f"{each.name}.pdf")
    main_table, *other_results = report.results
    results = "\n".join([main_table.markdown(), *map(_section, other_results)])
    parts = [
        f"# {report.title}\n",
        results,
        "".join(f"- {note}\n" for note in report.notes),
        *(f"## {x.title}\n\n{x.caption}\n\n![{x.title}](figures/{x.name}.svg)\n" for x in report.figures),
        *map(_section, report.details),
    ]
    content = {"title": report.title, "notes": report.notes, **report.json}
    atomic_write(out / "report.md", "\n".join(parts))
    atomic_write(out / "report.json", json.dumps(content, indent=1) + "\n")
    atomic_write(out / "runs.csv", runs_as_csv(report.groups))
    atomic_write(out / "index.html", report_page(report, svgs))
    return results


def _section(table: Table) -> str:
    return f"## {table.title}\n\n{table.markdown()}"
