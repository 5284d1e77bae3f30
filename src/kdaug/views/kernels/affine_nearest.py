"""Affine transforms with the nearest filter, by the three algorithms of Pillow.

`matrix` is (a, b, c, d, e, f): pixel (x, y) of the target is taken from (a x + b y + c, d x + e y + f) of the source,
both at pixel centers. Images are uint8 [H,W*C] of one size; `colors` is a row of the fill color.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import copy, gather

_ONE = 65536  # 1 in 16.16 fixed point


@kernel
def affine_nearest(source, target, colors, channels, matrix):
    """Chooses the algorithm that Pillow uses for `matrix`."""
    height, width = source.shape[0], source.shape[1] // channels
    a, b, c, d, e, f = matrix
    if b == 0.0 and d == 0.0:
        _scale(source, target, colors, channels, matrix)
    elif (
        _fits_fixed_point(c, f)
        and _fits_fixed_point(width * a + height * b + c, width * d + height * e + f)
        and _fits_fixed_point(height * b + c, height * e + f)
        and _fits_fixed_point(width * a + c, width * d + f)
    ):
        _fixed_point(source, target, colors, channels, matrix)
    else:
        _floating_point(source, target, colors, channels, matrix)


@kernel
def _fits_fixed_point(x, y):
    """Whether source position (x, y) can be represented in 16.16 fixed point."""
    return abs(x) < 32768.0 and abs(y) < 32768.0


@kernel
def _pixel_index(v):
    """The index of the pixel at coordinate `v`; -1 for negative, huge and NaN coordinates."""
    return int(v) if 0.0 <= v < 2147483648.0 else -1


@kernel
def _to_fixed_point(v):
    """`v` in 16.16 fixed point; values that overflow 32 bits become the lowest integer, as on x86-64."""
    rounded = math.floor(v * 65536.0 + 0.5)
    return int(rounded) if -2147483648.0 <= rounded < 2147483648.0 else -2147483648


@kernel
def _scale(source, target, colors, channels, matrix):
    """Scaling and translation: the source columns are the same in every row."""
    height, row = source.shape
    width = row // channels
    a, _, c, _, e, f = matrix
    columns = np.empty(width, np.int64)
    source_flat, target_flat = source.reshape(-1), target.reshape(-1)
    first, last, contiguous = _source_columns(columns, width, c + a * 0.5, a)
    offsets = np.empty(width, np.uint32)
    for x in range(first, last):
        offsets[x - first] = columns[x] * channels
    v = f + e * 0.5
    for y in range(height):
        source_y = _pixel_index(v)
        v += e
        if first < last and 0 <= source_y < height:
            start, end = first * channels, last * channels
            if contiguous:
                copy(target[y, start:end], source[source_y, columns[first] * channels :])
            else:
                gather(target_flat, y * row + start, source_flat, source_y * row, offsets, last - first, channels)
            _fill_outside(target[y], start, end, colors)
        else:
            copy(target[y], colors)


@kernel
def _source_columns(columns, width, u, step):
    """Fills `columns` int64 [W] by a running sum, as Pillow does.

    Returns the first and last + 1 target column inside the image, and whether their source columns are contiguous.
    """
    first, last, contiguous = width, 0, True
    for x in range(width):
        columns[x] = _pixel_index(u)
        if 0 <= columns[x] < width:
            if last == 0:
                first = x
            else:
                contiguous &= columns[x] == columns[x - 1] + 1
            last = x + 1
        u += step
    return first, last, contiguous


@kernel
def _fill_outside(line, start, end, colors):
    """Fills the bytes of a target row outside start..end."""
    copy(line[:start], colors)
    copy(line[end:], colors)


@kernel
def _fixed_point(source, target, colors, channels, matrix):
    """Shear and rotation with source coordinates in 16.16 fixed point."""
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    a0, a1, a3, a4 = _to_fixed_point(a), _to_fixed_point(b), _to_fixed_point(d), _to_fixed_point(e)
    u, v = _to_fixed_point(c + a * 0.5 + b * 0.5), _to_fixed_point(f + d * 0.5 + e * 0.5)
    offsets = np.empty(width, np.uint32)
    source_flat, target_flat = source.reshape(-1), target.reshape(-1)
    for y in range(height):
        first, last = _valid_range(u, a0, width, 0, width)
        first, last = _valid_range(v, a3, height, first, last)
        start, end = first * channels, last * channels
        if first >= last:
            copy(target[y], colors)
        elif a3 == 0 and a0 == _ONE:  # shear along x: the row is shifted
            copy(target[y, start:end], source[v >> 16, ((u >> 16) + first) * channels :])
            _fill_outside(target[y], start, end, colors)
        else:
            _source_offsets(offsets, last - first, row, channels, u + first * a0, v + first * a3, a0, a3)
            gather(target_flat, y * row + start, source_flat, 0, offsets, last - first, channels)
            _fill_outside(target[y], start, end, colors)
        u += a1
        v += a4


@kernel
def _valid_range(start, step, size, first, last):
    """The part of the range first..last of x for which the pixel (start + x * step) >> 16 is in 0..size."""
    limit = size * _ONE
    if step > 0:
        return max(first, -(start // step)), min(last, -((start - limit) // step))
    if step < 0:
        return max(first, (start - limit) // -step + 1), min(last, start // -step + 1)
    return (first, last) if 0 <= start < limit else (0, 0)


@kernel
def _source_offsets(offsets, count, row, channels, u, v, step_u, step_v):
    """Byte offsets in the source of `count` pixels of a row, which are all inside the image."""
    for x in range(count):
        offsets[x] = (v >> 16) * row + (u >> 16) * channels
        u += step_u
        v += step_v


@kernel
def _floating_point(source, target, colors, channels, matrix):
    """Shear and rotation whose source coordinates overflow 16.16 fixed point."""
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    row_u, row_v = c + b * 0.5 + a * 0.5, f + e * 0.5 + d * 0.5
    for y in range(height):
        u, v = row_u, row_v
        copy(target[y], colors)
        for x in range(width):
            source_x, source_y = _pixel_index(u), _pixel_index(v)
            if 0 <= source_x < width and 0 <= source_y < height:
                for channel in range(channels):
                    target[y, x * channels + channel] = source[source_y, source_x * channels + channel]
            u += a
            v += d
        row_u += b
        row_v += e
