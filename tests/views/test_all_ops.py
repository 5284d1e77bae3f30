"""Properties that all ops have: codes, gray images, single pixels, order of steps, own fill and filter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy_ops import GRAY, Pixels, apply_op, colors, images

import kdaug
from kdaug.views.ops import NAMES
from kdaug.views.plan import RESAMPLES

ALL_OPS = [
    ("none",), ("shear-x", 0.3), ("shear-y", 0.3), ("translate-x", 2), ("translate-y", 2), ("rotate", 30.0),
    ("autocontrast",), ("invert",), ("equalize",), ("solarize", 100), ("posterize", 3), ("contrast", 1.7),
    ("color", 0.2), ("brightness", 1.7), ("sharpness", 1.7), ("cutout", (1, 1, 3)), ("solarize-add", 50), ("flip",),
    ("crop", (1, 1, 5, 4)), ("erase", (1, 0, 4, 3)),
]  # fmt: skip


def test_op_codes_do_not_change() -> None:
    plan = kdaug.plan_of([ALL_OPS], (9, 9))
    assert plan.op[0].tolist() == list(range(len(NAMES)))


@pytest.mark.parametrize("step", ALL_OPS, ids=lambda step: step[0])
def test_a_gray_image_equals_one_channel_of_its_rgb_image(step: tuple[object, ...]) -> None:
    gray = np.random.default_rng(1).integers(0, 256, (9, 11, 1), np.uint8)
    colored = np.repeat(gray, 3, axis=2)
    assert_array_equal(apply_op(gray, *step, fill=GRAY), apply_op(colored, *step, fill=GRAY)[..., :1])


@pytest.mark.parametrize("step", ALL_OPS, ids=lambda step: step[0])
def test_an_image_of_one_pixel_has_a_view(step: tuple[object, ...]) -> None:
    for channels in (1, 3):
        image = np.full((1, 1, channels), 200, np.uint8)
        expected = (4, 5, channels) if step[0] == "crop" else (1, 1, channels)
        assert apply_op(image, *step).shape == expected


@given(images(), st.lists(st.sampled_from(ALL_OPS), max_size=4), colors)
def test_steps_are_applied_in_order(image: Pixels, steps: list[tuple[object, ...]], fill: tuple[int, int, int]) -> None:
    view = kdaug.apply(image[None], kdaug.plan_of([steps], image.shape[:2], fill))[0]
    for step in steps:
        image = apply_op(image, *step, fill=fill)
    assert_array_equal(view, image)


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
            image = apply_op(image, *step, fill=tuple(color), resample=RESAMPLES[number])
        assert_array_equal(view, image)
