"""The spaces of the TPU code and of the paper: published arguments, and their effect on images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from support.chi_square import assert_uniform

import kdaug
from kdaug import InputError, ViewPlan, create_policy

TPU = "tf-efficientnet"
PAPER = "paper-geometric"


def drawn(space: str, magnitude: float, size: tuple[int, int] = (224, 224), count: int = 4000) -> ViewPlan:
    """One op for each of many images."""
    return create_policy("randaugment", num_ops=1, magnitude=magnitude, space=space).plan(7, 3, np.arange(count), size)


def arguments(plan: ViewPlan, op: str) -> NDArray[np.float64]:
    """The arguments [n, ...] of the images that got `op`."""
    steps = [plan.steps(row)[0] for row in range(len(plan))]
    values = [step[1] if len(step) > 1 else () for step in steps if step[0] == op]
    assert len(values) > 50
    return np.array(values, float)


def ops_in(plan: ViewPlan) -> set[str]:
    return {plan.steps(row)[0][0] for row in range(len(plan))}


def noise(count: int, size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)


# tensorflow/tpu 7dc921f, models/official/efficientnet/autoaugment.py: level_to_arg with _MAX_LEVEL 10, cutout_const 40,
# translate_const 100; the paper trains with M 9, 15 and 28.

TPU_OPS = {
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "color", "contrast", "brightness",
    "sharpness", "shear-x", "shear-y", "translate-x", "translate-y", "cutout", "solarize-add",
}  # fmt: skip
TPU_ARGUMENTS: dict[str, tuple[float, float, float, float]] = {
    #                M=0     9     15    28
    "rotate":       (0,     27,    45,   84),
    "shear-x":      (0,   0.27,  0.45, 0.84),
    "shear-y":      (0,   0.27,  0.45, 0.84),
    "translate-x":  (0,     90,   150,  280),
    "translate-y":  (0,     90,   150,  280),
    "posterize":    (0,      3,     6,   11),
    "solarize":     (0,    230,   384,  716),
    "solarize-add": (0,     99,   165,  308),
    "color":        (0.1, 1.72,   2.8, 5.14),
    "contrast":     (0.1, 1.72,   2.8, 5.14),
    "brightness":   (0.1, 1.72,   2.8, 5.14),
    "sharpness":    (0.1, 1.72,   2.8, 5.14),
}  # fmt: skip
TPU_SIGNED = {"rotate", "shear-x", "shear-y", "translate-x", "translate-y"}


@pytest.mark.parametrize("size", [(224, 224), (32, 32)])
@pytest.mark.parametrize(("column", "magnitude"), list(enumerate([0, 9, 15, 28])))
def test_tpu_arguments_are_the_published_ones(column: int, magnitude: float, size: tuple[int, int]) -> None:
    plan = drawn(TPU, magnitude, size)
    assert ops_in(plan) == TPU_OPS
    for op, row in TPU_ARGUMENTS.items():
        values = arguments(plan, op)[..., 0] if op.startswith("shear") else arguments(plan, op)
        assert_allclose(np.abs(values) if op in TPU_SIGNED else values, row[column], rtol=1e-12, err_msg=op)


@pytest.mark.parametrize(("op", "at_10"), [("posterize", 4), ("solarize", 256), ("solarize-add", 110)])
def test_tpu_integer_arguments_are_truncated(op: str, at_10: int) -> None:
    for magnitude in range(31):
        assert set(arguments(drawn(TPU, magnitude, count=1500), op)) == {int(magnitude / 10 * at_10)}, magnitude


@pytest.mark.parametrize("op", sorted(TPU_SIGNED))
def test_half_of_the_signed_arguments_are_negative(op: str) -> None:
    values = arguments(drawn(TPU, 9), op)
    first = values[..., 0] if op.startswith("shear") else values
    assert_uniform([(first < 0).sum(), (first > 0).sum()])


@pytest.mark.parametrize(("magnitude", "half"), [(9, 36), (15, 60), (28, 112)])
def test_tpu_cutout_centers_are_uniform(magnitude: float, half: int) -> None:
    height, width = 4, 6
    x, y, side = arguments(drawn(TPU, magnitude, (height, width), count=16 * 1500), "cutout").T
    assert set(side) == {2 * half}
    centers = np.stack([y, x]) + half
    assert centers.min() == 0
    assert centers.max(axis=1).tolist() == [height - 1, width - 1]
    assert_uniform(np.bincount((centers[0] * width + centers[1]).astype(int), minlength=height * width))


def rows_with(plan: ViewPlan, op: str) -> Iterable[int]:
    return [row for row in range(len(plan)) if plan.steps(row)[0][0] == op]


def views_with(op: str, magnitude: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and their views under the TPU space where `op` was drawn."""
    plan = drawn(TPU, magnitude, (6, 5), count=400)
    images = noise(400, (6, 5))
    rows = rows_with(plan, op)
    return images[rows], kdaug.apply(images, plan)[rows]


def test_tpu_ops_at_undefined_magnitudes_change_nothing() -> None:
    for op in ("posterize", "solarize"):
        images, views = views_with(op, 28)
        assert_array_equal(views, images)


def test_tpu_posterize_and_solarize_are_strongest_at_0() -> None:
    _, black = views_with("posterize", 1)
    assert not black.any()
    images, inverted = views_with("solarize", 0)
    assert_array_equal(inverted, 255 - images)


