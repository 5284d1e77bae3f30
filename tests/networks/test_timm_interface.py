"""The checks of timm's own model tests (tests/test_models.py of timm), on kdaug's networks and one of timm's."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import FeatureInfo
from torch import fx, nn

import kdaug.networks  # noqa: F401 - registers the networks

OURS = ("wide_resnet10_1", "shake_shake26_2x16d", "pyramidnet29_a48", "pyramidnet29_a48_shakedrop")
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ours = pytest.mark.parametrize("name", OURS)
with_timm = pytest.mark.parametrize("name", ["resnet10t", *OURS])


def network_of(name: str, training: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5).train(training)


@with_timm
def test_default_cfg_describes_the_network(name: str) -> None:
    network = network_of(name)
    cfg, names = network.default_cfg, network.state_dict().keys()
    features = network.forward_features(torch.zeros(1, *cfg["input_size"]))
    assert tuple(features.shape[2:]) == tuple(cfg["pool_size"])
    assert f"{cfg['classifier']}.weight" in names
    first = cfg["first_conv"] if isinstance(cfg["first_conv"], str) else cfg["first_conv"][0]
    assert network.state_dict()[f"{first}.weight"].shape[1] == 3


@pytest.mark.parametrize("training", [False, True])
@with_timm
def test_traced_network_computes_the_same(name: str, training: bool) -> None:
    """In training the trace draws from the same generator, so the same seed gives the same noise."""
    network = network_of(name, training)
    traced = fx.symbolic_trace(network)
    logits = []
    for module in (network, traced):
        torch.manual_seed(1)
        logits.append(module(IMAGES))
    assert torch.equal(*logits)
    logits[1].sum().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


@pytest.mark.parametrize("name", ["shake_shake26_2x16d", "pyramidnet29_a48_shakedrop"])
def test_a_trace_draws_new_noise_each_time(name: str) -> None:
    traced = fx.symbolic_trace(network_of(name, training=True))
    assert not torch.equal(traced(IMAGES), traced(IMAGES))
    assert traced(IMAGES[:1].repeat(7, 1, 1, 1)).shape == (7, 5), "no batch size is baked into the trace"


@with_timm
def test_intermediates_have_the_published_shapes(name: str) -> None:
    network = network_of(name)
    info = FeatureInfo(network.feature_info, len(network.feature_info))
    features, intermediates = network.forward_intermediates(IMAGES)
    shapes = [(2, channels, 32 // stride, 32 // stride) for channels, stride in zip(
        info.channels(), info.reduction(), strict=True)]  # fmt: skip
    assert [tuple(x.shape) for x in intermediates] == shapes
    assert torch.equal(features, network.forward_features(IMAGES))
    alone = network.forward_intermediates(IMAGES, intermediates_only=True)
    assert all(map(torch.equal, alone, intermediates))
    _, last = network.forward_intermediates(IMAGES, indices=1)
    assert [torch.equal(x, intermediates[-1]) for x in last] == [True]


@ours
def test_intermediates_equal_those_of_hooks(name: str) -> None:
    network, seen = network_of(name), []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, inputs, output: seen.append(output))
    features, intermediates = network.forward_intermediates(IMAGES, norm=True)
    assert all(map(torch.equal, intermediates[:2], seen[:2]))
    assert torch.equal(intermediates[2], network.norm(seen[2]))
    assert torch.equal(features, intermediates[2])
    seen.clear()
    features, intermediates = network.forward_intermediates(IMAGES, indices=[0, 1], stop_early=True)
    assert len(seen) == 2
    assert torch.equal(features, seen[1])
    assert all(map(torch.equal, intermediates, seen))
    with pytest.raises(ValueError, match="output_fmt must be NCHW, not NLC"):
        network.forward_intermediates(IMAGES, output_fmt="NLC")


@pytest.mark.parametrize("indices", [[0], [0, 1], [1, 2]])
@ours
def test_pruned_network_gives_the_same_intermediates(name: str, indices: list[int]) -> None:
    whole, pruned = network_of(name), network_of(name)
    assert pruned.prune_intermediate_layers(indices, prune_norm=True) == indices
    assert len(pruned.stages) == indices[-1] + 1
    assert pruned.num_features == whole.feature_info[indices[-1]]["num_chs"]
    before = whole.forward_intermediates(IMAGES, indices, intermediates_only=True)
    assert all(map(torch.equal, pruned.forward_intermediates(IMAGES, indices, intermediates_only=True), before))
    assert torch.equal(pruned(IMAGES), before[-1])


@ours
def test_the_getter_of_timm_gives_the_stages(name: str) -> None:
    torch.manual_seed(0)
    getter = timm.create_model(name, features_only=True, feature_cls="getter", out_indices=(0, 2)).eval()
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    expected = whole.forward_intermediates(IMAGES, [0, 2], intermediates_only=True)
    assert all(map(torch.equal, getter(IMAGES), expected))


@ours
def test_checkpointed_intermediates_have_the_same_gradients(name: str) -> None:
    network, gradients = network_of(name), []
    for enable in (False, True):
        network.zero_grad()
        network.set_grad_checkpointing(enable)
        network.forward_intermediates(IMAGES, intermediates_only=True)[2].square().sum().backward()
        gradients.append(network.get_parameter(f"{network.first_conv}.weight").grad.clone())
    torch.testing.assert_close(*gradients)
