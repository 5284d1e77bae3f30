"""Ops that change each value by itself: some by arithmetic, the others by a table of 256 values per channel.

`pixels` is uint8 [H*W*C], one image in a row, changed in place. Where a value is computed rather than looked up, it is
because the compiler turns the loop into vector instructions, which no table can be.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import load_four

_BYTE = np.uint64(255)


@kernel
def invert(pixels):
    for i in range(len(pixels)):
        pixels[i] = 255 - pixels[i]


@kernel
def solarize(pixels, threshold):
    """Inverts values at or above `threshold`, a float of any size."""
    if threshold <= 0.0:
        invert(pixels)
    elif threshold <= 255.0:
        limit = np.uint8(math.ceil(threshold))  # v < threshold is v < ceil(threshold), since v is whole
        for i in range(len(pixels)):
            value = pixels[i]
            pixels[i] = value if value < limit else np.uint8(255 - value)


@kernel
def posterize(pixels, bits):
    """Keeps the high `bits` (a float, its fraction ignored); fewer than 1 is black, 8 or more change nothing."""
    if bits < 1.0:
        for i in range(len(pixels)):
            pixels[i] = 0
    elif bits < 8.0:
        mask = np.uint8(256 - (1 << (8 - int(bits))))
        for i in range(len(pixels)):
            pixels[i] &= mask


@kernel
def solarize_add(pixels, addition):
    """Adds to values below 128; the sum is cut off to 0..255, then truncated."""
    table = np.empty(256, np.uint8)
    for value in range(256):
        total = min(max(value + addition, 0.0), 255.0)
        table[value] = int(total) if value < 128 else value
    for i in range(len(pixels)):
        pixels[i] = table[pixels[i]]


@kernel
def autocontrast(pixels, height, channels):
    """Stretches each channel so that its lowest value becomes 0 and its highest 255."""
    row = len(pixels) // height
    lines = pixels.reshape(height, row)
    low, high = lines[0].copy(), lines[0].copy()
    for y in range(1, height):
        for i in range(row):
            low[i] = min(low[i], lines[y, i])
            high[i] = max(high[i], lines[y, i])
    scale, offset = np.empty(row), np.empty(row)
    for channel in range(channels):
        lowest, highest = low[channel::channels].min(), high[channel::channels].max()
        factor = 255.0 / (highest - lowest) if highest > lowest else 1.0
        scale[channel::channels] = factor
        offset[channel::channels] = -float(lowest) * factor if highest > lowest else 0.0
    for y in range(height):
        for i in range(row):
            stretched = lines[y, i] * scale[i] + offset[i]
            lines[y, i] = np.uint8(np.int32(min(max(stretched, 0.0), 255.0)))


@kernel
def equalize(pixels, channels):
    """Spreads each channel by its cumulative histogram."""
    counts = _histograms(pixels, channels)
    tables = np.empty((channels, 256), np.uint8)
    for channel in range(channels):
        _equalizing_table(counts[channel], tables[channel])
    _look_up(pixels, tables, channels)


@kernel
def _look_up(pixels, tables, channels):
    """Each value through the table of its channel, uint8 [C,256]. One load for a pixel: memory is what it waits for."""
    if channels == 3:
        first, second, third = tables[0], tables[1], tables[2]
        for x in range(np.uint64(len(pixels) // 3)):
            i = np.uint64(3) * x
            word = load_four(pixels, i)
            pixels[i] = first[word & _BYTE]
            pixels[i + np.uint64(1)] = second[(word >> np.uint64(8)) & _BYTE]
            pixels[i + np.uint64(2)] = third[(word >> np.uint64(16)) & _BYTE]
    else:
        table = tables[0]
        for i in range(len(pixels)):
            pixels[i] = table[pixels[i]]


@kernel
def _histograms(pixels, channels):
    """int32 [C,256]. Neighbours are counted apart: they are often equal, and a counter must not wait for itself."""
    counts = np.zeros((2 * channels, 256), np.int32)
    size = np.uint64(len(pixels))
    pairs = size // np.uint64(2 * channels)
    for x in range(pairs if channels == 3 else np.uint64(0)):
        i = np.uint64(6) * x
        counts[0, pixels[i]] += 1
        counts[1, pixels[i + np.uint64(1)]] += 1
        counts[2, pixels[i + np.uint64(2)]] += 1
        counts[3, pixels[i + np.uint64(3)]] += 1
        counts[4, pixels[i + np.uint64(4)]] += 1
        counts[5, pixels[i + np.uint64(5)]] += 1
    for x in range(pairs if channels == 1 else np.uint64(0)):
        counts[0, pixels[np.uint64(2) * x]] += 1
        counts[1, pixels[np.uint64(2) * x + np.uint64(1)]] += 1
    counted = int(pairs) * 2 * channels
    for i in range(counted, len(pixels)):
        counts[i - counted, pixels[i]] += 1
    for channel in range(channels):
        for value in range(256):
            counts[channel, value] += counts[channels + channel, value]
    return counts


@kernel
def _equalizing_table(counts, table):
    total, last, kinds = 0, 0, 0
    for value in range(256):
        if counts[value] > 0:
            total += counts[value]
            last = counts[value]
            kinds += 1
    step = (total - last) // 255
    if kinds < 2 or step == 0:
        for value in range(256):
            table[value] = value
        return
    below = np.empty(256)
    running = step // 2
    for value in range(256):
        below[value] = running
        running += counts[value]
    for value in range(256):  # exact: a quotient of whole numbers this small never rounds up to the next one
        table[value] = np.uint8(np.int32(min(below[value] / step, 255.0)))
