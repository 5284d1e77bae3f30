"""Fixtures of the tests of views: plans of single ops, without random draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kdaug import ViewPlan
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.space_tables import get_space

CellPlan = Callable[..., ViewPlan]


@pytest.fixture
def plan_of_cells() -> CellPlan:
    """The plan of one image per (op, level) of a space, with fixed signs and positions; the data's mean: (1, 2, 3)."""

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

        words = RandomWords(same(negative << 31), same(place[0]), same(place[1]), same(resample << 31))
        return OpTable(get_space(space), pairs, (1, 2, 3)).plan(np.arange(len(pairs))[:, None], words, size)

    return plan
