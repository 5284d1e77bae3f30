"""Ops that copy or fill rectangles. Images are uint8 [H,W*C]."""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import copy, gather


@kernel
def flip(source, target, channels):
    """Flips left-right."""
    height, row = source.shape
    width = row // channels
    offsets = np.empty(width, np.uint32)
    for x in range(width):
        offsets[x] = (width - 1 - x) * channels
    source_flat, target_flat = source.reshape(-1), target.reshape(-1)
    for y in range(height):
        gather(target_flat, y * row, source_flat, y * row, offsets, width, channels)


@kernel
def _clip_interval(start, length, size):
    """The interval start..start+length clipped to 0..size, as two integers; start and length may be any floats."""
    end = start + length  # exact if the result is small enough not to be clipped, because both are whole numbers
    return int(min(max(start, 0.0), float(size))), int(min(max(end, 0.0), float(size)))


@kernel
def erase(pixels, colors, channels, left, top, width, height):
    """Fills the part of a rectangle inside the image. colors: a row of the fill color, uint8 [>=W*C]."""
    first_row, last_row = _clip_interval(top, height, pixels.shape[0])
    first, last = _clip_interval(left, width, pixels.shape[1] // channels)
    if last > first:
        for y in range(first_row, last_row):
            copy(pixels[y, first * channels : last * channels], colors)


@kernel
def crop(source, target, colors, channels, left, top):
    """Copies the window at (left, top) to `target` and fills pixels outside `source`."""
    height, row = target.shape
    # the rectangle of the source in coordinates of the target
    first_row, last_row = _clip_interval(-top, float(source.shape[0]), height)
    first, last = _clip_interval(-left, float(source.shape[1] // channels), row // channels)
    for y in range(height):
        if first_row <= y < last_row and first < last:
            copy(target[y, : first * channels], colors)
            copy(target[y, first * channels : last * channels], source[y + int(top), (first + int(left)) * channels :])
            copy(target[y, last * channels :], colors)
        else:
            copy(target[y], colors)
