"""Wide-ResNets: published sizes, the forward pass written out a second time, and timm's conventions."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdaug.networks import create_network, parameter_count
from kdaug.networks.wide_resnet import DEPTHS, WIDTHS, WideResNet


def closed_form(depth: int, width: int, classes: int, channels: int) -> int:
    """Weights of stem, blocks (two BN, two 3 x 3, a 1 x 1 shortcut where channels change), last BN and classifier."""
    total, inputs = 9 * channels * 16, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * inputs + inputs * classes + classes


@pytest.mark.parametrize(
    ("name", "classes", "published"), [("wide_resnet28_10", 10, 36_479_194), ("wide_resnet28_10", 100, 36_536_884)]
)
def test_size_is_the_published_one(name: str, classes: int, published: int) -> None:
    with torch.device("meta"):
        assert parameter_count(create_network(name, classes, 3)) == published


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_registered_size_has_the_parameters_of_the_closed_form(depth: int, width: int) -> None:
    for classes, channels in ((10, 3), (100, 1)):
        with torch.device("meta"):
            network = create_network(f"wide_resnet{depth}_{width}", classes, channels)
        assert parameter_count(network) == closed_form(depth, width, classes, channels)


@pytest.mark.parametrize(("depth", "allowed"), [(10, True), (16, True), (4, False), (12, False), (18, False)])
def test_depth_is_6n_plus_4(depth: int, allowed: bool) -> None:
    if allowed:
        assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in WideResNet(depth, 1).modules()) == (
            depth - 3
        )
    else:
        with pytest.raises(ValueError, match=f"6n.4 with n at least 1, not {depth}"):
            WideResNet(depth, 1)


@pytest.mark.parametrize("side", [(28, 28), (32, 32), (31, 33), (5, 64), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_side_get_logits(side: tuple[int, int], channels: int) -> None:
    network = create_network("wide_resnet10_1", 7, channels).eval()
    images = torch.zeros(2, channels, *side)
    assert network(images).shape == (2, 7)
    assert network.forward_features(images).shape == (2, 64, -(-side[0] // 4), -(-side[1] // 4))


def written_out(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """WRN-10-1 in evaluation mode: one pre-activation block in each of three stages."""

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    x = functional.conv2d(x, state["stem.weight"], padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        block = f"stages.{stage}.0"
        active = activated(x, f"{block}.bn1")
        out = functional.conv2d(active, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = functional.conv2d(activated(out, f"{block}.bn2"), state[f"{block}.conv2.weight"], padding=1)
        kept = x if stage == 0 else functional.conv2d(active, state[f"{block}.shortcut.weight"], stride=stride)
        x = kept + out
    pooled = activated(x, "norm").flatten(2).mean(2)
    return pooled @ state["fc.weight"].T + state["fc.bias"]


def test_forward_is_the_one_written_out() -> None:
    torch.manual_seed(0)
    network = create_network("wide_resnet10_1", 5, 3).double()
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.9)
    network.eval()
    images = torch.randn(3, 3, 13, 10, dtype=torch.float64)
    torch.testing.assert_close(network(images), written_out(images, network.state_dict()))


def test_convolutions_start_normal_with_variance_2_over_outputs_and_the_classifier_uniform() -> None:
    torch.manual_seed(0)
    network = create_network("wide_resnet16_4", 100, 3)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            weight = module.weight.detach()
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03), name
            assert abs(weight.mean()) < 4 * weight.std() / weight.numel() ** 0.5
            fourth = (weight / weight.std()).pow(4).mean().item()
            assert fourth == pytest.approx(3, abs=0.3), "a normal distribution's"
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    weight = network.fc.weight.detach() * 10  # 1/sqrt(100)
    assert 0.99 < weight.abs().max() <= 1
    assert weight.std().item() == pytest.approx(3**-0.5, rel=0.03)
    assert (network.fc.bias == 0).all()


def test_weights_of_a_seed_are_drawn_layer_by_layer() -> None:
    """Once as torch makes the layers, then as ours are initialised; so that stored runs can be run again."""
    torch.manual_seed(0)
    network = create_network("wide_resnet10_1", 5, 3)
    torch.manual_seed(0)
    shapes = [(3, 16, 3), (16, 16, 3), (16, 16, 3), (16, 32, 3), (32, 32, 3), (16, 32, 1), (32, 64, 3), (64, 64, 3)]
    layers = [nn.Conv2d(inputs, outputs, side, bias=False) for inputs, outputs, side in (*shapes, (32, 64, 1))]
    fc = nn.Linear(64, 5)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.uniform_(fc.weight, -(5**-0.5), 5**-0.5)
    drawn = {name: value for name, value in network.state_dict().items() if value.ndim > 1}
    assert list(drawn) == [
        "stem.weight", "stages.0.0.conv1.weight", "stages.0.0.conv2.weight",
        "stages.1.0.conv1.weight", "stages.1.0.conv2.weight", "stages.1.0.shortcut.weight",
        "stages.2.0.conv1.weight", "stages.2.0.conv2.weight", "stages.2.0.shortcut.weight", "fc.weight",
    ]  # fmt: skip
    for value, layer in zip(drawn.values(), [*layers, fc], strict=True):
        assert torch.equal(value, layer.weight)


def test_dropout_acts_in_training_only() -> None:
    network = timm.create_model("wide_resnet10_1", num_classes=4, drop_rate=0.5)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_the_classifier_can_be_exchanged() -> None:
    network = create_network("wide_resnet10_1", 10, 3).eval()
    images = torch.randn(2, 3, 8, 8)
    features = network.forward_features(images)
    torch.manual_seed(0)
    network.reset_classifier(4)
    assert 0.9 / 2 < network.fc.weight.abs().max() <= 1 / 2, "uniform up to 1/sqrt(outputs), as the first"
    assert network.get_classifier() is network.fc
    assert (network.num_classes, network.num_features) == (4, 64)
    assert network(images).shape == (2, 4)
    assert torch.equal(network.forward_features(images), features)


@pytest.mark.parametrize("how", ["create_model", "reset_classifier"])
def test_zero_classes_give_the_pooled_features_as_in_timm(how: str) -> None:
    if how == "create_model":
        network = timm.create_model("wide_resnet10_1", num_classes=0)
    else:
        network = create_network("wide_resnet10_1", 10, 3)
        network.reset_classifier(0)
    network.eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(images), network.forward_features(images).mean((2, 3)))


# What timm's own networks do with the same calls, ours do too.
like_timms = pytest.mark.parametrize("name", ["resnet10t", "wide_resnet10_1"])
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


def test_features_are_the_outputs_of_our_three_stages() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("wide_resnet16_2").eval()
    torch.manual_seed(0)
    features = timm.create_model("wide_resnet16_2", features_only=True).eval()
    assert features.feature_info.channels() == [32, 64, 128]
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


@pytest.mark.parametrize("imports", ["import timm, kdaug", "import kdaug, timm.models"])
def test_importing_kdaug_is_enough_for_timm_to_know_our_networks(imports: str) -> None:
    program = f"{imports}; print(*timm.create_model('wide_resnet10_1', num_classes=3, in_chans=1).fc.weight.shape)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("3 64", 0), done.stderr
