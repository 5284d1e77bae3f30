"""RandAugment, in any space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kdaug.errors import InputError
from kdaug.rng.philox import Stream, below, uniform, words
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.spaces import get_space

MOST_OPS = 64
WORDS_PER_OP = 8
"""Random words per drawn op: choice, strength, sign, place x, place y, applied or not, filter, and one to spare."""


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` ops drawn uniformly with replacement, all at one magnitude (Cubuk et al., arXiv 1909.13719).

    What the magnitude does is up to the space; `mean` is the fill (0..255) where the space fills with the data's mean.
    `ops`: the ops to choose from; None: all of the space.
    """

    num_ops: int
    magnitude: float
    space: str
    mean: Color = CIFAR_MEAN
    ops: tuple[str, ...] | None = None
    stream: ClassVar[Stream] = Stream.POLICY
    _entries: OpTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        if not 1 <= self.num_ops <= MOST_OPS:
            raise InputError(f"RandAugment: the number of ops is {self.num_ops}, but must be from 1 to {MOST_OPS}")
        space.check_level(self.magnitude, "RandAugment: the magnitude")
        for name in self.ops or ():
            space.check_op(name, "RandAugment")
        names = self.ops or tuple(space.ops)
        object.__setattr__(self, "_entries", OpTable(space, [(name, self.magnitude) for name in names], self.mean))

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        entries, space = self._entries, self._entries.space
        drawn = words(seed, epoch, indices, Stream.POLICY, self.num_ops * WORDS_PER_OP)
        drawn = drawn.reshape(len(drawn), self.num_ops, WORDS_PER_OP)
        return entries.plan(
            below(drawn[..., 0], len(entries.code)),
            RandomWords(sign=drawn[..., 2], x=drawn[..., 3], y=drawn[..., 4], resample=drawn[..., 6]),
            size,
            applied=uniform(drawn[..., 5]) < space.probability if space.probability < 1 else None,
            share=uniform(drawn[..., 1]) if space.strength == "at most" else None,
        )

    @property
    def spec(self) -> str:
        """The specification that names this policy, but for its mean."""
        kind = "randaugment" if self.ops is None else f"randaugment{len(self.ops)}"
        return f"{kind}-n{self.num_ops}-m{np.format_float_positional(self.magnitude, trim='-')}@{self.space}"
