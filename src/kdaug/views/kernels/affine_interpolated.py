"""Affine transforms with bilinear and bicubic filters, in double arithmetic as Pillow's.

Images are uint8 [H,W*C] of one size, `matrix` as in `affine_nearest`, `colors` a row of the fill colour. Each row is
done in passes over contiguous rows, which the compiler turns into vector instructions: where from, gather the taps
(neighbours of that place; beyond the edge, those at the edge), mix them.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.views.kernels.compiler import kernel
from kdaug.views.kernels.memory import SLACK, copy, gather


@kernel
def affine_bilinear(source, target, colors, channels, matrix):
    height, row = source.shape
    taps = np.empty((4, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((4, row), np.uint32)
    places = np.empty((2, row))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _row_of_places(places, y, row // channels, height, matrix)
        _offsets_and_weights(offsets, weights, places, first, last, row, height, channels, 2)
        _gather_taps(taps, flat, offsets, last - first, channels, 2)
        out = target[y]
        copy(out[: first * channels], colors)
        _mix_bilinear(out[first * channels : last * channels], taps, weights[0], weights[1])
        copy(out[last * channels :], colors)


@kernel
def affine_bicubic(source, target, colors, channels, matrix):
    height, row = source.shape
    taps = np.empty((16, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((8, row), np.uint32)
    places = np.empty((2, row))
    mixed = np.empty((4, row))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _row_of_places(places, y, row // channels, height, matrix)
        _offsets_and_weights(offsets, weights, places, first, last, row, height, channels, 4)
        _gather_taps(taps, flat, offsets, last - first, channels, 4)
        out = target[y]
        copy(out[: first * channels], colors)
        _mix_bicubic(out[first * channels : last * channels], taps, mixed, weights[0], weights[1])
        copy(out[last * channels :], colors)


@kernel
def _row_of_places(places, y, width, height, matrix):
    """Source coordinates of row `y` into `places` float64 [2,>=W]; returns the first and last + 1 that lie inside.

    Those that do are neighbours: a rounded linear function of x still goes one way.
    """
    a, b, c, d, e, f = matrix
    us, vs = places[0], places[1]
    across, down = b * (y + 0.5), e * (y + 0.5)
    for x in range(width):
        us[x] = a * (x + 0.5) + across + c
        vs[x] = d * (x + 0.5) + down + f
    first, last = 0, width
    while first < last and not (0.0 <= us[first] < width and 0.0 <= vs[first] < height):
        first += 1
    while first < last and not (0.0 <= us[last - 1] < width and 0.0 <= vs[last - 1] < height):
        last -= 1
    return first, last


@kernel
def _offsets_and_weights(offsets, weights, places, first, last, row, height, channels, taps):
    """For places first..last: where the taps are, and how much the further ones weigh.

    offsets: uint32 [2*taps,>=W], first those of the columns, then those of the rows, in bytes; the sum of one of each
    is a pixel. weights: float64 [2,>=W*C], along x and y, repeated for each channel.
    """
    width = row // channels
    us, vs = places[0][first:last], places[1][first:last]
    s, t = weights[0], weights[1]
    for x in range(len(us)):
        u, v = us[x] - 0.5, vs[x] - 0.5
        for channel in range(channels):
            s[x * channels + channel] = u - math.floor(u)
            t[x * channels + channel] = v - math.floor(v)
    for tap in range(taps):
        columns, rows = offsets[tap], offsets[taps + tap]
        ahead = tap - taps // 2 + 1
        for x in range(len(us)):
            column = np.int32(math.floor(us[x] - 0.5)) + ahead
            line = np.int32(math.floor(vs[x] - 0.5)) + ahead
            columns[x] = np.uint32(min(max(column, 0), width - 1) * channels)
            rows[x] = np.uint32(min(max(line, 0), height - 1) * row)


@kernel
def _gather_taps(taps, flat, offsets, count, channels, size):
    """Rows of the size * size taps of `count` pixels, row by row of the filter."""
    total = np.empty(count, np.uint32)
    for line in range(size):
        rows = offsets[size + line]
        for column in range(size):
            columns = offsets[column]
            for x in range(count):
                total[x] = rows[x] + columns[x]
            gather(taps[line * size + column], 0, flat, 0, total, count, channels)


@kernel
def _between(first, second, t):
    return first + (second - first) * t


@kernel
def _mix_bilinear(out, taps, s, t):
    upper_left, upper_right, lower_left, lower_right = taps[0], taps[1], taps[2], taps[3]
    for i in range(len(out)):
        upper = _between(np.float64(upper_left[i]), np.float64(upper_right[i]), s[i])
        lower = _between(np.float64(lower_left[i]), np.float64(lower_right[i]), s[i])
        out[i] = np.uint8(np.int32(_between(upper, lower, t[i])))


@kernel
def _mix_bicubic(out, taps, mixed, s, t):
    """First along x into `mixed` float64 [4,>=n], then along y."""
    for line in range(4):
        tap1, tap2, tap3, tap4 = taps[4 * line], taps[4 * line + 1], taps[4 * line + 2], taps[4 * line + 3]
        along_x = mixed[line]
        for i in range(len(out)):
            along_x[i] = _cubic(
                np.float64(tap1[i]), np.float64(tap2[i]), np.float64(tap3[i]), np.float64(tap4[i]), s[i]
            )
    line1, line2, line3, line4 = mixed[0], mixed[1], mixed[2], mixed[3]
    for i in range(len(out)):
        value = _cubic(line1[i], line2[i], line3[i], line4[i], t[i])
        out[i] = np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@kernel
def _cubic(v1, v2, v3, v4, t):
    """Cubic convolution with a = -1, at t between the middle two of four values."""
    p2 = -v1 + v3
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + t * (p2 + t * (p3 + t * p4))
