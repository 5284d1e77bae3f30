"""Bicubic resizing in two passes, compiled by numba, with the arithmetic of Pillow: weights of 22 fractional bits.

An image is uint8 [H,W*3]. The horizontal pass handles a strip of _ROWS rows at a time. It first interleaves them, so
that the same pixel of all rows is contiguous: LLVM vectorizes over the rows. Both passes add up two taps (source pixels
of one output pixel) at a time. Sums fit in 32 bits. A pass that changes nothing has weights of exactly 0 and 1, so it
need not be left out as in Pillow.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.jit import kernel

_BITS = 22
_HALF = 1 << (_BITS - 1)
_SUPPORT = 2.0  # of the cubic filter, in pixels to each side
_GROUP = 2
_ROWS = 21
_LANES = 64  # bytes per pixel of a strip: 3 for each row, and one more
_1, _2, _3 = np.uint64(1), np.uint64(2), np.uint64(3)  # unsigned, so that numba does not check for negative indices


@kernel
def resize(pixels, box, vertical_first, resized):
    """Resizes `box` float32 [4] (left, top, right, bottom) of `pixels` uint8 [H,W*3] to `resized` uint8 [S,S*3]."""
    size, height, width = resized.shape[0], pixels.shape[0], pixels.shape[1] // 3
    columns, left, right = _coefficients(width, box[0], box[2], size)
    rows, top, bottom = _coefficients(height, box[1], box[3], size)
    if vertical_first:
        lines = np.empty((size, 3 * (right - left)), np.uint8)
        _resize_columns(lines, pixels, top, bottom, left, rows)
        _resize_rows(resized, lines, 0, 0, right - left, columns)
    else:
        lines = np.empty((bottom - top, 3 * size), np.uint8)
        _resize_rows(lines, pixels, top, left, right, columns)
        _resize_columns(resized, lines, 0, bottom - top, 0, rows)


@kernel
def _coefficients(length, start, stop, size):
    """The taps along one axis of `length` pixels, of which start..stop (float32) becomes `size` pixels.

    Returns the coefficients, and the first and last + 1 tap of all. The coefficients are the first tap of each output
    pixel, counted from the first of all, int64 [size]; the number of its taps, int64 [size]; and their weights, int32
    [size,taps], with 0 after the last tap.
    """
    scale = np.float64(stop - start) / size
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    taps = -(-(math.ceil(support) * 2 + 1) // _GROUP) * _GROUP
    starts, counts = np.empty(size, np.int64), np.empty(size, np.int64)
    weights, exact = np.zeros((size, taps), np.int32), np.empty(taps)
    inverse, end = 1.0 / stretch, 0
    for i in range(size):
        center = start + (i + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), length)
        total = 0.0
        for tap in range(end - first):
            exact[tap] = _cubic((tap + first - center + 0.5) * inverse)
            total += exact[tap]
        for tap in range(end - first):
            weight = exact[tap] / total if total != 0.0 else exact[tap]
            weights[i, tap] = int(weight * (1 << _BITS) + (-0.5 if weight < 0.0 else 0.5))
        starts[i], counts[i] = first, end - first
    begin = starts[0]
    for i in range(size):
        starts[i] -= begin
    return (starts, counts, weights), begin, end


@kernel
def _cubic(x):
    """Keys' cubic filter with a = -1/2."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


@kernel
def _resize_rows(resized, source, top, left, right, coefficients):
    """The horizontal pass: the rows of `source` uint8 [H,W*3] from `top` on become those of `resized` uint8 [n,S*3]."""
    # A group may reach beyond the last tap, with a weight of 0: so the strip has a column for it.
    strip = np.zeros((right - left + _GROUP) * _LANES, np.uint8)
    for y in range(0, len(resized), _ROWS):
        count = min(_ROWS, len(resized) - y)
        for row in range(count):
            _interleave(strip, row, source[top + y + row, 3 * left : 3 * right])
        _resize_strip(resized, y, count, strip, coefficients)


@kernel
def _interleave(strip, row, line):
    """Writes the pixels of `line` uint8 [W*3] to `strip` uint8 [>=W*_LANES], as its row `row`. Rows must ascend."""
    last, lane = np.uint64(len(line) // 3 - 1), np.uint64(3 * row)
    for x in range(last):
        # LLVM merges this into one load and one store of four bytes. The next row overwrites the fourth.
        i, j = np.uint64(3) * x, np.uint64(_LANES) * x + lane
        first, second, third, fourth = line[i], line[i + _1], line[i + _2], line[i + _3]
        strip[j], strip[j + _1], strip[j + _2], strip[j + _3] = first, second, third, fourth
    i, j = np.uint64(3) * last, np.uint64(_LANES) * last + lane
    strip[j], strip[j + _1], strip[j + _2] = line[i], line[i + _1], line[i + _2]


@kernel
def _resize_strip(resized, y, count, strip, coefficients):
    """The horizontal pass of `count` interleaved rows, which become those of `resized` uint8 [n,S*3] from `y` on."""
    sums, values = np.empty(_LANES, np.int32), np.empty(_LANES, np.uint8)
    starts, counts, weights = coefficients
    size = len(starts)
    for x in range(size):
        _start_sums(sums)
        for tap in range(0, counts[x], _GROUP):
            i = (starts[x] + tap) * _LANES
            _add_taps(sums, strip, i, i + _LANES, weights, x, tap)
        _round(values, 0, sums)
        i = np.uint64(3 * x)
        for row in range(np.uint64(count)):
            line, lane = np.uint64(y) + row, np.uint64(3) * row
            resized[line, i] = values[lane]
            resized[line, i + _1] = values[lane + _1]
            resized[line, i + _2] = values[lane + _2]


@kernel
def _resize_columns(resized, source, top, bottom, left, coefficients):
    """The vertical pass: rows top..bottom of `source` uint8 [H,W*3], from pixel `left` on, to `resized` [S,n*3]."""
    starts, counts, weights = coefficients
    size = len(starts)
    stride, flat, target = source.shape[1], source.reshape(-1), resized.reshape(-1)
    width = resized.shape[1]
    sums = np.empty(width, np.int32)
    for y in range(size):
        _start_sums(sums)
        for tap in range(0, counts[y], _GROUP):
            row = top + starts[y] + tap
            second = min(row + 1, bottom - 1)  # beyond the last tap, weights are 0
            _add_taps(sums, flat, row * stride + 3 * left, second * stride + 3 * left, weights, y, tap)
        _round(target, y * width, sums)


@kernel
def _start_sums(sums):
    for i in range(np.uint64(len(sums))):
        sums[i] = _HALF


@kernel
def _add_taps(sums, values, a, b, weights, output, tap):
    """Adds two taps to `sums` int32 [n]: `values` uint8 from a and b on, with weights[output, tap : tap + 2]."""
    weight_a, weight_b = weights[output, tap], weights[output, tap + 1]
    a, b = np.uint64(a), np.uint64(b)
    for i in range(np.uint64(len(sums))):
        sums[i] += weight_a * np.int32(values[a + i]) + weight_b * np.int32(values[b + i])


@kernel
def _round(values, start, sums):
    """Rounds sums, which started at one half, to uint8 values[start:]."""
    start = np.uint64(start)
    for i in range(np.uint64(len(sums))):
        values[start + i] = min(max(sums[i] >> _BITS, 0), 255)
