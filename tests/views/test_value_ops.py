"""Ops that change values independently of their position, and blends, against their definition in NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from numpy_ops import Pixels, apply_op, apply_op_with_each, blend, images, luma, smooth

few_examples = settings(max_examples=40)


@few_examples
@given(images())
def test_invert_is_255_minus_the_value(image: Pixels) -> None:
    assert_array_equal(apply_op(image, "invert"), 255 - image)


@few_examples
@given(images())
def test_solarize_inverts_values_at_or_above_the_threshold(image: Pixels) -> None:
    thresholds = [-3, 0, 0.5, 1, 77, 127.5, 128, 200, 254, 255, 255.5, 256, 716]
    for threshold, view in zip(thresholds, apply_op_with_each(image, "solarize", thresholds), strict=True):
        assert_array_equal(view, np.where(image >= threshold, 255 - image, image))


@few_examples
@given(images())
def test_solarize_add_adds_to_values_below_128(image: Pixels) -> None:
    additions = [-300, -128, -50, -1, 0, 1, 55, 99, 127, 128, 165, 308]
    for addition, view in zip(additions, apply_op_with_each(image, "solarize-add", additions), strict=True):
        assert_array_equal(view, np.where(image < 128, np.clip(image.astype(int) + addition, 0, 255), image))


@few_examples
@given(images())
def test_posterize_keeps_the_high_bits(image: Pixels) -> None:
    for bits, view in enumerate(apply_op_with_each(image, "posterize", range(12))):
        step = 2 ** max(8 - bits, 0)
        assert_array_equal(view, image.astype(int) // step * step)


@few_examples
@given(images())
def test_autocontrast_stretches_each_channel_to_0_and_255(image: Pixels) -> None:
    expected = image.copy()
    for c in range(image.shape[2]):
        low, high = int(image[..., c].min()), int(image[..., c].max())
        if high > low:
            scale = 255 / (high - low)
            expected[..., c] = np.trunc(np.clip(image[..., c] * scale + -low * scale, 0, 255))
    assert_array_equal(apply_op(image, "autocontrast"), expected)


@few_examples
@given(images(longest=40))
def test_equalize_uses_the_cumulative_histogram(image: Pixels) -> None:
    expected = image.copy()
    for c in range(image.shape[2]):
        counts = np.bincount(image[..., c].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        if step > 0:
            below = np.cumsum(counts) - counts
            table = np.minimum((step // 2 + below) // step, 255)
            expected[..., c] = table[image[..., c]]
    assert_array_equal(apply_op(image, "equalize"), expected)


# Blends: factor 0 gives the degenerate image, factor 1 the image

FACTORS = [-0.7, -0.01, 0, 0.1, 0.33, 0.5, 0.9999, 1, 1.0001, 1.3, 1.72, 1.9, 2.8, 5.14]
factors = st.floats(-2, 6, width=32).map(lambda factor: [*FACTORS, factor])


def assert_blends(op: str, degenerate: NDArray[np.int64], image: Pixels, factors: list[float]) -> None:
    for factor, view in zip(factors, apply_op_with_each(image, op, factors), strict=True):
        assert_array_equal(view, blend(degenerate, image, factor), err_msg=f"{op} {factor}")


@few_examples
@given(images(), factors)
def test_brightness_blends_with_black(image: Pixels, factors: list[float]) -> None:
    assert_blends("brightness", np.zeros(image.shape, int), image, factors)


@few_examples
@given(images(), factors)
def test_contrast_blends_with_the_mean_luma(image: Pixels, factors: list[float]) -> None:
    assert_blends("contrast", np.full(image.shape, int(luma(image).mean() + 0.5)), image, factors)


@few_examples
@given(images(), factors)
def test_color_blends_with_the_luma_of_each_pixel(image: Pixels, factors: list[float]) -> None:
    assert_blends("color", np.repeat(luma(image)[..., None], image.shape[2], axis=2), image, factors)


@few_examples
@given(images(), factors)
def test_sharpness_blends_with_the_smoothed_image(image: Pixels, factors: list[float]) -> None:
    assert_blends("sharpness", smooth(image), image, factors)
