"""Every op against arithmetic written out here in NumPy, and the filtered ones against Pillow's own calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import kdaug

Pixels = NDArray[np.uint8]
RESAMPLES = ["nearest", "bilinear", "bicubic"]
GREY = (90, 90, 90)


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
pixels = st.integers(-60, 60).map(lambda n: n / 2)


def ours(image: Pixels, *step: object, fill: int | tuple[int, int, int] = 0, resample: str = "nearest") -> Pixels:
    return kdaug.apply(image[None], kdaug.plan_of([[step]], image.shape[:2], fill, resample))[0]


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


@given(images(), st.integers(-5, 300) | st.floats(0, 256))
def test_solarize_inverts_values_at_or_above_the_threshold(image: Pixels, threshold: float) -> None:
    assert_array_equal(ours(image, "solarize", threshold), np.where(image >= threshold, 255 - image, image))


@given(images(), st.integers(-300, 300))
def test_solarize_add_adds_to_values_below_128_within_0_and_255(image: Pixels, addition: int) -> None:
    wanted = np.where(image < 128, np.clip(image.astype(int) + addition, 0, 255), image)
    assert_array_equal(ours(image, "solarize-add", addition), wanted)


@given(images(), st.integers(0, 12))
@example(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 0)
def test_posterize_keeps_the_high_bits_and_none_is_black(image: Pixels, bits: int) -> None:
    step = 2 ** max(8 - bits, 0)
    assert_array_equal(ours(image, "posterize", bits), image.astype(int) // step * step)


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

factors = st.floats(-1, 6, width=32) | st.sampled_from([0.0, 0.1, 1.0, 1.72, 1.9, 5.14])


@given(images(), factors)
def test_brightness_blends_with_black(image: Pixels, factor: float) -> None:
    assert_array_equal(ours(image, "brightness", factor), blend(np.zeros(image.shape, int), image, factor))


@given(images(), factors)
def test_contrast_blends_with_the_mean_luma(image: Pixels, factor: float) -> None:
    grey = np.full(image.shape, int(luma(image).mean() + 0.5))
    assert_array_equal(ours(image, "contrast", factor), blend(grey, image, factor))


@given(images(), factors)
def test_color_blends_with_the_luma_of_each_pixel(image: Pixels, factor: float) -> None:
    grey = np.repeat(luma(image)[..., None], image.shape[2], axis=2)
    assert_array_equal(ours(image, "color", factor), blend(grey, image, factor))


@given(images(), factors)
def test_sharpness_blends_with_the_smoothed_image(image: Pixels, factor: float) -> None:
    assert_array_equal(ours(image, "sharpness", factor), blend(smooth(image), image, factor))


# Places


@given(images())
def test_flip_mirrors_left_and_right(image: Pixels) -> None:
    assert_array_equal(ours(image, "flip"), image[:, ::-1])


@given(images(), st.integers(-30, 30), st.integers(-30, 30), st.integers(0, 40), colors)
def test_cutout_fills_the_part_of_the_square_that_lies_inside(
    image: Pixels, x: int, y: int, side: int, fill: tuple[int, int, int]
) -> None:
    wanted = image.copy()
    wanted[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = fill[: image.shape[2]]
    assert_array_equal(ours(image, "cutout", (x, y, side), fill=fill), wanted)


@pytest.mark.parametrize("side", [2**31 - 1, 2**31, 2**40])
def test_cutout_of_any_side_however_large_covers_what_it_reaches(side: int) -> None:
    wanted = np.full((4, 4, 1), 9, np.uint8)
    wanted[1:, 2:] = 0
    assert_array_equal(ours(np.full((4, 4, 1), 9, np.uint8), "cutout", (2, 1, side)), wanted)


@given(images(), st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 40), st.integers(1, 40), colors)
def test_crop_takes_the_window_and_fills_what_is_outside(
    image: Pixels, left: int, top: int, width: int, height: int, fill: tuple[int, int, int]
) -> None:
    wide = np.empty((200, 200, image.shape[2]), np.uint8)
    wide[:] = fill[: image.shape[2]]
    wide[100 : 100 + image.shape[0], 100 : 100 + image.shape[1]] = image
    wanted = wide[100 + top :, 100 + left :][:height, :width]
    assert_array_equal(ours(image, "crop", (left, top, width, height), fill=fill), wanted)


@given(images(), st.integers(-30, 30), colors)
def test_translate_by_whole_pixels_moves_the_image_towards_lower_positions(
    image: Pixels, by: int, fill: tuple[int, int, int]
) -> None:
    """Source x = x + pixels, as Pillow's coefficients say."""
    height, width, channels = image.shape
    for step, (x, y) in {"translate-x": (by, 0), "translate-y": (0, by)}.items():
        wanted = np.empty_like(image)
        for row, column in np.ndindex(height, width):
            inside = 0 <= row + y < height and 0 <= column + x < width
            wanted[row, column] = image[row + y, column + x] if inside else fill[:channels]
        assert_array_equal(ours(image, step, by, fill=fill), wanted)


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
    assert_array_equal(ours(image, "shear-x", factor, fill=GREY), ours(image, "shear-x", (factor, 0), fill=GREY))
    assert_array_equal(ours(image, "shear-x", factor, fill=GREY), gather(image, (1, factor, 0, 0, 1, 0), GREY))


@given(images(square=True), st.integers(-8, 8), st.sampled_from(RESAMPLES))
def test_quarter_turns_of_a_square_are_counter_clockwise_and_exact(image: Pixels, turns: int, resample: str) -> None:
    assert_array_equal(ours(image, "rotate", 90.0 * turns, fill=GREY, resample=resample), np.rot90(image, turns))


@given(images(), st.integers(-2, 2), st.sampled_from(RESAMPLES))
def test_half_turns_reverse_both_axes(image: Pixels, turns: int, resample: str) -> None:
    seen = ours(image, "rotate", 360.0 * turns + 180, fill=GREY, resample=resample)
    assert_array_equal(seen, image[::-1, ::-1])


@given(images(), st.sampled_from([90, 270]), colors, st.sampled_from(RESAMPLES))
def test_quarter_turns_of_a_rectangle_are_about_its_centre(
    image: Pixels, degrees: int, fill: tuple[int, int, int], resample: str
) -> None:
    height, width = image.shape[:2]
    sine = 1 if degrees == 90 else -1
    matrix = (0, -sine, width / 2 + sine * height / 2, sine, 0, height / 2 - sine * width / 2)
    seen = ours(image, "rotate", degrees, fill=fill, resample=resample)
    assert_array_equal(seen, gather(image, matrix, fill, resample))


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
@example(np.arange(75, dtype=np.uint8).reshape(5, 5, 3), 1e-9, GREY, "nearest")
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
