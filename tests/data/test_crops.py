"""Crops: inside the image, of allowed area and ratio, and functions of (seed, epoch, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torchvision import transforms

from kdaug.data.crops import Box, CenterCrop, RandomResizedCrop

sides = st.integers(1, 3000)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**32 - 1)
indices = st.integers(0, 2**62)
MIN_RATIO, MAX_RATIO = 3 / 4, 4 / 3


def torchvisions_fallback(width: int, height: int) -> Box:
    """The box that torchvision uses if no attempt fits. None does, because it must have the area of the whole image."""
    top, left, h, w = transforms.RandomResizedCrop.get_params(
        torch.empty(3, height, width), [1.0, 1.0], [MIN_RATIO, MAX_RATIO]
    )
    return left, top, left + w, top + h


@given(sides, sides, st.floats(0.001, 1), seeds, epochs, indices)
def test_a_crop_is_inside_the_image_with_allowed_area_and_ratio(
    width: int, height: int, min_area: float, seed: int, epoch: int, index: int
) -> None:
    left, top, right, bottom = box = RandomResizedCrop(224, seed, min_area).box(epoch, index, width, height)
    assert all(type(edge) is int for edge in box)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    too_flat, too_tall = (w - 0.5) / (h + 0.5) > MAX_RATIO, (w + 0.5) / (h - 0.5) < MIN_RATIO
    too_small, too_large = (w + 0.5) * (h + 0.5) < min_area * width * height, (w - 0.5) * (h - 0.5) > width * height
    if too_flat or too_tall or too_small or too_large:
        # The fallback for long images; its box is as high, or as wide, as the image.
        assert (w, h) in [(width, max(round(width * 4 / 3), 1)), (max(round(height * 4 / 3), 1), height)]
        assert not MIN_RATIO <= width / height <= MAX_RATIO


@pytest.mark.parametrize("size", [(500, 100), (100, 500), (401, 200), (77, 200), (1000, 7), (3, 1000), (1, 100)])
def test_the_fallback_box_is_that_of_torchvision(size: tuple[int, int]) -> None:
    assert RandomResizedCrop(224, 0, min_area=1.0).box(0, 0, *size) == torchvisions_fallback(*size)


@given(seeds, epochs, indices)
def test_a_crop_depends_on_seed_epoch_and_index_alone(seed: int, epoch: int, index: int) -> None:
    def box(seed: int, epoch: int, index: int) -> Box:
        return RandomResizedCrop(224, seed, 0.08).box(epoch, index, 2000, 1500)

    first = box(seed, epoch, index)
    box(seed, epoch, index + 1)
    assert box(seed, epoch, index) == first
    assert box(seed ^ 1, epoch, index) != first
    assert box(seed, epoch ^ 1, index) != first
    assert box(seed, epoch, index ^ 1) != first


def shape_of(boxes: list[Box], width: int, height: int) -> dict[str, NDArray[np.float64]]:
    left, top, right, bottom = np.array(boxes, np.float64).T
    w, h = right - left, bottom - top
    return {
        "area": w * h / (width * height),
        "ratio": w / h,
        "left": left / (width - w + 1),
        "top": top / (height - h + 1),
        "area by ratio": w * w,
        "left by top": left * top,
    }


@pytest.mark.parametrize(("size", "min_area"), [((640, 480), 0.08), ((300, 500), 0.5)])
def test_crops_are_distributed_as_in_torchvision(size: tuple[int, int], min_area: float) -> None:
    count = 3000
    crop = RandomResizedCrop(224, 0, min_area)
    ours = [crop.box(index % 3, index // 3, *size) for index in range(count)]
    torch.manual_seed(0)
    image, theirs = torch.empty(3, size[1], size[0]), []
    for _ in range(count):
        top, left, h, w = transforms.RandomResizedCrop.get_params(image, [min_area, 1.0], [MIN_RATIO, MAX_RATIO])
        theirs.append((left, top, left + w, top + h))
    for name, our_values in shape_of(ours, *size).items():
        their_values = shape_of(theirs, *size)[name]
        points = np.concatenate([our_values, their_values])
        shares = [np.searchsorted(np.sort(sample), points, "right") / count for sample in (our_values, their_values)]
        distance = np.abs(shares[0] - shares[1]).max()
        assert distance < 1.95 * np.sqrt(2 / count), f"{name}: Kolmogorov-Smirnov distance {distance:.3f}, 0.1 % level"


@given(sides, sides, st.sampled_from([(224, 256), (380, 412), (800, 832), (64, 64 / 0.875)]))
def test_a_center_crop_equals_resizing_then_cropping(width: int, height: int, size_of: tuple[int, float]) -> None:
    """224: resize the shorter side to 256, crop the central 224, as the TPU code; in pixels of the original image."""
    size, short_side = size_of
    scale = min(width, height) / short_side
    middle = np.array([width, height]) / 2
    expected = np.concatenate([middle - size / 2 * scale, middle + size / 2 * scale])
    assert_allclose(CenterCrop(size).box(0, 0, width, height), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("fraction", "box"), [(1.0, (50, 0, 150, 100)), (0.5, (75, 25, 125, 75)), (None, (56.25, 6.25, 143.75, 93.75))]
)
def test_a_center_crop_may_have_its_own_fraction(fraction: float | None, box: Box) -> None:
    assert CenterCrop(16, fraction).box(0, 0, 200, 100) == box
