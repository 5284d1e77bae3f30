"""Resizing: the bytes are those of Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from kdaug.data import resize as resizing
from kdaug.data.crops import Box
from kdaug.data.resize import resize_bicubic, tall_images_rule
from kdaug.errors import InputError

Pixels = NDArray[np.uint8]


def noise(width: int, height: int, is_binary: bool = False) -> Pixels:
    """Random values, or only 0 and 255, which the filter overshoots."""
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), np.uint8)
    return (pixels > 127).astype(np.uint8) * 255 if is_binary else pixels


def by_pillow(pixels: Pixels, box: Box, size: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))


@st.composite
def intervals(draw: st.DrawFn, length: int) -> tuple[float, float]:
    """All of 0..length, a part between whole or fractional positions, or a tiny part."""
    kind = draw(st.sampled_from(["all", "whole", "fractional", "tiny"]))
    if kind == "all":
        return 0, length
    if kind == "whole":
        start = draw(st.integers(0, length - 1))
        return start, draw(st.integers(start + 1, length))
    start = draw(st.floats(0, length - 1, width=32))
    return start, start + draw(st.floats(1e-3, 0.5) if kind == "tiny" else st.floats(0.25, length - start))


@settings(max_examples=1500, deadline=None)
@given(data=st.data(), width=st.integers(1, 80), height=st.integers(1, 80), is_binary=st.booleans())
def test_every_resize_equals_pillow(data: st.DataObject, width: int, height: int, is_binary: bool) -> None:
    (left, right), (top, bottom) = data.draw(intervals(width)), data.draw(intervals(height))
    size = data.draw(st.sampled_from([width, height]).filter(lambda side: side <= 40) | st.integers(1, 40))
    pixels, box = noise(width, height, is_binary), (left, top, right, bottom)
    assert_array_equal(resize_bicubic(pixels, box, size), by_pillow(pixels, box, size))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(30, 90), height=st.integers(30, 90), size=st.integers(20, 40))
@example(width=31, height=32, size=30)  # the height is reduced by twice as much as the width, but not by more
@example(width=31, height=33, size=30)
def test_tall_images_are_resized_in_the_order_of_pillow(width: int, height: int, size: int) -> None:
    pixels, box = noise(width, height), (0, 0, width, height)
    assert_array_equal(resize_bicubic(pixels, box, size), by_pillow(pixels, box, size))


@pytest.mark.parametrize("box", [(0, 0, 500, 375), (17, 3, 411, 370), (30.3, 40.7, 210.1, 222.2)])
@pytest.mark.parametrize("size", [1, 21, 22, 224, 300])
def test_photos_are_resized_as_by_pillow(box: Box, size: int) -> None:
    for pixels in (noise(500, 375), noise(500, 375, is_binary=True)):
        assert_array_equal(resize_bicubic(pixels, box, size), by_pillow(pixels, box, size))


def test_the_kernel_and_not_pillow_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(40, 30)
    expected = by_pillow(pixels, (1, 2, 33, 29), 20)
    assert tall_images_rule() is not None
    monkeypatch.delattr(resizing, "_by_pillow")
    assert_array_equal(resize_bicubic(pixels, (1, 2, 33, 29), 20), expected)


def test_views_of_arrays_are_resized_and_not_changed() -> None:
    pixels = noise(40, 30)
    for view in (pixels[::-1], pixels[:, ::-1], pixels.swapaxes(0, 1), pixels[3:, 5:]):
        height, width, _ = view.shape
        assert_array_equal(resize_bicubic(view, (0, 0, width, height), 12), by_pillow(view, (0, 0, width, height), 12))
    resize_bicubic(pixels, (0, 0, 40, 30), 12)
    assert pixels.flags.writeable
    assert_array_equal(pixels, noise(40, 30))


def test_a_kernel_with_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    by_kernel = resizing._by_kernel
    monkeypatch.setattr(resizing, "_by_kernel", lambda *arguments: by_kernel(*arguments) ^ np.uint8(1))
    assert tall_images_rule.__wrapped__() is None
    monkeypatch.setattr(resizing, "tall_images_rule", lambda: None)
    pixels = noise(40, 30)
    assert_array_equal(resize_bicubic(pixels, (0, 0, 40, 30), 12), by_pillow(pixels, (0, 0, 40, 30), 12))


@pytest.mark.parametrize(
    "box", [(-1, 0, 4, 4), (0, 0, 9, 4), (0, -0.5, 4, 4), (0, 0, 4, 7.5), (3, 0, 3, 4), (0, 4, 4, 2), (0, 0, np.nan, 4)]
)
def test_a_box_outside_the_image_is_an_error(box: Box) -> None:
    with pytest.raises(InputError, match=r"box .* is empty or not within 8 x 7 pixels"):
        resize_bicubic(noise(8, 7), box, 4)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_only_rgb_images_are_resized(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"pass an RGB image, uint8 \[H,W,3\]"):
        resize_bicubic(pixels, (0, 0, 4, 4), 2)


def test_the_size_is_at_least_one() -> None:
    with pytest.raises(InputError, match="size is 0"):
        resize_bicubic(noise(8, 7), (0, 0, 4, 4), 0)