def test_tpu_fills_with_gray_and_does_not_filter() -> None:
    images, views = views_with("translate-x", 28)
    assert (views == 128).all()
    images, views = views_with("rotate", 15)
    assert np.isin(views[views != 128], images).all()
    for image, view in zip(images, views, strict=True):
        known = {tuple(color) for color in image.reshape(-1, 3).tolist()} | {(128, 128, 128)}
        assert {tuple(color) for color in view.reshape(-1, 3).tolist()} <= known


# The paper's geometric space (arXiv 2003.11342, Section 4.1): M=0 changes nothing, M=10 leaves nothing, levels up to M

PAPER_OPS = {"shear-x", "shear-y", "translate-x", "translate-y", "cutout"}


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(0, 99))
def test_paper_magnitude_zero_changes_nothing(height: int, width: int, channels: int, seed: int) -> None:
    images = noise(8, (height, width), channels)
    plan = create_policy("randaugment-n2-m0@paper-geometric").plan(seed, 0, np.arange(8), (height, width))
    assert_array_equal(kdaug.apply(images, plan), images)


@pytest.mark.parametrize("magnitude", [1, 3, 9.5])
@pytest.mark.parametrize(("op", "axis"), [("translate-x", 1), ("translate-y", 0)])
def test_paper_translations_are_uniform_up_to_m_tenths(op: str, axis: int, magnitude: float) -> None:
    size = (30, 50)
    fraction = arguments(drawn(PAPER, magnitude, size), op) / size[axis] / (magnitude / 10)
    assert np.abs(fraction).max() <= 1
    assert_uniform(np.histogram(fraction, 8, (-1, 1))[0])


@pytest.mark.parametrize("magnitude", [1, 3, 9.5])
@pytest.mark.parametrize(("op", "other_side"), [("shear-x", 30), ("shear-y", 50)])
def test_paper_shear_angles_are_uniform_up_to_m_tenths(op: str, other_side: int, magnitude: float) -> None:
    factor, offset = arguments(drawn(PAPER, magnitude, (30, 50)), op).T
    fraction = np.degrees(np.arctan(factor)) / 90 / (magnitude / 10)
    assert np.abs(fraction).max() <= 1 + 1e-12
    assert_uniform(np.histogram(fraction, 8, (-1, 1))[0])
    assert_allclose(factor * other_side / 2 + offset, 0, atol=1e-9)


@pytest.mark.parametrize("size", [(15, 21), (21, 15), (1, 1), (7, 7)])
def test_paper_shear_does_not_move_the_center_line(size: tuple[int, int]) -> None:
    images = noise(300, size)
    plan = drawn(PAPER, 8, size, count=300)
    views = kdaug.apply(images, plan)
    middle_row, middle_column = size[0] // 2, size[1] // 2
    x, y = rows_with(plan, "shear-x"), rows_with(plan, "shear-y")
    assert len(x) > 20 < len(y)
    assert_array_equal(views[x, middle_row], images[x, middle_row])
    assert_array_equal(views[y, :, middle_column], images[y, :, middle_column])


@pytest.mark.parametrize(("magnitude", "longest"), [(1, 2), (5, 10), (10, 20)])
def test_paper_cutouts_are_inside_and_up_to_m_tenths(magnitude: float, longest: int) -> None:
    height, width = 20, 33
    x, y, side = arguments(drawn(PAPER, magnitude, (height, width)), "cutout").T
    assert set(side) == set(range(longest + 1))
    assert min(x.min(), y.min()) == 0
    assert (x + side).max() == width
    assert (y + side).max() == height


def test_paper_cutout_positions_are_uniform() -> None:
    x, y, side = arguments(drawn(PAPER, 1, (10, 12), count=15000), "cutout").T
    ones = side == 1
    assert_uniform(np.bincount((y[ones] * 12 + x[ones]).astype(int) // 4, minlength=30))


def test_paper_ops_at_full_level_leave_nothing() -> None:
    """16 x 16 pixels are all outside once each moves by more than 15.5; the middle rows move by half the factor."""
    plan = drawn(PAPER, 10, (16, 16), count=4000)
    views = kdaug.apply(np.full((len(plan), 16, 16, 3), 255, np.uint8), plan)
    emptied = Counter[str]()
    for row in range(len(plan)):
        op, argument = plan.steps(row)[0]
        full = {
            "translate": lambda a: abs(a) > 15.5,
            "shear": lambda a: abs(a[0]) / 2 > 15.5,
            "cutout": lambda a: a[2] == 16,
        }[op.removesuffix("-x").removesuffix("-y")]
        assert (views[row] == 255).any() != full(argument)
        emptied[op] += full(argument)
    assert set(emptied) == PAPER_OPS
    assert min(emptied.values()) > 3


# Invalid magnitudes and spaces


@pytest.mark.parametrize(("space", "allowed"), [(PAPER, "from 0 to 10"), (TPU, "at least 0")])
@pytest.mark.parametrize("magnitude", [-0.1, math.inf, math.nan])
def test_a_magnitude_out_of_range_is_refused(space: str, allowed: str, magnitude: float) -> None:
    with pytest.raises(InputError, match=f"magnitude is .* must be {allowed} in {space}"):
        drawn(space, magnitude)


@pytest.mark.parametrize(
    ("space", "hint"),
    [("tf-eficientnet", "did you mean tf-efficientnet"), ("zzz", "choose one of paper-geometric, tf-efficientnet")],
)
def test_an_unknown_space_is_refused_with_a_hint(space: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"there is no space '{space}'; {hint}"):
        drawn(space, 5)
