"""PBA (population based augmentation): a schedule of policies over the epochs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng import Stream, Words, integers_below, random_words, uniform
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.space_tables import get_sub_policy_space

NAMES = ("pba-cifar10", "pba-svhn")
MAX_EPOCHS = 100_000
_COUNTS = (0.2, 0.5, 1.0)  # cumulative probabilities of no op, one op and two ops


@dataclass(frozen=True)
class PopulationBasedAugmentation:
    """Applies up to two of thirty entries to each image (Ho et al., arXiv 1905.05393).

    An entry is an op with a probability and a level, which a schedule sets for each segment of the run. The published
    code shuffles the entries, applies each with its probability, and stops after 0, 1 or 2 ops, a number drawn before.
    Here each entry is accepted with its probability, then up to two of the accepted ones are drawn in random order.
    The distribution is the same.

    name: one of NAMES. epochs: length of the run; later epochs use the last segment. space, mean: as in SubPolicies.
    Raises InputError if epochs is not in 1..MAX_EPOCHS or the space lacks an op or level of the schedule.
    """

    name: str
    epochs: int
    space: str = "pba"
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)
    _segment_ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _thresholds: NDArray[np.uint32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= MAX_EPOCHS:
            raise InputError(f"policy {self.name}: epochs is {self.epochs}, but must be from 1 to {MAX_EPOCHS}")
        space = get_sub_policy_space(self.space)
        ops, schedule = load_schedule(self.name)
        pairs = []
        for _, entries in schedule["segments"]:
            for op, (_, level) in zip(ops, entries, strict=True):
                space.check_op(op, f"policy {self.name}")
                space.check_level(level, f"policy {self.name}: the level of {op}")
                pairs.append((op, float(level)))
        tenths = np.array([[tenth for tenth, _ in entries] for _, entries in schedule["segments"]])
        lengths = [length * self.epochs // schedule["search_epochs"] for length, _ in schedule["segments"]]
        object.__setattr__(self, "_table", OpTable(space, pairs, self.mean))
        object.__setattr__(self, "_segment_ends", np.cumsum(lengths))
        object.__setattr__(self, "_thresholds", np.round(tenths * 6553.6).astype(np.uint32))

    def segment_of(self, epoch: int) -> int:
        """The index of the segment of the schedule that `epoch` (from 0) is in."""
        return min(int(np.searchsorted(self._segment_ends, epoch, side="right")), len(self._segment_ends) - 1)

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        segment = self.segment_of(epoch)
        words = random_words(seed, epoch, indices, Stream.POLICY, 24)
        entry, applied = self._choose(words[:, :3], _split_in_16_bits(words[:, 3:18]) < self._thresholds[segment])
        sign = words[:, 18:20]  # the highest bit is the sign, the next one the filter
        remaining = RandomWords(sign=sign, x=words[:, 20:22], y=words[:, 22:24], resample=sign << np.uint32(1))
        return self._table.plan(entry + segment * self._thresholds.shape[1], remaining, size, applied)

    def _choose(self, words: Words, accepted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Two entries per image in order, int64 [N,2], and whether each is applied, bool [N,2].

        words: [N,3]. accepted: bool [N,30], one per entry.
        """
        count = np.searchsorted(_COUNTS, uniform(words[:, 0]), side="right")
        rank = accepted.cumsum(axis=1, dtype=np.int8)
        available = rank[:, -1].astype(np.int64)
        first = integers_below(words[:, 1], available)
        second = integers_below(words[:, 2], np.maximum(available - 1, 0))
        second += second >= first
        chosen = np.stack([first, second], axis=1) + 1
        entry = (rank[:, None] >= chosen[..., None]).argmax(axis=2)
        return entry, np.arange(1, 3) <= np.minimum(count, available)[:, None]


def _split_in_16_bits(words: Words) -> NDArray[np.uint32]:
    """The 16-bit halves [N,2n] of words [N,n]; precise enough for probabilities in tenths (error below 2^-17)."""
    return np.concatenate([words >> np.uint32(16), words & np.uint32(0xFFFF)], axis=1)


@cache
def load_schedule(name: str) -> tuple[list[str], dict[str, Any]]:
    """The ops of the thirty entries and the schedule `name` of tables/pba.json.

    The schedule has search_epochs, and segments: (epochs, for each entry [probability in tenths, level]).
    """
    tables = json.loads((resources.files("kdaug.views") / "tables" / "pba.json").read_text(encoding="utf-8"))
    return tables["ops"] * 2, tables["policies"][name]
