"""Views of two images: mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899), drawn by key.

Every view gets a mixture of its own, a pure function of seed, epoch and sample, so that it replays. What comes out is
whole bytes again: a teacher and a student, or the same run resumed, see the very same mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.rng.philox import Stream, below, permutation, uniform, words
from kdaug.views.plan import Size

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
_GRID = 1 << 12
_WHOLE = 256


@dataclass(frozen=True)
class MixPlan:
    """How N views are mixed with their partners'.

    weight: int64 [N], of the own pixels in 256ths. box: int64 [N,4], left, top, width, height of the part that is the
    partner's alone; of no size where the views are blended.
    """

    weight: NDArray[np.int64]
    box: NDArray[np.int64]

    def share(self, size: Size) -> NDArray[np.float32]:
        """How much of each view of `size` is the own image's: float32 [N], from 0 to 1."""
        area = self.box[:, 2] * self.box[:, 3] / (size[0] * size[1])
        return (self.weight / _WHOLE * (1 - area)).astype(np.float32)


def plan_mixing(seed: int, epoch: int, indices: ArrayLike, size: Size, mixup: float, cutmix: float) -> MixPlan:
    """Mixtures of samples `indices` int64 [N] of `size` (height, width), at least one of the two being asked for.

    mixup, cutmix: alpha of the Beta(alpha, alpha) that the own share is drawn from; 0: not this kind. Of both, a view
    gets either with probability 1/2.
    """
    drawn = words(seed, epoch, indices, Stream.MIXING, 4)
    cut = np.full(len(drawn), bool(cutmix))
    if mixup and cutmix:
        cut = uniform(drawn[:, 0]) < 0.5
    share = uniform(drawn[:, 1])
    share = np.where(cut, beta_quantile(share, cutmix or mixup), beta_quantile(share, mixup or cutmix))
    weight = np.where(cut, _WHOLE, np.rint(share * _WHOLE)).astype(np.int64)
    return MixPlan(weight, np.where(cut[:, None], _boxes(1 - share, drawn[:, 2], drawn[:, 3], size), 0))


def _boxes(area: Floats, x: NDArray[np.uint32], y: NDArray[np.uint32], size: Size) -> NDArray[np.int64]:
    """Boxes with the image's proportions and `area` [N] of it, about any pixel, cut off at its edges: int64 [N,4]."""
    edges = []
    for word, length in ((x, size[1]), (y, size[0])):
        half = np.floor(length * np.sqrt(area)).astype(np.int64) // 2
        centre = below(word, length)
        start, end = (np.clip(edge, 0, length) for edge in (centre - half, centre + half))
        edges.append((start, end - start))
    (left, width), (top, height) = edges
    return np.stack([left, top, width, height], axis=1)


def mix(own: Pixels, partner: Pixels, plan: MixPlan) -> Pixels:
    """The mixtures, uint8 [N,H,W,C], of two times as many views, rounded to the nearest byte."""
    mixed = own.copy()
    for row, (left, top, width, height) in enumerate(plan.box):  # one by one, so that an image stays in the cache
        weight = plan.weight[row]
        if weight < _WHOLE:
            sums = own[row] * np.uint16(weight)
            sums += partner[row] * np.uint16(_WHOLE - weight)
            sums += np.uint16(_WHOLE // 2)
            mixed[row] = sums >> 8
        part = np.s_[row, top : top + height, left : left + width]
        mixed[part] = partner[part]
    return mixed


@lru_cache(maxsize=4)
def partners(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """With which of `count` images each is mixed: the one after it in the order of that epoch; int64 [count].

    So every image is partner once, and those of a batch are in it, but for the last one's.
    """
    order = permutation(seed, epoch, count)
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -1)
    return partner


def beta_quantile(probability: Floats, alpha: float) -> Floats:
    """The value below which Beta(alpha, alpha) lies with each probability, good to a 256th; same shape.

    Half of the distribution is integrated, over u = x ** alpha where its density in x is not bounded (alpha below 1);
    the rest is its mirror image.
    """
    u, below_u = _half_of_beta(alpha)
    lower = np.interp(np.minimum(probability, 1 - probability), below_u, u) ** (1 / min(alpha, 1))
    return np.where(probability < 0.5, lower, 1 - lower)


@lru_cache(maxsize=4)
def _half_of_beta(alpha: float) -> tuple[Floats, Floats]:
    """u from 0 to where x is 1/2, and the probability below each."""
    power = min(alpha, 1)
    u = np.linspace(0, 0.5**power, _GRID + 1)
    x = u ** (1 / power)
    density = (2 * x) ** (alpha - power) * (2 * (1 - x)) ** (alpha - 1)
    below_u = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return u, below_u / (2 * below_u[-1])
