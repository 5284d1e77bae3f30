"""Ops that move or fill pixels, against their definition in NumPy."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy_ops import GRAY, Pixels, affine, apply_op, colors, images

import kdaug
from kdaug.views.plan import RESAMPLES

few_examples = settings(max_examples=40)
# exact in 16.16 fixed point, so that the reference needs no tolerance for ties
dyadic = st.integers(-96, 96).map(lambda n: n / 32)
pixels = st.integers(-20, 20).map(lambda n: n / 2)


@few_examples
@given(images())
def test_flip_mirrors_left_and_right(image: Pixels) -> None:
    assert_array_equal(apply_op(image, "flip"), image[:, ::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_fills_the_square_inside_the_image(channels: int) -> None:
    height, width, fill = 4, 5, (1, 2, 3)
    image = np.arange(50, 50 + height * width * channels, dtype=np.uint8).reshape(height, width, channels)
    squares = list(product(range(-3, 7), range(-3, 6), range(9)))
    plan = kdaug.plan_of([[("cutout", square)] for square in squares], (height, width), fill)
    views = kdaug.apply(np.repeat(image[None], len(squares), 0), plan)
    for view, (x, y, side) in zip(views, squares, strict=True):
        expected = image.copy()
        expected[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = fill[:channels]
        assert_array_equal(view, expected)


@pytest.mark.parametrize("side", [2**31 - 1, 2**31, 2**40])
def test_cutout_may_have_a_very_large_side(side: int) -> None:
    expected = np.full((4, 4, 1), 9, np.uint8)
    expected[1:, 2:] = 0
    assert_array_equal(apply_op(np.full((4, 4, 1), 9, np.uint8), "cutout", (2, 1, side)), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (5, 4), (9, 8)])
def test_crop_fills_pixels_outside_the_image(width: int, height: int, channels: int) -> None:
    fill = (1, 2, 3)
    image = np.arange(50, 50 + 20 * channels, dtype=np.uint8).reshape(4, 5, channels)
    corners = list(product(range(-10, 10), range(-10, 10)))
    plan = kdaug.plan_of([[("crop", (*corner, width, height))] for corner in corners], (4, 5), fill)
    views = kdaug.apply(np.repeat(image[None], len(corners), 0), plan)
    wide = np.empty((30, 30, channels), np.uint8)
    wide[:] = fill[:channels]
    wide[10:14, 10:15] = image
    for view, (left, top) in zip(views, corners, strict=True):
        assert_array_equal(view, wide[10 + top :, 10 + left :][:height, :width])


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("channels", [1, 3])
def test_translate_by_whole_pixels(channels: int, resample: str) -> None:
    """Source x = x + pixels, as with Pillow's coefficients."""
    image = np.arange(50, 50 + 20 * channels, dtype=np.uint8).reshape(4, 5, channels)
    wide = np.empty((24, 25, channels), np.uint8)
    wide[:] = GRAY[:channels]
    wide[10:14, 10:15] = image
    for by in range(-7, 8):
        along_x = apply_op(image, "translate-x", by, fill=GRAY, resample=resample)
        along_y = apply_op(image, "translate-y", by, fill=GRAY, resample=resample)
        assert_array_equal(along_x, wide[10:14, 10 + by : 15 + by])
        assert_array_equal(along_y, wide[10 + by : 14 + by, 10:15])


@few_examples
@given(images(), pixels, colors, st.sampled_from(RESAMPLES))
def test_translate_takes_pixels_from_x_plus_pixels(
    image: Pixels, by: float, fill: tuple[int, int, int], resample: str
) -> None:
    for step, matrix in {"translate-x": (1, 0, by, 0, 1, 0), "translate-y": (1, 0, 0, 0, 1, by)}.items():
        assert_array_equal(
            apply_op(image, step, by, fill=fill, resample=resample), affine(image, matrix, fill, resample)
        )


@given(images(), dyadic, pixels, colors, st.sampled_from(RESAMPLES))
def test_shear_takes_pixels_from_x_plus_factor_y_plus_offset(
    image: Pixels, factor: float, offset: float, fill: tuple[int, int, int], resample: str
) -> None:
    shears = {"shear-x": (1, factor, offset, 0, 1, 0), "shear-y": (1, 0, 0, factor, 1, offset)}
    for step, matrix in shears.items():
        view = apply_op(image, step, (factor, offset), fill=fill, resample=resample)
        assert_array_equal(view, affine(image, matrix, fill, resample))


@few_examples
@given(images(), dyadic)
def test_the_default_offset_of_a_shear_is_zero(image: Pixels, factor: float) -> None:
    assert_array_equal(apply_op(image, "shear-x", factor, fill=GRAY), affine(image, (1, factor, 0, 0, 1, 0), GRAY))


@few_examples
@given(images(square=True), st.integers(-8, 8), st.sampled_from(RESAMPLES))
def test_quarter_turns_are_counter_clockwise_and_exact(image: Pixels, turns: int, resample: str) -> None:
    assert_array_equal(apply_op(image, "rotate", 90.0 * turns, fill=GRAY, resample=resample), np.rot90(image, turns))


@few_examples
@given(images(), st.sampled_from([(90, 0, 1), (180, -1, 0), (270, 0, -1)]), colors, st.sampled_from(RESAMPLES))
def test_quarter_turns_of_a_rectangle_are_about_its_center(
    image: Pixels, turn: tuple[int, int, int], fill: tuple[int, int, int], resample: str
) -> None:
    (degrees, c, s), x, y = turn, image.shape[1] / 2, image.shape[0] / 2
    expected = affine(image, (c, -s, x - c * x + s * y, s, c, y - s * x - c * y), fill, resample)
    assert_array_equal(apply_op(image, "rotate", degrees, fill=fill, resample=resample), expected)


@given(images(shortest=3), st.floats(-400, 400), colors)
def test_rotate_is_about_the_center(image: Pixels, degrees: float, fill: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = np.mgrid[:height, :width] + 0.5
    u = cosine * (x - width / 2) - sine * (y - height / 2) + width / 2
    v = sine * (x - width / 2) + cosine * (y - height / 2) + height / 2
    not_a_tie = (abs(u - np.rint(u)) > 1e-3) & (abs(v - np.rint(v)) > 1e-3)
    assume(not_a_tie.mean() > 0.5)
    view = apply_op(image, "rotate", degrees, fill=fill)
    inside = (u > 0) & (u < width) & (v > 0) & (v < height)
    kept = not_a_tie & inside
    assert_array_equal(view[kept], image[np.floor(v[kept]).astype(int), np.floor(u[kept]).astype(int)])
    outside = not_a_tie & ~inside
    assert (view[outside] == fill[: image.shape[2]]).all()
