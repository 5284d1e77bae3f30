"""Chi-square tests of random draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def assert_frequencies(counts: ArrayLike, probabilities: ArrayLike, min_expected: float = 10) -> None:
    """Fails if `counts` differ from their `probabilities` by more than chance allows (chi-square, 5 sigma)."""
    observed, share = np.asarray(counts, float).ravel(), np.asarray(probabilities, float).ravel()
    expected = observed.sum() * share / share.sum()
    assert (observed[expected == 0] == 0).all(), "an outcome of probability 0 was drawn"
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert expected.min() >= min_expected, "too few draws"
    freedom = max(len(observed) - 1, 1)
    chi_square = ((observed - expected) ** 2 / expected).sum()
    # Wilson-Hilferty: the cube root of chi-square over its degrees of freedom is nearly normal.
    z = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
    assert z < 5, f"chi-square {chi_square:.1f} with {freedom} degrees of freedom: {observed.astype(int).tolist()}"


def assert_uniform(counts: ArrayLike) -> None:
    """Fails if counts of equally likely outcomes differ by more than chance allows (chi-square, 5 sigma)."""
    assert_frequencies(counts, np.ones(np.size(counts)), min_expected=20)
