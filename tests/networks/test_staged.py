"""What timm's own networks do, all of ours do too: pooling, classifiers, features, gradient checkpointing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from kdaug.networks import create_network

OWN_NETWORKS = ["wide_resnet10_1", "shake_shake26_2x16d", "pyramidnet29_a48", "pyramidnet29_a48_shakedrop"]
ours = pytest.mark.parametrize("name", OWN_NETWORKS)


# What timm's own networks do with the same calls, ours do too.
like_timms = pytest.mark.parametrize("name", ["resnet10t", *OWN_NETWORKS])
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
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


@like_timms
@pytest.mark.parametrize("pool", POOLED)
def test_features_are_pooled_as_asked_and_the_classifier_fits(name: str, pool: str) -> None:
    network = timm.create_model(name, num_classes=5, global_pool=pool).eval()
    assert_pools(network, pool, 5)
    network.reset_classifier(6)
    assert_pools(network, pool, 6)
    network.reset_classifier(7, "max")
    assert_pools(network, "max", 7)
    network.reset_classifier(7, "catavgmax")
    assert_pools(network, "catavgmax", 7)


@like_timms
@pytest.mark.parametrize("made_so", [True, False])
def test_without_pooling_and_classifier_the_features_are_left(name: str, made_so: bool) -> None:
    if made_so:
        network = timm.create_model(name, num_classes=0, global_pool="")
    else:
        network = timm.create_model(name, num_classes=5, global_pool="max")
        network.reset_classifier(0, "")
    network.eval()
    features = network.forward_features(IMAGES)
    assert features.ndim == 4
    assert torch.equal(network(IMAGES), features)
    assert torch.equal(network.forward_head(features, pre_logits=True), features)


@like_timms
def test_a_new_classifier_is_of_the_networks_kind(name: str) -> None:
    network = timm.create_model(name, num_classes=5).to("meta", torch.float64)
    network.reset_classifier(3)
    weight = network.get_classifier().weight
    assert (weight.shape[0], weight.dtype, weight.device.type) == (3, torch.float64, "meta")


@like_timms
def test_features_only_gives_the_stages_with_their_channels_and_reductions(name: str) -> None:
    features = timm.create_model(name, features_only=True).eval()
    channels, reductions = features.feature_info.channels(), features.feature_info.reduction()
    for x, count, reduction in zip(features(IMAGES), channels, reductions, strict=True):
        assert x.shape == (2, count, 64 // reduction, 64 // reduction)
    last = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()
    assert last.feature_info.channels() == channels[-1:]
    assert [x.shape[1] for x in last(IMAGES)] == channels[-1:]


@ours
@pytest.mark.parametrize("side", [(28, 28), (32, 32), (31, 33), (5, 64), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_side_get_logits(name: str, side: tuple[int, int], channels: int) -> None:
    network = create_network(name, 7, channels).eval()
    images = torch.zeros(2, channels, *side)
    assert network(images).shape == (2, 7)
    features = network.forward_features(images)
    assert features.shape == (2, network.num_features, -(-side[0] // 4), -(-side[1] // 4))


@ours
def test_features_are_the_outputs_of_our_three_stages(name: str) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.manual_seed(0)
    features = timm.create_model(name, features_only=True).eval()
    assert features.feature_info.reduction() == [1, 2, 4]
    x = whole.stem(IMAGES)
    for stage, feature in zip(whole.stages, features(IMAGES), strict=True):
        x = stage(x)
        assert torch.equal(feature, x)


@like_timms
def test_checkpointed_blocks_run_twice_and_give_the_same_gradients(name: str) -> None:
    network = timm.create_model(name, num_classes=5).eval()
    runs = []
    last_block = next(m for key, m in network.named_modules() if key in ("layer4.0", "stages.2.0"))
    last_block.register_forward_pre_hook(lambda *_: runs.append(1))
    gradients = []
    for enable in (False, True, False):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(IMAGES).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert len(runs) == 1 + 2 + 1
    torch.testing.assert_close(gradients[1], gradients[0])


@ours
def test_the_classifier_can_be_exchanged(name: str) -> None:
    network = create_network(name, 10, 3).eval()
    images = torch.randn(2, 3, 8, 8)
    features = network.forward_features(images)
    torch.manual_seed(0)
    network.reset_classifier(4)
    assert 0.9 / 2 < network.fc.weight.abs().max() <= 1 / 2, "uniform up to 1/sqrt(outputs), as the first"
    assert network.get_classifier() is network.fc
    assert (network.num_classes, network.num_features) == (4, features.shape[1])
    assert network(images).shape == (2, 4)
    assert torch.equal(network.forward_features(images), features)


@pytest.mark.parametrize("how", ["create_model", "reset_classifier"])
@ours
def test_zero_classes_give_the_pooled_features_as_in_timm(how: str, name: str) -> None:
    if how == "create_model":
        network = timm.create_model(name, num_classes=0)
    else:
        network = create_network(name, 10, 3)
        network.reset_classifier(0)
    network.eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(images), network.forward_features(images).mean((2, 3)))


@pytest.mark.parametrize("imports", ["import timm, kdaug", "import kdaug, timm.models"])
def test_importing_kdaug_is_enough_for_timm_to_know_our_networks(imports: str) -> None:
    program = f"{imports}; print(*timm.create_model('wide_resnet10_1', num_classes=3, in_chans=1).fc.weight.shape)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("3 64", 0), done.stderr
