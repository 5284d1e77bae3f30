"""Ops that map each value independently, by arithmetic or by a table of 256 values per channel.

`pixels` is uint8 [H*W*C], one image, changed in place. Arithmetic is used where LLVM vectorizes it, because table
look-ups cannot be vectorized.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import load_uint32

_BYTE = np.uint64(255)


@kernel
def invert(pixels):
    for i in range(len(pixels)):
        pixels[i] = 255 - pixels[i]


@kernel
def solarize(pixels, threshold):
    """Inverts values at or above `threshold`, any float."""
    if threshold <= 0.0:
        invert(pixels)
    elif threshold <= 255.0:
        limit = np.uint8(math.ceil(threshold))  # equivalent, because values are integers
        for i in range(len(pixels)):
            value = pixels[i]
            pixels[i] = value if value < limit else np.uint8(255 - value)


@kernel
def posterize(pixels, bits):
    """Keeps the highest int(bits) bits of each value; below 1 the result is black, 8 or more change nothing."""
    if bits < 1.0:
        for i in range(len(pixels)):
            pixels[i] = 0
    elif bits < 8.0:
        mask = np.uint8(256 - (1 << (8 - int(bits))))
        for i in range(len(pixels)):
            pixels[i] &= mask


@kernel
def solarize_add(pixels, addition):
    """Adds `addition` to values below 128; the sum is clipped to 0..255, then truncated."""
    table = np.empty(256, np.uint8)
    for value in range(256):
        total = min(max(value + addition, 0.0), 255.0)
        table[value] = int(total) if value < 128 else value
    for i in range(len(pixels)):
        pixels[i] = table[pixels[i]]


@kernel
def autocontrast(pixels, height, channels):
    """Scales each channel so that its lowest value becomes 0 and its highest 255."""
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
            scaled = lines[y, i] * scale[i] + offset[i]
            lines[y, i] = np.uint8(np.int32(min(max(scaled, 0.0), 255.0)))


@kernel
def equalize(pixels, channels):
    """Equalizes the histogram of each channel."""
    counts = _histograms(pixels, channels)
    tables = np.empty((channels, 256), np.uint8)
    for channel in range(channels):
        _equalize_table(counts[channel], tables[channel])
    _apply_tables(pixels, tables, channels)


@kernel
def _apply_tables(pixels, tables, channels):
    """Maps each value by the table of its channel, uint8 [C,256]. Reads each pixel once, because reads are slow."""
    if channels == 3:
        first, second, third = tables[0], tables[1], tables[2]
        for x in range(np.uint64(len(pixels) // 3)):
            i = np.uint64(3) * x
            word = load_uint32(pixels, i)
            pixels[i] = first[word & _BYTE]
            pixels[i + np.uint64(1)] = second[(word >> np.uint64(8)) & _BYTE]
            pixels[i + np.uint64(2)] = third[(word >> np.uint64(16)) & _BYTE]
    else:
        table = tables[0]
        for i in range(len(pixels)):
            pixels[i] = table[pixels[i]]


@kernel
def _histograms(pixels, channels):
    """The histogram of each channel, int32 [C,256].

    Even and odd pixels have separate counters: neighbors are often equal, and incrementing one counter twice in a row
    has to wait for the first result.
    """
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
    done = int(pairs) * 2 * channels
    for i in range(done, len(pixels)):
        counts[i - done, pixels[i]] += 1
    for channel in range(channels):
        for value in range(256):
            counts[channel, value] += counts[channels + channel, value]
    return counts


@kernel
def _equalize_table(counts, table):
    """Fills `table` uint8 [256] from the histogram of one channel, int32 [256], as ImageOps.equalize does."""
    total, last, distinct = 0, 0, 0
    for value in range(256):
        if counts[value] > 0:
            total += counts[value]
            last = counts[value]
            distinct += 1
    step = (total - last) // 255
    if distinct < 2 or step == 0:
        for value in range(256):
            table[value] = value
        return
    below = np.empty(256)
    running = step // 2
    for value in range(256):
        below[value] = running
        running += counts[value]
    for value in range(256):  # exact: quotients of integers this small never round up to the next integer
        table[value] = np.uint8(np.int32(min(below[value] / step, 255.0)))
