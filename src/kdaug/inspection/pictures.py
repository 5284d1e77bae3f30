"""Pictures on the page: small data URLs, within a budget of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.study.report.page import jpeg_url, png_url

_MAX_SIDE_OF_PNG = 96
"""Larger pictures are written as JPEG, because PNG of photos is several times as large."""


def picture_url(pixels: NDArray[np.uint8], side: int) -> str:
    """A URL that contains uint8 [H,W,C]: PNG if it is small, else JPEG; reduced to at most `side` pixels a side."""
    height, width = pixels.shape[:2]
    if max(height, width) > side:
        scale = side / max(height, width)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        reduced = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX)
        pixels = np.asarray(reduced).reshape(*reduced.size[::-1], -1)
    return png_url(pixels) if max(pixels.shape[:2]) <= _MAX_SIDE_OF_PNG else jpeg_url(pixels)


class PictureBudget:
    """Counts the bytes of URLs up to `limit`."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, *urls: str) -> bool:
        """Whether all `urls` together still fit; they are then counted."""
        size = sum(map(len, urls))
        if size > self.left:
            return False
        self.left -= size
        return True
