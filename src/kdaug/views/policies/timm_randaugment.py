"""RandAugment as timm's strings configure it: noise on the magnitude, increasing ops, weighted choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError
from kdaug.rng import Stream, Words, integers_below, random_words, uniform
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Size, ViewPlan
from kdaug.views.policies.randaugment import MAX_OPS, WORDS_PER_OP
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.policies.timm_strings import (
    MAX_LEVEL,
    MAX_MAGNITUDE,
    draw_levels,
    noise_of,
    read_parts,
    with_magnitude,
)
from kdaug.views.space_tables import get_space

# part of the string -> weight of each op, any scale; ops that are not listed are never drawn
CHOICE_WEIGHTS = {
    "w0": {  # older versions of timm, such as 0.6: _RAND_CHOICE_WEIGHTS_0
        "rotate": 0.3, "shear-x": 0.2, "shear-y": 0.2, "translate-x": 0.1, "translate-y": 0.1, "color": 0.025,
        "sharpness": 0.025, "autocontrast": 0.025, "solarize": 0.005, "solarize-add": 0.005, "contrast": 0.005,
        "brightness": 0.005, "equalize": 0.005,
    },
    "tweights": {  # timm 1.0.31: _RAND_WEIGHTED_0
        "rotate": 3, "shear-x": 2, "shear-y": 2, "translate-x": 1, "translate-y": 1, "color": 0.25, "sharpness": 0.25,
        "autocontrast": 0.25, "solarize": 0.05, "solarize-add": 0.05, "contrast": 0.05, "brightness": 0.05,
        "equalize": 0.05, "posterize": 0.05, "invert": 0.05,
    },
}  # fmt: skip
_PARTS = {
    "m": (int, 0, MAX_MAGNITUDE), "n": (int, 1, MAX_OPS), "p": (float, 0, 1), "mstd": (float, 0, 1e6),
    "mmax": (int, 1, MAX_MAGNITUDE), "inc": (int, 0, 1), "w": (int, 0, 0), "tweights": None,
}  # fmt: skip


@dataclass(frozen=True)
class TimmRandAugment:
    """`num_ops` ops, each applied with `probability` at a level of its own (timm's strings `rand-...`).

    magnitude: mean of the levels before they are clamped to 0..max_level. noise: as in `draw_levels`. increasing: use
    space timm-increasing, else timm. weights: None draws ops uniformly with replacement; a name in CHOICE_WEIGHTS draws
    them with these weights without replacement. Raises InputError for more ops than have a weight.
    """

    num_ops: int = 2
    magnitude: float = 10
    noise: float = 0
    probability: float = 0.5
    max_level: float = MAX_LEVEL
    increasing: bool = False
    weights: str | None = None
    spec: str = field(default="rand", compare=False)
    """The string that this policy was created from."""
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)
    _weights: NDArray[np.float64] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        weights = None
        if self.weights is not None:
            of_ops = CHOICE_WEIGHTS[self.weights]
            weights = np.array([of_ops.get(name, 0.0) for name in space.ops])
            if self.num_ops > len(of_ops):
                raise InputError(
                    f"policy {self.spec}: n is {self.num_ops}, but {self.weights} draws from {len(of_ops)} ops without "
                    "replacement",
                    f"use n{len(of_ops)} or less",
                )
        # at level 1, so that a factor of the level is the level
        object.__setattr__(self, "_table", OpTable(space, [(name, 1.0) for name in space.ops], CIFAR_MEAN))
        object.__setattr__(self, "_weights", weights)

    @property
    def space(self) -> str:
        """The name of the space that defines the ops."""
        return "timm-increasing" if self.increasing or self.weights == "tweights" else "timm"

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        words = random_words(seed, epoch, indices, Stream.POLICY, self.num_ops * WORDS_PER_OP)
        words = words.reshape(len(words), self.num_ops, WORDS_PER_OP)
        if self._weights is None:
            entry = integers_below(words[..., 0], len(self._table))
        else:
            entry = draw_without_replacement(words[..., 0], self._weights)
        return self._table.plan(
            entry,
            RandomWords(sign=words[..., 2], x=words[..., 3], y=words[..., 4], resample=words[..., 6]),
            size,
            applied=uniform(words[..., 5]) < self.probability,
            level_factor=draw_levels(self.magnitude, self.noise, self.max_level, words[..., 1]),
        )


def draw_without_replacement(words: Words, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row of words [N,S], S different positions in `weights` float64 [E], int64 [N,S].

    One position is drawn after another, each with a probability proportional to its weight among those that remain, as
    in numpy.random.choice(replace=False).
    """
    remaining = np.tile(weights, (len(words), 1))
    chosen = np.empty(words.shape, np.int64)
    rows = np.arange(len(words))
    for step in range(words.shape[1]):
        cumulative = remaining.cumsum(axis=1)
        target = uniform(words[:, step]) * cumulative[:, -1]
        chosen[:, step] = (cumulative > target[:, None]).argmax(axis=1)
        remaining[rows, chosen[:, step]] = 0
    return chosen


def timm_randaugment(text: str, magnitude: int | None = None) -> TimmRandAugment:
    """The policy of timm's string `text`. magnitude: replaces the part m.

    Raises InputError for a part that is unknown, repeated, out of range, or needs ops that kdaug does not have.
    """
    if magnitude is not None:
        text = with_magnitude(text, magnitude)
    for part in text.split("-"):
        if part in ("t3a", "t3aw"):
            raise InputError(f"policy {text}: {part} needs the ops blur and desaturate, which kdaug does not have")
    parts = read_parts(text, _PARTS)
    if "w" in parts and "tweights" in parts:
        raise InputError(f"policy {text} has w0 and tweights", "use one of them")
    return TimmRandAugment(
        num_ops=int(parts.get("n", 2)),
        magnitude=parts.get("m", 10),
        noise=noise_of(parts.get("mstd", 0)),
        probability=parts.get("p", 0.5),
        max_level=parts.get("mmax", MAX_LEVEL),
        increasing=bool(parts.get("inc", 0)),
        weights="w0" if "w" in parts else "tweights" if "tweights" in parts else None,
        spec=text,
    )
