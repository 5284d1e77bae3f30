"""Every op against arithmetic written out here in NumPy, and the filtered ones against Pillow's own calls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import kdaug

Pixels = NDArray[np.uint8]
RESAMPLES = ["nearest", "bilinear", "bicubic"]
GREY = (9, 9, 9)


@st.composite
def images(draw: st.DrawFn, shortest: int = 1, longest: int = 24, square: bool = False) -> Pixels:
    """uint8 [H,W,C]: noise, few values, a narrow range, or one colour."""
    height = draw(st.integers(shortest, longest))
    width = height if square else draw(st.integers(shortest, longest))
    shape = (height, width, draw(st.sampled_from([1, 3])))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255)) | st.just((0, 255))))
    noise = np.random.default_rng(draw(st.integers(0, 999))).integers(low, high + 1, shape, np.uint8)
    few = np.where(noise > (low + high) // 2, np.uint8(high), np.uint8(low))
    return draw(st.sampled_from([noise, few]))


colors = st.tuples(*[st.integers(0, 255)] * 3)
# Numbers that 16.16 fixed point holds exactly: the plain floor below then needs no tolerance, ties included.
dyadic = st.integers(-96, 96).map(lambda n: n / 32)
pixels = st.integers(-20, 20).map(lambda n: n / 2)


def ours(image: Pixels, *step: object, fill: int | tuple[int, int, int] = 0, resample: str = "nearest") -> Pixels:
    return kdaug.apply(image[None], kdaug.plan_of([[step]], image.shape[:2], fill, resample))[0]


def ours_with_each(image: Pixels, op: str, arguments: Sequence[float]) -> Pixels:
    """The views of one image under `op` with each of the arguments."""
    plan = kdaug.plan_of([[(op, argument)] for argument in arguments], image.shape[:2])
    return kdaug.apply(np.repeat(image[None], len(arguments), 0), plan, threads=1)


def luma(image: Pixels) -> NDArray[np.int64]:
    if image.shape[2] == 1:
        return image[..., 0].astype(int)
    return (image.astype(int) @ [19595, 38470, 7471] + 32768) >> 16


def blend(degenerate: NDArray[np.int64], image: Pixels, factor: float) -> Pixels:
    difference = (image.astype(int) - degenerate).astype(np.float32)
    mixed = degenerate.astype(np.float32) + np.float32(factor) * difference
    return np.trunc(np.clip(mixed, 0, 255)).astype(np.uint8)


def smooth(image: Pixels) -> NDArray[np.int64]:
    """The mean over 3 x 3 with weight 5 in the middle; the outermost pixels as they are."""
    blurred, v = image.astype(int), image.astype(int)
    height, width = image.shape[:2]
    if min(height, width) > 2:
        around = sum(v[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3))
        blurred[1:-1, 1:-1] = np.rint((around + 4 * v[1:-1, 1:-1]) / 13)
    return blurred


def taps(image: Pixels, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pixels at integer positions, those beyond the edge as at the edge."""
    return image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)].astype(float)


