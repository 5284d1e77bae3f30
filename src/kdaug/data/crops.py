"""Which part of a decoded photo is resized to the network's size.

The box is drawn by the same generator as the views, but here, where the photo's own size is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdaug.rng.philox import Stream, below, uniform, words

Box = tuple[float, float, float, float]
_ATTEMPTS = 10


class ImageCrop(Protocol):
    """Chooses a box of an image and the side, in pixels, it is resized to."""

    @property
    def size(self) -> int: ...

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        """(left, top, right, bottom) within a `width` x `height` image, for sample `index` in `epoch`."""
        ...


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area (share `min_area`..1) and aspect ratio (3/4..4/3, log-uniform), as torchvision's.

    Ten attempts to fit inside the image, then the largest central box of a permitted ratio (Inception, 1409.4842).
    """

    size: int
    seed: int
    min_area: float

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        drawn = words(self.seed, epoch, np.array([index]), Stream.CROP, 4 * _ATTEMPTS).reshape(_ATTEMPTS, 4)
        area = width * height * (self.min_area + (1 - self.min_area) * uniform(drawn[:, 0]))
        ratio = np.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * uniform(drawn[:, 1]))
        widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        for attempt in range(_ATTEMPTS):
            w, h = int(widths[attempt]), int(heights[attempt])
            if 0 < w <= width and 0 < h <= height:
                left, top = int(below(drawn[attempt, 2], width - w + 1)), int(below(drawn[attempt, 3], height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, max(round(height * 4 / 3), 1)), min(height, max(round(width * 4 / 3), 1))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class CenterCrop:
    """The central square whose side is size / (size + 32) of the shorter side, and at least 0.875 of it.

    The first is the TPU EfficientNet code's (224: resize to 256, crop 224); smaller images would lose too much by it.
    """

    size: int

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        side = max(0.875, self.size / (self.size + 32)) * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
