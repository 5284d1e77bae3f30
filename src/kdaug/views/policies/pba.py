"""PBA: population based augmentation, a schedule that follows the epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng.philox import Stream, Words, below, uniform, words
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.spaces import get_sub_policy_space

NAMES = ("pba-cifar10", "pba-svhn")
MOST_EPOCHS = 100_000
_COUNTS = (0.2, 0.5, 1.0)  # cumulative: no op with 0.2, one with 0.3, two with 0.5


@dataclass(frozen=True)
class PopulationBasedAugmentation:
    """Up to two of thirty entries per image, by a schedule over `epochs` (Ho et al., arXiv 1905.05393).

    The code walks through the shuffled entries, applies each with its probability, and stops after the drawn count.
    Here every entry's outcome is drawn, then an ordered pair among the successes: the same distribution. Epochs after
    the last go on with the last segment. `space`, `mean` as in SubPolicies.
    """

    name: str
    epochs: int
    space: str = "pba"
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _entries: OpTable = field(init=False, repr=False, compare=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _threshold: NDArray[np.uint32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= MOST_EPOCHS:
            raise InputError(f"policy {self.name}: epochs is {self.epochs}, but must be from 1 to {MOST_EPOCHS}")
        space = get_sub_policy_space(self.space)
        ops, schedule = schedule_of(self.name)
        pairs = []
        for _, entries in schedule["segments"]:
            for op, (_, level) in zip(ops, entries, strict=True):
                space.check_op(op, f"policy {self.name}")
                space.check_level(level, f"policy {self.name}: the level of {op}")
                pairs.append((op, float(level)))
        tenths = np.array([[tenth for tenth, _ in entries] for _, entries in schedule["segments"]])
        lengths = [length * self.epochs // schedule["search_epochs"] for length, _ in schedule["segments"]]
        object.__setattr__(self, "_entries", OpTable(space, pairs, self.mean))
        object.__setattr__(self, "_ends", np.cumsum(lengths))
        object.__setattr__(self, "_threshold", np.round(tenths * 6553.6).astype(np.uint32))

    def segment_of(self, epoch: int) -> int:
        """Which of the schedule's segments `epoch` (from 0) falls into."""
        return min(int(np.searchsorted(self._ends, epoch, side="right")), len(self._ends) - 1)

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        segment = self.segment_of(epoch)
        drawn = words(seed, epoch, indices, Stream.POLICY, 24)
        entry, applied = self._choose(drawn[:, :3], _halves(drawn[:, 3:18]) < self._threshold[segment])
        signs = drawn[:, 18:20]  # its highest bit is the sign, the next one the filter
        dice = RandomWords(sign=signs, x=drawn[:, 20:22], y=drawn[:, 22:24], resample=signs << np.uint32(1))
        return self._entries.plan(entry + segment * self._threshold.shape[1], dice, size, applied)

    def _choose(self, drawn: Words, success: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Entries [N,2] in the order of application, and which of them count; from words [N,3], successes [N,30]."""
        count = np.searchsorted(_COUNTS, uniform(drawn[:, 0]), side="right")
        rank = success.cumsum(axis=1, dtype=np.int8)
        successes = rank[:, -1].astype(np.int64)
        first = below(drawn[:, 1], successes)
        second = below(drawn[:, 2], np.maximum(successes - 1, 0))
        second += second >= first
        wanted = np.stack([first, second], axis=1) + 1
        entry = (rank[:, None] >= wanted[..., None]).argmax(axis=2)
        return entry, np.arange(1, 3) <= np.minimum(count, successes)[:, None]


def _halves(drawn: Words) -> NDArray[np.uint32]:
    """Words [N,n] as their 16-bit halves [N,2n]: enough for probabilities that are tenths, which are off by 2^-18."""
    return np.concatenate([drawn >> np.uint32(16), drawn & np.uint32(0xFFFF)], axis=1)


@cache
def schedule_of(name: str) -> tuple[list[str], dict[str, Any]]:
    """The ops of the thirty entries, and the schedule: search_epochs, segments of (epochs, [tenths, level] each)."""
    text = (resources.files("kdaug.views") / "tables" / "pba.json").read_text(encoding="utf-8")
    tables = json.loads(text)
    return tables["ops"] * 2, tables["policies"][name]
