"""From chosen ops to a plan: draws signs, positions and filters, and looks up arguments for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdaug.rng import Words, integers_below
from kdaug.views.ops import CODES
from kdaug.views.plan import RESAMPLES, Color, Size, ViewPlan
from kdaug.views.space import Floats, Space

_MAX_CACHED_SIZES = 64


@dataclass(frozen=True)
class RandomWords:
    """Random words, uint32 [N,S] each, for the draws that remain once the ops of N images are chosen.

    sign: sign of the argument. x, y: position of a cutout. resample: filter.
    """

    sign: Words
    x: Words
    y: Words
    resample: Words


class OpTable:
    """E entries (op, level) in a space, from which a policy chooses.

    entries: (op, level) each. mean: (r, g, b) 0..255, the fill if the space fills with the dataset's mean.
    """

    def __init__(self, space: Space, entries: Sequence[tuple[str, float]], mean: Color) -> None:
        positions = {name: position for position, name in enumerate(space.ops)}
        fill = mean if space.fill == "mean" else space.fill
        fills = [space.cutout_fill or fill if name == "cutout" else fill for name, _ in entries]
        self.space = space
        self._position = np.array([positions.get(name, -1) for name, _ in entries])  # -1: "none", if not in the space
        self._level = np.array([level for _, level in entries], np.float64)
        self._code = np.array([space.code_of(name) for name, _ in entries], np.uint8)
        self._fill = np.array(fills, np.uint8)  # [E,3]
        self._one_fill = len(np.unique(self._fill, axis=0)) == 1
        self._has_cutout = "cutout" in {name for name, _ in entries}
        self._filters = np.array([RESAMPLES.index(name) for name in space.resample], np.uint8)
        self._arguments: dict[Size, Floats] = {}

    def __len__(self) -> int:
        return len(self._code)

    def _signed_arguments(self, size: Size) -> Floats:
        """The arguments of all entries for images of `size` with sign 1, then with sign -1: float64 [2E,4]."""
        if size not in self._arguments:
            if len(self._arguments) >= _MAX_CACHED_SIZES:
                self._arguments.clear()
            arguments = [
                self.space.arguments(self._position, self._level, np.full(len(self), sign), size)
                for sign in (1.0, -1.0)
            ]
            self._arguments[size] = np.concatenate(arguments)
        return self._arguments[size]

    def plan(
        self,
        entry: NDArray[np.int64],
        words: RandomWords,
        size: Size,
        applied: NDArray[np.bool_] | None = None,
        level_factor: Floats | None = None,
    ) -> ViewPlan:
        """A plan with the entries int64 [N,S] of N images in S steps, for images of `size` (height, width).

        applied: bool [N,S], False skips a step; None: all are applied. level_factor: float64 [N,S] of at least 0,
        multiplies the levels of the entries; None: 1.
        """
        negative = words.sign >> np.uint32(31)
        if level_factor is None:
            argument = self._signed_arguments(size).take(entry + negative * len(self), axis=0)
        else:
            sign = np.where(negative, -1.0, 1.0)
            argument = self.space.arguments(self._position[entry], self._level[entry] * level_factor, sign, size)
        op = self._code.take(entry)
        if applied is not None:
            op *= applied
            argument *= applied[..., None]
        if self._has_cutout:
            cutouts = np.nonzero((op == CODES["cutout"]) | (op == CODES["erase"]))
            if len(cutouts[0]):
                argument[cutouts] = self.space.place_cutouts(
                    argument[cutouts][:, 2], words.x[cutouts], words.y[cutouts], size
                )
        if len(self._filters) == 1:
            resample = np.full(op.shape, self._filters[0])
        else:
            resample = self._filters.take(integers_below(words.resample, len(self._filters)))
        # broadcasting one color is faster than indexing
        fill = np.broadcast_to(self._fill[0], (*op.shape, 3)).copy() if self._one_fill else self._fill[entry]
        return ViewPlan(op, argument, resample, fill, size, size)
