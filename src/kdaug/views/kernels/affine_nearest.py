"""Affine transforms to the nearest pixel, by the three roads that Pillow takes.

A pixel (x, y) of the target comes from (a x + b y + c, d x + e y + f) of the source, taken at the pixels' centres;
`matrix` is (a, b, c, d, e, f). Images are uint8 [H,W*C] of one size; `colors` is a row of the fill colour.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.memory import copy, gather

_ONE = 65536  # of 16.16 fixed point


@kernel
def affine_nearest(source, target, colors, channels, matrix):
    height, width = source.shape[0], source.shape[1] // channels
    a, b, c, d, e, f = matrix
    if b == 0.0 and d == 0.0:
        _scale(source, target, colors, channels, matrix)
    elif (
        _fits(c, f)
        and _fits(width * a + height * b + c, width * d + height * e + f)
        and _fits(height * b + c, height * e + f)
        and _fits(width * a + c, width * d + f)
    ):
        _fixed_point(source, target, colors, channels, matrix)
    else:
        _floating_point(source, target, colors, channels, matrix)


@kernel
def _fits(x, y):
    """Whether a corner's position can be held in 16.16 fixed point."""
    return abs(x) < 32768.0 and abs(y) < 32768.0


@kernel
def _position(v):
    """The pixel that holds coordinate `v`; -1 for one that no image has, or that is no number."""
    return int(v) if 0.0 <= v < 2147483648.0 else -1


@kernel
def _fixed(v):
    """`v` in 16.16 fixed point; what 32 bits cannot hold becomes the lowest number, as on x86-64."""
    rounded = math.floor(v * 65536.0 + 0.5)
    return int(rounded) if -2147483648.0 <= rounded < 2147483648.0 else -2147483648


# Scale and translation: source columns are the same in every row


@kernel
def _scale(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    a, _, c, _, e, f = matrix
    columns = np.empty(width, np.int64)
    from_flat, to_flat = source.reshape(-1), target.reshape(-1)
    first, last, run = _columns(columns, width, c + a * 0.5, a)
    offsets = np.empty(width, np.uint32)
    for x in range(first, last):
        offsets[x - first] = columns[x] * channels
    v = f + e * 0.5
    for y in range(height):
        from_row = _position(v)
        v += e
        if first < last and 0 <= from_row < height:
            out, line = target[y], source[from_row]
            start = columns[first] * channels
            if run:
                copy(out[first * channels : last * channels], line[start:])
            else:
                gather(to_flat, y * row + first * channels, from_flat, from_row * row, offsets, last - first, channels)
            _fill_outside(out, first * channels, last * channels, colors)
        else:
            copy(target[y], colors)


@kernel
def _columns(columns, width, u, step):
    """Source columns by a running sum; returns the first and last + 1 inside, and whether they are neighbours."""
    first, last, run = width, 0, True
    for x in range(width):
        columns[x] = _position(u)
        if 0 <= columns[x] < width:
            if last == 0:
                first = x
            else:
                run &= columns[x] == columns[x - 1] + 1
            last = x + 1
        u += step
    return first, last, run


@kernel
def _fill_outside(out, start, end, colors):
    copy(out[:start], colors)
    copy(out[end:], colors)


# Fixed point


@kernel
def _fixed_point(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    a0, a1, a3, a4 = _fixed(a), _fixed(b), _fixed(d), _fixed(e)
    u, v = _fixed(c + a * 0.5 + b * 0.5), _fixed(f + d * 0.5 + e * 0.5)
    offsets = np.empty(width, np.uint32)
    from_flat, to_flat = source.reshape(-1), target.reshape(-1)
    for y in range(height):
        first, last = _inside(u, a0, width, 0, width)
        first, last = _inside(v, a3, height, first, last)
        out = target[y]
        if first >= last:
            copy(out, colors)
        elif a3 == 0 and a0 == _ONE:  # shear along x: a whole run, shifted
            copy(out[first * channels : last * channels], source[v >> 16, ((u >> 16) + first) * channels :])
            _fill_outside(out, first * channels, last * channels, colors)
        else:
            _offsets(offsets, last - first, row, channels, u + first * a0, v + first * a3, a0, a3)
            gather(to_flat, y * row + first * channels, from_flat, 0, offsets, last - first, channels)
            _fill_outside(out, first * channels, last * channels, colors)
        u += a1
        v += a4


@kernel
def _inside(start, step, size, first, last):
    """The x in first..last for which pixel (start + x * step) >> 16 lies in 0..size, again as first..last."""
    limit = size * _ONE
    if step > 0:
        return max(first, -(start // step)), min(last, -((start - limit) // step))
    if step < 0:
        return max(first, (start - limit) // -step + 1), min(last, start // -step + 1)
    return (first, last) if 0 <= start < limit else (0, 0)


@kernel
def _offsets(offsets, count, row, channels, u, v, step_u, step_v):
    """Where the pixels of a row come from, in bytes; all are known to lie inside."""
    for x in range(count):
        offsets[x] = (v >> 16) * row + (u >> 16) * channels
        u += step_u
        v += step_v


# What fixed point cannot hold


@kernel
def _floating_point(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    row_u, row_v = c + b * 0.5 + a * 0.5, f + e * 0.5 + d * 0.5
    for y in range(height):
        u, v = row_u, row_v
        copy(target[y], colors)
        for x in range(width):
            from_x, from_y = _position(u), _position(v)
            if 0 <= from_x < width and 0 <= from_y < height:
                for channel in range(channels):
                    target[y, x * channels + channel] = source[from_y, from_x * channels + channel]
            u += a
            v += d
        row_u += b
        row_v += e
