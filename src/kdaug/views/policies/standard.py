"""The standard augmentations: pad-crop, soft crop, flip, cutout, random erasing; and no augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError, unknown_choice
from kdaug.rng import Stream, Words, integers_below, random_words, uniform
from kdaug.views.ops import CODES
from kdaug.views.plan import Color, Size, ViewPlan, empty_plan

CIFAR_MEAN: Color = (125, 122, 113)
"""Mean of CIFAR-10 in the AutoAugment release: the default fill of spaces that fill with the dataset's mean."""


@dataclass(frozen=True)
class NoPolicy:
    """No augmentation."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        return empty_plan(np.size(indices), 0, size)


@dataclass(frozen=True)
class PadCrop:
    """Pads `pad` pixels of color `fill` on each side, then crops to the original size at a uniform offset."""

    pad: int
    fill: Color
    stream: ClassVar[Stream] = Stream.CROP

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        offset = integers_below(random_words(seed, epoch, indices, Stream.CROP, 2), 2 * self.pad + 1) - self.pad
        plan = empty_plan(len(offset), 1, size, self.fill)
        plan.op[:] = CODES["crop"]
        plan.argument[:, 0, :2] = offset
        plan.argument[:, 0, 2:] = size[1], size[0]
        return plan


@dataclass(frozen=True)
class SoftCrop:
    """Shifts the image by a normal offset in both directions and fills what becomes free with `fill`.

    The soft crop of Liu et al. (CVPR 2023, arXiv 2211.04625, Section 3.2). The offset has the standard deviation
    `deviation` x the side, is less than the side, and is rounded towards zero. Theirs fills with random colors.
    """

    deviation: float
    fill: Color
    stream: ClassVar[Stream] = Stream.CROP

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        from scipy.special import ndtr, ndtri  # takes a while to import

        height, width = size
        below = ndtr(-1 / self.deviation)  # probability of an offset below minus the side
        draw = below + (1 - 2 * below) * uniform(random_words(seed, epoch, indices, Stream.CROP, 2))
        offset = np.trunc(self.deviation * ndtri(draw) * (width, height))
        plan = empty_plan(len(offset), 1, size, self.fill)
        plan.op[:] = CODES["crop"]
        plan.argument[:, 0, :2] = offset
        plan.argument[:, 0, 2:] = width, height
        return plan


@dataclass(frozen=True)
class Flip:
    """Flips left-right with probability 1/2."""

    stream: ClassVar[Stream] = Stream.FLIP

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        flipped = uniform(random_words(seed, epoch, indices, Stream.FLIP, 1)) < 0.5
        plan = empty_plan(len(flipped), 1, size)
        plan.op[flipped] = CODES["flip"]
        return plan


@dataclass(frozen=True)
class Cutout:
    """Fills a square of `side` pixels with `fill`; its center is uniform over the pixels (arXiv 1708.04552)."""

    side: int
    fill: Color
    stream: ClassVar[Stream] = Stream.CUTOUT

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        height, width = size
        center = integers_below(random_words(seed, epoch, indices, Stream.CUTOUT, 2), (width, height))
        plan = empty_plan(len(center), 1, size, self.fill)
        plan.op[:] = CODES["cutout"]
        plan.argument[:, 0, :2] = center - self.side // 2
        plan.argument[:, 0, 2] = self.side
        return plan


ERASING_SPACES = {
    #               fraction of area    aspect ratio
    "timm":        ((0.02, 1 / 3),      (0.3, 1 / 0.3)),  # aa4b585, timm/data/random_erasing.py
    "torchvision": ((0.02, 0.33),       (0.3, 3.3)),      # 0352a47, torchvision/transforms/transforms.py
}  # fmt: skip
_MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomErasing:
    """With `probability`, fills a rectangle of random area and aspect ratio (arXiv 1708.04896).

    As in timm and torchvision, the area is uniform and the aspect ratio log-uniform within the ranges of `space` (one
    of ERASING_SPACES), and up to ten rectangles are drawn until one is smaller than the image. Those libraries fill
    normalized images with 0. Views are uint8, so here `fill` (the mean) is set before normalization. Raises InputError
    for a probability outside 0..1 and for an unknown space.
    """

    probability: float
    space: str
    fill: Color
    stream: ClassVar[Stream] = Stream.ERASING

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"random-erasing: the probability is {self.probability:g}, but must be from 0 to 1")
        if self.space not in ERASING_SPACES:
            raise unknown_choice("random-erasing space", self.space, ERASING_SPACES)

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        words = random_words(seed, epoch, indices, Stream.ERASING, 3 + 2 * _MAX_ATTEMPTS)
        plan = empty_plan(len(words), 1, size, self.fill)
        rows = np.flatnonzero(uniform(words[:, 0]) < self.probability)
        sides = self._draw_sides(words[rows, 3:], size)
        plan.op[rows, 0] = np.where(sides[:, 0] > 0, CODES["erase"], 0)
        plan.argument[rows, 0, 0] = integers_below(words[rows, 1], size[1] - sides[:, 1] + 1)
        plan.argument[rows, 0, 1] = integers_below(words[rows, 2], size[0] - sides[:, 0] + 1)
        plan.argument[rows, 0, 2:] = sides[:, ::-1]
        plan.argument[plan.op == 0] = 0
        return plan

    def _draw_sides(self, words: Words, size: Size) -> NDArray[np.float64]:
        """Height and width, float64 [n,2], of the first attempt that fits into the image; 0, 0 if none does."""
        areas, ratios = ERASING_SPACES[self.space]
        low, high = math.log(ratios[0]), math.log(ratios[1])
        area = (areas[0] + (areas[1] - areas[0]) * uniform(words[:, 0::2])) * (size[0] * size[1])
        ratio = np.exp(low + (high - low) * uniform(words[:, 1::2]))
        sides = np.round(np.sqrt(np.stack([area * ratio, area / ratio], axis=-1)))  # [n, attempts, 2]
        fits = (sides[..., 0] < size[0]) & (sides[..., 1] < size[1])
        first = fits.argmax(axis=1)
        rows = np.arange(len(words))
        return np.where(fits[rows, first][:, None], sides[rows, first], 0.0)
