"""Resizes a part of an image to the bytes that Pillow would compute, in less time."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.data.crops import Box
from kdaug.errors import InputError
from kdaug.jit import announce_compilation

_SAMPLES: tuple[tuple[int, int, Box, int], ...] = (
    (40, 31, (0, 0, 40, 31), 16),
    (31, 40, (0, 0, 31, 40), 16),
    (20, 60, (1.25, 2.5, 19.75, 58), 17),
    (12, 9, (0.5, 0, 11, 8.75), 30),
)
"""Width, height, box and output size of the images by which the kernel is compared with Pillow."""


def resize_bicubic(pixels: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """Resizes `box` of an RGB image, uint8 [H,W,3], to uint8 [size,size,3].

    Equal to `Image.resize((size, size), Image.Resampling.BICUBIC, box)`. box: (left, top, right, bottom) in pixels,
    within the image; Pillow rounds them to float32, so they are here. Raises InputError for any other array or box.

    Pillow 13 resizes tall images vertically first, older versions never; the difference is about 1 of 255. When first
    called, the function finds out which order the installed Pillow uses. If the results still differ (a new version, or
    a processor with other rounding), it calls Pillow. The first call also compiles the kernel, or loads it from disk.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InputError(f"pixels are {pixels.dtype} {list(pixels.shape)}", "pass an RGB image, uint8 [H,W,3]")
    left, top, right, bottom = box
    if not (0 <= left < right <= pixels.shape[1] and 0 <= top < bottom <= pixels.shape[0]):
        raise InputError(f"box {box} is empty or not within {pixels.shape[1]} x {pixels.shape[0]} pixels", "change it")
    if size < 1:
        raise InputError(f"size is {size}", "pass 1 or more")
    rule = tall_images_rule()
    return _by_pillow(pixels, box, size) if rule is None else _by_kernel(pixels, box, size, rule)


@cache
def tall_images_rule() -> bool | None:
    """Whether the installed Pillow resizes tall images vertically first; None if the kernel is never equal to it.

    Compiles the kernel. Call it before processes that decode images are forked: then they inherit the kernel.
    """
    with announce_compilation("image resizing kernel", 5):
        return next((rule for rule in (True, False) if all(_is_equal(*sample, rule) for sample in _SAMPLES)), None)


def _is_equal(width: int, height: int, box: Box, size: int, rule: bool) -> bool:
    """Whether the kernel and Pillow give the same bytes for an image of noise."""
    noise = np.frombuffer(hashlib.shake_256(b"%d" % width).digest(width * height * 3), np.uint8)
    pixels = noise.reshape(height, width, 3)
    return np.array_equal(_by_kernel(pixels, box, size, rule), _by_pillow(pixels, box, size))


def _by_pillow(pixels: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box))


def _by_kernel(pixels: NDArray[np.uint8], box: Box, size: int, rule: bool) -> NDArray[np.uint8]:
    from kdaug.data.resize_kernel import resize  # numba takes half a second to import

    height, width = pixels.shape[:2]
    lines = np.ascontiguousarray(pixels).reshape(height, width * 3)
    lines.flags.writeable = False  # numba compiles for one type of array only
    vertical_first = rule and height - size > max(0, 2 * (width - size))
    resized = np.empty((size, size * 3), np.uint8)
    resize(lines, np.array(box, np.float32), vertical_first, resized)
    return resized.reshape(size, size, 3)
