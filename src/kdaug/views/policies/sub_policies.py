"""Policies made of sub-policies: AutoAugment, Fast AutoAugment and those that users write."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng.philox import Stream, below, uniform, words
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.spaces import get_sub_policy_space

Step = tuple[str, float, float]
"""(op, probability 0..1, level)"""

# name -> (table, the space that its source reads it in)
PUBLISHED = {
    "autoaugment-cifar10":       ("autoaugment.json", "autoaugment-cifar"),
    "autoaugment-cifar10-95":    ("autoaugment.json", "autoaugment-cifar"),
    "autoaugment-svhn":          ("autoaugment.json", "autoaugment-cifar"),
    "autoaugment-imagenet":      ("autoaugment.json", "tf-efficientnet"),
    "autoaugment-imagenet-paper": ("autoaugment.json", "torchvision"),
    "fast-autoaugment-cifar10":  ("fast_autoaugment.json", "fast-autoaugment"),
    "fast-autoaugment-svhn":     ("fast_autoaugment.json", "fast-autoaugment"),
    "fast-autoaugment-imagenet": ("fast_autoaugment.json", "fast-autoaugment"),
}  # fmt: skip


@dataclass(frozen=True)
class SubPolicies:
    """One sub-policy per image, drawn uniformly; its steps in turn, each with its own probability.

    `space`: the system in whose sub-policy reading the levels are meant; `mean` as in RandAugment. Raises InputError,
    beginning with `name`, for a step that makes no sense in that space.
    """

    name: str
    space: str
    sub_policies: tuple[tuple[Step, ...], ...]
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _entries: OpTable = field(init=False, repr=False, compare=False)
    _entry: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _probability: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_sub_policy_space(self.space)
        for place, sub_policy in enumerate(self.sub_policies, 1):
            for step, (op, probability, level) in enumerate(sub_policy, 1):
                where = f"{self.name}: sub-policy {place}, entry {step}"
                space.check_op(op, where)
                if not 0 <= probability <= 1:
                    raise InputError(f"{where}: the probability of {op} is {probability:g}, but must be from 0 to 1")
                space.check_level(level, f"{where}: the level of {op}")
        pairs = list(dict.fromkeys((op, level) for sub_policy in self.sub_policies for op, _, level in sub_policy))
        shape = len(self.sub_policies), max(len(sub_policy) for sub_policy in self.sub_policies)
        entry, chance = np.zeros(shape, np.int64), np.zeros(shape)  # steps that shorter ones lack have no chance
        positions = {pair: position for position, pair in enumerate(pairs)}
        for row, sub_policy in enumerate(self.sub_policies):
            for column, (op, p, level) in enumerate(sub_policy):
                entry[row, column], chance[row, column] = positions[op, level], p
        object.__setattr__(self, "_entries", OpTable(space, pairs, self.mean))
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "_probability", chance)

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        steps = self._entry.shape[1]
        drawn = words(seed, epoch, indices, Stream.POLICY, 4 * (1 + steps))
        drawn = drawn.reshape(len(drawn), 1 + steps, 4)
        chosen = below(drawn[:, 0, 0], len(self._entry))
        each = drawn[:, 1:]
        signs = each[..., 1]  # its highest bit is the sign, the next one the filter
        return self._entries.plan(
            self._entry.take(chosen, axis=0),
            RandomWords(sign=signs, x=each[..., 2], y=each[..., 3], resample=signs << np.uint32(1)),
            size,
            applied=uniform(each[..., 0]) < self._probability.take(chosen, axis=0),
        )


def published(name: str, space: str | None, mean: Color) -> SubPolicies:
    """The published policy `name` of PUBLISHED; in another `space` its levels are read as that system reads them."""
    table, own_space = PUBLISHED[name]
    sub_policies = tuple(tuple((op, p, level) for op, p, level in steps) for steps in _table(table)[name])
    return SubPolicies(name, space or own_space, sub_policies, mean)


@cache
def _table(file: str) -> dict[str, Any]:
    """Name to sub-policies, as the file in tables/ has them."""
    text = (resources.files("kdaug.views") / "tables" / file).read_text(encoding="utf-8")
    return {name: entry["sub_policies"] for name, entry in json.loads(text)["policies"].items()}
