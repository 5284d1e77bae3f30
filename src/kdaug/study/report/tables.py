"""A comparison of runs as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdaug.study.report.compare import SEEDS, FinishedRun, Gain, Group, common_settings, find_baseline, gain_over


@dataclass(frozen=True)
class Table:
    """For people: `heads`, of which the first `words` stand over words and the others over figures, and its rows."""

    title: str
    heads: tuple[str, ...]
    words: int
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Lines of Markdown, without the title."""
        rule = ("---" if place < self.words else "--:" for place in range(len(self.heads)))
        escaped = ((cell.replace("|", "\\|") for cell in row) for row in (self.heads, tuple(rule), *self.rows))
        return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def comparison_table(groups: Sequence[Group], against: Mapping[str, Any]) -> Table:
    """A row for each group: what varies, mean error, its deviation, cost, the gain over its baseline."""
    heads = [*groups[0].varied, "error, %", "runs", "minutes a run"]
    rows = []
    for group in groups:
        minutes = sum(run.seconds for run in group.runs) / len(group.runs) / 60
        row = [*map(shown, group.varied.values()), format_error(group), str(len(group.runs)), f"{minutes:.1f}"]
        rows.append((*row, format_gain(find_gain(group, groups, against), group)) if against else tuple(row))
    if against:
        heads.append(f"points gained over {format_settings(against)}")
    return Table("What varies", tuple(heads), len(groups[0].varied), tuple(rows))


def runs_table(groups: Sequence[Group]) -> Table:
    """A row for each run. The lowest error on the way is chosen by the images it is measured on: the head says so."""
    heads = (*groups[0].varied, "seed", "error, %", "top-5, %", "lowest on the way, % (chosen by itself)", "minutes")
    rows = tuple(
        (
            *map(shown, group.varied.values()), _seed_in_words(run), f"{run.top1_error:.2f}",
            f"{run.top5_error:.2f}", f"{run.best_top1_error:.2f}", f"{run.seconds / 60:.1f}",
        )
        for group in groups
        for run in group.runs
    )  # fmt: skip
    return Table("All runs", heads, len(groups[0].varied), rows)


def _seed_in_words(run: FinishedRun) -> str:
    seed, of_views = run.settings["run.seed"], run.settings["views.seed"]
    return str(seed) if seed == of_views else f"{seed}, of views {of_views}"


def format_error(group: Group) -> str:
    """Mean ± standard deviation."""
    spread = "" if group.deviation is None else f" ± {group.deviation:.2f}"
    return f"{group.mean:.2f}{spread}"


def format_gain(gain: Gain | None, group: Group | None) -> str:
    """With its confidence interval, and over how many pairs and what error it is if not all runs have a pair."""
    if gain is None or group is None:
        return ""
    interval = ""
    if gain.half_width is not None:
        interval = f" [{gain.mean - gain.half_width:+.2f}, {gain.mean + gain.half_width:+.2f}]"
    pairs = f"{gain.pairs} pair{'s' if gain.pairs > 1 else ''}"
    return f"{gain.mean:+.2f}{interval}{'' if gain.of_all else f' ({pairs}, over {gain.baseline:.2f})'}"


def runs_as_csv(groups: Sequence[Group]) -> str:
    """A line for each run: what varies, its seeds, its figures, where it is."""
    out = io.StringIO()
    names = list(groups[0].varied)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *SEEDS, "top1_error", "top5_error", "best_top1_error", "seconds", "run"])
    for group in groups:
        for run in group.runs:
            figures = (run.top1_error, run.top5_error, run.best_top1_error, run.seconds)
            writer.writerow([*group.varied.values(), *run.seeds, *figures, run.path])
    return out.getvalue()


def report_json(groups: Sequence[Group], against: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for programs: errors in percent, gains and half widths of their intervals in points."""
    return {
        "common_settings": common_settings(groups),
        "against": dict(against),
        "groups": [
            {
                "settings": group.varied,
                "error": group.mean,
                "deviation": group.deviation,
                "gain": None if gain is None else asdict(gain),
                "runs": [
                    {
                        "run": str(run.path),
                        **dict(zip(SEEDS, run.seeds, strict=True)),
                        "top1_error": run.top1_error,
                        "top5_error": run.top5_error,
                        "best_top1_error": run.best_top1_error,
                        "images": run.images,
                        "held_out": run.held_out,
                        "seconds": run.seconds,
                        "environment": run.environment,
                    }
                    for run in group.runs
                ],
            }
            for group in groups
            for gain in [find_gain(group, groups, against)]
        ],
    }


def find_gain(group: Group, groups: Sequence[Group], against: Mapping[str, Any]) -> Gain | None:
    """Over the group with the values `against`; None if there is none, or it is that."""
    baseline = find_baseline(group, groups, against) if against else None
    return None if baseline is None else gain_over(baseline, group)


def format_settings(settings: Mapping[str, Any]) -> str:
    """As on the command line, without what does not count."""
    return ", ".join(f"{name}={shown(value)}" for name, value in settings.items() if value is not None)


def shown(value: Any) -> str:
    """A setting's value for a table; nothing for one that does not count there."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
