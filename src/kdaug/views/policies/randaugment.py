"""RandAugment in any space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng import Stream, integers_below, random_words, uniform
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.space_tables import get_space

MAX_OPS = 64
WORDS_PER_OP = 8
"""Random words per op: op, level, sign, x, y, whether it is applied, filter, and one unused."""


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` ops drawn uniformly with replacement, all at one magnitude (Cubuk et al., arXiv 1909.13719).

    num_ops: 1..MAX_OPS. magnitude: a level of the space. space: name in `kdaug.views.space_tables`, which defines what
    the magnitude means. mean: fill (r, g, b) 0..255 for spaces that fill with the dataset's mean. ops: the ops to
    choose from; None: all ops of the space. factors: float64 [images], multiply the magnitude, by sample id; None: 1.
    Raises InputError if an argument is out of range or the space lacks an op.
    """

    num_ops: int
    magnitude: float
    space: str
    mean: Color = CIFAR_MEAN
    ops: tuple[str, ...] | None = None
    factors: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        if not 1 <= self.num_ops <= MAX_OPS:
            raise InputError(f"RandAugment: the number of ops is {self.num_ops}, but must be from 1 to {MAX_OPS}")
        space.check_level(self.magnitude, "RandAugment: the magnitude")
        for name in self.ops or ():
            space.check_op(name, "RandAugment")
        names = self.ops or tuple(space.ops)
        object.__setattr__(self, "_table", OpTable(space, [(name, self.magnitude) for name in names], self.mean))

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        space = self._table.space
        words = random_words(seed, epoch, indices, Stream.POLICY, self.num_ops * WORDS_PER_OP)
        words = words.reshape(len(words), self.num_ops, WORDS_PER_OP)
        level_factor = uniform(words[..., 1]) if space.level_mode == "uniform" else None
        if self.factors is not None:
            own = np.broadcast_to(self.factors[np.asarray(indices)][:, None], words.shape[:2])
            level_factor = own if level_factor is None else own * level_factor
        return self._table.plan(
            integers_below(words[..., 0], len(self._table)),
            RandomWords(sign=words[..., 2], x=words[..., 3], y=words[..., 4], resample=words[..., 6]),
            size,
            applied=uniform(words[..., 5]) < space.probability if space.probability < 1 else None,
            level_factor=level_factor,
        )

    @property
    def spec(self) -> str:
        """The specification of this policy, as `create_policy` takes it; without the mean."""
        kind = "randaugment" if self.ops is None else f"randaugment{len(self.ops)}"
        return f"{kind}-n{self.num_ops}-m{np.format_float_positional(self.magnitude, trim='-')}@{self.space}"
