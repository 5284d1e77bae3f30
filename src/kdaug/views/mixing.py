"""Mixtures of two views: mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899).

Each view draws its own mixture, a pure function of seed, epoch and sample index. Mixed views are uint8, so teacher and
student, or a resumed run, get the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.rng import Stream, integers_below, permutation, random_words, uniform
from kdaug.views.plan import Size

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
_BETA_STEPS = 1 << 12  # of the numerical integration
_ONE = 256  # blend weights are in 256ths


@dataclass(frozen=True)
class MixPlan:
    """How each of N views is mixed with the view of its partner.

    weight: int64 [N], weight of the view's own pixels in the blend, in 256ths; 256 for CutMix.
    box: int64 [N,4], left, top, width, height of the rectangle taken from the partner (CutMix); 0 for mixup.
    """

    weight: NDArray[np.int64]
    box: NDArray[np.int64]

    def own_weight(self, size: Size) -> NDArray[np.float32]:
        """The weight of each view's own label for views of `size` (height, width): float32 [N], 0..1."""
        area = self.box[:, 2] * self.box[:, 3] / (size[0] * size[1])
        return (self.weight / _ONE * (1 - area)).astype(np.float32)


def plan_mixing(seed: int, epoch: int, indices: ArrayLike, size: Size, mixup: float, cutmix: float) -> MixPlan:
    """The mixtures of samples `indices` int64 [N] with views of `size` (height, width).

    mixup, cutmix: alpha of the Beta(alpha, alpha) distribution of the own image's weight; 0 disables the kind, and at
    least one is positive. With both, each view uses either with probability 1/2.
    """
    words = random_words(seed, epoch, indices, Stream.MIXING, 4)
    use_cutmix = np.full(len(words), bool(cutmix))
    if mixup and cutmix:
        use_cutmix = uniform(words[:, 0]) < 0.5
    u = uniform(words[:, 1])
    own = np.where(use_cutmix, beta_quantile(u, cutmix or mixup), beta_quantile(u, mixup or cutmix))
    weight = np.where(use_cutmix, _ONE, np.rint(own * _ONE)).astype(np.int64)
    return MixPlan(weight, np.where(use_cutmix[:, None], _boxes(1 - own, words[:, 2], words[:, 3], size), 0))


def _boxes(area: Floats, x: NDArray[np.uint32], y: NDArray[np.uint32], size: Size) -> NDArray[np.int64]:
    """Boxes int64 [N,4] with the image's aspect ratio and `area` [N] (a fraction), clipped to the image.

    x, y: random words that give the center, uniform over the pixels.
    """
    intervals = []
    for word, length in ((x, size[1]), (y, size[0])):
        half = np.floor(length * np.sqrt(area)).astype(np.int64) // 2
        center = integers_below(word, length)
        start, end = (np.clip(edge, 0, length) for edge in (center - half, center + half))
        intervals.append((start, end - start))
    (left, width), (top, height) = intervals
    return np.stack([left, top, width, height], axis=1)


def mix(own: Pixels, partner: Pixels, plan: MixPlan) -> Pixels:
    """Mixes views `own` uint8 [N,H,W,C] with those of their partners, same shape; rounds to the nearest integer."""
    mixed = own.copy()
    for row, (left, top, width, height) in enumerate(plan.box):  # one at a time: an image fits into the CPU cache
        weight = plan.weight[row]
        if weight < _ONE:
            sums = own[row] * np.uint16(weight)
            sums += partner[row] * np.uint16(_ONE - weight)
            sums += np.uint16(_ONE // 2)
            mixed[row] = sums >> 8
        box = np.s_[row, top : top + height, left : left + width]
        mixed[box] = partner[box]
    return mixed


@lru_cache(maxsize=4)
def partners(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The partner of each of `count` images: the next image in the order of `epoch`; int64 [count].

    Every image is the partner of one other. In a batch of consecutive images, only the last one's partner is missing.
    """
    order = permutation(seed, epoch, count)
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -1)
    return partner


def beta_quantile(probability: Floats, alpha: float) -> Floats:
    """Quantiles of Beta(alpha, alpha) at each probability, with an error below 1/256; same shape.

    The distribution is symmetric, so only x < 1/2 is integrated. For alpha < 1 the density in x has no bound, so the
    integration is over u = x ** alpha.
    """
    u, cumulative = _beta_cdf(alpha)
    lower = np.interp(np.minimum(probability, 1 - probability), cumulative, u) ** (1 / min(alpha, 1))
    return np.where(probability < 0.5, lower, 1 - lower)


@lru_cache(maxsize=4)
def _beta_cdf(alpha: float) -> tuple[Floats, Floats]:
    """Values of u from x = 0 to x = 1/2, and the cumulative probability at each."""
    power = min(alpha, 1)
    u = np.linspace(0, 0.5**power, _BETA_STEPS + 1)
    x = u ** (1 / power)
    density = (2 * x) ** (alpha - power) * (2 * (1 - x)) ** (alpha - 1)
    cumulative = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return u, cumulative / (2 * cumulative[-1])