def cubic(p: list[NDArray[np.float64]], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution with a = -1 (Keys 1981) through four values, at t in 0..1 between the middle two."""
    distances = [1 + t, t, 1 - t, 2 - t]
    near = [1 - 2 * d**2 + d**3 for d in distances]
    far = [4 - 8 * d + 5 * d**2 - d**3 for d in distances]
    weights = [far[0], near[1], near[2], far[3]]
    return sum((v * w for v, w in zip(p, weights, strict=True)), np.zeros(1))


def gather(image: Pixels, matrix: tuple[float, ...], fill: tuple[int, ...], resample: str = "nearest") -> Pixels:
    """Each pixel centre taken from source (a x + b y + c, d x + e y + f); `fill` where that is outside."""
    a, b, c, d, e, f = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    u, v = a * x + b * y + c, d * x + e * y + f
    outside = (u < 0) | (v < 0) | (u >= image.shape[1]) | (v >= image.shape[0])
    if resample == "nearest":
        seen = taps(image, np.floor(v).astype(int), np.floor(u).astype(int))
    else:
        left, top = np.floor(u - 0.5).astype(int), np.floor(v - 0.5).astype(int)
        s, t = (u - 0.5 - left)[..., None], (v - 0.5 - top)[..., None]
        if resample == "bilinear":
            row = [taps(image, top + i, left) * (1 - s) + taps(image, top + i, left + 1) * s for i in (0, 1)]
            seen = row[0] * (1 - t) + row[1] * t
        else:
            seen = cubic([cubic([taps(image, top + i, left + j) for j in range(-1, 3)], s) for i in range(-1, 3)], t)
    seen = np.trunc(np.clip(seen, 0, 255)).astype(np.uint8)
    seen[outside] = fill[: image.shape[2]]
    return seen


def to_pillow(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def pillow_fill(image: Pixels, fill: tuple[int, int, int]) -> int | tuple[int, int, int]:
    return fill if image.shape[2] == 3 else fill[0]


# Tables of values


@given(images())
def test_invert_is_255_minus_the_value(image: Pixels) -> None:
    assert_array_equal(ours(image, "invert"), 255 - image)


@given(images())
def test_solarize_inverts_values_at_or_above_the_threshold(image: Pixels) -> None:
    thresholds = [-3, 0, 0.5, 1, 77, 127.5, 128, 200, 254, 255, 255.5, 256, 716]
    for threshold, view in zip(thresholds, ours_with_each(image, "solarize", thresholds), strict=True):
        assert_array_equal(view, np.where(image >= threshold, 255 - image, image))


@given(images())
def test_solarize_add_adds_to_values_below_128_within_0_and_255(image: Pixels) -> None:
    additions = [-300, -128, -50, -1, 0, 1, 55, 99, 127, 128, 165, 308]
    for addition, view in zip(additions, ours_with_each(image, "solarize-add", additions), strict=True):
        assert_array_equal(view, np.where(image < 128, np.clip(image.astype(int) + addition, 0, 255), image))


@given(images())
def test_posterize_keeps_the_high_bits_and_none_is_black(image: Pixels) -> None:
    for bits, view in enumerate(ours_with_each(image, "posterize", range(12))):
        step = 2 ** max(8 - bits, 0)
        assert_array_equal(view, image.astype(int) // step * step)


@given(images())
def test_autocontrast_stretches_each_channel_to_0_and_255(image: Pixels) -> None:
    wanted = image.copy()
    for c in range(image.shape[2]):
        low, high = int(image[..., c].min()), int(image[..., c].max())
        if high > low:
            scale = 255 / (high - low)
            wanted[..., c] = np.trunc(np.clip(image[..., c] * scale + -low * scale, 0, 255))
    assert_array_equal(ours(image, "autocontrast"), wanted)


@given(images(longest=40))
def test_equalize_spreads_each_channel_by_its_cumulative_histogram(image: Pixels) -> None:
    wanted = image.copy()
    for c in range(image.shape[2]):
        counts = np.bincount(image[..., c].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        if step > 0:
            below = np.cumsum(counts) - counts
            table = np.minimum((step // 2 + below) // step, 255)
            wanted[..., c] = table[image[..., c]]
    assert_array_equal(ours(image, "equalize"), wanted)


# Blends: 0 gives the degenerate image, 1 the image, beyond that away from the degenerate

FACTORS = [-0.7, -0.01, 0, 0.1, 0.33, 0.5, 0.9999, 1, 1.0001, 1.3, 1.72, 1.9, 2.8, 5.14]
factors = st.floats(-2, 6, width=32).map(lambda factor: [*FACTORS, factor])


def assert_blends(op: str, degenerate: NDArray[np.int64], image: Pixels, factors: list[float]) -> None:
    for factor, view in zip(factors, ours_with_each(image, op, factors), strict=True):
        assert_array_equal(view, blend(degenerate, image, factor), err_msg=f"{op} {factor}")


@given(images(), factors)
def test_brightness_blends_with_black(image: Pixels, factors: list[float]) -> None:
    assert_blends("brightness", np.zeros(image.shape, int), image, factors)


@given(images(), factors)
def test_contrast_blends_with_the_mean_luma(image: Pixels, factors: list[float]) -> None:
    assert_blends("contrast", np.full(image.shape, int(luma(image).mean() + 0.5)), image, factors)


@given(images(), factors)
def test_color_blends_with_the_luma_of_each_pixel(image: Pixels, factors: list[float]) -> None:
    assert_blends("color", np.repeat(luma(image)[..., None], image.shape[2], axis=2), image, factors)


@given(images(), factors)
def test_sharpness_blends_with_the_smoothed_image(image: Pixels, factors: list[float]) -> None:
    assert_blends("sharpness", smooth(image), image, factors)


# Places


@given(images())
def test_flip_mirrors_left_and_right(image: Pixels) -> None:
    assert_array_equal(ours(image, "flip"), image[:, ::-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_fills_the_part_of_the_square_that_lies_inside(channels: int) -> None:
    height, width, fill = 4, 5, (1, 2, 3)
    image = np.arange(50, 50 + height * width * channels, dtype=np.uint8).reshape(height, width, channels)
    squares = list(product(range(-3, 7), range(-3, 6), range(9)))
    plan = kdaug.plan_of([[("cutout", square)] for square in squares], (height, width), fill)
    views = kdaug.apply(np.repeat(image[None], len(squares), 0), plan)
    for view, (x, y, side) in zip(views, squares, strict=True):
        wanted = image.copy()
        wanted[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = fill[:channels]
        assert_array_equal(view, wanted)


@pytest.mark.parametrize("side", [2**31 - 1, 2**31, 2**40])
def test_cutout_of_any_side_however_large_covers_what_it_reaches(side: int) -> None:
    wanted = np.full((4, 4, 1), 9, np.uint8)
    wanted[1:, 2:] = 0
    assert_array_equal(ours(np.full((4, 4, 1), 9, np.uint8), "cutout", (2, 1, side)), wanted)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (5, 4), (9, 8)])
def test_crop_takes_the_window_and_fills_what_is_outside(width: int, height: int, channels: int) -> None:
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
def test_translate_by_whole_pixels_moves_the_image_towards_lower_positions(channels: int, resample: str) -> None:
    """Source x = x + pixels, as Pillow's coefficients say."""
    image = np.arange(50, 50 + 20 * channels, dtype=np.uint8).reshape(4, 5, channels)
    wide = np.empty((24, 25, channels), np.uint8)
    wide[:] = GREY[:channels]
    wide[10:14, 10:15] = image
    for by in range(-7, 8):
        along_x = ours(image, "translate-x", by, fill=GREY, resample=resample)
        along_y = ours(image, "translate-y", by, fill=GREY, resample=resample)
        assert_array_equal(along_x, wide[10:14, 10 + by : 15 + by])
        assert_array_equal(along_y, wide[10 + by : 14 + by, 10:15])


@given(images(), pixels, colors, st.sampled_from(RESAMPLES))
def test_translate_by_half_pixels_gathers_from_x_plus_pixels(
    image: Pixels, by: float, fill: tuple[int, int, int], resample: str
) -> None:
    for step, matrix in {"translate-x": (1, 0, by, 0, 1, 0), "translate-y": (1, 0, 0, 0, 1, by)}.items():
        assert_array_equal(ours(image, step, by, fill=fill, resample=resample), gather(image, matrix, fill, resample))


@given(images(), dyadic, pixels, colors, st.sampled_from(RESAMPLES))
def test_shear_gathers_from_x_plus_factor_times_y_plus_offset(
    image: Pixels, factor: float, offset: float, fill: tuple[int, int, int], resample: str
) -> None:
    shears = {"shear-x": (1, factor, offset, 0, 1, 0), "shear-y": (1, 0, 0, factor, 1, offset)}
    for step, matrix in shears.items():
        seen = ours(image, step, (factor, offset), fill=fill, resample=resample)
        assert_array_equal(seen, gather(image, matrix, fill, resample))


@given(images(), dyadic)
def test_the_offset_of_a_shear_is_zero_unless_given(image: Pixels, factor: float) -> None:
    assert_array_equal(ours(image, "shear-x", factor, fill=GREY), gather(image, (1, factor, 0, 0, 1, 0), GREY))


@given(images(square=True), st.integers(-8, 8), st.sampled_from(RESAMPLES))
def test_quarter_turns_of_a_square_are_counter_clockwise_and_exact(image: Pixels, turns: int, resample: str) -> None:
    assert_array_equal(ours(image, "rotate", 90.0 * turns, fill=GREY, resample=resample), np.rot90(image, turns))


@given(images(), st.sampled_from([(90, 0, 1), (180, -1, 0), (270, 0, -1)]), colors, st.sampled_from(RESAMPLES))
def test_quarter_turns_of_a_rectangle_are_about_its_centre(
    image: Pixels, turn: tuple[int, int, int], fill: tuple[int, int, int], resample: str
) -> None:
    (degrees, c, s), x, y = turn, image.shape[1] / 2, image.shape[0] / 2
    wanted = gather(image, (c, -s, x - c * x + s * y, s, c, y - s * x - c * y), fill, resample)
    assert_array_equal(ours(image, "rotate", degrees, fill=fill, resample=resample), wanted)


@given(images(shortest=3), st.floats(-400, 400), colors)
def test_rotate_by_any_angle_is_the_rotation_about_the_centre_away_from_ties(
    image: Pixels, degrees: float, fill: tuple[int, int, int]
) -> None:
    height, width = image.shape[:2]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = np.mgrid[:height, :width] + 0.5
    u = cosine * (x - width / 2) - sine * (y - height / 2) + width / 2
    v = sine * (x - width / 2) + cosine * (y - height / 2) + height / 2
    clear = (abs(u - np.rint(u)) > 1e-3) & (abs(v - np.rint(v)) > 1e-3)
    assume(clear.mean() > 0.5)
    seen = ours(image, "rotate", degrees, fill=fill)
    inside = (u > 0) & (u < width) & (v > 0) & (v < height)
    kept = clear & inside
    assert_array_equal(seen[kept], image[np.floor(v[kept]).astype(int), np.floor(u[kept]).astype(int)])
    lost = clear & ~inside
    assert (seen[lost] == fill[: image.shape[2]]).all()


# Filters and arguments of any kind, against Pillow itself


@given(images(), st.floats(-500, 500), colors, st.sampled_from(RESAMPLES))
def test_rotate_equals_pillow(image: Pixels, degrees: float, fill: tuple[int, int, int], resample: str) -> None:
    wanted = to_pillow(image).rotate(degrees, Image.Resampling[resample.upper()], fillcolor=pillow_fill(image, fill))
    seen = ours(image, "rotate", degrees, fill=fill, resample=resample)
    assert_array_equal(seen, np.asarray(wanted).reshape(image.shape))


@given(images(), st.floats(-60, 60), st.floats(-60, 60), colors, st.sampled_from(RESAMPLES))
def test_shear_and_translate_equal_pillow(
    image: Pixels, factor: float, offset: float, fill: tuple[int, int, int], resample: str
) -> None:
    steps = {
        ("shear-x", (factor, offset)): (1, factor, offset, 0, 1, 0),
        ("shear-y", (factor, offset)): (1, 0, 0, factor, 1, offset),
        ("translate-x", offset): (1, 0, offset, 0, 1, 0),
        ("translate-y", offset): (1, 0, 0, 0, 1, offset),
    }
    for step, matrix in steps.items():
        pillow = to_pillow(image)
        wanted = pillow.transform(
            pillow.size, Image.Transform.AFFINE, matrix, Image.Resampling[resample.upper()],
            fillcolor=pillow_fill(image, fill),
        )  # fmt: skip
        seen = ours(image, *step, fill=fill, resample=resample)
        assert_array_equal(seen, np.asarray(wanted).reshape(image.shape))


# What all ops have in common

ALL_OPS = [
    ("none",), ("shear-x", 0.3), ("shear-y", 0.3), ("translate-x", 2), ("translate-y", 2), ("rotate", 30.0),
    ("autocontrast",), ("invert",), ("equalize",), ("solarize", 100), ("posterize", 3), ("contrast", 1.7),
    ("color", 0.2), ("brightness", 1.7), ("sharpness", 1.7), ("cutout", (1, 1, 3)), ("solarize-add", 50), ("flip",),
    ("crop", (1, 1, 5, 4)),
]  # fmt: skip


def test_stored_codes_keep_their_meaning() -> None:
    plan = kdaug.plan_of([ALL_OPS], (9, 9))
    assert plan.op[0].tolist() == list(range(len(ALL_OPS)))


@pytest.mark.parametrize("step", ALL_OPS, ids=lambda step: step[0])
def test_a_grey_image_is_seen_as_the_first_channel_of_a_coloured_one_of_three_equal_channels(
    step: tuple[object, ...],
) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (9, 11, 1), np.uint8)
    coloured = np.repeat(grey, 3, axis=2)
    assert_array_equal(ours(grey, *step, fill=GREY), ours(coloured, *step, fill=GREY)[..., :1])


