"""`apply`: a pure function of images and plan that checks its arguments."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from kdaug import InputError, ViewPlan, apply, create_policy, plan_of
from kdaug.views.ops import NAMES

COUNT, SIZE = 23, (13, 10)


def noise(count: int = COUNT, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(channels).integers(0, 256, (count, *SIZE, channels), np.uint8)


def varied_plan(count: int = COUNT) -> ViewPlan:
    return create_policy("randaugment-n3-m9@tf-efficientnet").plan(0, 0, np.arange(count), SIZE)


@pytest.mark.parametrize("channels", [1, 3])
def test_neither_images_nor_plan_are_modified(channels: int) -> None:
    images, plan = noise(channels=channels), varied_plan()
    before, argument = images.copy(), plan.argument.copy()
    views = apply(images, plan)
    views[:] = 0
    assert_array_equal(images, before)
    assert_array_equal(plan.argument, argument)


def test_an_empty_plan_returns_a_copy() -> None:
    images = noise()
    views = apply(images, plan_of([[]] * COUNT, SIZE))
    assert_array_equal(views, images)
    assert not np.shares_memory(views, images)


def test_each_image_gets_its_own_row_of_the_plan() -> None:
    images, plan = noise(), varied_plan()
    views = apply(images, plan)
    for row in range(COUNT):
        steps = plan_of([plan.steps(row)], SIZE, fill=128)
        assert_array_equal(apply(images[row : row + 1], steps), views[row : row + 1])


def test_the_memory_layout_does_not_change_a_byte() -> None:
    images, plan = noise(), varied_plan()
    expected = apply(images, plan)
    planes_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    reversed_twice = np.ascontiguousarray(images[:, ::-1, ::-1])[:, ::-1, ::-1]
    read_only = images.copy()
    read_only.flags.writeable = False
    for other in (planes_first, reversed_twice, read_only, np.asfortranarray(images)):
        assert_array_equal(apply(other, plan), expected)


def test_crops_change_the_size_of_the_batch() -> None:
    assert apply(noise(2), plan_of([[("crop", (0, 0, 5, 7))], [("crop", (1, 1, 5, 7))]], SIZE)).shape == (2, 7, 5, 3)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputError, match="images is empty"):
        apply(noise(0), plan_of([], SIZE))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "uint8 array, not float32"),
        (np.zeros((2, 4, 4, 3), np.int64), "uint8 array, not int64"),
        ([[[[0, 0, 0]]]], "uint8 array, not list"),
        (np.zeros((2, 4, 4), np.uint8), r"\[N,H,W,C\] with C 1 or 3, not \[2, 4, 4\]"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"C 1 or 3, not \[2, 4, 4, 2\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"C 1 or 3, not \[2, 3, 4, 4\]"),
        (np.zeros((3, 4, 4, 3), np.uint8), "3 images, but the plan is for 2"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"\(4, 5\) pixels, but the plan is for \(4, 4\)"),
    ],
)
def test_images_that_do_not_fit_the_plan_are_refused(images: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        apply(images, plan_of([[("invert",)]] * 2, (4, 4)))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"op": np.array([[1], [len(NAMES)]], np.uint8)}, f"op code {len(NAMES)}, which is unknown"),
        ({"op": np.array([[255], [1]], np.uint8)}, "op code 255, which is unknown"),
        ({"resample": np.array([[0], [3]], np.uint8)}, "resample code 3, which is unknown"),
        ({"argument": np.array([[[0.0] * 4], [[np.nan, 0, 0, 0]]])}, "image 1 .*op shear-x .*non-finite"),
        ({"argument": np.array([[[np.inf, 0, 0, 0]], [[0.0] * 4]])}, "image 0 .*op shear-x .*non-finite"),
    ],
)
def test_invalid_codes_and_arguments_are_refused(changed: dict[str, Any], sentence: str) -> None:
    plan = dataclasses.replace(plan_of([[("shear-x", 0.1)]] * 2, (4, 4)), **changed)
    with pytest.raises(InputError, match=sentence):
        apply(np.zeros((2, 4, 4, 3), np.uint8), plan)


@pytest.mark.parametrize("name", ["cutout", "erase", "crop"])
@pytest.mark.parametrize("value", [0.5, -1.25, 2.0**63, -1e300])
def test_rectangles_must_be_in_whole_pixels(name: str, value: float) -> None:
    arguments = (0, 0, 4) if name == "cutout" else (0, 0, 4, 4)
    plan = plan_of([[(name, arguments)]] * 2, (4, 4))
    plan.argument[1, 0, 1] = value
    with pytest.raises(InputError, match=f"image 1 of the plan: op {name} .* must be whole"):
        apply(np.zeros((2, 4, 4, 3), np.uint8), plan)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"output_size": (4, 5)}, r"image 0 of the plan ends with \(4, 4\) pixels, but output_size is \(4, 5\)"),
        ({"argument": np.tile([0.0, 0.0, 4.0, 9.0], (2, 1, 1))}, r"image 0 of the plan ends with \(9, 4\)"),
        ({"argument": np.tile([0.0, 0.0, 4.0, -4.0], (2, 1, 1))}, "crop of negative size"),
        ({"argument": np.tile([0.0, 0.0, 1e9, 1e9], (2, 1, 1))}, "a crop of more than 65536 pixels a side"),
        ({"argument": np.zeros((2, 1, 3))}, r"argument is float64 \[2, 1, 3\], but must be float64 \[2, 1, 4\]"),
        ({"argument": np.zeros((2, 1, 4), np.float32)}, "argument is float32"),
        ({"fill": np.zeros((2, 2, 3), np.uint8)}, r"fill is uint8 \[2, 2, 3\]"),
        ({"op": np.full((2, 1), -1)}, "op is int64"),
        ({"resample": np.zeros((2, 1), np.int8)}, "resample is int8"),
    ],
)
def test_inconsistent_arrays_and_sizes_are_refused(changed: dict[str, Any], sentence: str) -> None:
    plan = dataclasses.replace(plan_of([[("crop", (0, 0, 4, 4))]] * 2, (4, 4)), **changed)
    with pytest.raises(InputError, match=sentence):
        apply(np.zeros((2, 4, 4, 3), np.uint8), plan)


def test_erase_fills_the_rectangle_inside_the_image() -> None:
    images = np.full((3, 4, 5, 1), 9, np.uint8)
    plan = plan_of([[("erase", (3, -1, 5, 3))], [("erase", (-2, 2, 2**40, 1))], [("erase", (0, 0, 0, 4))]], (4, 5), 1)
    expected = images.copy()
    expected[0, :2, 3:] = 1
    expected[1, 2] = 1
    assert_array_equal(apply(images, plan), expected)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_fewer_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(InputError, match="threads is"):
        apply(noise(2), plan_of([[], []], SIZE), threads)
