"""Affine transforms with bilinear and bicubic filters, in double arithmetic as Pillow's.

Images are uint8 [H,W*C] of one size, `matrix` as in `affine_nearest`, `colors` a row of the fill colour. Taps beyond
the edge are those at the edge.
"""

from __future__ import annotations

import math

import numpy as np

from kdaug.views.kernels.compiler import kernel


@kernel
def _limited(position, size):
    return min(max(position, 0), size - 1)


@kernel
def affine_bilinear(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    flat = source.reshape(-1)
    for y in range(height):
        across, down = b * (y + 0.5), e * (y + 0.5)
        out = target[y]
        for x in range(width):
            u, v = a * (x + 0.5) + across + c, d * (x + 0.5) + down + f
            if not (0.0 <= u < width and 0.0 <= v < height):
                for channel in range(channels):
                    out[x * channels + channel] = colors[channel]
                continue
            _bilinear_pixel(flat, out, x * channels, width, height, channels, u - 0.5, v - 0.5)


@kernel
def _bilinear_pixel(flat, out, at, width, height, channels, u, v):
    left, top = math.floor(u), math.floor(v)
    s, t = u - left, v - top
    x0, x1 = _limited(int(left), width) * channels, _limited(int(left) + 1, width) * channels
    row = width * channels
    y0, y1 = _limited(int(top), height) * row, _limited(int(top) + 1, height) * row
    for channel in range(channels):
        upper = _between(flat[np.uint64(y0 + x0 + channel)], flat[np.uint64(y0 + x1 + channel)], s)
        lower = _between(flat[np.uint64(y1 + x0 + channel)], flat[np.uint64(y1 + x1 + channel)], s)
        out[at + channel] = np.uint8(np.int32(_between(upper, lower, t)))


@kernel
def _between(first, second, t):
    return first + (float(second) - float(first)) * t


@kernel
def affine_bicubic(source, target, colors, channels, matrix):
    height, row = source.shape
    width = row // channels
    a, b, c, d, e, f = matrix
    flat = source.reshape(-1)
    for y in range(height):
        across, down = b * (y + 0.5), e * (y + 0.5)
        out = target[y]
        for x in range(width):
            u, v = a * (x + 0.5) + across + c, d * (x + 0.5) + down + f
            if not (0.0 <= u < width and 0.0 <= v < height):
                for channel in range(channels):
                    out[x * channels + channel] = colors[channel]
                continue
            _bicubic_pixel(flat, out, x * channels, width, height, channels, u - 0.5, v - 0.5)


@kernel
def _bicubic_pixel(flat, out, at, width, height, channels, u, v):
    left, top = math.floor(u), math.floor(v)
    s, t = u - left, v - top
    x, y, row = int(left), int(top), width * channels
    x0, x1 = _limited(x - 1, width) * channels, _limited(x, width) * channels
    x2, x3 = _limited(x + 1, width) * channels, _limited(x + 2, width) * channels
    y0, y1 = _limited(y - 1, height) * row, _limited(y, height) * row
    y2, y3 = _limited(y + 1, height) * row, _limited(y + 2, height) * row
    for channel in range(channels):
        value = _cubic(
            _cubic_in_row(flat, y0 + channel, x0, x1, x2, x3, s),
            _cubic_in_row(flat, y1 + channel, x0, x1, x2, x3, s),
            _cubic_in_row(flat, y2 + channel, x0, x1, x2, x3, s),
            _cubic_in_row(flat, y3 + channel, x0, x1, x2, x3, s),
            t,
        )
        out[at + channel] = np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@kernel
def _cubic_in_row(flat, start, x0, x1, x2, x3, t):
    return _cubic(
        float(flat[np.uint64(start + x0)]),
        float(flat[np.uint64(start + x1)]),
        float(flat[np.uint64(start + x2)]),
        float(flat[np.uint64(start + x3)]),
        t,
    )


@kernel
def _cubic(v1, v2, v3, v4, t):
    """Cubic convolution with a = -1, at t between the middle two of four values."""
    p2 = -v1 + v3
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + t * (p2 + t * (p3 + t * p4))