@pytest.mark.parametrize("step", ALL_OPS, ids=lambda step: step[0])
def test_an_image_of_one_pixel_has_a_view(step: tuple[object, ...]) -> None:
    for channels in (1, 3):
        image = np.full((1, 1, channels), 200, np.uint8)
        wanted = (4, 5, channels) if step[0] == "crop" else (1, 1, channels)
        assert ours(image, *step).shape == wanted


@given(images(), st.lists(st.sampled_from(ALL_OPS), max_size=4), colors)
def test_steps_are_carried_out_in_their_order(
    image: Pixels, steps: list[tuple[object, ...]], fill: tuple[int, int, int]
) -> None:
    together = kdaug.apply(image[None], kdaug.plan_of([steps], image.shape[:2], fill))[0]
    one_by_one = image
    for step in steps:
        one_by_one = ours(one_by_one, *step, fill=fill)
    assert_array_equal(together, one_by_one)


def test_every_image_and_step_has_its_own_fill_and_resample() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 9, 11, 3), np.uint8)
    steps = [("rotate", 20.0), ("shear-x", 0.3), ("translate-y", 1.5)]
    plan = kdaug.plan_of([steps] * 3, (9, 11))
    resample = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]], np.uint8)
    fill = rng.integers(0, 256, (3, 3, 3), np.uint8)
    views = kdaug.apply(images, dataclasses.replace(plan, resample=resample, fill=fill))
    for image, view, fills, filters in zip(images, views, fill.tolist(), resample, strict=True):
        for step, color, number in zip(steps, fills, filters, strict=True):
            image = ours(image, *step, fill=tuple(color), resample=RESAMPLES[number])
        assert_array_equal(view, image)
