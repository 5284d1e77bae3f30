"""What the tests of views share: ops of a space at given levels without chance, and one measure of frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from kdaug import ViewPlan
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.spaces import get_space

CellPlan = Callable[..., ViewPlan]


@pytest.fixture
def plan_of_cells() -> CellPlan:
    """The plan of one image per (op, level) of a space, sign and places fixed; the data's mean is (1, 2, 3)."""

    def plan(
        space: str,
        pairs: Sequence[tuple[str, float]],
        size: tuple[int, int],
        negative: bool = False,
        place: tuple[int, int] = (1 << 31, 1 << 31),
        resample: int = 0,
    ) -> ViewPlan:
        def same(word: int) -> np.ndarray:
            return np.full((len(pairs), 1), word, np.uint32)

        dice = RandomWords(same(negative << 31), same(place[0]), same(place[1]), same(resample << 31))
        return OpTable(get_space(space), pairs, (1, 2, 3)).plan(np.arange(len(pairs))[:, None], dice, size)

    return plan


@pytest.fixture
def assert_frequencies() -> Callable[[ArrayLike, ArrayLike], None]:
    """Fails when counts are further from their probabilities than chance allows (chi-square, 5 sigma)."""

    def check(counts: ArrayLike, probabilities: ArrayLike) -> None:
        seen, share = np.asarray(counts, float).ravel(), np.asarray(probabilities, float).ravel()
        expected = seen.sum() * share / share.sum()
        assert (seen[expected == 0] == 0).all(), "what cannot happen happened"
        seen, expected = seen[expected > 0], expected[expected > 0]
        assert expected.min() >= 10, "too few draws to tell"
        freedom = max(len(seen) - 1, 1)
        chi_square = ((seen - expected) ** 2 / expected).sum()
        z = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
        assert z < 5, f"chi-square {chi_square:.1f} with {freedom} degrees of freedom"

    return check
