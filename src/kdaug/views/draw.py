"""From chosen ops to a plan: signs, places and filters drawn, arguments looked up for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdaug.rng.philox import Words, below
from kdaug.views.ops import CODES
from kdaug.views.plan import RESAMPLES, Color, Size, ViewPlan
from kdaug.views.space import Floats, Space

Integers = NDArray[np.int64]
_SIZES_KEPT = 64


@dataclass(frozen=True)
class RandomWords:
    """Random words, uint32 [N,S] each, for what is left to chance once the ops of N images are chosen."""

    sign: Words
    x: Words
    y: Words
    resample: Words


class OpTable:
    """Ops at levels in a space, (op, level) each, from which a policy chooses; `mean` fills where the space says so."""

    def __init__(self, space: Space, pairs: Sequence[tuple[str, float]], mean: Color) -> None:
        positions = {name: position for position, name in enumerate(space.ops)}
        fill = mean if space.fill == "mean" else space.fill
        self.space = space
        self.position = np.array([positions.get(name, -1) for name, _ in pairs])  # "none" may have none
        self.level = np.array([level for _, level in pairs], np.float64)
        self.code = np.array([space.code_of(name) for name, _ in pairs], np.uint8)
        self.fill = np.array(
            [space.cutout_fill or fill if name == "cutout" else fill for name, _ in pairs], np.uint8
        )  # [E,3]
        self._one_fill = len(np.unique(self.fill, axis=0)) == 1
        self._has_cutout = "cutout" in {name for name, _ in pairs}
        self._filters = np.array([RESAMPLES.index(name) for name in space.resample], np.uint8)
        self._tables: dict[Size, Floats] = {}

    def _table(self, size: Size) -> Floats:
        """Arguments of every entry with sign 1, then of every entry with sign -1, for `size`: float64 [2E,4]."""
        if size not in self._tables:
            if len(self._tables) >= _SIZES_KEPT:
                self._tables.clear()
            both = [
                self.space.arguments(self.position, self.level, np.full(len(self.level), sign), size)
                for sign in (1.0, -1.0)
            ]
            self._tables[size] = np.concatenate(both)
        return self._tables[size]

    def plan(
        self,
        entry: Integers,
        dice: RandomWords,
        size: Size,
        applied: NDArray[np.bool_] | None = None,
        share: Floats | None = None,
    ) -> ViewPlan:
        """The plan of entries int [N,S] for images of `size` (height, width).

        applied: bool [N,S], False leaves a step out. share: float64 [N,S], each step's share of its entry's level.
        """
        negative = dice.sign >> np.uint32(31)
        if share is None:
            argument = self._table(size).take(entry + negative * len(self.level), axis=0)
        else:
            sign = np.where(negative, -1.0, 1.0)
            argument = self.space.arguments(self.position[entry], self.level[entry] * share, sign, size)
        op = self.code.take(entry)
        if applied is not None:
            op *= applied
            argument *= applied[..., None]
        if self._has_cutout:
            at = np.nonzero((op == CODES["cutout"]) | (op == CODES["erase"]))
            if len(at[0]):
                argument[at] = self.space.place_cutouts(argument[at][:, 2], dice.x[at], dice.y[at], size)
        if len(self._filters) == 1:
            resample = np.full(op.shape, self._filters[0])
        else:
            resample = self._filters.take(below(dice.resample, len(self._filters)))
        fill = np.broadcast_to(self.fill[0], (*op.shape, 3)).copy() if self._one_fill else self.fill[entry]
        return ViewPlan(op, argument, resample, fill, size, size)
