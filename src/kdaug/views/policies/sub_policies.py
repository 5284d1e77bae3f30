"""Policies of sub-policies: AutoAugment, Fast AutoAugment, and policy files of the user."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng import Stream, integers_below, random_words, uniform
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Color, Size, ViewPlan
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.space_tables import get_sub_policy_space

Step = tuple[str, float, float]
"""(op, probability 0..1, level)"""

# name -> (file in tables/, space of its source)
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
    """One sub-policy per image, drawn uniformly; each of its steps is applied with its own probability.

    name: for error messages. space: `get_sub_policy_space(space)` defines the levels. mean: as in RandAugment.
    Raises InputError, starting with `name`, for an op, probability or level out of range.
    """

    name: str
    space: str
    sub_policies: tuple[tuple[Step, ...], ...]
    mean: Color = CIFAR_MEAN
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)
    _entry_of: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _probability: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_sub_policy_space(self.space)
        for number, sub_policy in enumerate(self.sub_policies, 1):
            for step, (op, probability, level) in enumerate(sub_policy, 1):
                where = f"{self.name}: sub-policy {number}, entry {step}"
                space.check_op(op, where)
                if not 0 <= probability <= 1:
                    raise InputError(f"{where}: the probability of {op} is {probability:g}, but must be from 0 to 1")
                space.check_level(level, f"{where}: the level of {op}")
        pairs = list(dict.fromkeys((op, level) for sub_policy in self.sub_policies for op, _, level in sub_policy))
        shape = len(self.sub_policies), max(len(sub_policy) for sub_policy in self.sub_policies)
        entry, probabilities = np.zeros(shape, np.int64), np.zeros(shape)  # shorter ones are padded with probability 0
        positions = {pair: position for position, pair in enumerate(pairs)}
        for row, sub_policy in enumerate(self.sub_policies):
            for column, (op, probability, level) in enumerate(sub_policy):
                entry[row, column], probabilities[row, column] = positions[op, level], probability
        object.__setattr__(self, "_table", OpTable(space, pairs, self.mean))
        object.__setattr__(self, "_entry_of", entry)
        object.__setattr__(self, "_probability", probabilities)

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        steps = self._entry_of.shape[1]
        words = random_words(seed, epoch, indices, Stream.POLICY, 4 * (1 + steps))
        words = words.reshape(len(words), 1 + steps, 4)
        chosen = integers_below(words[:, 0, 0], len(self._entry_of))
        step_words = words[:, 1:]
        sign = step_words[..., 1]  # the highest bit is the sign, the next one the filter
        return self._table.plan(
            self._entry_of.take(chosen, axis=0),
            RandomWords(sign=sign, x=step_words[..., 2], y=step_words[..., 3], resample=sign << np.uint32(1)),
            size,
            applied=uniform(step_words[..., 0]) < self._probability.take(chosen, axis=0),
        )


def published_policy(name: str, space: str | None, mean: Color) -> SubPolicies:
    """The policy `name` of PUBLISHED. `space` (None: that of its source) defines what its levels mean."""
    file, own_space = PUBLISHED[name]
    sub_policies = tuple(tuple((op, p, level) for op, p, level in steps) for steps in _load_sub_policies(file)[name])
    return SubPolicies(name, space or own_space, sub_policies, mean)


@cache
def _load_sub_policies(file: str) -> dict[str, Any]:
    """The sub-policies of each policy in a file of tables/, by name."""
    text = (resources.files("kdaug.views") / "tables" / file).read_text(encoding="utf-8")
    return {name: entry["sub_policies"] for name, entry in json.loads(text)["policies"].items()}
