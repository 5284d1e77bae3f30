"""With any arguments, kernels do not read or write outside the memory of images and views."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kdaug import plan_of
from kdaug.views.kernels import dispatch, execute
from kdaug.views.ops import CODES, INTEGER_OPS, NAMES
from kdaug.views.plan import ViewPlan

GUARD = 4096
CANARY = 0xA5

any_number = st.one_of(
    st.floats(-3, 3), st.floats(-1e5, 1e5), st.floats(-1e13, 1e13), st.floats(allow_nan=False, allow_infinity=False)
)


def guarded(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An array in the middle of a larger one filled with CANARY, and the larger one."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, CANARY, np.uint8)
    return memory[GUARD : GUARD + size].reshape(shape), memory


@settings(max_examples=200)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    op=st.lists(st.integers(0, len(NAMES) - 1).filter(lambda code: code != CODES["crop"]), min_size=8, max_size=8),
    arguments=st.lists(any_number, min_size=32, max_size=32),
    resample=st.sampled_from([0, 1, 2]),
)
def test_memory_around_images_is_unchanged(
    height: int, width: int, channels: int, op: list[int], arguments: list[float], resample: int
) -> None:
    shape = (4, height, width, channels)
    (images, around_images), (views, around_views) = guarded(shape), guarded(shape)
    images[:] = np.random.default_rng(0).integers(0, 256, shape)
    before = around_images.copy()
    argument = np.reshape(arguments, (4, 2, 4)).astype(np.float64)
    codes = np.reshape(op, (4, 2)).astype(np.uint8)
    whole = np.isin(codes, [CODES[name] for name in INTEGER_OPS])
    argument[whole] = np.clip(np.trunc(argument[whole]), -(2.0**62), 2.0**62)
    plan = ViewPlan(
        codes, argument, np.full((4, 2), resample, np.uint8), np.full((4, 2, 3), 9, np.uint8), shape[1:3], shape[1:3]
    )
    execute(images, plan, views, 1)
    assert_array_equal(around_images, before)
    assert (around_views[:GUARD] == CANARY).all()
    assert (around_views[-GUARD:] == CANARY).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_around_cropped_views_is_unchanged(channels: int) -> None:
    rng = np.random.default_rng(channels)
    for _ in range(200):
        height, width, new_height, new_width = rng.integers(1, 9, 4).tolist()
        images, _ = guarded((1, height, width, channels))
        views, memory = guarded((1, new_height, new_width, channels))
        argument = np.zeros((1, 3, 4))
        argument[0, 1] = [*rng.integers(-15, 15, 2), new_width, new_height]
        argument[0, 0] = argument[0, 2] = 20.0
        codes = np.array([[CODES["rotate"], CODES["crop"], CODES["shear-y"]]], np.uint8)
        filled = np.zeros((1, 3, 3), np.uint8)
        execute(
            images,
            ViewPlan(codes, argument, np.zeros((1, 3), np.uint8), filled, (height, width), (new_height, new_width)),
            views,
            1,
        )
        assert (memory[:GUARD] == CANARY).all()
        assert (memory[-GUARD:] == CANARY).all()


@pytest.mark.parametrize(("width", "height"), [(5000, 0), (5000, 2), (2, 5000)])
def test_the_buffer_fits_the_largest_crop_and_its_rows(width: int, height: int) -> None:
    """A row of fill is written even for a crop without rows."""
    plan = plan_of([[("crop", (0, 0, width, height)), ("crop", (0, 0, 2, 2))]], (2, 2))
    assert dispatch._buffer_size(np.zeros((1, 2, 2, 3), np.uint8), plan) == 3 * width * max(height, 1)
