"""TrivialAugment: one op at one level, both uniform."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kdaug.errors import InputError
from kdaug.rng.philox import Stream, below, words
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.spaces import get_space

LEVELS = 31


@dataclass(frozen=True)
class TrivialAugment:
    """One op, uniform over the space's, at one of 31 levels, uniform over its scale (arXiv 2103.10158).

    In `torchvision-wide` this is torchvision's TrivialAugmentWide. `mean` as in RandAugment.
    """

    space: str
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _entries: OpTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        levels = np.linspace(0, space.full_level, LEVELS).tolist()
        if space.strength != "exact" or (space.whole_levels and space.full_level != LEVELS - 1):
            raise InputError(f"TrivialAugment draws one of {LEVELS} levels, which space {self.space} does not have")
        pairs = [(name, level) for name in space.ops for level in levels]
        object.__setattr__(self, "_entries", OpTable(space, pairs, self.mean))

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        drawn = words(seed, epoch, indices, Stream.POLICY, 8)[:, None]
        op = below(drawn[..., 0], len(self._entries.space.ops))
        level = below(drawn[..., 1], LEVELS)
        dice = RandomWords(sign=drawn[..., 2], x=drawn[..., 3], y=drawn[..., 4], resample=drawn[..., 6])
        return self._entries.plan(op * LEVELS + level, dice, size)
