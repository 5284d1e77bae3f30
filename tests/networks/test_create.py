"""Networks by name, and the preparation of their input."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import nn

from kdaug.errors import InputError
from kdaug.networks import InputFormat, count_parameters, create, create_network, published_mean_std

MEANS = {1: (0.2860,), 3: (0.4914, 0.4822, 0.4465)}
STDS = {1: (0.3530,), 3: (0.2470, 0.2435, 0.2616)}


def test_timm_networks_get_our_classes_and_channels() -> None:
    network = create_network("resnet10t", 7, 1).eval()
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("wide_resnet28_11", "wide_resnet28_1"), ("wideresnet16_1", "wide_resnet16_1"), ("resnet5O", "resnet50")],
)
def test_an_unknown_name_suggests_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"no network '{name}' in timm or kdaug; did you mean {nearest}"):
        create_network(name, 10, 3)


@pytest.mark.parametrize("name", ["", "xyzzy"])
def test_an_unknown_name_without_a_near_one(name: str) -> None:
    with pytest.raises(InputError, match=f"no network '{name}' in timm or kdaug"):
        create_network(name, 10, 3)


def test_missing_published_weights_are_an_error() -> None:
    with pytest.raises(InputError, match="wide_resnet16_1 cannot be created"):
        create_network("wide_resnet16_1", 10, 3, pretrained=True)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_weights_that_cannot_be_downloaded_are_an_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **options: object) -> None:
        assert options["pretrained"]
        raise error("no\nconnection")

    monkeypatch.setattr(create, "read_published_weights", lambda name: None)  # as if timm read them itself
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError, match="network resnet18 cannot be created: no connection"):
        create_network("resnet18", 10, 3, pretrained=True)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet18.tv_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_published_mean_and_std_are_those_of_timm(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert published_mean_std(name) == (mean, std)
    published = timm.get_pretrained_cfg(name)
    assert (published.mean, published.std) == (mean, std)


@pytest.mark.parametrize("name", ["wide_resnet16_1", "resnet18.nonesuch", "xyzzy"])
def test_without_published_weights_there_is_no_mean(name: str) -> None:
    assert published_mean_std(name) is None


def test_frozen_parameters_are_not_counted() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    assert count_parameters(network) == 10


def normalized(images: NDArray[np.uint8], channels: int) -> NDArray[np.float64]:
    """float64 [N,C,H,W]."""
    values = images.astype(np.float64) / 255
    return ((values - MEANS[channels]) / STDS[channels]).transpose(0, 3, 1, 2)


@given(st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_images_are_normalized_per_channel(channels: int, count: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    prepared = InputFormat(MEANS[channels], STDS[channels], None).normalize(torch.from_numpy(images))
    assert prepared.dtype == torch.float32
    assert prepared.shape == (count, channels, height, width)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert_allclose(prepared.numpy(), normalized(images, channels), rtol=1e-5, atol=2e-6)


def triangle(size: int, new_size: int) -> NDArray[np.float64]:
    """The [new_size, size] weights of antialiased bilinear interpolation: the triangle is widened for downsampling."""
    scale = size / new_size
    distance = np.abs(np.arange(size) + 0.5 - (np.arange(new_size)[:, None] + 0.5) * scale) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 50), (15, 7)])
def test_images_are_resized_bilinearly_with_antialiasing(channels: int, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, channels), np.uint8)
    prepared = InputFormat(MEANS[channels], STDS[channels], size).normalize(torch.from_numpy(images))
    expected = triangle(20, size[0]) @ normalized(images, channels) @ triangle(30, size[1]).T
    assert prepared.shape[2:] == size
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert_allclose(prepared.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("expected", "actual"), [(3, 1), (1, 3)])
def test_a_wrong_number_of_channels_is_an_error(expected: int, actual: int) -> None:
    input_format = InputFormat(MEANS[expected], STDS[expected], None)
    with pytest.raises(InputError, match=rf"takes {expected} channel\(s\), but the images have {actual}"):
        input_format.normalize(torch.zeros(1, 4, 4, actual, dtype=torch.uint8))
