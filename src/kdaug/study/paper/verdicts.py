"""Whether the paper's statements hold in the runs at hand: each is judged by paired gains and their 95 % intervals.

A statement about one gain holds if the interval is above zero, does not hold if it is below zero, and is undecided
otherwise, or if there is only one pair of runs. A statement about several gains holds if it holds for each, and does
not hold if it fails for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdaug.study.report.compare import Gain, Group, gain_over
from kdaug.study.report.tables import Table, format_gain

Outcome = Literal["holds", "does not hold", "undecided"]
Groups = Mapping[str, Group | None]
"""The finished runs of each cell by name; None if there are none."""
Judge = Callable[[Groups], tuple[Outcome, str]]
"""Returns the outcome and the evidence for it, in words and figures."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Statement:
    """What the paper says about a table or figure, and how to judge it on our runs."""

    text: str
    judge: Judge


@dataclass(frozen=True)
class Comparison:
    """Cell `cell` is compared with cell `baseline`; label: what the pair is called in the evidence."""

    label: str
    baseline: str
    cell: str

    def gain(self, groups: Groups) -> Gain | None:
        """None if there are no runs with the same seeds."""
        baseline, group = groups[self.baseline], groups[self.cell]
        return None if baseline is None or group is None else gain_over(baseline, group)


@dataclass(frozen=True)
class Verdict:
    """A statement with its outcome and the evidence."""

    statement: str
    verdict: Outcome
    evidence: str


def judge_statements(statements: Sequence[Statement], groups: Groups) -> list[Verdict]:
    return [Verdict(statement.text, *statement.judge(groups)) for statement in statements]


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """A row per statement."""
    rows = tuple((verdict.statement, verdict.verdict, verdict.evidence) for verdict in verdicts)
    return Table("Statements of the paper", ("statement", "verdict", "evidence"), 3, rows)


def every_gain(*comparisons: Comparison) -> Judge:
    """Every comparison is a gain."""

    def judge(groups: Groups) -> tuple[Outcome, str]:
        gains = {each.label: each.gain(groups) for each in comparisons}
        outcomes = [_judge_gain(gain) for gain in gains.values()]
        return _combine(outcomes), "; ".join(f"{label}: {_describe(gain)}" for label, gain in gains.items())

    return judge


def gain_grows(comparisons: Mapping[float, Comparison]) -> Judge:
    """The gain grows with the key: Spearman's rank correlation over all paired runs is above 0 and significant."""

    def judge(groups: Groups) -> tuple[Outcome, str]:
        points = [(key, gain) for key, comparison in comparisons.items() for gain in _single_gains(comparison, groups)]
        if len({key for key, _ in points}) < 3:
            return "undecided", "fewer than three magnitudes have paired runs"
        if len({gain for _, gain in points}) == 1:
            return "undecided", "all gains are equal"
        from scipy.stats import spearmanr  # slow to import

        rho, p = map(float, spearmanr(*zip(*points, strict=True)))
        evidence = f"Spearman's ρ = {rho:+.2f}, p = {p:.2g}, {len(points)} pairs of runs"
        if not p < SIGNIFICANT:
            return "undecided", evidence
        return ("holds" if rho > 0 else "does not hold"), evidence

    return judge


def is_best(cell: str, others: Mapping[str, str]) -> Judge:
    """Cell `cell` has the lowest mean error, and no other is better with its interval above zero.

    others: the other cells' names by what they are called in the evidence. It does not hold if another cell is better
    with its interval above zero.
    """

    def judge(groups: Groups) -> tuple[Outcome, str]:
        gains = {label: Comparison(label, other, cell).gain(groups) for label, other in others.items()}
        evidence = "; ".join(f"over {label}: {_describe(gain)}" for label, gain in gains.items())
        if any(_judge_gain(gain) == "does not hold" for gain in gains.values()):
            return "does not hold", evidence
        decided = all(gain is not None and gain.pairs > 1 and gain.mean >= 0 for gain in gains.values())
        return ("holds" if decided else "undecided"), evidence

    return judge


def all_of(judges: Mapping[str, Judge]) -> Judge:
    """All judgments together; the keys introduce their evidence."""

    def judge(groups: Groups) -> tuple[Outcome, str]:
        results = {label: each(groups) for label, each in judges.items()}
        evidence = ". ".join(f"{label}: {text}" for label, (_, text) in results.items())
        return _combine([outcome for outcome, _ in results.values()]), evidence

    return judge


def _judge_gain(gain: Gain | None) -> Outcome:
    if gain is None or gain.half_width is None:
        return "undecided"
    if gain.mean - gain.half_width > 0:
        return "holds"
    return "does not hold" if gain.mean + gain.half_width < 0 else "undecided"


def _combine(outcomes: Sequence[Outcome]) -> Outcome:
    if "does not hold" in outcomes:
        return "does not hold"
    return "undecided" if "undecided" in outcomes or not outcomes else "holds"


def _single_gains(comparison: Comparison, groups: Groups) -> list[float]:
    """The gain of each pair of runs with the same seeds."""
    baseline, group = groups[comparison.baseline], groups[comparison.cell]
    if baseline is None or group is None:
        return []
    errors = {run.seeds: run.top1_error for run in baseline.runs}
    return [errors[run.seeds] - run.top1_error for run in group.runs if run.seeds in errors]


def _describe(gain: Gain | None) -> str:
    if gain is None:
        return "no paired runs"
    return f"{format_gain(gain)} ({gain.pairs} pair{'s' * (gain.pairs > 1)})" if gain.of_all else format_gain(gain)
