"""A comparison of runs as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdaug.study.comparison import SEEDS, Gain, Group, baseline_of, gain_over


def markdown(groups: Sequence[Group], against: Mapping[str, Any]) -> str:
    """A table with a row for each group: what varies, mean error, its deviation, the gain over its baseline, cost."""
    gains = [gain_of(group, groups, against) for group in groups]
    heads = [*groups[0].varied, "error, %", "runs", "minutes a run"]
    if against:
        heads.append(f"points gained over {in_words(against)}")
    rows = [heads, ["---" if name in groups[0].varied else "--:" for name in heads]]
    for group, gain in zip(groups, gains, strict=True):
        minutes = sum(run.seconds for run in group.runs) / len(group.runs) / 60
        cells = [*map(shown, group.varied.values()), error_in_words(group), str(len(group.runs)), f"{minutes:.1f}"]
        rows.append([*cells, *([gain_in_words(gain)] if against else [])])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def error_in_words(group: Group) -> str:
    """Mean ± standard deviation."""
    spread = "" if group.deviation is None else f" ± {group.deviation:.2f}"
    return f"{group.mean:.2f}{spread}"


def gain_in_words(gain: Gain | None) -> str:
    """With its confidence interval."""
    if gain is None:
        return ""
    if gain.half_width is None:
        return f"{gain.mean:+.2f}"
    return f"{gain.mean:+.2f} [{gain.mean - gain.half_width:+.2f}, {gain.mean + gain.half_width:+.2f}]"


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


def as_json(groups: Sequence[Group], against: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for programs: errors in percent, gains and half widths of their intervals in points."""
    return {
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
            for gain in [gain_of(group, groups, against)]
        ],
    }


def gain_of(group: Group, groups: Sequence[Group], against: Mapping[str, Any]) -> Gain | None:
    """Over the group with the values `against`; None if there is none, or it is that."""
    baseline = baseline_of(group, groups, against) if against else None
    return None if baseline is None else gain_over(baseline, group)


def in_words(settings: Mapping[str, Any]) -> str:
    """As on the command line."""
    return ", ".join(f"{name}={shown(value)}" for name, value in settings.items())


def shown(value: Any) -> str:
    """A setting's value for a table; nothing for one that does not count there."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value).replace("|", "\\|")
