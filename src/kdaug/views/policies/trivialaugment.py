"""TrivialAugment in any space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kdaug.errors import InputError
from kdaug.rng import Stream, integers_below, random_words
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.space_tables import get_space

LEVELS = 31
"""Number of levels to draw from."""


@dataclass(frozen=True)
class TrivialAugment:
    """One op at one of 31 levels, both drawn uniformly (Mueller and Hutter, arXiv 2103.10158).

    In space torchvision-wide this is torchvision's TrivialAugmentWide. space, mean: as in RandAugment. Raises
    InputError if the space does not have 31 levels.
    """

    space: str
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        levels = np.linspace(0, space.full_level, LEVELS).tolist()
        if space.level_mode != "exact" or (space.integer_levels and space.full_level != LEVELS - 1):
            raise InputError(
                f"TrivialAugment draws one of {LEVELS} levels, but space {self.space} does not have {LEVELS} levels"
            )
        pairs = [(name, level) for name in space.ops for level in levels]
        object.__setattr__(self, "_table", OpTable(space, pairs, self.mean))

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        words = random_words(seed, epoch, indices, Stream.POLICY, 8)[:, None]
        op = integers_below(words[..., 0], len(self._table.space.ops))
        level = integers_below(words[..., 1], LEVELS)
        remaining = RandomWords(sign=words[..., 2], x=words[..., 3], y=words[..., 4], resample=words[..., 6])
        return self._table.plan(op * LEVELS + level, remaining, size)
