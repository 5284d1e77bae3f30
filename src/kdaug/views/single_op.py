"""Views of one op at one level, to see what an op alone does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdaug.rng import Stream, random_words
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.space import Space

_WORDS = 4
"""Random words per view: sign, x, y, filter."""


def plan_single_ops(
    space: Space,
    ops: Sequence[str],
    level: float,
    mean: Color,
    seed: int,
    indices: NDArray[np.int64],
    size: Size,
) -> ViewPlan:
    """A plan in which image i gets `ops[i]` alone, exactly at `level` of `space`, whatever a policy would draw.

    ops: an op of `space` for each of the N images. mean: the fill (r, g, b) 0..255 of spaces that fill with the mean.
    seed, indices: sign, position and filter depend on the seed and the sample id int64 [N] of each image only.
    size: (height, width) of the images. Raises InputError for an unknown op and for a level out of range.
    """
    names = sorted(set(ops))
    for name in names:
        space.check_op(name, f"space {space.name}")
    space.check_level(level, "the level")
    words = random_words(seed, 0, indices, Stream.POLICY, _WORDS)[:, None]
    entry = np.array([names.index(name) for name in ops], np.int64).reshape(-1, 1)
    return OpTable(space, [(name, level) for name in names], mean).plan(
        entry, RandomWords(sign=words[..., 0], x=words[..., 1], y=words[..., 2], resample=words[..., 3]), size
    )
