"""Ops that move or fill rectangles. Images are uint8 [H,W*C]."""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import copy, gather


@kernel
def flip(source, target, channels):
    """Left and right exchanged."""
    height, row = source.shape
    width = row // channels
    mirrored = np.empty(width, np.uint32)
    for x in range(width):
        mirrored[x] = (width - 1 - x) * channels
    from_flat, to_flat = source.reshape(-1), target.reshape(-1)
    for y in range(height):
        gather(to_flat, y * row, from_flat, y * row, mirrored, width, channels)


@kernel
def _clipped(start, length, size):
    """start..start+length cut off to 0..size, as two whole numbers; floats of any size go in."""
    end = start + length  # exact wherever it matters: whole floats whose sum is small add up without rounding
    return int(min(max(start, 0.0), float(size))), int(min(max(end, 0.0), float(size)))


@kernel
def erase(pixels, colors, channels, left, top, width, height):
    """Fills the part of a rectangle that lies inside with the first values of `colors`, a row of the fill colour."""
    first_row, last_row = _clipped(top, height, pixels.shape[0])
    first, last = _clipped(left, width, pixels.shape[1] // channels)
    if last > first:
        for y in range(first_row, last_row):
            copy(pixels[y, first * channels : last * channels], colors)


@kernel
def crop(source, target, colors, channels, left, top):
    """The window at (left, top) of the size of `target`; what lies outside `source` is filled."""
    height, row = target.shape
    # Where the source's own rectangle lies in the target.
    first_row, last_row = _clipped(-top, float(source.shape[0]), height)
    first, last = _clipped(-left, float(source.shape[1] // channels), row // channels)
    for y in range(height):
        if first_row <= y < last_row and first < last:
            copy(target[y, : first * channels], colors)
            copy(target[y, first * channels : last * channels], source[y + int(top), (first + int(left)) * channels :])
            copy(target[y, last * channels :], colors)
        else:
            copy(target[y], colors)
