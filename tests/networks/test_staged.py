"""kdaug's networks have timm's interface: pooling, classifiers, features, gradient checkpointing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from kdaug import _timm_registration
from kdaug.networks import create_network

OWN_NETWORKS = ["wide_resnet10_1", "shake_shake26_2x16d", "pyramidnet29_a48", "pyramidnet29_a48_shakedrop"]
ours = pytest.mark.parametrize("name", OWN_NETWORKS)


# The same tests on a network of timm show that they test timm's interface.
with_timm = pytest.mark.parametrize("name", ["resnet10t", *OWN_NETWORKS])
SIDE = 32
IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
POOLED = {
    "avg": lambda x: x.mean(2),
    "max": lambda x: x.amax(2),
    "avgmax": lambda x: (x.mean(2) + x.amax(2)) / 2,
    "catavgmax": lambda x: torch.cat([x.mean(2), x.amax(2)], 1),
}


def assert_pools(network: nn.Module, pool: str, classes: int) -> None:
    features = network.forward_features(IMAGES)
    pooled = network.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, POOLED[pool](features.flatten(2)))
    assert features.shape[1] == network.num_features
    assert pooled.shape == (2, network.head_hidden_size)
    classifier = network.get_classifier()
    assert (classifier.in_features, classifier.out_features) == (network.head_hidden_size, classes)
    torch.testing.assert_close(network(IMAGES), classifier(pooled))
    assert network.num_classes == classes


@with_timm
@pytest.mark.parametrize("pool", POOLED)
def test_pooling_and_classifier_are_as_requested(name: str, pool: str) -> None:
    network = timm.create_model(name, num_classes=5, global_pool=pool).eval()
    assert_pools(network, pool, 5)
    network.reset_classifier(6)
    assert_pools(network, pool, 6)
    network.reset_classifier(7, "max")
    assert_pools(network, "max", 7)
    network.reset_classifier(7, "catavgmax")
    assert_pools(network, "catavgmax", 7)


@with_timm
@pytest.mark.parametrize("at_creation", [True, False])
def test_without_pooling_and_classifier_features_remain(name: str, at_creation: bool) -> None:
    if at_creation:
        network = timm.create_model(name, num_classes=0, global_pool="")
    else:
        network = timm.create_model(name, num_classes=5, global_pool="max")
        network.reset_classifier(0, "")
    network.eval()
    features = network.forward_features(IMAGES)
    assert features.ndim == 4
    assert torch.equal(network(IMAGES), features)
    assert torch.equal(network.forward_head(features, pre_logits=True), features)


@with_timm
def test_a_new_classifier_has_dtype_and_device_of_the_network(name: str) -> None:
    network = timm.create_model(name, num_classes=5).to("meta", torch.float64)
    network.reset_classifier(3)
    weight = network.get_classifier().weight
    assert (weight.shape[0], weight.dtype, weight.device.type) == (3, torch.float64, "meta")


@with_timm
def test_features_only_returns_the_stages(name: str) -> None:
    features = timm.create_model(name, features_only=True).eval()
    channels, reductions = features.feature_info.channels(), features.feature_info.reduction()
    for x, count, reduction in zip(features(IMAGES), channels, reductions, strict=True):
        assert x.shape == (2, count, SIDE // reduction, SIDE // reduction)
    last = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()
    assert last.feature_info.channels() == channels[-1:]
    assert [x.shape[1] for x in last(IMAGES)] == channels[-1:]


@ours
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (31, 33), (5, 64), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_get_logits(name: str, size: tuple[int, int], channels: int) -> None:
    network = create_network(name, 7, channels).eval()
    images = torch.zeros(2, channels, *size)
    assert network(images).shape == (2, 7)
    features = network.forward_features(images)
    assert features.shape == (2, network.num_features, -(-size[0] // 4), -(-size[1] // 4))


@ours
def test_features_are_the_outputs_of_the_three_stages(name: str) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.manual_seed(0)
    features = timm.create_model(name, features_only=True).eval()
    assert features.feature_info.reduction() == [1, 2, 4]
    x = whole.stem(IMAGES)
    for stage, feature in zip(whole.stages, features(IMAGES), strict=True):
        x = stage(x)
        assert torch.equal(feature, x)


@with_timm
def test_gradient_checkpointing_recomputes_blocks(name: str) -> None:
    network = timm.create_model(name, num_classes=5).eval()
    calls = []
    last_block = next(m for key, m in network.named_modules() if key in ("layer4.0", "stages.2.0"))
    last_block.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients = []
    for enable in (False, True, False):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(IMAGES).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert len(calls) == 1 + 2 + 1
    torch.testing.assert_close(gradients[1], gradients[0])


@ours
def test_the_classifier_can_be_replaced(name: str) -> None:
    network = create_network(name, 10, 3).eval()
    images = torch.randn(2, 3, 8, 8)
    features = network.forward_features(images)
    torch.manual_seed(0)
    network.reset_classifier(4)
    assert 0.9 / 2 < network.fc.weight.abs().max() <= 1 / 2, "uniform up to 1/sqrt(outputs), as the original one"
    assert network.get_classifier() is network.fc
    assert (network.num_classes, network.num_features) == (4, features.shape[1])
    assert network(images).shape == (2, 4)
    assert torch.equal(network.forward_features(images), features)


@pytest.mark.parametrize("how", ["create_model", "reset_classifier"])
@ours
def test_zero_classes_give_the_pooled_features(how: str, name: str) -> None:
    if how == "create_model":
        network = timm.create_model(name, num_classes=0)
    else:
        network = create_network(name, 10, 3)
        network.reset_classifier(0)
    network.eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(images), network.forward_features(images).mean((2, 3)))


def test_importing_kdaug_registers_its_networks_with_timm() -> None:
    program = "import kdaug, timm.models; print(*timm.create_model('wide_resnet10_1', num_classes=3).fc.weight.shape)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.stdout.strip(), process.returncode) == ("3 64", 0), process.stderr


def test_networks_are_registered_at_once_if_timm_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported, finders = [], list(sys.meta_path)
    monkeypatch.setattr(importlib, "import_module", imported.append)
    _timm_registration.install()
    assert imported == ["kdaug.networks"]
    assert sys.meta_path == finders
