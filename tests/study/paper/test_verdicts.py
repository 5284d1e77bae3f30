"""Verdicts on the paper's statements: gains with their intervals, correlations, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdaug.study.paper.studies import STUDIES
from kdaug.study.paper.verdicts import Comparison, all_of, every_gain, gain_grows, is_best
from kdaug.study.report.compare import Group
from kdaug.study.report.finished import FinishedRun


def group(*errors: float) -> Group:
    """Runs with these errors and the seeds 0, 1, ..."""
    settings = [{"run.seed": seed, "views.seed": seed} for seed in range(len(errors))]
    return Group(
        {},
        tuple(
            FinishedRun(Path(), s, e, 0, e, 100, "test", None, 1, {}, {}) for s, e in zip(settings, errors, strict=True)
        ),
    )


@pytest.mark.parametrize(
    ("baseline", "cell", "outcome"),
    [
        ((20, 21, 22), (18, 19.1, 19.9), "holds"),
        ((18, 19.1, 19.9), (20, 21, 22), "does not hold"),
        ((20, 21, 22), (19, 21.5, 20), "undecided"),
        ((20,), (10,), "undecided"),
        ((20, 20), (19, 19.01), "holds"),
    ],
)
def test_a_gain_is_judged_by_its_interval(baseline: Sequence[float], cell: Sequence[float], outcome: str) -> None:
    judged, evidence = every_gain(Comparison("M = 1", "a", "b"))({"a": group(*baseline), "b": group(*cell)})
    assert judged == outcome
    gains = np.subtract(baseline, cell)
    assert evidence.startswith(f"M = 1: {gains.mean():+.2f}")
    if len(gains) > 1:
        low, high = stats.t.interval(0.95, len(gains) - 1, gains.mean(), stats.sem(gains))
        assert {"holds": low > 0, "does not hold": high < 0}.get(outcome, low <= 0 <= high)
        assert f"[{low:+.2f}, {high:+.2f}]" in evidence


def test_several_gains_hold_together_only() -> None:
    good, bad, unclear = (20.0, 20.05), (30.0, 30.1), (19.0, 21.5)
    groups = {"a": group(20.5, 20.6), "b": group(*good), "c": group(*bad), "d": group(*unclear), "e": None}
    over_a = {name: Comparison(name, "a", name) for name in "bcde"}
    assert every_gain(over_a["b"])(groups)[0] == "holds"
    assert every_gain(over_a["b"], over_a["d"])(groups)[0] == "undecided"
    assert every_gain(over_a["b"], over_a["d"], over_a["c"])(groups)[0] == "does not hold"
    outcome, evidence = every_gain(over_a["b"], over_a["e"])(groups)
    assert outcome == "undecided"
    assert evidence == every_gain(over_a["b"])(groups)[1] + "; e: no paired runs"
    assert all_of({"x": every_gain(over_a["b"]), "y": every_gain(over_a["c"])})(groups)[0] == "does not hold"


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ((0.1, 0.5, 1.0, 2.0, 4.0), "holds"),
        ((4.0, 2.0, 1.0, 0.5, 0.1), "does not hold"),
        ((1, 2, 1, 2, 1), "undecided"),
    ],
)
def test_growth_is_spearmans_correlation_over_all_pairs(gains: Sequence[float], outcome: str) -> None:
    groups, comparisons = {}, {}
    for key, gain in enumerate(gains):
        groups |= {f"a{key}": group(20, 21), f"b{key}": group(20 - gain, 21 - gain - 0.05)}
        comparisons[key] = Comparison(f"{key}", f"a{key}", f"b{key}")
    judged, evidence = gain_grows(comparisons)(groups)
    assert judged == outcome
    keys = np.repeat(np.arange(5), 2)
    rho, p = stats.spearmanr(keys, np.repeat(gains, 2) + np.tile([0, 0.05], 5))
    assert evidence == f"Spearman's ρ = {rho:+.2f}, p = {p:.2g}, 10 pairs of runs"


def test_growth_needs_three_magnitudes() -> None:
    groups = {"a": group(20, 21), "b": group(18, 19), "c": None}
    comparisons = {0: Comparison("0", "a", "b"), 1: Comparison("1", "a", "b"), 2: Comparison("2", "a", "c")}
    assert gain_grows(comparisons)(groups)[0] == "undecided"


@pytest.mark.parametrize(
    ("others", "outcome"),
    [
        ({"x": (21, 22), "y": (20.1, 20.0)}, "holds"),
        ({"x": (21, 22), "y": (19.0, 20.5)}, "undecided"),
        ({"x": (21, 22), "y": (18.0, 18.1)}, "does not hold"),
        ({"x": (21, 22), "y": (25.0,)}, "undecided"),
    ],
)
def test_the_best_has_the_lowest_error(others: dict[str, Sequence[float]], outcome: str) -> None:
    groups = {"best": group(20, 20.05), **{name: group(*errors) for name, errors in others.items()}}
    assert is_best("best", {name: name for name in others})(groups)[0] == outcome


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu", "paper"])
def test_statements_refer_to_cells_of_their_study(study: str, scale: str) -> None:
    cells = STUDIES[study](scale).cells
    statements = STUDIES[study](scale).statements
    assert statements
    assert len({statement.text for statement in statements}) == len(statements)
    missing = {cell.name: None for cell in cells}
    for statement in statements:
        assert statement.judge(missing)[0] == "undecided"
    all_equal = {cell.name: group(*(20 + 0.1 * math.sin(seed) for seed in range(3))) for cell in cells}
    for statement in statements:
        assert statement.judge(all_equal)[0] in ("undecided", "holds")
