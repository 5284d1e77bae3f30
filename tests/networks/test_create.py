"""Networks by name, and images made into what a network takes."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import nn

from kdaug.errors import InputError
from kdaug.networks import InputFormat, count_parameters, create_network, published_mean_std

MEANS = {1: (0.2860,), 3: (0.4914, 0.4822, 0.4465)}
STDS = {1: (0.3530,), 3: (0.2470, 0.2435, 0.2616)}


def test_any_timm_network_takes_our_classes_and_channels() -> None:
    network = create_network("resnet10t", 7, 1).eval()
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("wide_resnet28_11", "wide_resnet28_1"), ("wideresnet16_1", "wide_resnet16_1"), ("resnet5O", "resnet50")],
)
def test_an_unknown_network_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"no network '{name}' in timm or kdaug; did you mean {nearest}"):
        create_network(name, 10, 3)


@pytest.mark.parametrize("name", ["", "xyzzy"])
def test_a_name_near_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"no network '{name}' in timm or kdaug"):
        create_network(name, 10, 3)


def test_published_weights_of_a_network_without_any_are_refused() -> None:
    with pytest.raises(InputError, match="wide_resnet16_1 cannot be made"):
        create_network("wide_resnet16_1", 10, 3, pretrained=True)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_weights_that_cannot_be_fetched_are_an_input_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **options: object) -> None:
        assert options["pretrained"]
        raise error("no\nconnection")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError, match="network resnet18 cannot be made: no connection"):
        create_network("resnet18", 10, 3, pretrained=True)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet18.tv_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_published_weights_say_their_input(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert published_mean_std(name) == (mean, std)
    published = timm.get_pretrained_cfg(name)
    assert (published.mean, published.std) == (mean, std)


@pytest.mark.parametrize("name", ["wide_resnet16_1", "resnet18.nonesuch", "xyzzy"])
def test_without_published_weights_there_is_no_published_input(name: str) -> None:
    assert published_mean_std(name) is None


def test_frozen_parameters_are_not_counted() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    assert count_parameters(network) == 10


def normalised(images: NDArray[np.uint8], channels: int) -> NDArray[np.float64]:
    """float64 [N,C,H,W]."""
    values = images.astype(np.float64) / 255
    return ((values - MEANS[channels]) / STDS[channels]).transpose(0, 3, 1, 2)


@given(st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_images_are_normalised_per_channel(channels: int, count: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    prepared = InputFormat(MEANS[channels], STDS[channels], None).prepare(torch.from_numpy(images))
    assert prepared.dtype == torch.float32
    assert prepared.shape == (count, channels, height, width)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert_allclose(prepared.numpy(), normalised(images, channels), rtol=1e-5, atol=2e-6)


def triangle(size: int, wanted: int) -> NDArray[np.float64]:
    """The [wanted, size] weights of bilinear interpolation, its triangle widened when shrinking."""
    scale = size / wanted
    distance = np.abs(np.arange(size) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * scale) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 50), (15, 7)])
def test_images_are_resized_bilinearly_without_aliasing(channels: int, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, channels), np.uint8)
    prepared = InputFormat(MEANS[channels], STDS[channels], size).prepare(torch.from_numpy(images))
    expected = triangle(20, size[0]) @ normalised(images, channels) @ triangle(30, size[1]).T
    assert prepared.shape[2:] == size
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert_allclose(prepared.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("takes", "given_"), [(3, 1), (1, 3)])
def test_images_of_other_channels_are_refused(takes: int, given_: int) -> None:
    wanted = InputFormat(MEANS[takes], STDS[takes], None)
    with pytest.raises(InputError, match=rf"takes {takes} channel\(s\), but the images have {given_}"):
        wanted.prepare(torch.zeros(1, 4, 4, given_, dtype=torch.uint8))
