"""Random images, and the definition of ops in NumPy, independent of the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import kdaug

Pixels = NDArray[np.uint8]
GRAY = (9, 9, 9)


@st.composite
def images(draw: st.DrawFn, shortest: int = 1, longest: int = 24, square: bool = False) -> Pixels:
    """uint8 [H,W,C]: noise in a wide or narrow range, two values, or one color."""
    height = draw(st.integers(shortest, longest))
    width = height if square else draw(st.integers(shortest, longest))
    shape = (height, width, draw(st.sampled_from([1, 3])))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255)) | st.just((0, 255))))
    noise = np.random.default_rng(draw(st.integers(0, 999))).integers(low, high + 1, shape, np.uint8)
    two_values = np.where(noise > (low + high) // 2, np.uint8(high), np.uint8(low))
    return draw(st.sampled_from([noise, two_values]))


colors = st.tuples(*[st.integers(0, 255)] * 3)


def apply_op(image: Pixels, *step: object, fill: int | tuple[int, int, int] = 0, resample: str = "nearest") -> Pixels:
    """The view of one image after one step (op, argument), by kdaug."""
    return kdaug.apply(image[None], kdaug.plan_of([[step]], image.shape[:2], fill, resample))[0]


def apply_op_with_each(image: Pixels, op: str, arguments: Sequence[float]) -> Pixels:
    """The views of one image after `op` with each of the arguments, by kdaug."""
    plan = kdaug.plan_of([[(op, argument)] for argument in arguments], image.shape[:2])
    return kdaug.apply(np.repeat(image[None], len(arguments), 0), plan, threads=1)


def luma(image: Pixels) -> NDArray[np.int64]:
    """Pillow's grayscale values of an image, int64 [H,W]."""
    if image.shape[2] == 1:
        return image[..., 0].astype(int)
    return (image.astype(int) @ [19595, 38470, 7471] + 32768) >> 16


def blend(degenerate: NDArray[np.int64], image: Pixels, factor: float) -> Pixels:
    """degenerate + factor * (image - degenerate) in float32, clipped and truncated."""
    difference = (image.astype(int) - degenerate).astype(np.float32)
    blended = degenerate.astype(np.float32) + np.float32(factor) * difference
    return np.trunc(np.clip(blended, 0, 255)).astype(np.uint8)


def smooth(image: Pixels) -> NDArray[np.int64]:
    """The mean over 3 x 3 with weight 5 in the middle; the outermost pixels are unchanged."""
    blurred, v = image.astype(int), image.astype(int)
    height, width = image.shape[:2]
    if min(height, width) > 2:
        around = sum(v[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3))
        blurred[1:-1, 1:-1] = np.rint((around + 4 * v[1:-1, 1:-1]) / 13)
    return blurred


def taps(image: Pixels, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pixels at integer positions, clipped to the image."""
    return image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)].astype(float)


def cubic(p: list[NDArray[np.float64]], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution with a = -1 (Keys 1981) through four values, at t in 0..1 between the middle two."""
    distances = [1 + t, t, 1 - t, 2 - t]
    near = [1 - 2 * d**2 + d**3 for d in distances]
    far = [4 - 8 * d + 5 * d**2 - d**3 for d in distances]
    weights = [far[0], near[1], near[2], far[3]]
    return sum((v * w for v, w in zip(p, weights, strict=True)), np.zeros(1))


def affine(image: Pixels, matrix: tuple[float, ...], fill: tuple[int, ...], resample: str = "nearest") -> Pixels:
    """Each pixel center taken from source (a x + b y + c, d x + e y + f); `fill` where that is outside."""
    a, b, c, d, e, f = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    u, v = a * x + b * y + c, d * x + e * y + f
    outside = (u < 0) | (v < 0) | (u >= image.shape[1]) | (v >= image.shape[0])
    if resample == "nearest":
        view = taps(image, np.floor(v).astype(int), np.floor(u).astype(int))
    else:
        left, top = np.floor(u - 0.5).astype(int), np.floor(v - 0.5).astype(int)
        s, t = (u - 0.5 - left)[..., None], (v - 0.5 - top)[..., None]
        if resample == "bilinear":
            row = [taps(image, top + i, left) * (1 - s) + taps(image, top + i, left + 1) * s for i in (0, 1)]
            view = row[0] * (1 - t) + row[1] * t
        else:
            view = cubic([cubic([taps(image, top + i, left + j) for j in range(-1, 3)], s) for i in range(-1, 3)], t)
    view = np.trunc(np.clip(view, 0, 255)).astype(np.uint8)
    view[outside] = fill[: image.shape[2]]
    return view
