"""Affine transforms with bilinear and bicubic filters, in double arithmetic as Pillow's.

Images are uint8 [H,W*C] of one size, `matrix` as in `affine_nearest`, `colors` a row of the fill colour. Each row is
done in passes over contiguous rows, which the compiler turns into vector instructions: where from, gather the taps
(neighbours of that place; beyond the edge, those at the edge), mix them.
"""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import SLACK, copy, gather

_EDGE = 2  # the most taps of one kind that can lie beyond an edge


@kernel
def affine_bilinear(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    taps = np.empty((4, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((4, width), np.uint32)
    places = np.empty((2, width))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _row_of_places(places, y, width, height, matrix)
        out, count = target[y], last - first
        x_between = _along(offsets[:2], weights[0], places[0, first:last], width, channels, channels)
        y_between = _along(offsets[2:], weights[1], places[1, first:last], height, row, channels)
        piece = out[first * channels : last * channels]
        _gather_taps(taps, flat, offsets[:2], offsets[2:], count, channels, 1 + x_between, 1 + y_between)
        if x_between and y_between:
            _mix_four(piece, taps, weights[0], weights[1])
        elif x_between or y_between:
            _mix_two(piece, taps, weights[0] if x_between else weights[1])
        else:
            copy(piece, taps[0])
        copy(out[: first * channels], colors)
        copy(out[last * channels :], colors)


@kernel
def affine_bicubic(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    taps = np.empty((16, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((8, width), np.uint32)
    places = np.empty((2, width))
    mixed = np.empty((4, row))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _row_of_places(places, y, width, height, matrix)
        out, count = target[y], last - first
        _along(offsets[:4], weights[0], places[0, first:last], width, channels, channels)
        _along(offsets[4:], weights[1], places[1, first:last], height, row, channels)
        _gather_taps(taps, flat, offsets[:4], offsets[4:], count, channels, 4, 4)
        _mix_sixteen(out[first * channels : last * channels], taps, mixed, weights[0], weights[1])
        copy(out[: first * channels], colors)
        copy(out[last * channels :], colors)


@kernel
def _row_of_places(places, y, width, height, matrix):
    """Source coordinates of row `y` into `places` float64 [2,W]; returns the first and last + 1 that lie inside.

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
def _along(offsets, weights, places, size, stride, channels):
    """Where the taps along one axis are, `size` long and with `stride` bytes from one pixel to the next.

    places: float64 [n], overwritten. offsets: uint32 [taps,>=n] in bytes. weights: float64 [>=n*C], how far each place
    is from its lower tap, repeated for each channel. Where no place is between two taps and the filter has just two,
    the first is all it takes: returns False, and only its offsets are there.
    """
    count, taps = len(places), len(offsets)
    between = 0
    for x in range(count):
        lower = np.floor(places[x] - 0.5)
        places[x] = (places[x] - 0.5) - lower
        between += places[x] != 0.0
        weights[x] = lower  # for the moment
    all_taps = between > 0 or taps > 2
    for tap in range(taps if all_taps else 1):
        # Calculated in floats, which have vector instructions for all of this; whole numbers of 64 bits have not.
        offset, ahead = offsets[tap], float(tap - taps // 2 + 1)
        for x in range(count):
            place = min(max(weights[x] + ahead, 0.0), size - 1.0)
            offset[x] = np.uint32(np.int32(place * stride))
    for x in range(count if all_taps and channels == 3 else 0):
        weights[3 * x] = places[x]
        weights[3 * x + 1] = places[x]
        weights[3 * x + 2] = places[x]
    for x in range(count if all_taps and channels == 1 else 0):
        weights[x] = places[x]
    return all_taps


@kernel
def _gather_taps(taps, flat, columns, rows, count, channels, across, down):
    """Rows of the first across * down taps of `count` pixels into uint8 [>=across*down,>=n*C], row by row."""
    offsets = np.empty(count, np.uint32)
    for j in range(down):
        for i in range(across):
            for x in range(count):
                offsets[x] = rows[j, x] + columns[i, x]
            _gather_or_copy(taps[j * across + i], flat, offsets, channels)


@kernel
def _gather_or_copy(tap, flat, offsets, channels):
    """The pixels at `offsets`; but for some at both ends, whose taps lie beyond the edge, they are often neighbours."""
    count = len(offsets)
    middle = offsets[_EDGE : count - _EDGE]
    breaks = 0
    for x in range(len(middle) - 1):
        breaks += middle[x + 1] != np.uint32(middle[x] + channels)
    if count < 16 or breaks:
        gather(tap, 0, flat, 0, offsets, count, channels)
        return
    gather(tap, 0, flat, 0, offsets, _EDGE, channels)
    copy(tap[_EDGE * channels : (count - _EDGE) * channels], flat[int(middle[0]) :])
    gather(tap, (count - _EDGE) * channels, flat, 0, offsets[count - _EDGE :], _EDGE, channels)


@kernel
def _between(first, second, t):
    return first + (second - first) * t


@kernel
def _mix_two(out, taps, t):
    """Along one axis, where along the other no place is between two taps: a weight of 0 leaves the first as it is."""
    first, second = taps[0], taps[1]
    for i in range(len(out)):
        out[i] = np.uint8(np.int32(_between(np.float64(first[i]), np.float64(second[i]), t[i])))


@kernel
def _mix_four(out, taps, s, t):
    upper_left, upper_right, lower_left, lower_right = taps[0], taps[1], taps[2], taps[3]
    for i in range(len(out)):
        upper = _between(np.float64(upper_left[i]), np.float64(upper_right[i]), s[i])
        lower = _between(np.float64(lower_left[i]), np.float64(lower_right[i]), s[i])
        out[i] = np.uint8(np.int32(_between(upper, lower, t[i])))


@kernel
def _mix_sixteen(out, taps, mixed, s, t):
    """Bicubic: first along x into `mixed` float64 [4,>=n], then along y."""
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
