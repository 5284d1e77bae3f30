"""Plans: `plan_of`, `steps`, slices and concatenation; invalid steps are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kdaug import InputError, ViewPlan, apply, plan_of
from kdaug.views.plan import concat_plans, empty_plan

numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-1000, 1000).map(float)
not_negative = st.integers(0, 1000).map(float)
ONE_ARGUMENT = [
    "translate-x", "translate-y", "rotate", "solarize", "solarize-add", "contrast", "color", "brightness", "sharpness",
]  # fmt: skip
NO_ARGUMENT = ["autocontrast", "invert", "equalize", "flip"]

steps_without_crop = st.one_of(
    st.tuples(st.sampled_from(NO_ARGUMENT)),
    st.tuples(st.sampled_from(ONE_ARGUMENT), numbers),
    st.tuples(st.sampled_from(["shear-x", "shear-y"]), st.tuples(numbers, numbers)),
    st.tuples(st.just("posterize"), not_negative),
    st.tuples(st.just("cutout"), st.tuples(whole, whole, not_negative)),
)


@st.composite
def samples(draw: st.DrawFn) -> list[list[tuple[Any, ...]]]:
    """Steps of several images. All end with a crop of the same size, or none does."""
    rows = draw(st.lists(st.lists(steps_without_crop, max_size=4), max_size=4))
    if draw(st.booleans()):
        size = draw(st.tuples(*[st.integers(1, 50).map(float)] * 2))
        rows = [[*row, ("crop", (*draw(st.tuples(whole, whole)), *size))] for row in rows]
    return rows


def assert_same(plan: ViewPlan, other: ViewPlan) -> None:
    for name in ("op", "argument", "resample", "fill"):
        assert_array_equal(getattr(plan, name), getattr(other, name))
    assert (plan.size, plan.output_size) == (other.size, other.output_size)


@given(samples())
def test_steps_returns_the_steps_of_plan_of(rows: list[list[tuple[Any, ...]]]) -> None:
    plan = plan_of(rows, (7, 9))
    assert len(plan) == len(rows)
    assert [plan.steps(row) for row in range(len(plan))] == rows
    assert_same(plan_of([plan.steps(row) for row in range(len(plan))], (7, 9)), plan)


def test_only_a_crop_changes_the_output_size() -> None:
    plan = plan_of([[("crop", (1, 2, 5, 3)), ("rotate", 90)], [("crop", (0, 0, 9, 9)), ("crop", (0, 0, 5, 3))]], (7, 9))
    assert (plan.size, plan.output_size) == ((7, 9), (3, 5))
    assert plan_of([[("rotate", 90)], []], (7, 9)).output_size == (7, 9)


def test_fill_and_resample_are_kept_for_every_step() -> None:
    plan = plan_of([[("rotate", 1), ("flip",)], [("invert",)]], (4, 4), fill=(1, 2, 3), resample="bicubic")
    assert plan.fill.tolist() == [[[1, 2, 3]] * 2] * 2
    assert plan.resample.tolist() == [[2, 2]] * 2  # nearest, bilinear, bicubic
    assert plan_of([[("flip",)]], (4, 4), fill=7).fill.tolist() == [[[7, 7, 7]]]


@given(samples(), st.integers(0, 4), st.integers(0, 4))
def test_a_slice_is_the_plan_of_that_part(rows: list[list[tuple[Any, ...]]], start: int, stop: int) -> None:
    plan = plan_of(rows, (7, 9), fill=(1, 2, 3))
    part = plan[start:stop]
    assert [part.steps(row) for row in range(len(part))] == rows[start:stop]
    assert (part.size, part.output_size) == (plan.size, plan.output_size)


def test_concat_plans_applies_both_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), np.uint8)
    first = plan_of([[("rotate", 20), ("crop", (1, 1, 5, 6))], [("crop", (-2, 0, 5, 6))]], (7, 9), 50, "bilinear")
    second = plan_of([[("rotate", 30), ("crop", (0, 1, 3, 4))], [("crop", (4, 0, 3, 4))]], (6, 5), (1, 2, 3))
    both = concat_plans([first, second])
    assert (both.size, both.output_size) == ((7, 9), (4, 3))
    assert_array_equal(apply(images, both), apply(apply(images, first), second))


def test_concat_plans_with_empty_plans() -> None:
    plan = plan_of([[("rotate", 20)]], (4, 4), fill=9, resample="bilinear")
    assert_same(concat_plans([empty_plan(1, 0, (4, 4)), plan, empty_plan(1, 0, (4, 4))]), plan)


@pytest.mark.parametrize("second", [plan_of([[("invert",)]], (5, 4)), plan_of([[("invert",)]] * 2, (4, 4))])
def test_plans_for_other_images_cannot_be_concatenated(second: ViewPlan) -> None:
    with pytest.raises(InputError, match="plans do not fit"):
        concat_plans([plan_of([[("invert",)]], (4, 4)), second])


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (("rotat", 3), "there is no op 'rotat'; did you mean rotate?"),
        (("shear_x", 3), "there is no op 'shear_x'; did you mean shear-x?"),
        (("rotate",), "op rotate takes degrees; got 0 value"),
        (("rotate", (1, 2)), "op rotate takes degrees; got 2 value"),
        (("invert", 1), "op invert takes no argument; got 1 value"),
        (("cutout", (1, 2)), "op cutout takes x, y, side; got 2 value"),
        (("shear-x", (1, 2, 3)), r"op shear-x takes factor, \[offset\]; got 3 value"),
        (("crop", (1, 2, 3)), "op crop takes left, top, width, height; got 3 value"),
        (("rotate", float("nan")), "op rotate: degrees is nan, but must be finite"),
        (("shear-y", (0.1, float("inf"))), "op shear-y: offset is inf, but must be finite"),
        (("cutout", (1, 2.5, 3)), "op cutout: y is 2.5, but must be a whole number"),
        (("crop", (0.5, 0, 4, 4)), "op crop: left is 0.5, but must be a whole number"),
        (("posterize", 2.5), "op posterize: bits is 2.5, but must be a whole number"),
        (("posterize", -1), "op posterize: bits is -1, but must not be negative"),
        (("cutout", (1, 2, -3)), "op cutout: side is -3, but must not be negative"),
        (("crop", (0, 0, 4, -4)), "op crop: height is -4, but must not be negative"),
    ],
)
def test_an_invalid_step_is_refused_with_its_fault(step: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        plan_of([[("flip",)], [step]], (4, 4))


@pytest.mark.parametrize("step", [("rotate", "30"), ("rotate", None), ("cutout", "abc"), ()])
def test_a_step_of_the_wrong_type_is_refused(step: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        plan_of([[step]], (4, 4))


@pytest.mark.parametrize("fill", [-1, 256, (1, 2), (1, 2, 256), (-1, 0, 0), 1.5, (0.5, 0, 0), "red"])
def test_an_invalid_fill_is_refused(fill: Any) -> None:
    with pytest.raises(InputError, match="fill is"):
        plan_of([[("rotate", 3)]], (4, 4), fill=fill)


def test_a_fill_may_be_a_numpy_integer() -> None:
    assert plan_of([[("flip",)]], (4, 4), fill=np.uint8(7)).fill.tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("resample", ["lanczos", "Nearest", 0, None])
def test_an_unknown_resample_is_refused_with_the_choices(resample: Any) -> None:
    with pytest.raises(InputError, match="must be one of nearest, bilinear, bicubic"):
        plan_of([[("rotate", 3)]], (4, 4), resample=resample)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4), (4.5, 4), (4,), (4, 4, 3), 4])
def test_an_invalid_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="size is"):
        plan_of([[("rotate", 3)]], size)


def test_crops_of_one_batch_must_have_one_size() -> None:
    with pytest.raises(InputError, match=r"one size.*\(3, 2\).*\(4, 4\)"):
        plan_of([[("crop", (0, 0, 2, 3))], [("invert",)]], (4, 4))
