"""Parallel chains of ops whose results are blended with the image: AugMix (Hendrycks et al., arXiv 1912.02781).

The arithmetic is that of timm's `AugMixAugment`, so that the pixels equal those of NumPy and Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError

Pixels = NDArray[np.uint8]
Blend = Literal["sum", "sequence"]
BLENDS: tuple[Blend, ...] = ("sum", "sequence")


@dataclass(frozen=True)
class ChainMix:
    """The steps of a plan that are W parallel chains of D steps each, and how their results are blended.

    first, depth: chain i has the D = `depth` steps from column `first` + i * D of the plan.
    weight: float32 [N,W], weight of each chain among the chains. share: float32 [N], share of the chains in the view;
    the rest is the image as it was before the chains.
    size: (height, width) in pixels of the images before and after the chains.
    blend: "sum" adds up the chains, then blends the sum with the image; "sequence" blends one chain after another into
    the image.
    """

    first: int
    depth: int
    weight: NDArray[np.float32]
    share: NDArray[np.float32]
    size: tuple[int, int]
    blend: Blend = "sum"

    @property
    def width(self) -> int:
        """The number of chains."""
        return int(self.weight.shape[1])

    @property
    def stop(self) -> int:
        """The column after the last step of the last chain."""
        return self.first + self.width * self.depth

    def __getitem__(self, rows: slice) -> ChainMix:
        """The mixture of some images of the batch."""
        return replace(self, weight=self.weight[rows], share=self.share[rows])

    def view_weights(self) -> NDArray[np.float32]:
        """The weight of each chain in the view, share included: float32 [N,W]."""
        weights: NDArray[np.float32] = self.weight * self.share[:, None]
        return weights


def check_chain_mix(mix: ChainMix, count: int, steps: int) -> None:
    """Raises InputError if `mix` does not fit a plan of `count` images and `steps` steps, or a weight is not 0..1."""
    for name, array, shape in (("weight", mix.weight, mix.weight.shape[-1:]), ("share", mix.share, ())):
        if array.shape != (count, *shape) or array.dtype != np.float32:
            raise InputError(
                f"the {name} of the plan's chains is {array.dtype} {list(array.shape)}, "
                f"but must be float32 for {count} images"
            )
        if not ((array >= 0) & (array <= 1)).all():
            raise InputError(f"the {name} of the plan's chains must be from 0 to 1")
    if mix.first < 0 or mix.depth < 0 or mix.stop > steps:
        raise InputError(f"the plan has {steps} steps, but its chains are steps {mix.first} to {mix.stop}")
    if mix.blend not in BLENDS:
        raise InputError(f"the blend of the plan's chains is {mix.blend!r}, but must be one of {', '.join(BLENDS)}")


def blend_chains(images: Pixels, chains: Sequence[Pixels], mix: ChainMix) -> Pixels:
    """Blends the results of the chains with `images`, all uint8 [N,H,W,C]; returns a new array of that shape.

    "sum": the weighted chains are added up in float32 in their order, clipped to 0..255 and truncated to integers; then
    `_blend` mixes the image and this sum by the share. "sequence": `_blend` mixes one chain after another into the
    image, with fractions that give each chain its weight.
    """
    views = np.empty_like(images)
    for row, image in enumerate(images):  # one at a time: an image fits into the CPU cache
        weight, share = mix.weight[row], mix.share[row]
        if mix.blend == "sequence":
            view = image
            for chain, fraction in zip(chains, _fractions(weight * share), strict=True):
                view = _blend(view, chain[row], fraction)
        else:
            total = np.zeros(image.shape, np.float32)
            for chain, chain_weight in zip(chains, weight, strict=True):
                total += chain_weight * chain[row].astype(np.float32)
            view = _blend(image, np.clip(total, 0, 255, out=total).astype(np.uint8), share)
        views[row] = view
    return views


def _blend(image: Pixels, other: Pixels, fraction: np.float32) -> Pixels:
    """image + fraction * (other - image) in float32, clipped and truncated to integers, as PIL.Image.blend does."""
    start = image.astype(np.float32)
    mixed = start + fraction * (other.astype(np.float32) - start)
    return np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)


def _fractions(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The fraction of each chain, float32 [W], with which blending one after another gives chain i weights[i]."""
    fractions = np.empty_like(weights)
    rest = np.float32(1)
    for chain in range(len(weights) - 1, -1, -1):
        fractions[chain] = weights[chain] / rest if rest > 0 else 0
        rest *= 1 - fractions[chain]
    return fractions
