"""Affine transforms with bilinear and bicubic filters, in float64 as in Pillow.

Images are uint8 [H,W*C] of one size, `matrix` is as in `affine_nearest`, and `colors` is a row of the fill color. Each
row takes three passes, which LLVM vectorizes: compute the source coordinates, gather the taps (the neighboring
pixels; outside the image the nearest pixel of the edge), and interpolate.
"""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import SLACK, copy, gather

_EDGE = 2  # the largest number of pixels of a row whose tap can be outside the image


@kernel
def affine_bilinear(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    taps = np.empty((4, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((4, width), np.uint32)
    coordinates = np.empty((2, width))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _source_coordinates(coordinates, y, width, height, matrix)
        line, count = target[y], last - first
        interpolate_x = _axis_taps(offsets[:2], weights[0], coordinates[0, first:last], width, channels, channels)
        interpolate_y = _axis_taps(offsets[2:], weights[1], coordinates[1, first:last], height, row, channels)
        out = line[first * channels : last * channels]
        _gather_taps(taps, flat, offsets[:2], offsets[2:], count, channels, 1 + interpolate_x, 1 + interpolate_y)
        if interpolate_x and interpolate_y:
            _interpolate_bilinear(out, taps, weights[0], weights[1])
        elif interpolate_x or interpolate_y:
            _interpolate_linear(out, taps, weights[0] if interpolate_x else weights[1])
        else:
            copy(out, taps[0])
        copy(line[: first * channels], colors)
        copy(line[last * channels :], colors)


@kernel
def affine_bicubic(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    taps = np.empty((16, row + SLACK), np.uint8)
    weights = np.empty((2, row))
    offsets = np.empty((8, width), np.uint32)
    coordinates = np.empty((2, width))
    lines = np.empty((4, row))
    flat = source.reshape(-1)
    for y in range(height):
        first, last = _source_coordinates(coordinates, y, width, height, matrix)
        line, count = target[y], last - first
        _axis_taps(offsets[:4], weights[0], coordinates[0, first:last], width, channels, channels)
        _axis_taps(offsets[4:], weights[1], coordinates[1, first:last], height, row, channels)
        _gather_taps(taps, flat, offsets[:4], offsets[4:], count, channels, 4, 4)
        _interpolate_bicubic(line[first * channels : last * channels], taps, lines, weights[0], weights[1])
        copy(line[: first * channels], colors)
        copy(line[last * channels :], colors)


@kernel
def _source_coordinates(coordinates, y, width, height, matrix):
    """Writes the source coordinates of row `y` to `coordinates` float64 [2,W].

    Returns the first and last + 1 column whose coordinates are inside the image. All columns between are inside too,
    because a rounded linear function is still monotonic.
    """
    a, b, c, d, e, f = matrix
    us, vs = coordinates[0], coordinates[1]
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
def _axis_taps(offsets, weights, coordinates, size, stride, channels):
    """Offsets and weights of the taps along one axis of `size` pixels, which are `stride` bytes apart.

    coordinates: float64 [n], overwritten. offsets: output, uint32 [taps,>=n], in bytes. weights: output, float64
    [>=n*C], the distance of each coordinate from its lower tap, repeated for each channel.

    Returns whether to interpolate. If a filter of two taps has all coordinates at pixel centers, the first tap is
    enough: the result is False, and only its offsets are written.
    """
    count, taps = len(coordinates), len(offsets)
    fractional = 0
    for x in range(count):
        lower = np.floor(coordinates[x] - 0.5)
        coordinates[x] = (coordinates[x] - 0.5) - lower
        fractional += coordinates[x] != 0.0
        weights[x] = lower  # overwritten below
    interpolate = fractional > 0 or taps > 2
    for tap in range(taps if interpolate else 1):
        # in floats: 64-bit integers do not have vector instructions for all of this
        offset, distance = offsets[tap], float(tap - taps // 2 + 1)
        for x in range(count):
            position = min(max(weights[x] + distance, 0.0), size - 1.0)
            offset[x] = np.uint32(np.int32(position * stride))
    for x in range(count if interpolate and channels == 3 else 0):
        weights[3 * x] = coordinates[x]
        weights[3 * x + 1] = coordinates[x]
        weights[3 * x + 2] = coordinates[x]
    for x in range(count if interpolate and channels == 1 else 0):
        weights[x] = coordinates[x]
    return interpolate


@kernel
def _gather_taps(taps, flat, columns, rows, count, channels, across, down):
    """Gathers across * down taps of `count` pixels into `taps` uint8 [>=across*down,>=n*C], one tap per row."""
    offsets = np.empty(count, np.uint32)
    for j in range(down):
        for i in range(across):
            for x in range(count):
                offsets[x] = rows[j, x] + columns[i, x]
            _gather_or_copy(taps[j * across + i], flat, offsets, channels)


@kernel
def _gather_or_copy(tap, flat, offsets, channels):
    """Reads the pixels at `offsets`. They are often contiguous, except for those at both ends with taps at the edge."""
    count = len(offsets)
    middle = offsets[_EDGE : count - _EDGE]
    gaps = 0
    for x in range(len(middle) - 1):
        gaps += middle[x + 1] != np.uint32(middle[x] + channels)
    if count < 16 or gaps:
        gather(tap, 0, flat, 0, offsets, count, channels)
        return
    gather(tap, 0, flat, 0, offsets, _EDGE, channels)
    copy(tap[_EDGE * channels : (count - _EDGE) * channels], flat[int(middle[0]) :])
    gather(tap, (count - _EDGE) * channels, flat, 0, offsets[count - _EDGE :], _EDGE, channels)


@kernel
def _lerp(first, second, t):
    return first + (second - first) * t


@kernel
def _interpolate_linear(out, taps, t):
    """Linear interpolation along one axis; along the other all coordinates are at pixel centers."""
    first, second = taps[0], taps[1]
    for i in range(len(out)):
        out[i] = np.uint8(np.int32(_lerp(np.float64(first[i]), np.float64(second[i]), t[i])))


@kernel
def _interpolate_bilinear(out, taps, s, t):
    upper_left, upper_right, lower_left, lower_right = taps[0], taps[1], taps[2], taps[3]
    for i in range(len(out)):
        upper = _lerp(np.float64(upper_left[i]), np.float64(upper_right[i]), s[i])
        lower = _lerp(np.float64(lower_left[i]), np.float64(lower_right[i]), s[i])
        out[i] = np.uint8(np.int32(_lerp(upper, lower, t[i])))


@kernel
def _interpolate_bicubic(out, taps, lines, s, t):
    """Interpolates along x into `lines` float64 [4,>=n], then along y."""
    for j in range(4):
        tap1, tap2, tap3, tap4 = taps[4 * j], taps[4 * j + 1], taps[4 * j + 2], taps[4 * j + 3]
        along_x = lines[j]
        for i in range(len(out)):
            along_x[i] = _cubic(
                np.float64(tap1[i]), np.float64(tap2[i]), np.float64(tap3[i]), np.float64(tap4[i]), s[i]
            )
    line1, line2, line3, line4 = lines[0], lines[1], lines[2], lines[3]
    for i in range(len(out)):
        value = _cubic(line1[i], line2[i], line3[i], line4[i], t[i])
        out[i] = np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@kernel
def _cubic(v1, v2, v3, v4, t):
    """Cubic convolution with a = -1 at position t (0..1) between v2 and v3."""
    p2 = -v1 + v3
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + t * (p2 + t * (p3 + t * p4))
