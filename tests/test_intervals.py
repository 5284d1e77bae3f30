"""Confidence intervals: Wilson's against SciPy's, the paired one by its exact coverage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from kdaug.intervals import Interval, paired_interval, wilson_interval


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_is_scipys(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def coverage(count: int, first: float, second: float, interval: Callable[[int, int, int], Interval]) -> float:
    """The probability that `interval` contains the difference of the shares first and second, by enumeration."""
    distribution = multinomial(count, [first, second, 1 - first - second])
    covered = 0.0
    for a in range(count + 1):
        for b in range(count + 1 - a):
            low, high = interval(a, b, count)
            if low <= first - second <= high:
                covered += distribution.pmf([a, b, count - a - b])
    return covered


@pytest.mark.parametrize(("first", "second"), [(0.02, 0.02), (0.1, 0.02), (0.2, 0.2), (0.3, 0.1), (0.05, 0.4)])
@pytest.mark.parametrize("count", [15, 40])
def test_the_paired_interval_covers_the_difference_in_95_of_100_cases(count: int, first: float, second: float) -> None:
    assert coverage(count, first, second, paired_interval) > 0.93


def test_the_paired_interval_is_not_wider_than_needed() -> None:
    assert coverage(60, 0.2, 0.2, paired_interval) < 0.965


@given(st.integers(1, 400), st.data())
def test_the_paired_interval_contains_the_measured_difference(count: int, data: st.DataObject) -> None:
    a = data.draw(st.integers(0, count))
    b = data.draw(st.integers(0, count - a))
    low, high = paired_interval(a, b, count)
    assert -1 <= low <= (a - b) / count + 1e-12
    assert (a - b) / count - 1e-12 <= high <= 1
    assert paired_interval(b, a, count) == pytest.approx((-high, -low))
