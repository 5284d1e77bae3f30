"""The comparison of runs as tables for people, and as CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdaug.study.report.compare import Gain, Group, common_settings, find_gain
from kdaug.study.report.finished import SEEDS, VIEW_MEASURES, FinishedRun


@dataclass(frozen=True)
class Table:
    """A table of text. The first `text_columns` columns are left-aligned; the others hold numbers, right-aligned."""

    title: str
    header: tuple[str, ...]
    text_columns: int
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown, without the title."""
        rule = tuple("---" if column < self.text_columns else "--:" for column in range(len(self.header)))
        escaped = ((cell.replace("|", "\\|") for cell in row) for row in (self.header, rule, *self.rows))
        return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def comparison_table(groups: Sequence[Group], against: Mapping[str, Any]) -> Table:
    """A row per group: the settings that vary, mean errors, time, and the gain over the baseline `against`.

    The error on the training images is a column if a run measured it (run.evaluate_train).
    """
    header, rows = [*groups[0].varied, "error, %", "runs", "minutes per run"], []
    has_train_errors = any(group.train_error is not None for group in groups)
    if has_train_errors:
        header.append("error on training images, %")
    for group in groups:
        minutes = sum(run.seconds for run in group.runs) / len(group.runs) / 60
        row = [*map(format_value, group.varied.values()), format_error(group), str(len(group.runs)), f"{minutes:.1f}"]
        if has_train_errors:
            row.append("" if group.train_error is None else f"{group.train_error:.2f}")
        if against:
            row.append(format_gain(find_gain(group, groups, against)))
        rows.append(tuple(row))
    if against:
        header.append(f"gain over {format_settings(against)}, points")
    return Table("Comparison", tuple(header), len(groups[0].varied), tuple(rows))


def detail_tables(groups: Sequence[Group]) -> list[Table]:
    """The tables after the figures: the measures on fixed views, if there are any, and all runs."""
    views = views_table(groups)
    return [*([] if views is None else [views]), runs_table(groups)]


def runs_table(groups: Sequence[Group]) -> Table:
    """A row per run. The header warns that the lowest error is selected on the images that it is measured on."""
    header = (*groups[0].varied, "seed", "error, %", "top-5, %", "lowest, % (selected on these images)", "minutes")
    rows = tuple(
        (
            *map(format_value, group.varied.values()), _format_seeds(run), f"{run.top1_error:.2f}",
            f"{run.top5_error:.2f}", f"{run.best_top1_error:.2f}", f"{run.seconds / 60:.1f}",
        )
        for group in groups
        for run in group.runs
    )  # fmt: skip
    return Table("All runs", header, len(groups[0].varied), rows)


def views_table(groups: Sequence[Group]) -> Table | None:
    """A row per group: means over its runs of the final weights' measures on the fixed views; None if there are none.

    A cell is empty if a run of the group has no such measure, such as those that need a teacher.
    """
    names = [name for name in VIEW_MEASURES if any(name in run.views for group in groups for run in group.runs)]
    if not names:
        return None
    header = (*groups[0].varied, *(VIEW_MEASURES[name] for name in names))
    rows = tuple(
        (*map(format_value, group.varied.values()), *(_mean_measure(name, group) for name in names)) for group in groups
    )
    return Table("On the fixed augmented views", header, len(groups[0].varied), rows)


def _mean_measure(name: str, group: Group) -> str:
    values = [run.views[name] for run in group.runs if name in run.views]
    return f"{statistics.fmean(values):.2f}" if len(values) == len(group.runs) else ""


def _format_seeds(run: FinishedRun) -> str:
    run_seed, views_seed = run.seeds
    return str(run_seed) if run_seed == views_seed else f"{run_seed} (views {views_seed})"


def format_error(group: Group) -> str:
    """Mean ± standard deviation."""
    deviation = "" if group.deviation is None else f" ± {group.deviation:.2f}"
    return f"{group.mean:.2f}{deviation}"


def format_gain(gain: Gain | None) -> str:
    """Mean and confidence interval; also the pairs and the baseline's error if not all runs are paired."""
    if gain is None:
        return ""
    interval = ""
    if gain.half_width is not None:
        interval = f" [{gain.mean - gain.half_width:+.2f}, {gain.mean + gain.half_width:+.2f}]"
    pairs = f"{gain.pairs} pair{'s' if gain.pairs > 1 else ''}"
    return f"{gain.mean:+.2f}{interval}{'' if gain.of_all else f' ({pairs}, baseline {gain.baseline:.2f})'}"


def runs_as_csv(groups: Sequence[Group]) -> str:
    """A line per run: the settings that vary, seeds, errors in percent, seconds and the path."""
    out = io.StringIO()
    names = list(groups[0].varied)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *SEEDS, "top1_error", "top5_error", "best_top1_error", "seconds", "run"])
    for group in groups:
        for run in group.runs:
            results = (run.top1_error, run.top5_error, run.best_top1_error, run.seconds)
            writer.writerow([*group.varied.values(), *run.seeds, *results, run.path])
    return out.getvalue()


def report_json(groups: Sequence[Group], against: Mapping[str, Any]) -> dict[str, Any]:
    """The whole comparison: errors in percent; gains and the half widths of their intervals in points."""
    return {
        "same_in_all": common_settings(groups),
        "against": dict(against),
        "groups": [
            {
                "settings": group.varied,
                "error": group.mean,
                "deviation": group.deviation,
                "train_error": group.train_error,
                "gain": None if gain is None else asdict(gain),
                "runs": [_run_json(run) for run in group.runs],
            }
            for group in groups
            for gain in [find_gain(group, groups, against)]
        ],
    }


def _run_json(run: FinishedRun) -> dict[str, Any]:
    results = {name: value for name, value in vars(run).items() if name not in ("path", "settings")}
    return {"run": str(run.path), **dict(zip(SEEDS, run.seeds, strict=True)), **results}


def format_settings(settings: Mapping[str, Any]) -> str:
    """Settings as on the command line, without those that are None."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in settings.items() if value is not None)


def format_value(value: Any) -> str:
    """A setting's value as text; empty for None."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
