"""Enhancements: blends of an image with black, its mean gray, its grayscale version or its smoothed version.

As in Pillow, the second image is called degenerate. Each value is d + factor * (v - d) in float32 (a multiplication,
then an addition), clipped to 0..255 and truncated. With an infinite factor and v = d the result is NaN, which Pillow
turns into 0. The order of the comparisons below does the same.
"""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import copy

_ZERO, _MAX = np.float32(0), np.float32(255)


@kernel
def _blend(degenerate, value, factor):
    """One blended value, uint8; all arguments float32."""
    blended = degenerate + factor * (value - degenerate)
    blended = blended if blended > _ZERO else _ZERO
    blended = blended if blended < _MAX else _MAX
    return np.uint8(np.int32(blended))


@kernel
def _blend_with_constant(pixels, constant, factor):
    degenerate = np.float32(constant)
    for i in range(len(pixels)):
        pixels[i] = _blend(degenerate, np.float32(pixels[i]), factor)


@kernel
def _gray(red, green, blue):
    """Pillow's luma of one pixel, 0..255."""
    return (19595 * np.int32(red) + 38470 * np.int32(green) + 7471 * np.int32(blue) + 32768) >> 16


@kernel
def brightness(pixels, factor):
    _blend_with_constant(pixels, 0, np.float32(factor))


@kernel
def contrast(pixels, channels, factor):
    total = 0
    if channels == 3:
        for i in range(len(pixels) // 3):
            total += _gray(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2])
    else:
        for i in range(len(pixels)):
            total += pixels[i]
    mean = int(total / (len(pixels) // channels) + 0.5)
    _blend_with_constant(pixels, mean, np.float32(factor))


@kernel
def color(pixels, channels, factor):
    if channels == 1:  # equal to its degenerate image
        return
    factor = np.float32(factor)
    for i in range(len(pixels) // 3):
        red, green, blue = pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]
        gray = np.float32(np.int32(_gray(red, green, blue)))
        pixels[3 * i] = _blend(gray, np.float32(red), factor)
        pixels[3 * i + 1] = _blend(gray, np.float32(green), factor)
        pixels[3 * i + 2] = _blend(gray, np.float32(blue), factor)


@kernel
def sharpness(source, target, channels, factor):
    """Writes the blend of `source` and its smoothed version to `target`, both uint8 [H,W*C]."""
    height, row = source.shape
    factor = np.float32(factor)
    degenerate = np.empty(row, np.uint8)
    sums = np.empty((2, row), np.uint16)
    for y in range(height):
        copy(degenerate, source[y])
        if 0 < y < height - 1:
            _smooth_line(source[y - 1], source[y], source[y + 1], degenerate, sums, channels)
        for i in range(row):
            target[y, i] = _blend(np.float32(degenerate[i]), np.float32(source[y, i]), factor)


@kernel
def _smooth_line(above, line, below, smoothed, sums, channels):
    """Writes the 3 x 3 mean with center weight 5 to `smoothed`, except the first and last pixel. sums: scratch memory.

    Sums have 16 bits, and the division by 13 is a multiplication and a shift, which have vector instructions:
    (total + 6.5) / 13 = (2 * total + 13) * 20165 / 2^19, exact after truncation for totals up to 13 * 255.
    """
    row = len(line)
    inside = row - 2 * channels
    if inside <= 0:
        return
    column, doubled = sums[0], sums[1]
    for i in range(row):
        column[i] = np.uint16(above[i]) + np.uint16(line[i]) + np.uint16(below[i])
    left, middle, right = column[:inside], column[channels : channels + inside], column[2 * channels :]
    value, out = line[channels : channels + inside], smoothed[channels:]
    for i in range(inside):
        doubled[i] = 2 * (left[i] + middle[i] + right[i] + 4 * np.uint16(value[i])) + 13
    for i in range(inside):
        out[i] = np.uint16((np.uint32(doubled[i]) * np.uint32(20165)) >> np.uint32(16)) >> np.uint16(3)
