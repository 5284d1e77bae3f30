"""Crops: the part of an image file that is resized to the network's input size. Drawn when the image is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdaug.rng import Stream, integers_below, random_words, uniform

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) within an image, in pixels; it is resized to `size` x `size`."""
_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area (share min_area..1) and ratio (3/4..4/3, log-uniform) as in Inception (arXiv 1409.4842).

    Up to ten boxes are drawn until one fits into the image; else it is the largest central box with an allowed ratio.
    """

    size: int
    seed: int
    min_area: float

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        """The box of the sample `index` in `epoch`, in a `width` x `height` image."""
        words = random_words(self.seed, epoch, np.array([index]), Stream.CROP, 4 * _ATTEMPTS).reshape(_ATTEMPTS, 4)
        area = width * height * (self.min_area + (1 - self.min_area) * uniform(words[:, 0]))
        ratio = np.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * uniform(words[:, 1]))
        widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        for attempt in range(_ATTEMPTS):
            w, h = int(widths[attempt]), int(heights[attempt])
            if 0 < w <= width and 0 < h <= height:
                left = int(integers_below(words[attempt, 2], width - w + 1))
                top = int(integers_below(words[attempt, 3], height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, max(round(height * 4 / 3), 1)), min(height, max(round(width * 4 / 3), 1))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class CenterCrop:
    """The central square. Its side is `fraction` of the image's shorter side; None: `evaluation_fraction`."""

    size: int
    fraction: float | None = None

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        """The box in a `width` x `height` image, the same for each sample in each epoch."""
        side = (self.fraction or evaluation_fraction(self.size)) * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


def evaluation_fraction(size: int) -> float:
    """The fraction of a photo's shorter side that evaluation at `size` pixels uses: size / (size + 32), at least 0.875.

    size / (size + 32) is the TPU EfficientNet code's (224 of 256 pixels); for small sizes it would crop too much.
    """
    return max(0.875, size / (size + 32))


@dataclass(frozen=True)
class WholeImage:
    """The whole image, whose ratio of width to height is lost."""

    size: int

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        """The box in a `width` x `height` image, the same for each sample in each epoch."""
        return 0, 0, width, height


ImageCrop = RandomResizedCrop | CenterCrop | WholeImage
