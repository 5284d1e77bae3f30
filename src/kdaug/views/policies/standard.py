"""The standard parts around a policy: nothing, pad-crop, flip, cutout, random erasing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError, nearest
from kdaug.rng.philox import Stream, Words, below, uniform, words
from kdaug.views.ops import CODES
from kdaug.views.plan import Color, Size, ViewPlan, blank

CIFAR_MEAN: Color = (125, 122, 113)
"""Fill of the AutoAugment release, used where a space fills with the data's mean and none is given."""


@dataclass(frozen=True)
class NoPolicy:
    """Leaves every image as it is."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        return blank(np.size(indices), 0, size)


@dataclass(frozen=True)
class PadCrop:
    """Pads `pad` pixels of colour `fill` on each side, then crops back to size at a uniform offset."""

    pad: int
    fill: Color
    stream: ClassVar[Stream] = Stream.CROP

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        offset = below(words(seed, epoch, indices, Stream.CROP, 2), 2 * self.pad + 1) - self.pad
        plan = blank(len(offset), 1, size, self.fill)
        plan.op[:] = CODES["crop"]
        plan.argument[:, 0, :2] = offset
        plan.argument[:, 0, 2:] = size[1], size[0]
        return plan


@dataclass(frozen=True)
class Flip:
    """Mirrors left-right with probability one half."""

    stream: ClassVar[Stream] = Stream.FLIP

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        heads = uniform(words(seed, epoch, indices, Stream.FLIP, 1)) < 0.5
        plan = blank(len(heads), 1, size)
        plan.op[heads] = CODES["flip"]
        return plan


@dataclass(frozen=True)
class Cutout:
    """Erases a square of `side` pixels centred anywhere in the image, cut off at its border (arXiv 1708.04552)."""

    side: int
    fill: Color
    stream: ClassVar[Stream] = Stream.CUTOUT

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        height, width = size
        centre = below(words(seed, epoch, indices, Stream.CUTOUT, 2), (width, height))
        plan = blank(len(centre), 1, size, self.fill)
        plan.op[:] = CODES["cutout"]
        plan.argument[:, 0, :2] = centre - self.side // 2
        plan.argument[:, 0, 2] = self.side
        return plan


ERASING_SPACES = {
    #               share of the area   aspect ratio
    "timm":        ((0.02, 1 / 3),      (0.3, 1 / 0.3)),  # aa4b585, timm/data/random_erasing.py
    "torchvision": ((0.02, 0.33),       (0.3, 3.3)),      # 0352a47, torchvision/transforms/transforms.py
}  # fmt: skip
_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomErasing:
    """With `probability`, erases a rectangle of random area and aspect ratio (arXiv 1708.04896).

    Area uniform, ratio log-uniform within the ranges of `space`, ten attempts to find one smaller than the image, as
    in timm and torchvision. Views are uint8, so it is filled with a colour (the mean) before normalisation, where
    those fill with 0 after it.
    """

    probability: float
    space: str
    fill: Color
    stream: ClassVar[Stream] = Stream.ERASING

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"random-erasing: the probability is {self.probability:g}, but must be from 0 to 1")
        if self.space not in ERASING_SPACES:
            known = list(ERASING_SPACES)
            hint = nearest(self.space, known) or "; there are " + ", ".join(known)
            raise InputError(f"random-erasing: there is no space {self.space!r} for it{hint}")

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        drawn = words(seed, epoch, indices, Stream.ERASING, 3 + 2 * _ATTEMPTS)
        plan = blank(len(drawn), 1, size, self.fill)
        rows = np.flatnonzero(uniform(drawn[:, 0]) < self.probability)
        sides = self._sides(drawn[rows, 3:], size)  # height and width
        plan.op[rows, 0] = np.where(sides[:, 0] > 0, CODES["erase"], 0)
        plan.argument[rows, 0, 0] = below(drawn[rows, 1], size[1] - sides[:, 1] + 1)
        plan.argument[rows, 0, 1] = below(drawn[rows, 2], size[0] - sides[:, 0] + 1)
        plan.argument[rows, 0, 2:] = sides[:, ::-1]
        plan.argument[plan.op == 0] = 0
        return plan

    def _sides(self, drawn: Words, size: Size) -> NDArray[np.float64]:
        """Height and width, float64 [n,2], from the first attempt that fits; 0, 0 where none does."""
        shares, ratios = ERASING_SPACES[self.space]
        low, high = math.log(ratios[0]), math.log(ratios[1])
        area = (shares[0] + (shares[1] - shares[0]) * uniform(drawn[:, 0::2])) * (size[0] * size[1])
        ratio = np.exp(low + (high - low) * uniform(drawn[:, 1::2]))
        sides = np.round(np.sqrt(np.stack([area * ratio, area / ratio], axis=-1)))  # [n, attempts, 2]
        fits = (sides[..., 0] < size[0]) & (sides[..., 1] < size[1])
        first = fits.argmax(axis=1)
        rows = np.arange(len(drawn))
        return np.where(fits[rows, first][:, None], sides[rows, first], 0.0)
